//! Reading safetensors files: the header through the `safetensors` crate, the weights by position.
//!
//! The weights are read, not mapped: a caller that goes through a file of many gigabytes keeps only
//! what it holds in its own buffers, and a file that somebody shortens meanwhile gives an error.

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

use crate::{DType, FormatError, map::Bytes};

/// Bytes of the length that a safetensors file starts with.
const LENGTH_BYTES: u64 = 8;

/// A header may have this many bytes (16 MiB). It describes tensors in about 100 bytes each, and no
/// known model has more than some ten thousand of them.
const HEADER_LIMIT: u64 = 16 << 20;

/// One open safetensors file, its header checked: no tensor lies outside the file or overlaps
/// another, and every byte belongs to one.
#[derive(Debug)]
pub struct SafeTensors {
    path: PathBuf,
    file: File,
    tensors: Vec<SafeTensor>,
    index: HashMap<String, usize>,
}

/// What the header says of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafeTensor {
    /// The name under which the model's code knows it.
    pub name: String,
    /// Lengths in the order of the file: the last one is contiguous (the reverse of GGUF). Empty
    /// for a single number.
    pub shape: Vec<u64>,
    /// The type of its numbers where ggml has one, else `None` (8-bit floats, truth values, ...).
    pub dtype: Option<DType>,
    /// The type's name in the file, such as `BF16`.
    pub dtype_name: String,
    start: u64,
    byte_len: u64,
}

impl SafeTensor {
    /// How many bytes its numbers take in the file.
    pub fn byte_len(&self) -> u64 {
        self.byte_len
    }
}

impl SafeTensors {
    /// Opens the file at `path` and checks its header.
    ///
    /// # Errors
    /// [`FormatError::Io`] where the file cannot be opened, [`FormatError::SafeTensors`] where its
    /// header is damaged, does not match the length of the file, or is larger than 16 MiB.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let in_file = |source| FormatError::Io {
            path: path.to_owned(),
            source,
        };
        let damaged = |reason: String| FormatError::SafeTensors {
            path: path.to_owned(),
            reason,
        };
        let bytes = Bytes::map(path).map_err(in_file)?;
        let Some((length, _)) = bytes.split_first_chunk() else {
            return Err(damaged(format!("it has only {} bytes", bytes.len())));
        };
        let header_len = u64::from_le_bytes(*length);
        if header_len > HEADER_LIMIT {
            return Err(damaged(format!(
                "its first 8 bytes announce a header of {header_len} bytes, more than the \
                 {HEADER_LIMIT} that any model needs"
            )));
        }
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)
            .map_err(|error| damaged(error.to_string()))?;

        let data_start = LENGTH_BYTES + header_len;
        let mut tensors: Vec<SafeTensor> = header
            .tensors()
            .into_iter()
            .map(|(name, info)| SafeTensor {
                name,
                shape: info.shape.iter().map(|&length| length as u64).collect(),
                dtype: ggml_type(info.dtype),
                dtype_name: format!("{:?}", info.dtype),
                start: data_start + info.data_offsets.0 as u64,
                byte_len: (info.data_offsets.1 - info.data_offsets.0) as u64,
            })
            .collect();
        tensors.sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
        let index = tensors
            .iter()
            .enumerate()
            .map(|(index, tensor)| (tensor.name.clone(), index))
            .collect();
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path).map_err(in_file)?,
            tensors,
            index,
        })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, in the order of their bytes.
    pub fn tensors(&self) -> &[SafeTensor] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&SafeTensor> {
        self.index.get(name).map(|&index| &self.tensors[index])
    }

    /// Reads `out.len()` bytes of `tensor`, a tensor of this file, from byte `offset` of it on.
    ///
    /// # Errors
    /// [`FormatError::Io`] where the file cannot be read (any more), or the bytes asked for do not
    /// lie in the tensor.
    pub fn read(
        &self,
        tensor: &SafeTensor,
        offset: u64,
        out: &mut [u8],
    ) -> Result<(), FormatError> {
        let end = offset.checked_add(out.len() as u64);
        let read = if end.is_some_and(|end| end <= tensor.byte_len) {
            read_exact_at(&self.file, tensor.start + offset, out)
        } else {
            let message = format!("the tensor `{}` ends before that", tensor.name);
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        };
        read.map_err(|source| FormatError::Io {
            path: self.path.clone(),
            source,
        })
    }
}

fn ggml_type(dtype: safetensors::Dtype) -> Option<DType> {
    use safetensors::Dtype;
    Some(match dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F64 => DType::F64,
        Dtype::I8 => DType::I8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::I64 => DType::I64,
        _ => return None,
    })
}

#[cfg(unix)]
fn read_exact_at(file: &File, at: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, at)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut at: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, at)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                out = &mut out[read..];
                at += read as u64;
            }
        }
    }
    Ok(())
}
