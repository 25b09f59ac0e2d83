//! The text files of a folder in an index that follows their changes.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::identity::hex;
use super::walk::{Candidate, files, text_of};
use super::{
    ChunkOptions, Chunker, Document, SearchError, SemanticIndex, SkippedFile, SkippedReason,
    TextFormat,
};
use crate::{Embedder, Error, TextRole};

/// Key of the files among the attributes of the index.
const ATTRIBUTE: &str = "dunlin.folder";
/// Pieces of files that are embedded together: enough to fill the steps of the engine, and few enough that a cancelled
/// update loses little.
const PIECES_AT_ONCE: usize = 128;

/// What is known of the files, as it is saved with the index.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
struct Records {
    root: PathBuf,
    max_tokens: usize,
    overlap: usize,
    files: BTreeMap<String, FileRecord>,
}

/// A file as it was when it was indexed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
struct FileRecord {
    size: u64,
    modified: u64,
    sha256: String,
    /// Why it is left out, if it is; then it has no pieces.
    skipped: Option<SkippedReason>,
    /// Ids of its pieces.
    pieces: Vec<String>,
}

/// What an update found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FolderChanges {
    /// Files that are new.
    pub added: usize,
    /// Files whose bytes are others than before.
    pub changed: usize,
    /// Files that are gone, or are no texts any more.
    pub removed: usize,
    /// Files that are as before.
    pub unchanged: usize,
    /// Pieces that were embedded.
    pub embedded: usize,
    /// Files that are left out.
    pub skipped: Vec<SkippedFile>,
}

/// What an update says while it works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FolderEvent {
    /// So many of so many files that are new or have changed are indexed.
    Files {
        /// Files that are done.
        done: usize,
        /// Files to do.
        total: usize,
    },
}

/// An index of the text files of a folder, in pieces.
///
/// A piece has the id `path#start-end` (in bytes) and the metadata `path` (within the folder, with `/`), `start` and `end`
/// (bytes), `first_line` and `last_line` (from 1), which filters can use. Files are taken as UTF-8 text, those that end in `.md`
/// or `.markdown` as Markdown. Left out are hidden files and folders, links, folders named `node_modules`, `target`, `build`,
/// `dist`, `__pycache__`, `venv` or `vendor`, and, told in [`FolderChanges::skipped`], files that are binary, not UTF-8,
/// unreadable or larger than 16 MiB.
pub struct FolderIndex {
    index: SemanticIndex,
    records: Records,
    /// Something is here that the file does not have.
    unsaved: bool,
}

impl FolderIndex {
    /// An empty index of a folder; [`FolderIndex::update`] fills it. The format of `options` does not matter: it follows
    /// from the name of each file.
    ///
    /// # Errors
    /// [`SearchError::Io`] where there is no such folder; [`SearchError::ChunkSize`]; as [`Embedder::identity`].
    pub fn new(root: &Path, embedder: &Embedder, options: ChunkOptions) -> Result<Self, Error> {
        let root = canonical(root)?;
        let chunker = Chunker::for_embedder(embedder, options)?;
        Ok(FolderIndex {
            index: SemanticIndex::for_embedder(embedder)?,
            records: Records {
                root,
                max_tokens: chunker.max_tokens(),
                overlap: options.overlap,
                files: BTreeMap::new(),
            },
            unsaved: true,
        })
    }

    /// A name for the file of a folder's index, one for each folder and model: 32 hexadecimal digits and `.index`.
    ///
    /// # Errors
    /// [`SearchError::Io`] where there is no such folder; as [`Embedder::identity`].
    pub fn file_name(root: &Path, embedder: &Embedder) -> Result<String, Error> {
        let identity = serde_json::to_string(&embedder.identity()?.unnamed());
        let mut hasher = Sha256::new();
        hasher.update(canonical(root)?.as_os_str().as_encoded_bytes());
        hasher.update(identity.unwrap_or_default());
        Ok(format!("{}.index", &hex(&hasher.finalize())[..32]))
    }

    /// Reads a saved one, or makes an empty one where the file does not exist.
    ///
    /// # Errors
    /// As [`SemanticIndex::load`] and [`FolderIndex::new`]; [`SearchError::OtherModel`]; [`SearchError::OtherFolder`]. One that was cut into other pieces is emptied, and filled anew by the next update.
    pub fn open(
        root: &Path,
        file: &Path,
        embedder: &Embedder,
        options: ChunkOptions,
    ) -> Result<Self, Error> {
        let new = Self::new(root, embedder, options)?;
        if !file.exists() {
            return Ok(new);
        }
        let mut index = SemanticIndex::load(file)?;
        index.require_model(embedder)?;
        let other_folder = |indexed| SearchError::OtherFolder {
            path: file.to_owned(),
            indexed,
            asked: new.records.root.clone(),
        };
        let records = index.attributes_mut().remove(ATTRIBUTE);
        let records = records.ok_or_else(|| other_folder(None))?;
        let records: Records =
            serde_json::from_value(records).map_err(|error| SearchError::Damaged {
                path: file.to_owned(),
                reason: format!("its list of files cannot be read: {error}"),
            })?;
        if records.root != new.records.root {
            return Err(other_folder(Some(records.root)).into());
        }
        let same_pieces =
            (records.max_tokens, records.overlap) == (new.records.max_tokens, new.records.overlap);
        Ok(match same_pieces {
            true => FolderIndex {
                index,
                records,
                unsaved: false,
            },
            false => new,
        })
    }

    /// Brings the index up to the files: a file is read again where its size or its time of change is another one, and embedded
    /// again where its bytes are. After an error, [`Error::Cancelled`] by `progress` among them, the files that were done
    /// stay done: save the index and go on later.
    ///
    /// # Errors
    /// [`SearchError::Io`] for the folder; [`SearchError::OtherModel`]; as [`Embedder::embed`].
    pub fn update(
        &mut self,
        embedder: &Embedder,
        progress: &mut dyn FnMut(FolderEvent) -> ControlFlow<()>,
    ) -> Result<FolderChanges, Error> {
        self.index.require_model(embedder)?;
        let (candidates, skipped) = files(&self.records.root)?;
        let mut changes = FolderChanges {
            skipped,
            ..FolderChanges::default()
        };
        self.forget_missing(&candidates, &mut changes);
        let candidates = candidates.into_iter();
        let touched: Vec<Candidate> = candidates
            .filter(|file| !self.is_as_before(file, &mut changes))
            .collect();
        let options = ChunkOptions::new()
            .with_max_tokens(self.records.max_tokens)
            .with_overlap(self.records.overlap);
        let mut chunker = Chunker::for_embedder(embedder, options)?;
        let total = touched.len();
        let mut waiting = Vec::new();
        let mut pieces = 0;
        for (done, file) in touched.into_iter().enumerate() {
            chunker = chunker.with_format(format_of(&file.name));
            if let Some(read) = self.read(file, &chunker, &mut changes)? {
                pieces += read.documents.len();
                waiting.push(read);
            }
            if pieces >= PIECES_AT_ONCE {
                pieces = 0;
                self.insert(
                    embedder,
                    std::mem::take(&mut waiting),
                    &mut changes,
                    &mut || progress(FolderEvent::Files { done, total }),
                )?;
            }
        }
        self.insert(embedder, waiting, &mut changes, &mut || {
            progress(FolderEvent::Files { done: total, total })
        })?;
        Ok(changes)
    }

    /// Writes the index with what is known of the files: see [`SemanticIndex::save`].
    ///
    /// # Errors
    /// As [`SemanticIndex::save`].
    pub fn save(&mut self, path: &Path) -> Result<(), Error> {
        let records = serde_json::to_value(&self.records);
        let records = records.map_err(|error| SearchError::io("write", path, error.into()))?;
        self.index
            .attributes_mut()
            .insert(ATTRIBUTE.to_owned(), records);
        let saved = self.index.save(path);
        self.index.attributes_mut().remove(ATTRIBUTE);
        self.unsaved &= saved.is_err();
        saved
    }

    /// Whether something changed since it was opened or saved, times of files among it.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        self.unsaved
    }

    /// The index, to be searched.
    #[must_use]
    pub fn index(&self) -> &SemanticIndex {
        &self.index
    }

    /// The folder, as the system names it.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.records.root
    }

    fn forget_missing(&mut self, candidates: &[Candidate], changes: &mut FolderChanges) {
        let here: HashSet<&str> = candidates.iter().map(|file| &*file.name).collect();
        let files = self.records.files.keys();
        let gone: Vec<String> = files
            .filter(|name| !here.contains(name.as_str()))
            .cloned()
            .collect();
        for name in gone {
            if self
                .forget(&name)
                .is_some_and(|record| record.skipped.is_none())
            {
                changes.removed += 1;
            }
        }
    }

    fn forget(&mut self, name: &str) -> Option<FileRecord> {
        let record = self.records.files.remove(name)?;
        self.unsaved = true;
        for id in &record.pieces {
            self.index.remove(id);
        }
        Some(record)
    }

    /// Whether size and time say that a file is the one that is indexed.
    fn is_as_before(&self, file: &Candidate, changes: &mut FolderChanges) -> bool {
        let Some(record) = self.records.files.get(&file.name) else {
            return false;
        };
        let same = (record.size, record.modified) == (file.size, file.modified);
        if same {
            count_unchanged(record, &file.name, changes);
        }
        same
    }

    /// Reads a file that is new or was touched. `None` where its bytes are as before, or it is left out.
    fn read(
        &mut self,
        file: Candidate,
        chunker: &Chunker<'_>,
        changes: &mut FolderChanges,
    ) -> Result<Option<ReadFile>, Error> {
        let Candidate {
            name,
            path,
            size,
            modified,
        } = file;
        let Ok(bytes) = fs::read(&path) else {
            self.leave_out(name, SkippedReason::Unreadable, changes);
            return Ok(None);
        };
        let sha256 = hex(&Sha256::digest(&bytes));
        if let Some(record) = self.records.files.get_mut(&name)
            && record.sha256 == sha256
        {
            (record.size, record.modified) = (size, modified);
            self.unsaved = true;
            count_unchanged(record, &name, changes);
            return Ok(None);
        }
        let mut record = FileRecord {
            size,
            modified,
            sha256,
            skipped: None,
            pieces: Vec::new(),
        };
        let text = match text_of(bytes) {
            Ok(text) => text,
            Err(reason) => {
                self.leave_out(name.clone(), reason, changes);
                record.skipped = Some(reason);
                self.records.files.insert(name, record);
                self.unsaved = true;
                return Ok(None);
            }
        };
        let documents = documents(&name, &text, chunker)?;
        record.pieces = documents.iter().map(|piece| piece.id.clone()).collect();
        Ok(Some(ReadFile {
            name,
            record,
            documents,
        }))
    }

    fn leave_out(&mut self, path: String, reason: SkippedReason, changes: &mut FolderChanges) {
        if self
            .forget(&path)
            .is_some_and(|record| record.skipped.is_none())
        {
            changes.removed += 1;
        }
        changes.skipped.push(SkippedFile { path, reason });
    }

    /// Embeds files and puts them in the place of what was known of them.
    fn insert(
        &mut self,
        embedder: &Embedder,
        files: Vec<ReadFile>,
        changes: &mut FolderChanges,
        progress: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let texts = files.iter().flat_map(|file| &file.documents);
        let texts: Vec<&str> = texts.map(|piece| &*piece.text).collect();
        let vectors = embedder.embed_as(TextRole::Document, &texts, &mut |_, _| progress())?;
        changes.embedded += vectors.vectors.len();
        let mut vectors = vectors.vectors.into_iter();
        for file in files {
            match self.forget(&file.name) {
                Some(record) if record.skipped.is_none() => changes.changed += 1,
                _ => changes.added += 1,
            }
            for (document, vector) in file.documents.into_iter().zip(&mut vectors) {
                self.index.add_vector(document, &vector)?;
            }
            self.records.files.insert(file.name, file.record);
            self.unsaved = true;
        }
        Ok(())
    }
}

/// A file that waits to be embedded.
struct ReadFile {
    name: String,
    record: FileRecord,
    documents: Vec<Document>,
}

fn count_unchanged(record: &FileRecord, name: &str, changes: &mut FolderChanges) {
    match record.skipped {
        Some(reason) => changes.skipped.push(SkippedFile {
            path: name.to_owned(),
            reason,
        }),
        None => changes.unchanged += 1,
    }
}

fn format_of(name: &str) -> TextFormat {
    let name = name.to_lowercase();
    match name.ends_with(".md") || name.ends_with(".markdown") {
        true => TextFormat::Markdown,
        false => TextFormat::Plain,
    }
}

/// The pieces of a text with their places.
fn documents(name: &str, text: &str, chunker: &Chunker<'_>) -> Result<Vec<Document>, Error> {
    let mut lines = Lines {
        text,
        at: 0,
        line: 1,
    };
    let chunks = chunker.chunks(text)?.into_iter();
    let documents = chunks.map(|chunk| {
        let (start, end) = (chunk.bytes.start, chunk.bytes.end);
        let first_line = lines.line_of(start);
        let last_line = first_line + chunk.text.matches('\n').count();
        let place: [(&str, Value); 5] = [
            ("path", name.into()),
            ("start", start.into()),
            ("end", end.into()),
            ("first_line", first_line.into()),
            ("last_line", last_line.into()),
        ];
        let metadata = place.map(|(key, value)| (key.to_owned(), value));
        Document::new(format!("{name}#{start}-{end}"), chunk.text)
            .with_metadata(metadata.into_iter().collect())
    });
    Ok(documents.collect())
}

/// Counts lines from one place of a text to the next.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    /// The line of a byte. Pieces begin one behind the other, overlapping or not.
    fn line_of(&mut self, byte: usize) -> usize {
        if byte < self.at {
            (self.at, self.line) = (0, 1);
        }
        let between = &self.text.as_bytes()[self.at..byte];
        self.line += between.iter().filter(|byte| **byte == b'\n').count();
        self.at = byte;
        self.line
    }
}

fn canonical(root: &Path) -> Result<PathBuf, SearchError> {
    let failed = |error| SearchError::io("open the folder", root, error);
    let path = fs::canonicalize(root).map_err(failed)?;
    match path.is_dir() {
        true => Ok(path),
        false => Err(failed(std::io::ErrorKind::NotADirectory.into())),
    }
}
