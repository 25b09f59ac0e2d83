//! Where the GGUF file lies that is made once from a model folder, and how it gets there.
//!
//! The import of a pulled model lies in the model's own folder and goes with it. That of a folder of the user lies below
//! `imports`, in a place that follows from the folder's path, under a name that follows from names, sizes and times of its
//! files: a changed folder is imported anew, and its old import goes. A note beside it says which folder it is of.

use std::fs;
use std::io::Read;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::cache::{Cache, CachedModel, folder_name, name_of, subfolders};
use crate::card::Layout;
use crate::error::HubError;
use crate::files::{
    bytes_below, create_dir, hex, modified_ns, remove_if_there, rename_durably, require_space,
    write_atomically,
};
use crate::lock;
use crate::progress::{Progress, Reporter};
use crate::reference::ModelRef;

/// Beginning of the names of imports in the folder of a pulled model.
const IMPORT_PREFIX: &str = "imported-";
/// Note with the path of the user's folder, beside its import.
const ORIGIN_NAME: &str = "folder.txt";
/// No path is longer.
const MAX_ORIGIN_BYTES: u64 = 1 << 16;

/// The place in the cache for the import of one model folder.
#[derive(Debug, Clone)]
pub struct ImportSlot {
    file: PathBuf,
    partial: PathBuf,
    lock: PathBuf,
    free_space: fn(&Path) -> std::io::Result<u64>,
    /// The folder of the user that it is of: everything else in the file's folder is then an older import.
    origin: Option<PathBuf>,
}

impl Cache {
    /// The place for the import of `folder`, which is what `model` led to. `recipe` names how it is made, in letters,
    /// digits and `-`; imports by another recipe are others.
    ///
    /// # Errors
    /// [`HubError::Io`] when the folder cannot be read.
    pub fn import_slot(
        &self,
        model: &ModelRef,
        folder: &Path,
        recipe: &str,
    ) -> Result<ImportSlot, HubError> {
        let config = self.config();
        let slot = |name: &str, file: PathBuf, origin| ImportSlot {
            file,
            partial: config.partial_dir().join(name).join("imported.gguf"),
            lock: config.lock_path(name),
            free_space: config.free_space,
            origin,
        };
        if !matches!(model, ModelRef::Path(_)) {
            let file = self
                .folder_of(model)
                .join(format!("{IMPORT_PREFIX}{recipe}.gguf"));
            return Ok(slot(&folder_name(model), file, None));
        }
        let real =
            fs::canonicalize(folder).map_err(|source| HubError::io("open", folder, source))?;
        let name = import_name(&real);
        let file = format!("{}-{recipe}.gguf", identity(folder)?);
        let file = config.imports_dir().join(&name).join(file);
        Ok(slot(&name, file, Some(real)))
    }

    /// The imports of folders of the user, each under its folder's path.
    ///
    /// # Errors
    /// [`HubError::Io`] when the cache folder cannot be read.
    pub(crate) fn imports(&self) -> Result<Vec<CachedModel>, HubError> {
        let places = subfolders(&self.config().imports_dir())?;
        Ok(places.iter().map(|place| described(place)).collect())
    }

    /// Removes the import of a folder of the user; the folder itself stays. Returns the freed bytes.
    ///
    /// # Errors
    /// [`HubError::NotCached`] when there is none, [`HubError::Busy`] when another process is making it.
    pub(crate) fn remove_import(&self, folder: &Path) -> Result<u64, HubError> {
        let missing = || HubError::NotCached {
            model: format!("an import of {}", folder.display()),
        };
        // A folder that is gone is known by the path that it had.
        let real = fs::canonicalize(folder).or_else(|_| std::path::absolute(folder));
        let name = import_name(&real.map_err(|_| missing())?);
        self.remove_import_named(&name)?.ok_or_else(missing)
    }

    /// Removes the imports of all folders of the user. Returns the freed bytes.
    pub(crate) fn clear_imports(&self) -> Result<u64, HubError> {
        let mut freed = 0;
        for folder in subfolders(&self.config().imports_dir())? {
            freed += self.remove_import_named(&name_of(&folder))?.unwrap_or(0);
        }
        Ok(freed)
    }

    fn remove_import_named(&self, name: &str) -> Result<Option<u64>, HubError> {
        let config = self.config();
        let places = [config.imports_dir(), config.partial_dir()].map(|place| place.join(name));
        if places.iter().all(|place| !place.exists()) {
            return Ok(None);
        }
        let Some(_lock) = lock::try_take(&config.lock_path(name))? else {
            return Err(HubError::Busy {
                model: name.to_owned(),
            });
        };
        let mut freed = 0;
        for place in places {
            freed += bytes_below(&place);
            remove_if_there(&place)?;
        }
        Ok(Some(freed))
    }
}

impl ImportSlot {
    /// The import, if it has been made.
    #[must_use]
    pub fn found(&self) -> Option<&Path> {
        self.file.is_file().then_some(self.file.as_path())
    }

    /// Makes the import unless it is there, once for all processes that want it: `make` writes it to the path that it is
    /// given, and the finished file then gets its name. `needed` is about how many bytes it takes. `progress` hears that
    /// another process is at it, and can cancel the wait.
    ///
    /// # Errors
    /// What `make` gives; [`HubError::NoSpace`], [`HubError::Io`], [`HubError::Cancelled`].
    pub fn fill<E: From<HubError>>(
        &self,
        needed: u64,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
        make: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let _lock = lock::wait(&self.lock, &mut Reporter::new(progress))?.0;
        if self.found().is_some() {
            return Ok(self.file.clone());
        }
        let folder = self.partial.parent().unwrap_or(&self.partial);
        create_dir(folder)?;
        require_space(folder, needed, self.free_space)?;
        let made = make(&self.partial);
        if made.is_err() {
            // It cannot be taken up again, so that its bytes are of no use.
            remove_if_there(&self.partial)?;
        }
        let kept = made.and_then(|()| Ok(self.keep()?));
        if bytes_below(folder) == 0 {
            remove_if_there(folder)?;
        }
        kept
    }

    fn keep(&self) -> Result<PathBuf, HubError> {
        fs::File::open(&self.partial)
            .and_then(|file| file.sync_all())
            .map_err(|source| HubError::io("write", &self.partial, source))?;
        let folder = self.file.parent().unwrap_or(&self.file);
        match &self.origin {
            Some(origin) => {
                remove_if_there(folder)?;
                let note = origin.to_string_lossy();
                write_atomically(&folder.join(ORIGIN_NAME), note.as_bytes())?;
            }
            None => imports_of_pulled(folder)
                .iter()
                .try_for_each(|older| remove_if_there(older))?,
        }
        rename_durably(&self.partial, &self.file)?;
        Ok(self.file.clone())
    }
}

/// The imports in the folder of a pulled model: one, and older ones where a removal failed.
pub(crate) fn imports_of_pulled(folder: &Path) -> Vec<PathBuf> {
    let is_import = |path: &PathBuf| {
        let name = name_of(path);
        name.starts_with(IMPORT_PREFIX) && name.ends_with(".gguf")
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(is_import)
        .collect()
}

fn described(place: &Path) -> CachedModel {
    let note = fs::File::open(place.join(ORIGIN_NAME)).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_ORIGIN_BYTES).read_to_string(&mut text)?;
        Ok(text)
    });
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut files = entries.map(|entry| entry.path());
    let file = files.find(|path| path.extension().is_some_and(|end| end == "gguf"));
    let made = file.as_ref().and_then(|file| fs::metadata(file).ok());
    let size = bytes_below(place);
    let problem = match (&note, &file) {
        (Ok(_), Some(_)) => None,
        _ => Some(
            "which folder it is of is not known any more; `dunlin cache clear` removes it"
                .to_owned(),
        ),
    };
    CachedModel {
        id: note.unwrap_or_else(|_| name_of(place)),
        path: file.unwrap_or_else(|| place.to_path_buf()),
        layout: Layout::File,
        size,
        import_size: size,
        sha256: String::new(),
        source: "import of your folder".to_owned(),
        fetched_at: made.map_or(0, |metadata| modified_ns(&metadata) / 1_000_000_000),
        licence: None,
        shared: false,
        problem,
    }
}

/// Name of the place for imports of a folder of the user: a readable part of its path with the beginning of its hash.
fn import_name(real: &Path) -> String {
    const READABLE: usize = 60;
    let last = real.file_name().unwrap_or_default().to_string_lossy();
    let readable: String = last
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .take(READABLE)
        .collect();
    let hash = hex(Sha256::new_with_prefix(real.as_os_str().as_encoded_bytes()));
    format!("import-{readable}-{}", &hash[..12])
}

/// What the files of a folder are, as far as names, sizes and times tell: 16 hexadecimal digits.
fn identity(folder: &Path) -> Result<String, HubError> {
    /// Modules of sentence-transformers lie one level down.
    const DEEPEST: usize = 2;
    const MOST_FILES: usize = 10_000;
    let mut files = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), 1)];
    while let Some((place, depth)) = folders.pop() {
        let entries =
            fs::read_dir(&place).map_err(|source| HubError::io("list", &place, source))?;
        for entry in entries.flatten() {
            let path = entry.path();
            // Hidden ones are other programs' notes (.git, .cache).
            let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            let Ok(metadata) = fs::metadata(&path) else {
                continue;
            };
            if is_hidden || files.len() >= MOST_FILES {
                continue;
            }
            if metadata.is_dir() && depth < DEEPEST {
                folders.push((path, depth + 1));
            } else if metadata.is_file() {
                let name = path.strip_prefix(folder).unwrap_or(&path).to_path_buf();
                files.push((name, metadata.len(), modified_ns(&metadata)));
            }
        }
    }
    files.sort();
    let mut hasher = Sha256::new();
    for (name, size, modified) in files {
        let name = name.as_os_str().as_encoded_bytes();
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(size.to_le_bytes());
        hasher.update(modified.to_le_bytes());
    }
    Ok(hex(hasher)[..16].to_owned())
}
