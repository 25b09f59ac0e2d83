//! The file of a session: a head, the computed part, and a checksum.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DUNLINSE` |
//! | 4 | version of the layout, little-endian, as the next |
//! | 4 | length of the head |
//! | .. | the head, JSON |
//! | .. | keys, values and states as the engine exports them, or nothing |
//! | 32 | SHA-256 of all before |
//!
//! A file is written beside its place and renamed, and is read to its end and checked before anything of it is used. The checksum
//! finds damage, not malice: a file from elsewhere is a model's memory from elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

use super::head::Head;
use crate::Error;

const MAGIC: [u8; 8] = *b"DUNLINSE";
const VERSION: u32 = 1;
/// Bytes before the head.
const FIXED: u64 = 16;
/// Bytes of the checksum.
const CHECKSUM: u64 = 32;
/// Longest head: texts and tokens take a hundred bytes a word at most, so this is far beyond any context.
const LONGEST_HEAD: u64 = 64 << 20;

/// Writes a session file: the head, and whatever `write_rest` writes. Returns its bytes.
///
/// # Errors
/// [`Error::SessionFile`], [`Error::SessionTooLarge`], and those of `write_rest`. Nothing stands at `path` then that was not
/// there before.
pub(super) fn write(
    path: &Path,
    head: &Head,
    write_rest: impl FnOnce(&mut HashedWriter) -> Result<(), Error>,
) -> Result<u64, Error> {
    let failed = |source| Error::SessionFile {
        path: path.to_owned(),
        source,
    };
    let head = serde_json::to_vec(head).map_err(|error| failed(error.into()))?;
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    if u64::from(length) > LONGEST_HEAD {
        return Err(Error::SessionTooLarge {
            bytes: head.len() as u64,
            limit: LONGEST_HEAD,
        });
    }
    let beside = beside(path);
    let written = (|| {
        let mut out = HashedWriter::create(&beside).map_err(failed)?;
        let fixed = [&MAGIC[..], &VERSION.to_le_bytes(), &length.to_le_bytes()].concat();
        out.write_all(&fixed).map_err(failed)?;
        out.write_all(&head).map_err(failed)?;
        write_rest(&mut out)?;
        let bytes = out.finish().map_err(failed)?;
        fs::rename(&beside, path).map_err(failed)?;
        Ok(bytes)
    })();
    if written.is_err() {
        // It may never have been made.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A name in the same folder, which nobody else uses.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{count}.partial", std::process::id()))
}

/// A new file that is hashed as it is written.
pub(super) struct HashedWriter {
    file: BufWriter<File>,
    hasher: Sha256,
    bytes: u64,
}

impl HashedWriter {
    /// The file is the user's alone: it holds what was said.
    fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(HashedWriter {
            file: BufWriter::new(options.open(path)?),
            hasher: Sha256::new(),
            bytes: 0,
        })
    }

    /// Writes the checksum and makes the file durable.
    fn finish(mut self) -> io::Result<u64> {
        self.file.write_all(&self.hasher.finalize())?;
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(self.bytes + CHECKSUM)
    }
}

impl Write for HashedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A session file that is whole.
pub(super) struct SessionFile {
    pub head: Head,
    /// Stands behind the head.
    pub rest: BufReader<File>,
    /// Bytes between the head and the checksum.
    pub rest_bytes: u64,
}

/// Opens a session file and checks all of it.
///
/// # Errors
/// [`Error::SessionFile`], [`Error::SessionDamaged`], [`Error::SessionVersion`].
pub(super) fn open(path: &Path) -> Result<SessionFile, Error> {
    let failed = |source| Error::SessionFile {
        path: path.to_owned(),
        source,
    };
    let damaged = |reason: String| Error::SessionDamaged {
        path: path.to_owned(),
        reason,
    };
    // A pipe is not opened: that would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(damaged("it is no file".to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut file = BufReader::new(file);
    let mut fixed = [0; FIXED as usize];
    if length < FIXED + CHECKSUM {
        return Err(damaged(format!("it has {length} bytes only")));
    }
    file.read_exact(&mut fixed).map_err(failed)?;
    let number = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| fixed[at + byte]));
    if fixed[..8] != MAGIC {
        return Err(damaged("it does not begin as one".to_owned()));
    }
    if number(8) != VERSION {
        return Err(Error::SessionVersion {
            path: path.to_owned(),
            found: number(8),
            supported: VERSION,
        });
    }
    check_sum(&mut file, length)
        .map_err(failed)?
        .map_err(damaged)?;
    let head_bytes = u64::from(number(12));
    let rest_bytes = (length - FIXED - CHECKSUM).checked_sub(head_bytes);
    let rest_bytes = rest_bytes
        .filter(|_| head_bytes <= LONGEST_HEAD)
        .ok_or_else(|| {
            damaged(format!(
                "its head would have {head_bytes} of its {length} bytes"
            ))
        })?;
    file.seek(SeekFrom::Start(FIXED)).map_err(failed)?;
    let mut head = vec![0; head_bytes as usize];
    file.read_exact(&mut head).map_err(failed)?;
    let head = serde_json::from_slice(&head).map_err(|error| damaged(error.to_string()))?;
    Ok(SessionFile {
        head,
        rest: file,
        rest_bytes,
    })
}

/// Hashes a file of `length` bytes from its start and compares with the checksum at its end.
fn check_sum(file: &mut BufReader<File>, length: u64) -> io::Result<Result<(), String>> {
    file.rewind()?;
    let mut hasher = Sha256::new();
    let mut left = length - CHECKSUM;
    let mut piece = vec![0; 1 << 16];
    while left > 0 {
        let bytes = left.min(piece.len() as u64) as usize;
        file.read_exact(&mut piece[..bytes])?;
        hasher.update(&piece[..bytes]);
        left -= bytes as u64;
    }
    let mut noted = [0; CHECKSUM as usize];
    file.read_exact(&mut noted)?;
    Ok(match hasher.finalize()[..] == noted {
        true => Ok(()),
        false => Err("its checksum does not fit: it was cut or changed".to_owned()),
    })
}
