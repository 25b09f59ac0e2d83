//! Reading numbers and texts from untrusted bytes: every step is checked against what is left.

use crate::FormatError;

/// Memory that metadata and tensor table of one model (all parts) may take. The largest real ones
/// (vocabularies of 262 thousand tokens with half a million merges) take about 20 MiB.
pub(crate) const HEADER_LIMIT: u64 = 48 << 20;

/// How much memory the header may still take, so that no file, however it lies, costs more.
pub(crate) struct Budget {
    left: u64,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { left: HEADER_LIMIT }
    }

    pub(crate) fn take(&mut self, bytes: u64, at: u64) -> Result<(), FormatError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(FormatError::HeaderTooLarge {
                at,
                limit: HEADER_LIMIT,
            }),
        }
    }
}

/// A place in the bytes of one file.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> u64 {
        self.at as u64
    }

    pub(crate) fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    pub(crate) fn take(&mut self, count: u64, what: &'static str) -> Result<&'a [u8], FormatError> {
        let (at, left) = (self.at(), self.left());
        if count > left {
            return Err(FormatError::Truncated {
                what,
                at,
                needed: count,
                left,
            });
        }
        let end = self.at + count as usize;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, what)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, FormatError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, FormatError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things of at least `each` bytes, all of which must fit into the rest of the file.
    pub(crate) fn count(&mut self, each: u64, what: &'static str) -> Result<u64, FormatError> {
        let at = self.at();
        let count = self.u64(what)?;
        let left = self.left();
        if count.checked_mul(each).is_none_or(|bytes| bytes > left) {
            return Err(FormatError::CountTooLarge {
                what,
                at,
                count,
                left,
            });
        }
        Ok(count)
    }

    /// A text: its length in bytes (64 bits), then UTF-8. It will be copied `copies` times, which
    /// is paid before it is read, so that a long lie does not even cost the time to check it.
    pub(crate) fn text(
        &mut self,
        what: &'static str,
        copies: u64,
        budget: &mut Budget,
    ) -> Result<&'a str, FormatError> {
        let length = self.count(1, what)?;
        budget.take(length.saturating_mul(copies), self.at())?;
        let at = self.at();
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|error| FormatError::InvalidUtf8 {
            what,
            at: at + error.valid_up_to() as u64,
        })
    }
}
