//! An index as a file.
//!
//! ```text
//! "DUNLINDX"            magic
//! u32                   version
//! u64, bytes            header, JSON: model, dimensions, documents, attributes
//! f32 ...               vectors, [documents, dimensions]
//! (u32, bytes) x 3 ...  id, text and metadata (JSON) of each document
//! u32                   CRC-32 of all before
//! ```
//!
//! Numbers are little-endian. Nothing is taken at its word: a length that the rest of the file does not hold is an error before
//! any memory is asked for.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::nearest::{LENGTH_TOLERANCE, Rows, dot};
use super::{Document, ModelIdentity, SearchError, SemanticIndex};
use crate::Error;

const MAGIC: &str = "DUNLINDX";
const VERSION: u32 = 1;
/// Bytes of the checksum at the end.
const CHECKSUM: u64 = 4;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 16;

#[derive(Serialize, Deserialize)]
struct Header {
    model: Option<ModelIdentity>,
    dimensions: u64,
    documents: u64,
    attributes: Map<String, Value>,
}

impl SemanticIndex {
    /// Writes the index to a file, which appears when it is complete: an older one at its place stays until then. The same
    /// documents, added in the same order, give the same bytes.
    ///
    /// # Errors
    /// [`SearchError::Io`]; [`SearchError::TooLarge`] for a document with a part of more than 4 GiB.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let partial = partial_path(path);
        let written = self.write(&partial).and_then(|()| {
            let renamed = fs::rename(&partial, path);
            renamed.map_err(|error| SearchError::io("write", path, error))
        });
        if written.is_err() {
            // What was written so far is of no use to anybody.
            let _ = fs::remove_file(&partial);
        }
        Ok(written?)
    }

    /// Reads an index from a file.
    ///
    /// # Errors
    /// [`SearchError::Io`], [`SearchError::NotAnIndex`], [`SearchError::Version`], [`SearchError::Damaged`].
    pub fn load(path: &Path) -> Result<Self, Error> {
        Ok(read(path)?)
    }

    fn write(&self, path: &Path) -> Result<(), SearchError> {
        let failed = |error| SearchError::io("write", path, error);
        let file = File::create(path).map_err(failed)?;
        let mut out = HashingWriter {
            inner: BufWriter::new(file),
            hasher: crc32fast::Hasher::new(),
        };
        let header = Header {
            model: self.model.clone(),
            dimensions: self.dimensions() as u64,
            documents: self.len() as u64,
            attributes: self.attributes.clone(),
        };
        let header = json(&header).map_err(failed)?;
        out.write_all(MAGIC.as_bytes()).map_err(failed)?;
        out.write_all(&VERSION.to_le_bytes()).map_err(failed)?;
        out.write_all(&(header.len() as u64).to_le_bytes())
            .map_err(failed)?;
        out.write_all(&header).map_err(failed)?;
        let mut bytes = Vec::with_capacity(4 * self.dimensions());
        for (_, vector) in self.iter() {
            bytes.clear();
            bytes.extend(vector.iter().flat_map(|number| number.to_le_bytes()));
            out.write_all(&bytes).map_err(failed)?;
        }
        for (document, _) in self.iter() {
            let metadata = json(&document.metadata).map_err(failed)?;
            let parts: [(&'static str, &[u8]); 3] = [
                ("the id", document.id.as_bytes()),
                ("the text", document.text.as_bytes()),
                ("the metadata", &metadata),
            ];
            for (what, part) in parts {
                let length = u32::try_from(part.len()).map_err(|_| SearchError::TooLarge {
                    id: document.id.chars().take(100).collect(),
                    what,
                    bytes: part.len(),
                    limit: u32::MAX as usize,
                })?;
                out.write_all(&length.to_le_bytes()).map_err(failed)?;
                out.write_all(part).map_err(failed)?;
            }
        }
        let checksum = out.hasher.finalize();
        let mut file = out.inner;
        file.write_all(&checksum.to_le_bytes()).map_err(failed)?;
        let file = file
            .into_inner()
            .map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)
    }
}

/// A name beside the file that no other process writes to.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::from)
}

struct HashingWriter {
    inner: BufWriter<File>,
    hasher: crc32fast::Hasher,
}

impl HashingWriter {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

fn read(path: &Path) -> Result<SemanticIndex, SearchError> {
    let mut reader = Reader::open(path)?;
    let header = reader.header()?;
    let width = header.dimensions as usize;
    let numbers = header
        .documents
        .checked_mul(header.dimensions)
        .and_then(|count| count.checked_mul(4))
        .filter(|bytes| *bytes <= reader.left);
    let (Some(bytes), 1..) = (numbers, width) else {
        let reason = format!(
            "its header promises {} vectors of {} numbers, and {} bytes follow",
            header.documents, header.dimensions, reader.left
        );
        return Err(reader.damaged(reason));
    };
    // A document has at least three lengths: this bounds what is asked for below, too.
    if header.documents > (reader.left - bytes) / 12 {
        let reason = format!("it ends before its {} documents", header.documents);
        return Err(reader.damaged(reason));
    }
    let numbers = reader.numbers(bytes as usize / 4)?;
    for (row, vector) in numbers.chunks_exact(width).enumerate() {
        let length = dot(vector, vector).sqrt();
        let right = (length - 1.0).abs() <= LENGTH_TOLERANCE;
        if !right {
            return Err(reader.damaged(format!("vector {row} has length {length} instead of 1")));
        }
    }
    let mut documents = Vec::with_capacity(header.documents as usize);
    let mut ids = HashSet::with_capacity(header.documents as usize);
    for number in 0..header.documents {
        let document = reader.document(number)?;
        if !ids.insert(document.id.clone()) {
            return Err(reader.damaged(format!("two documents have the id {:?}", document.id)));
        }
        documents.push(document);
    }
    reader.finish()?;
    let rows = Rows::of(width, numbers);
    Ok(SemanticIndex::of(
        header.model,
        header.attributes,
        documents,
        rows,
    ))
}

/// Reads no more than the file holds before its checksum, and knows where it stands.
struct Reader<'a> {
    path: &'a Path,
    file: BufReader<File>,
    hasher: crc32fast::Hasher,
    /// Bytes before the checksum that are not read yet.
    left: u64,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, SearchError> {
        let failed = |error| SearchError::io("read", path, error);
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let mut reader = Reader {
            path,
            file: BufReader::with_capacity(PIECE, file),
            hasher: crc32fast::Hasher::new(),
            left: length.saturating_sub(CHECKSUM),
        };
        let begins_right = reader.left >= MAGIC.len() as u64
            && reader.array::<{ MAGIC.len() }>()? == *MAGIC.as_bytes();
        if !begins_right {
            return Err(SearchError::NotAnIndex {
                path: path.to_owned(),
                expected: MAGIC,
            });
        }
        match u32::from_le_bytes(reader.array()?) {
            VERSION => Ok(reader),
            found => Err(SearchError::Version {
                path: path.to_owned(),
                found,
                supported: VERSION,
            }),
        }
    }

    fn header(&mut self) -> Result<Header, SearchError> {
        let length = u64::from_le_bytes(self.array()?);
        let bytes = self.bytes(length, "the header")?;
        let header = serde_json::from_slice(&bytes);
        header.map_err(|error| self.damaged(format!("its header cannot be read: {error}")))
    }

    fn numbers(&mut self, count: usize) -> Result<Vec<f32>, SearchError> {
        let mut numbers = Vec::with_capacity(count);
        let mut piece = [0; PIECE];
        let mut left = 4 * count;
        while left > 0 {
            let part = left.min(PIECE);
            self.fill(&mut piece[..part])?;
            let (words, _) = piece[..part].as_chunks::<4>();
            numbers.extend(words.iter().map(|word| f32::from_le_bytes(*word)));
            left -= part;
        }
        Ok(numbers)
    }

    fn document(&mut self, number: u64) -> Result<Document, SearchError> {
        let mut parts = [const { Vec::new() }; 3];
        for part in &mut parts {
            let length = u32::from_le_bytes(self.array()?);
            *part = self.bytes(u64::from(length), "a document")?;
        }
        let [id, text, metadata] = parts;
        let utf8 = |bytes| String::from_utf8(bytes).ok();
        let metadata = serde_json::from_slice(&metadata).ok();
        match (utf8(id), utf8(text), metadata) {
            (Some(id), Some(text), Some(metadata)) => Ok(Document { id, text, metadata }),
            _ => Err(self.damaged(format!("document {number} cannot be read"))),
        }
    }

    /// Compares the checksum.
    fn finish(mut self) -> Result<(), SearchError> {
        if self.left > 0 {
            let reason = format!("{} bytes follow its last document", self.left);
            return Err(self.damaged(reason));
        }
        let computed = self.hasher.clone().finalize();
        let mut stored = [0; CHECKSUM as usize];
        let read = self.file.read_exact(&mut stored);
        read.map_err(|error| SearchError::io("read", self.path, error))?;
        if u32::from_le_bytes(stored) == computed {
            return Ok(());
        }
        Err(self.damaged("its checksum is another one".to_owned()))
    }

    fn bytes(&mut self, length: u64, what: &str) -> Result<Vec<u8>, SearchError> {
        if length > self.left {
            let reason = format!(
                "{what} should have {length} bytes, and {} are left",
                self.left
            );
            return Err(self.damaged(reason));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SearchError> {
        let mut bytes = [0; N];
        if N as u64 > self.left {
            return Err(self.damaged("it ends too early".to_owned()));
        }
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads bytes that are known to be left.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), SearchError> {
        let read = self.file.read_exact(bytes);
        read.map_err(|error| SearchError::io("read", self.path, error))?;
        self.hasher.update(bytes);
        self.left -= bytes.len() as u64;
        Ok(())
    }

    fn damaged(&self, reason: String) -> SearchError {
        SearchError::Damaged {
            path: self.path.to_owned(),
            reason,
        }
    }
}
