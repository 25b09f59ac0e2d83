//! Zeroed memory that is read all through for every token: weights, keys and values.

use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line: the memory begins at one.
const LINE: usize = 64;
/// Bytes from which memory is mapped by itself, so that the system has it back when it is dropped. An allocator would keep it.
const MAPPED: usize = 1 << 16;

/// Zeroed bytes that begin at a cache line. The operating system gives them when they are first written, in large pages where it has
/// such: each saves the processor 512 look-ups of addresses.
pub(crate) struct Memory(Kind);

enum Kind {
    Mapped(MmapMut),
    /// With the place of the first line.
    Heap(Vec<u8>, usize),
}

impl Memory {
    pub(crate) fn zeroed(len: usize) -> Self {
        if len >= MAPPED
            && let Ok(map) = MmapMut::map_anon(len)
        {
            // Advice: where it is not taken, nothing is lost.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Memory(Kind::Mapped(map));
        }
        let bytes = vec![0; len + LINE];
        let start = bytes.as_ptr().align_offset(LINE);
        Memory(Kind::Heap(bytes, start))
    }

    /// Takes the memory now and keeps the system from swapping it out, as long as this value lives. Little memory
    /// shares its pages with the heap and is left alone.
    ///
    /// # Errors
    /// The process may not lock so much, or the system has no such call.
    pub(crate) fn lock(&self) -> io::Result<()> {
        match &self.0 {
            #[cfg(unix)]
            Kind::Mapped(map) => map.lock(),
            #[cfg(not(unix))]
            Kind::Mapped(_) => Err(io::ErrorKind::Unsupported.into()),
            Kind::Heap(..) => Ok(()),
        }
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Mapped(map) => map,
            Kind::Heap(bytes, start) => &bytes[*start..bytes.len() - LINE + start],
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Kind::Mapped(map) => map,
            Kind::Heap(bytes, start) => {
                let end = bytes.len() - LINE + *start;
                &mut bytes[*start..end]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_size_is_zero_and_begins_at_a_line() {
        for len in [0, 1, 63, 64, 4096, MAPPED - 1, MAPPED, MAPPED + 1] {
            let mut memory = Memory::zeroed(len);
            assert_eq!(memory.len(), len);
            assert!(memory.iter().all(|byte| *byte == 0));
            assert!(memory.as_ptr().addr().is_multiple_of(LINE));
            memory.fill(7);
            if cfg!(unix) && len <= 4096 {
                assert!(memory.lock().is_ok());
            }
            assert!(memory.iter().all(|byte| *byte == 7));
        }
    }
}
