//! An open model: metadata, tensors, and their bytes in one file or several.

use std::{collections::HashMap, path::Path};

use crate::{
    FormatError, Metadata, TensorInfo,
    cursor::Budget,
    header::{self, Header},
    map::Bytes,
    split,
};

/// An open GGUF model. Opening reads and checks everything but the weights, which the operating
/// system reads as they are touched.
#[derive(Debug)]
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    parts: Vec<Bytes>,
    /// Keys of later parts that are neither about the split nor repeated from the first.
    stray_keys: Vec<String>,
}

impl Gguf {
    /// Opens the file at `path` by mapping it; of a split model, any part opens them all.
    ///
    /// The files must not be changed in place while this value lives (replacing them by renaming is
    /// fine): weights would change under way, and a file made shorter ends the process at the next
    /// access to what is missing, as with every mapped file.
    ///
    /// # Errors
    /// [`FormatError::Io`] where the file cannot be read, otherwise what is wrong with it and at
    /// which byte.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        split::open(path)
    }

    /// Opens a model held in memory.
    ///
    /// # Errors
    /// What is wrong with it and at which byte; [`FormatError::SplitInMemory`] for a part of a
    /// split model.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, FormatError> {
        let header = header::read(&bytes, 0, &mut Budget::new())?;
        if let Some(keys) = split::SplitKeys::read(&header.metadata)? {
            return Err(FormatError::SplitInMemory { count: keys.count });
        }
        Self::from_parts(vec![(Bytes::Owned(bytes), header)])
    }

    /// Joins checked parts; the metadata is that of the first.
    pub(crate) fn from_parts(parts: Vec<(Bytes, Header)>) -> Result<Self, FormatError> {
        let tensor_count = parts.iter().map(|(_, header)| header.tensors.len()).sum();
        let mut gguf = Self {
            version: 0,
            metadata: Metadata::new(),
            tensors: Vec::with_capacity(tensor_count),
            by_name: HashMap::with_capacity(tensor_count),
            parts: Vec::with_capacity(parts.len()),
            stray_keys: Vec::new(),
        };
        for (part, (bytes, header)) in parts.into_iter().enumerate() {
            if part == 0 {
                gguf.version = header.version;
                gguf.metadata = header.metadata;
            } else {
                gguf.note_stray_keys(&header.metadata);
            }
            gguf.tensors.extend(header.tensors);
            gguf.parts.push(bytes);
        }
        for (index, tensor) in gguf.tensors.iter().enumerate() {
            // Within a part the table is known to have each name once.
            if let Some(earlier) = gguf.by_name.insert(tensor.name.clone(), index) {
                return Err(FormatError::DuplicateAcrossParts {
                    name: tensor.name.clone(),
                    first: gguf.tensors[earlier].part + 1,
                    second: tensor.part + 1,
                });
            }
        }
        Ok(gguf)
    }

    fn note_stray_keys(&mut self, part: &Metadata) {
        for (key, value) in part.iter() {
            let known = key.starts_with("split.") || self.metadata.get(key) == Some(value);
            if !known && key != "general.alignment" {
                self.stray_keys.push(key.to_owned());
            }
        }
    }

    pub(crate) fn stray_keys(&self) -> &[String] {
        &self.stray_keys
    }

    /// GGUF version of the (first) file: 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// All metadata, in the order of the file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    /// The bytes of a tensor of this model: rows one after the other, each of whole blocks. Their
    /// address is aligned as the file is only where the file is mapped.
    ///
    /// # Panics
    /// Where `tensor` belongs to another model and does not lie in the files of this one.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        &self.parts[tensor.part][tensor.bytes.clone()]
    }

    /// Gives the memory of the weights that were read so far back to the operating system, which reads them from the file
    /// again when they are touched: after weights have been copied elsewhere, they need not be in memory twice. Changes
    /// nothing for a model held in memory.
    pub fn release_pages(&self) {
        for part in &self.parts {
            part.release();
        }
    }

    /// Reads all files into memory and keeps the system from taking their pages back, as long as this value lives. Changes
    /// nothing for a model held in memory.
    ///
    /// # Errors
    /// The process may not lock so much memory, or the system has no such call.
    pub fn lock_pages(&self) -> std::io::Result<()> {
        self.parts.iter().try_for_each(Bytes::lock)
    }

    /// Bytes of all files together.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len() as u64).sum()
    }

    /// Number of files.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The bytes of each file, to hash what was opened. A mapped file is read as they are.
    pub fn part_bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.parts.iter().map(|part| &**part)
    }

    /// The model family: `general.architecture`, where it is a text.
    pub fn architecture(&self) -> Option<&str> {
        self.metadata.str("general.architecture").ok().flatten()
    }
}
