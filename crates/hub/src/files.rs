//! Small file work that every part of the hub needs: hashing, atomic writes, names from untrusted sources.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::error::HubError;
use crate::progress::{Progress, Reporter};

/// Large enough that a hash or copy is bound by the disk, small enough to answer a cancel at once.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes as people read them, in decimal units: "98.4 MB".
pub(crate) fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A finished sha256 as 64 lower-case hexadecimal digits.
pub(crate) fn hex(hasher: Sha256) -> String {
    hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Whether the text is a sha256 in hexadecimal.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Hashes the first `length` bytes of a file into `hasher`, saying so.
pub(crate) fn hash_into(
    hasher: &mut Sha256,
    path: &Path,
    length: u64,
    reporter: &mut Reporter<'_>,
) -> Result<(), HubError> {
    let file = File::open(path).map_err(|source| HubError::io("open", path, source))?;
    let mut reader = file.take(length);
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut done = 0;
    loop {
        let read = reader
            .read(&mut buffer)
            .map_err(|source| HubError::io("read", path, source))?;
        if read == 0 {
            return Ok(());
        }
        hasher.update(&buffer[..read]);
        done += read as u64;
        reporter.count(Progress::Verifying {
            done,
            total: length,
        })?;
    }
}

/// Sha256 of a whole file.
pub(crate) fn sha256_of(path: &Path, reporter: &mut Reporter<'_>) -> Result<String, HubError> {
    let length = fs::metadata(path)
        .map_err(|source| HubError::io("read", path, source))?
        .len();
    let mut hasher = Sha256::new();
    hash_into(&mut hasher, path, length, reporter)?;
    Ok(hex(hasher))
}

/// Checks that a name from outside stays inside the folder that it is joined to: relative, no `..`, no drive, no
/// backslash, no empty part.
///
/// # Errors
/// The reason, in words.
pub(crate) fn check_relative(name: &str) -> Result<(), String> {
    let plain = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let parts = name
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    if plain && parts && !name.contains(['\\', ':', '\0']) {
        Ok(())
    } else {
        Err(format!("the file name {name:?} would leave its folder"))
    }
}

pub(crate) fn create_dir(path: &Path) -> Result<(), HubError> {
    fs::create_dir_all(path).map_err(|source| HubError::io("create the folder", path, source))
}

/// Removes a file or folder; that it was not there is no error.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), HubError> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let removed = if metadata.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(HubError::io("remove", path, source))
        }
        _ => Ok(()),
    }
}

/// Renames and makes the new name durable.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> Result<(), HubError> {
    if let Some(parent) = to.parent() {
        create_dir(parent)?;
    }
    fs::rename(from, to).map_err(|source| HubError::io("rename a finished file to", to, source))?;
    if let Some(parent) = to.parent() {
        sync_dir(parent);
    }
    Ok(())
}

/// Writes a small file so that its name always means a whole file.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file =
        File::create(&temporary).map_err(|source| HubError::io("create", &temporary, source))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(|source| HubError::io("write", &temporary, source))?;
    drop(file);
    rename_durably(&temporary, path)
}

/// A renamed name survives a power cut only when its folder is written too. Systems that cannot do that refuse to
/// open a folder, which changes nothing for the reader.
fn sync_dir(path: &Path) {
    if let Ok(folder) = File::open(path) {
        let _ = folder.sync_all();
    }
}

/// Bytes of all files below a path, links not followed. What vanishes meanwhile counts nothing.
pub(crate) fn bytes_below(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    if !metadata.is_dir() {
        return metadata.len();
    }
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| bytes_below(&entry.path()))
        .sum()
}

/// Time of the last change, in nanoseconds since 1970.
pub(crate) fn modified_ns(metadata: &fs::Metadata) -> u64 {
    let since = metadata
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// Refuses to start what the disk cannot hold.
pub(crate) fn require_space(
    path: &Path,
    needed: u64,
    free_space: fn(&Path) -> std::io::Result<u64>,
) -> Result<(), HubError> {
    let free = free_space(path)
        .map_err(|source| HubError::io("ask for the free space of", path, source))?;
    if free < needed {
        return Err(HubError::NoSpace {
            path: path.to_path_buf(),
            needed: Some(needed),
            free,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_their_folder_are_refused() {
        for bad in [
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a//b",
            "",
            ".",
            "a/./b",
            "a\\..\\b",
            "C:/x",
            "a\0b",
            "a/",
        ] {
            assert!(check_relative(bad).is_err(), "{bad:?}");
        }
        for good in [
            "model.gguf",
            "1_Pooling/config.json",
            "UD/x-00001-of-00002.gguf",
            "..x",
        ] {
            assert!(check_relative(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn bytes_read_like_a_person_writes_them() {
        assert_eq!(human_bytes(999), "999 bytes");
        assert_eq!(human_bytes(98_362_432), "98.4 MB");
        assert_eq!(human_bytes(999_999), "1.0 MB");
        assert_eq!(human_bytes(5_000_000_000_000_000), "5000.0 TB");
    }
}
