//! The bytes of one file: mapped, or owned. The only `unsafe` of this crate stands here.
#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; see `Bytes::map`"
)]

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use memmap2::Mmap;

/// All bytes of one file.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// Read by the operating system as they are touched.
    Mapped(Mmap),
    /// Held in memory.
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps the file at `path` for reading.
    ///
    /// Another process that shortens the file while it is mapped makes the next access to the
    /// missing bytes end this process (`SIGBUS`); one that rewrites it changes weights under way.
    /// Model files are replaced by renaming (as the writer of this crate and the download cache
    /// do), which leaves the mapped file alone.
    pub(crate) fn map(path: &Path) -> io::Result<Self> {
        // Asked before opening, since opening a pipe waits for somebody to write into it.
        if !fs::metadata(path)?.is_file() {
            let message = "it is not a regular file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let file = File::open(path)?;
        // SAFETY: the mapping is read only and private to this value; the bytes are treated as
        // untrusted and have no invalid values. That nobody changes the file meanwhile is the
        // documented condition above, as for every program that maps its models.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self::Mapped(map))
    }
}

impl Bytes {
    /// Gives the memory of the pages that were read back to the operating system, which reads them again when they are
    /// touched. Owned bytes stay, and so do mapped ones where the system has no such call.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Self::Mapped(map) = self {
            // SAFETY: the mapping is shared and read only, so that no byte of it differs from the file: a dropped page
            // comes back as it was.
            let released = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Advice that the system does not take leaves the pages where they are, which is right, too.
            drop(released);
        }
    }
}

impl Bytes {
    /// Reads all pages and keeps them in memory. Owned bytes are left alone.
    pub(crate) fn lock(&self) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            Self::Mapped(map) => map.lock(),
            #[cfg(not(unix))]
            Self::Mapped(_) => Err(io::ErrorKind::Unsupported.into()),
            Self::Owned(_) => Ok(()),
        }
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}
