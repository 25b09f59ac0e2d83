//! The note beside a cached model: what it is, where it came from, and how its files look.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::card::{Layout, Licence};
use crate::error::HubError;
use crate::files::{check_relative, is_sha256, modified_ns, sha256_of};
use crate::progress::Reporter;

pub(crate) const MANIFEST_NAME: &str = "manifest.json";
const VERSION: u32 = 1;
/// A manifest is a few hundred bytes; what is larger was not written by us.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// The reference that was pulled, in its written form.
    pub(crate) id: String,
    /// The source in words.
    pub(crate) source: String,
    /// Seconds since 1970.
    pub(crate) fetched_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) licence: Option<Licence>,
    pub(crate) layout: Layout,
    /// Folder of the files where that is not the manifest's own: a snapshot in the shared Hugging Face cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) root: Option<PathBuf>,
    /// The file to load first.
    pub(crate) files: Vec<FileRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Name below the root.
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) sha256: String,
    /// Time of the last change in nanoseconds since 1970: with the size, the cheap check of every run.
    pub(crate) modified_ns: u64,
    /// Whether Dunlin made the file, so that removing the model may remove it.
    pub(crate) owned: bool,
}

impl FileRecord {
    /// Notes a finished file down.
    pub(crate) fn of(
        root: &Path,
        name: &str,
        sha256: String,
        owned: bool,
    ) -> Result<Self, HubError> {
        let path = root.join(name);
        let metadata = fs::metadata(&path).map_err(|source| HubError::io("read", &path, source))?;
        Ok(Self {
            name: name.to_owned(),
            size: metadata.len(),
            sha256,
            modified_ns: modified_ns(&metadata),
            owned,
        })
    }

    /// Whether size and time of the last change are as noted.
    fn looks_unchanged(&self, root: &Path) -> bool {
        fs::metadata(root.join(&self.name)).is_ok_and(|metadata| {
            metadata.len() == self.size && modified_ns(&metadata) == self.modified_ns
        })
    }
}

impl Manifest {
    pub(crate) fn new(
        id: String,
        source: String,
        layout: Layout,
        files: Vec<FileRecord>,
        now: SystemTime,
    ) -> Self {
        Self {
            version: VERSION,
            id,
            source,
            fetched_at: now
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            licence: None,
            layout,
            root: None,
            files,
        }
    }

    /// Reads the manifest of a model's folder; `None` when there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, HubError> {
        let path = folder.join(MANIFEST_NAME);
        let bad = |reason: String| HubError::BadManifest {
            path: path.clone(),
            reason,
        };
        match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(HubError::io("read", &path, source)),
            Ok(metadata) if metadata.len() > MAX_MANIFEST_BYTES => {
                return Err(bad("it is too long".to_owned()));
            }
            Ok(_) => {}
        }
        let bytes = fs::read(&path).map_err(|source| HubError::io("read", &path, source))?;
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
        manifest.check().map_err(bad)?;
        Ok(Some(manifest))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), HubError> {
        let path = folder.join(MANIFEST_NAME);
        let json = serde_json::to_vec_pretty(self).map_err(|error| HubError::BadManifest {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        crate::files::write_atomically(&path, &json)
    }

    fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!(
                "its version is {} and this program reads {VERSION}",
                self.version
            ));
        }
        if self.files.is_empty() {
            return Err("it names no file".to_owned());
        }
        for file in &self.files {
            check_relative(&file.name)?;
            if !is_sha256(&file.sha256) {
                return Err(format!("{:?} is no sha256", file.sha256));
            }
        }
        Ok(())
    }

    /// Folder of the files; `folder` is the manifest's own.
    pub(crate) fn root<'a>(&'a self, folder: &'a Path) -> &'a Path {
        self.root.as_deref().unwrap_or(folder)
    }

    /// What a loader opens: the first file, or the folder.
    pub(crate) fn entry(&self, folder: &Path) -> PathBuf {
        let root = self.root(folder);
        match (self.layout, self.files.first()) {
            (Layout::File, Some(file)) => root.join(&file.name),
            _ => root.to_path_buf(),
        }
    }

    pub(crate) fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The cheap check of every run: size and time of each file.
    pub(crate) fn looks_unchanged(&self, folder: &Path) -> bool {
        let root = self.root(folder);
        self.files.iter().all(|file| file.looks_unchanged(root))
    }

    /// The thorough check: every byte is hashed. Returns what is wrong, one line a file.
    pub(crate) fn rehash(
        &self,
        folder: &Path,
        reporter: &mut Reporter<'_>,
    ) -> Result<Vec<String>, HubError> {
        let root = self.root(folder);
        let mut problems = Vec::new();
        for file in &self.files {
            let path = root.join(&file.name);
            if !path.exists() {
                problems.push(format!("{} is missing", path.display()));
                continue;
            }
            let found = sha256_of(&path, reporter)?;
            if found != file.sha256 {
                problems.push(format!(
                    "{} has sha256 {found} instead of {}",
                    path.display(),
                    file.sha256
                ));
            }
        }
        Ok(problems)
    }

    /// Notes sizes and times anew after [`Self::rehash`] found the bytes right.
    pub(crate) fn refresh(&mut self, folder: &Path) -> Result<(), HubError> {
        let root = self.root(folder).to_path_buf();
        for file in &mut self.files {
            *file = FileRecord::of(&root, &file.name, file.sha256.clone(), file.owned)?;
        }
        self.write(folder)
    }
}
