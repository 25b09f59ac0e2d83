//! Snapshots as the Python hub keeps them: a folder a commit, whose names lead to blobs that snapshots share.

use std::fs;
use std::path::Path;

use crate::error::HubError;
use crate::files::{create_dir, is_sha256, remove_if_there};

/// Makes `snapshot/name` lead to the blob: a relative link as the Python hub makes it, so that the cache can be
/// moved; a hard link or a copy where links need rights that users do not have.
pub(super) fn point_to(blob: &Path, snapshot: &Path, name: &str) -> Result<(), HubError> {
    let link = snapshot.join(name);
    if let (Ok(there), Ok(blob)) = (fs::canonicalize(&link), fs::canonicalize(blob))
        && there == blob
    {
        return Ok(());
    }
    if let Some(parent) = link.parent() {
        create_dir(parent)?;
    }
    remove_if_there(&link)?;
    place_link(blob, &link, name).map_err(|source| HubError::io("create", &link, source))
}

#[cfg(unix)]
fn place_link(blob: &Path, link: &Path, name: &str) -> std::io::Result<()> {
    let up = "../".repeat(2 + name.matches('/').count());
    let blob_name = blob.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(blob_name), link)
}

#[cfg(not(unix))]
fn place_link(blob: &Path, link: &Path, _name: &str) -> std::io::Result<()> {
    fs::hard_link(blob, link).or_else(|_| fs::copy(blob, link).map(|_| ()))
}

/// The sha256 that the name of the blob behind a link promises.
pub(super) fn blob_sha256(link: &Path) -> Option<String> {
    let blob = fs::canonicalize(link).ok()?;
    let name = blob.file_name()?.to_str()?;
    is_sha256(name).then(|| name.to_ascii_lowercase())
}

/// Names of all files of a snapshot.
pub(super) fn names_below(snapshot: &Path) -> Vec<String> {
    // Deeper than any repository of models; a limit because the folder is not ours.
    const DEEPEST: usize = 8;
    fn collect(folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let name = format!("{prefix}{name}");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEEPEST => {
                    collect(&entry.path(), &format!("{name}/"), depth + 1, names);
                }
                Ok(kind) if !kind.is_dir() => names.push(name),
                _ => {}
            }
        }
    }
    let mut names = Vec::new();
    collect(snapshot, "", 0, &mut names);
    names.sort();
    names
}
