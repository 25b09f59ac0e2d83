//! The text files of a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::SearchError;

/// Names of folders that hold what programs made, not what people wrote.
const MADE_BY_PROGRAMS: [&str; 7] = [
    "node_modules",
    "target",
    "build",
    "dist",
    "__pycache__",
    "venv",
    "vendor",
];
/// Larger files are data, not texts to read.
const MAX_BYTES: u64 = 16 << 20;
/// Folders inside each other, at most.
const MAX_DEPTH: usize = 64;
/// Bytes at the beginning of a file in which a NUL marks it as binary.
const LOOKED_AT: usize = 8 << 10;

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedFile {
    /// Its path in the folder, with `/` between names.
    pub path: String,
    /// Why.
    pub reason: SkippedReason,
}

/// Why a file was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum SkippedReason {
    /// It holds a NUL byte: it is no text.
    Binary,
    /// It is not in UTF-8, or has a name that is not.
    NotUtf8,
    /// It has more than 16 MiB.
    TooLarge,
    /// The system does not let it be read.
    Unreadable,
    /// It is a folder inside of 64 others.
    TooDeep,
}

impl SkippedReason {
    /// A few words for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SkippedReason::Binary => "binary",
            SkippedReason::NotUtf8 => "not UTF-8",
            SkippedReason::TooLarge => "larger than 16 MiB",
            SkippedReason::Unreadable => "not readable",
            SkippedReason::TooDeep => "folders too deep",
        }
    }
}

/// A file that may be a text.
pub(super) struct Candidate {
    /// Its path in the folder, with `/` between names.
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// When it was last changed, in nanoseconds since 1970; 0 where the system does not say.
    pub(super) modified: u64,
}

/// The files below a folder by their names, and those that are left out already. Left out without a word are hidden files and
/// folders (`.name`), folders of [`MADE_BY_PROGRAMS`], and links.
///
/// # Errors
/// [`SearchError::Io`] where the folder itself cannot be read.
pub(super) fn files(root: &Path) -> Result<(Vec<Candidate>, Vec<SkippedFile>), SearchError> {
    let mut found = (Vec::new(), Vec::new());
    let entries = fs::read_dir(root).map_err(|error| SearchError::io("read", root, error))?;
    walk(entries, "", MAX_DEPTH, &mut found);
    found.0.sort_by(|a, b| a.name.cmp(&b.name));
    found.1.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn walk(
    entries: fs::ReadDir,
    prefix: &str,
    depth: usize,
    found: &mut (Vec<Candidate>, Vec<SkippedFile>),
) {
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let full = format!("{prefix}{name}");
        let mut skip = |reason| {
            found.1.push(SkippedFile {
                path: full.clone(),
                reason,
            });
        };
        // Not through links: they may lead out of the folder, or in a circle.
        let Ok(metadata) = entry.metadata() else {
            skip(SkippedReason::Unreadable);
            continue;
        };
        if metadata.is_dir() {
            if MADE_BY_PROGRAMS.contains(&&*name) {
                continue;
            }
            if depth == 0 {
                skip(SkippedReason::TooDeep);
                continue;
            }
            match fs::read_dir(entry.path()) {
                Ok(entries) => walk(entries, &format!("{full}/"), depth - 1, found),
                Err(_) => skip(SkippedReason::Unreadable),
            }
        } else if metadata.is_file() {
            if entry.file_name().to_str().is_none() {
                skip(SkippedReason::NotUtf8);
                continue;
            }
            if metadata.len() > MAX_BYTES {
                skip(SkippedReason::TooLarge);
                continue;
            }
            let modified = metadata.modified().ok();
            let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            found.0.push(Candidate {
                name: full,
                path: entry.path(),
                size: metadata.len(),
                modified: since.map_or(0, |since| since.as_nanos() as u64),
            });
        }
    }
}

/// The text in the bytes of a file.
pub(super) fn text_of(bytes: Vec<u8>) -> Result<String, SkippedReason> {
    if bytes[..bytes.len().min(LOOKED_AT)].contains(&0) {
        return Err(SkippedReason::Binary);
    }
    String::from_utf8(bytes).map_err(|_| SkippedReason::NotUtf8)
}
