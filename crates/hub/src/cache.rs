//! What is kept on this machine, and how it is listed, checked and removed.

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::card::{Layout, Licence};
use crate::config::HubConfig;
use crate::error::HubError;
use crate::files::{bytes_below, remove_if_there};
use crate::import::imports_of_pulled;
use crate::ledger::Ledger;
use crate::lock;
use crate::manifest::Manifest;
use crate::progress::{Progress, Reporter};
use crate::reference::ModelRef;

/// The models on this machine.
///
/// One folder a model, with its file and a manifest; a model from Hugging Face has its bytes in the cache that it
/// shares with the Python hub, and only the manifest here.
#[derive(Debug, Clone)]
pub struct Cache {
    config: HubConfig,
}

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// The reference under which it was pulled, such as "smollm2:135m"; the path of a folder of the user that was imported.
    pub id: String,
    /// The file to open, or the folder.
    pub path: PathBuf,
    /// Whether `path` is a file or a folder.
    pub layout: Layout,
    /// Bytes of its files and of its import.
    pub size: u64,
    /// How many of them are the GGUF file that was made from a model folder.
    pub import_size: u64,
    /// Sha256 of the first file; empty for a folder of the user.
    pub sha256: String,
    /// Where it came from, in words.
    pub source: String,
    /// When it was fetched, in seconds since 1970.
    pub fetched_at: u64,
    /// Under which licence it may be used, where known.
    pub licence: Option<Licence>,
    /// Whether its bytes lie in the cache shared with the Python hub.
    pub shared: bool,
    /// What is wrong with it, as far as names, sizes and times tell.
    pub problem: Option<String>,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Bytes that are free again.
    pub freed: u64,
    /// Files that stay because another program or another model uses them.
    pub kept: Vec<PathBuf>,
}

/// The result of hashing a model again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The reference under which it was pulled.
    pub id: String,
    /// What is wrong, one line a file; empty when every byte is right.
    pub problems: Vec<String>,
}

impl Cache {
    pub(crate) fn new(config: HubConfig) -> Self {
        Self { config }
    }

    pub(crate) fn config(&self) -> &HubConfig {
        &self.config
    }

    /// Folder of everything that Dunlin keeps.
    pub fn home(&self) -> &Path {
        &self.config.home
    }

    /// The models that are here and the imports of folders of the user, by name. A damaged one is listed with its problem.
    ///
    /// # Errors
    /// [`HubError::Io`] when the cache folder cannot be read.
    pub fn list(&self) -> Result<Vec<CachedModel>, HubError> {
        let mut models: Vec<CachedModel> = self
            .folders()?
            .iter()
            .map(|folder| describe(folder))
            .collect();
        models.extend(self.imports()?);
        models.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(models)
    }

    /// The model of this reference, if it is here and looks whole.
    ///
    /// # Errors
    /// [`HubError::BadManifest`] when its manifest is damaged.
    pub fn find(&self, model: &ModelRef) -> Result<Option<CachedModel>, HubError> {
        let folder = self.folder_of(model);
        match Manifest::read(&folder)? {
            Some(manifest) if manifest.looks_unchanged(&folder) => {
                Ok(Some(cached(&manifest, &folder)))
            }
            _ => Ok(None),
        }
    }

    /// Bytes of all models, those in the shared cache, half-made ones and imports included.
    ///
    /// # Errors
    /// [`HubError::Io`] when the cache folder cannot be read.
    pub fn size(&self) -> Result<u64, HubError> {
        let shared: u64 = self
            .list()?
            .iter()
            .filter(|model| model.shared)
            .map(|model| model.size - model.import_size)
            .sum();
        let imports = bytes_below(&self.config.imports_dir());
        Ok(shared + bytes_below(&self.config.models_dir()) + imports + self.partial_size())
    }

    /// Bytes of downloads that were not finished; the next pull of the same model goes on with them.
    pub fn partial_size(&self) -> u64 {
        let elsewhere = self
            .shared_partials()
            .iter()
            .map(|path| bytes_below(path))
            .sum::<u64>();
        bytes_below(&self.config.partial_dir()) + elsewhere
    }

    /// Removes one model, its import, and its unfinished download. Of a folder of the user the import goes and the folder
    /// stays.
    ///
    /// # Errors
    /// [`HubError::NotCached`] when it is not here, [`HubError::Busy`] when another process is pulling it,
    /// [`HubError::Io`] when a file cannot be removed.
    pub fn remove(&self, model: &ModelRef) -> Result<Removed, HubError> {
        if let ModelRef::Path(folder) = model {
            let freed = self.remove_import(folder)?;
            let kept = folder.exists().then(|| folder.clone());
            return Ok(Removed {
                freed,
                kept: kept.into_iter().collect(),
            });
        }
        let folder = self.folder_of(model);
        let partial = self.config.partial_dir().join(folder_name(model));
        if !folder.exists() && !partial.exists() {
            return Err(HubError::NotCached {
                model: model.to_string(),
            });
        }
        self.remove_folder(&folder)
    }

    /// Removes all models, all imports and all unfinished downloads.
    ///
    /// # Errors
    /// As [`Cache::remove`]; what was removed before stays removed.
    pub fn clear(&self) -> Result<Removed, HubError> {
        let mut all = Removed {
            freed: self.clear_imports()?,
            kept: Vec::new(),
        };
        let unfinished = subfolders(&self.config.partial_dir())?;
        let unfinished = unfinished.iter().filter_map(|folder| folder.file_name());
        let mut folders: HashSet<PathBuf> = unfinished
            .map(|name| self.config.models_dir().join(name))
            .collect();
        folders.extend(self.folders()?);
        for folder in folders {
            let removed = self.remove_folder(&folder)?;
            all.freed += removed.freed;
            all.kept.extend(removed.kept);
        }
        Ok(all)
    }

    /// Hashes every byte of every model and compares with what was fetched.
    ///
    /// # Errors
    /// [`HubError::Cancelled`] when the callback asks to stop, [`HubError::Io`] when a file cannot be read.
    pub fn verify(
        &self,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Vec<Verdict>, HubError> {
        let mut reporter = Reporter::new(progress);
        let mut verdicts = Vec::new();
        for folder in self.folders()? {
            let (id, problems) = match Manifest::read(&folder) {
                Ok(Some(manifest)) => (
                    manifest.id.clone(),
                    manifest.rehash(&folder, &mut reporter)?,
                ),
                Ok(None) => (name_of(&folder), vec!["its manifest is missing".to_owned()]),
                Err(error) => (name_of(&folder), vec![error.to_string()]),
            };
            verdicts.push(Verdict { id, problems });
        }
        verdicts.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(verdicts)
    }

    pub(crate) fn folder_of(&self, model: &ModelRef) -> PathBuf {
        self.config.models_dir().join(folder_name(model))
    }

    fn folders(&self) -> Result<Vec<PathBuf>, HubError> {
        subfolders(&self.config.models_dir())
    }

    fn remove_folder(&self, folder: &Path) -> Result<Removed, HubError> {
        let name = name_of(folder);
        let Some(_lock) = lock::try_take(&self.config.lock_path(&name))? else {
            return Err(HubError::Busy { model: name });
        };
        let mut removed = Removed::default();
        if let Ok(Some(manifest)) = Manifest::read(folder)
            && let Some(root) = &manifest.root
        {
            let elsewhere = self.files_of_other_models(folder)?;
            for file in &manifest.files {
                let link = root.join(&file.name);
                if !file.owned || elsewhere.contains(&link) {
                    removed.kept.push(link);
                    continue;
                }
                removed.freed += remove_shared(&link)?;
            }
        }
        let partial = self.config.partial_dir().join(&name);
        let in_use = self.files_of_other_models(folder)?;
        let in_use: HashSet<PathBuf> = in_use
            .iter()
            .filter_map(|path| fs::canonicalize(path).ok())
            .collect();
        let unfinished = Ledger::of(&partial).paths();
        let unfinished = unfinished
            .into_iter()
            .filter(|path| !fs::canonicalize(path).is_ok_and(|path| in_use.contains(&path)));
        for path in unfinished.chain([folder.to_path_buf(), partial.clone()]) {
            removed.freed += bytes_below(&path);
            remove_if_there(&path)?;
        }
        Ok(removed)
    }

    /// What unfinished pulls have put into the shared cache.
    fn shared_partials(&self) -> Vec<PathBuf> {
        let folders = subfolders(&self.config.partial_dir()).unwrap_or_default();
        folders
            .iter()
            .flat_map(|work| Ledger::of(work).paths())
            .collect()
    }

    fn files_of_other_models(&self, except: &Path) -> Result<HashSet<PathBuf>, HubError> {
        let mut paths = HashSet::new();
        for folder in self.folders()?.iter().filter(|folder| *folder != except) {
            if let Ok(Some(manifest)) = Manifest::read(folder) {
                let root = manifest.root(folder).to_path_buf();
                paths.extend(manifest.files.iter().map(|file| root.join(&file.name)));
            }
        }
        Ok(paths)
    }
}

/// Folder of a model: its id where that is a good name, else a readable part of it with the beginning of its hash.
pub(crate) fn folder_name(model: &ModelRef) -> String {
    const READABLE: usize = 80;
    let text = model.to_string();
    let readable: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(READABLE)
        .collect();
    match model {
        // Ids of the catalog have ':' and no '_', so that this loses nothing.
        ModelRef::Catalog(id)
            if id
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:".contains(c)) =>
        {
            readable
        }
        _ => {
            use sha2::Digest;
            let hash = crate::files::hex(sha2::Sha256::new_with_prefix(text.as_bytes()));
            format!("{}-{}", readable.trim_start_matches('.'), &hash[..12])
        }
    }
}

fn describe(folder: &Path) -> CachedModel {
    let problem = match Manifest::read(folder) {
        Ok(Some(manifest)) => {
            let mut model = cached(&manifest, folder);
            if !manifest.looks_unchanged(folder) {
                model.problem = Some(
                    "a file is missing or was changed; `dunlin cache verify` tells which"
                        .to_owned(),
                );
            }
            return model;
        }
        Ok(None) => "its manifest is missing; remove it and pull it again".to_owned(),
        Err(error) => error.to_string(),
    };
    CachedModel {
        id: name_of(folder),
        path: folder.to_path_buf(),
        layout: Layout::Folder,
        size: bytes_below(folder),
        import_size: 0,
        sha256: String::new(),
        source: String::new(),
        fetched_at: 0,
        licence: None,
        shared: false,
        problem: Some(problem),
    }
}

fn cached(manifest: &Manifest, folder: &Path) -> CachedModel {
    let imports = imports_of_pulled(folder);
    let import_size = imports.iter().map(|path| bytes_below(path)).sum();
    CachedModel {
        id: manifest.id.clone(),
        path: manifest.entry(folder),
        layout: manifest.layout,
        size: manifest.size() + import_size,
        import_size,
        sha256: manifest
            .files
            .first()
            .map(|file| file.sha256.clone())
            .unwrap_or_default(),
        source: manifest.source.clone(),
        fetched_at: manifest.fetched_at,
        licence: manifest.licence.clone(),
        shared: manifest.root.is_some(),
        problem: None,
    }
}

/// Removes a name in the shared cache and the blob behind it. Returns the freed bytes.
fn remove_shared(link: &Path) -> Result<u64, HubError> {
    let blob = fs::canonicalize(link).unwrap_or_else(|_| link.to_path_buf());
    let freed = bytes_below(&blob);
    remove_if_there(link)?;
    remove_if_there(&blob)?;
    Ok(freed)
}

pub(crate) fn subfolders(path: &Path) -> Result<Vec<PathBuf>, HubError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(HubError::io("list", path, source)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| HubError::io("list", path, source))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

pub(crate) fn name_of(folder: &Path) -> String {
    folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_are_readable_and_never_collide() {
        let name = |text: &str| folder_name(&text.parse().unwrap());
        assert_eq!(name("smollm2"), "smollm2_135m");
        assert!(name("hf:a/b:Q4_K_M").starts_with("hf_a_b_Q4_K_M-"));
        assert_ne!(name("hf:a/b_c"), name("hf:a/b:c"));
        assert!(name(&format!("https://h/{}.gguf", "x".repeat(500))).len() < 100);
    }
}
