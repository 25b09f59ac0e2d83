//! What an unfinished pull has put into the shared Hugging Face cache, so that it can be counted, claimed by the
//! finished model, or removed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::HubError;
use crate::files::write_atomically;

/// A list of paths in the work folder of a pull.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: PathBuf,
}

impl Ledger {
    /// The ledger of a work folder.
    pub(crate) fn of(work: &Path) -> Self {
        Self {
            path: work.join("shared-files.json"),
        }
    }

    /// The paths noted down; none where there is no ledger or it cannot be read.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        fs::read(&self.path)
            .ok()
            .and_then(|json| serde_json::from_slice(&json).ok())
            .unwrap_or_default()
    }

    /// Notes a path down, before anything is written there.
    pub(crate) fn add(&self, path: &Path) -> Result<(), HubError> {
        let mut paths = self.paths();
        if paths.iter().any(|known| known == path) {
            return Ok(());
        }
        paths.push(path.to_path_buf());
        let json = serde_json::to_vec(&paths).map_err(|error| HubError::BadManifest {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        write_atomically(&self.path, &json)
    }
}
