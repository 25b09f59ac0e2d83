//! Reading wheels and the archives in them: zip files from strangers, read as data.
//!
//! Nothing in them is imported or run, no name in them becomes a path here, and no more bytes are written than
//! were announced by the catalog or by a fixed limit.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::error::HubError;
use crate::files::BUFFER_BYTES;
use crate::progress::{Progress, Reporter};

/// Largest central directory that is believed; a wheel of ours has a dozen entries.
const MAX_ENTRIES: usize = 10_000;

/// An open zip archive with a name for messages.
pub(super) struct Archive<R> {
    name: String,
    zip: ZipArchive<R>,
}

/// Counts and hashes what is written, and stops a flood.
pub(super) struct Sink<'a> {
    pub(super) path: &'a Path,
    pub(super) file: File,
    pub(super) hasher: Sha256,
    pub(super) done: u64,
    /// Bytes that may be written at most.
    pub(super) limit: u64,
    /// Bytes that will be written, where known.
    pub(super) total: Option<u64>,
}

impl Archive<File> {
    pub(super) fn open(path: &Path, name: &str) -> Result<Self, HubError> {
        let file = File::open(path).map_err(|source| HubError::io("open", path, source))?;
        Self::new(file, name)
    }
}

impl<R: Read + Seek> Archive<R> {
    fn new(reader: R, name: &str) -> Result<Self, HubError> {
        let bad = |reason: String| HubError::BadArchive {
            archive: name.to_owned(),
            reason,
        };
        let zip = ZipArchive::new(reader)
            .map_err(|error| bad(format!("it is no zip archive: {error}")))?;
        if zip.len() > MAX_ENTRIES {
            return Err(bad(format!(
                "it has {} entries, {MAX_ENTRIES} are the limit",
                zip.len()
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            zip,
        })
    }

    /// Whether it has this very entry.
    pub(super) fn has(&self, entry: &str) -> bool {
        self.zip.index_for_name(entry).is_some()
    }

    /// Appends one entry to the sink.
    pub(super) fn copy(
        &mut self,
        entry: &str,
        sink: &mut Sink<'_>,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), HubError> {
        let bad = |reason: String| HubError::BadArchive {
            archive: self.name.clone(),
            reason,
        };
        let mut reader = self.zip.by_name(entry).map_err(|error| match error {
            zip::result::ZipError::FileNotFound => bad(format!("it has no entry {entry:?}")),
            other => bad(format!("entry {entry:?}: {other}")),
        })?;
        if reader.is_dir() || reader.is_symlink() {
            return Err(bad(format!("entry {entry:?} is not a file")));
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = reader
                .read(&mut buffer)
                .map_err(|error| bad(format!("entry {entry:?}: {error}")))?;
            if read == 0 {
                return Ok(());
            }
            sink.done += read as u64;
            if sink.done > sink.limit {
                return Err(bad(format!(
                    "entry {entry:?} is larger than {} bytes",
                    sink.limit
                )));
            }
            sink.file
                .write_all(&buffer[..read])
                .map_err(|source| HubError::io("write", sink.path, source))?;
            sink.hasher.update(&buffer[..read]);
            reporter.count(Progress::Unpacking {
                done: sink.done,
                total: sink.total,
            })?;
        }
    }
}

impl<'a> Sink<'a> {
    pub(super) fn create(path: &'a Path, limit: u64, total: Option<u64>) -> Result<Self, HubError> {
        if let Some(parent) = path.parent() {
            crate::files::create_dir(parent)?;
        }
        let file = File::create(path).map_err(|source| HubError::io("create", path, source))?;
        Ok(Self {
            path,
            file,
            hasher: Sha256::new(),
            done: 0,
            limit,
            total,
        })
    }
}
