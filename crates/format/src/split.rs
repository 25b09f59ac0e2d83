//! Models in several files: `NAME-00001-of-0000N.gguf`, each part a GGUF file of its own.
//!
//! Every part says its place (`split.no`, from 0), the number of parts (`split.count`) and of all
//! tensors (`split.tensors.count`); the metadata of the model stands in the first.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    FormatError, Gguf, Metadata,
    cursor::Budget,
    header::{self, Header},
    map::Bytes,
};

/// What a part says about the whole.
pub(crate) struct SplitKeys {
    /// Place of the part, from 0.
    pub(crate) number: u32,
    pub(crate) count: u32,
    tensors: Option<u64>,
}

impl SplitKeys {
    /// `None` for a model in one file. Merged files keep `split.count`, as 0.
    pub(crate) fn read(metadata: &Metadata) -> Result<Option<Self>, FormatError> {
        let count = metadata.u32("split.count")?.unwrap_or(0);
        if count <= 1 {
            return Ok(None);
        }
        let number = metadata.require_u32("split.no")?;
        Ok(Some(Self {
            number,
            count,
            tensors: metadata.u64("split.tensors.count")?,
        }))
    }
}

/// Opens the model that the file at `path` is, or is a part of.
pub(crate) fn open(path: &Path) -> Result<Gguf, FormatError> {
    let mut budget = Budget::new();
    let part = open_part(path, 0, &mut budget)?;
    match SplitKeys::read(&part.1.metadata)? {
        None => Gguf::from_parts(vec![part]),
        Some(keys) => open_all(path, &keys),
    }
}

fn open_part(
    path: &Path,
    part: usize,
    budget: &mut Budget,
) -> Result<(Bytes, Header), FormatError> {
    let bytes = Bytes::map(path).map_err(|source| FormatError::Io {
        path: path.to_owned(),
        source,
    })?;
    let header = header::read(&bytes, part, budget)?;
    Ok((bytes, header))
}

fn open_all(path: &Path, keys: &SplitKeys) -> Result<Gguf, FormatError> {
    let stem = stem(path, keys)?;
    let mut budget = Budget::new();
    let mut parts = Vec::new();
    for number in 0..keys.count {
        let path = part_path(path, stem, number, keys.count);
        let part = open_part(&path, number as usize, &mut budget).map_err(|error| match error {
            FormatError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                let (path, number) = (path.clone(), number + 1);
                FormatError::MissingPart {
                    path,
                    number,
                    count: keys.count,
                }
            }
            FormatError::Io { .. } => error,
            error => in_part(&path, error),
        })?;
        check_place(&path, &part.1.metadata, number, keys.count)?;
        parts.push(part);
    }

    let found = parts
        .iter()
        .map(|(_, header)| header.tensors.len() as u64)
        .sum();
    match keys.tensors {
        Some(expected) if expected != found => {
            Err(FormatError::SplitTensorCount { expected, found })
        }
        _ => Gguf::from_parts(parts),
    }
}

/// The file name without `-00001-of-0000N.gguf`, which has to say what the keys say.
fn stem<'a>(path: &'a Path, keys: &SplitKeys) -> Result<&'a str, FormatError> {
    let (number, count) = (keys.number.saturating_add(1), keys.count);
    let ending = format!("-{number:05}-of-{count:05}.gguf");
    path.file_name()
        .and_then(|name| name.to_str())
        .and_then(|name| name.strip_suffix(&ending))
        .ok_or_else(|| FormatError::SplitName {
            path: path.to_owned(),
            number,
            count,
        })
}

fn part_path(path: &Path, stem: &str, number: u32, count: u32) -> PathBuf {
    path.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", number + 1))
}

fn check_place(
    path: &Path,
    metadata: &Metadata,
    number: u32,
    count: u32,
) -> Result<(), FormatError> {
    let keys = SplitKeys::read(metadata).map_err(|error| in_part(path, error))?;
    let found = keys.as_ref().map_or(1, |keys| keys.count);
    if found != count {
        let path = path.to_owned();
        return Err(FormatError::SplitCount {
            path,
            expected: count,
            found,
        });
    }
    let found = keys.map_or(0, |keys| keys.number);
    if found != number {
        let (path, expected, found) = (path.to_owned(), number + 1, found.saturating_add(1));
        return Err(FormatError::SplitNumber {
            path,
            expected,
            found,
        });
    }
    Ok(())
}

fn in_part(path: &Path, error: FormatError) -> FormatError {
    FormatError::Part {
        path: path.to_owned(),
        source: Box::new(error),
    }
}
