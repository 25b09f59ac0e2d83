//! Writing GGUF version 3.

use std::{
    borrow::Cow,
    collections::HashSet,
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Array, DType, FormatError, Metadata, Value,
    cursor::HEADER_LIMIT,
    header::{ARRAY_DEPTH_LIMIT, alignment},
    tensors::checked_byte_len,
};

const VERSION: u32 = 3;

/// Collects metadata and tensors, then writes them as one GGUF file. Tensors stream: those given by
/// a function never lie in memory together.
///
/// ```
/// use dunlin_format::{DType, Gguf, GgufWriter, Metadata};
///
/// let mut metadata = Metadata::new();
/// metadata.insert("general.architecture", "llama");
/// let mut writer = GgufWriter::new(metadata);
/// writer.add_tensor("norm.weight", &[2], DType::F32, vec![0; 8]);
/// let mut file = Vec::new();
/// writer.write(&mut file)?;
/// assert_eq!(Gguf::from_bytes(file)?.architecture(), Some("llama"));
/// # Ok::<(), dunlin_format::FormatError>(())
/// ```
pub struct GgufWriter<'a> {
    metadata: Metadata,
    tensors: Vec<Tensor<'a>>,
}

struct Tensor<'a> {
    name: String,
    shape: Vec<u64>,
    dtype: DType,
    source: Source<'a>,
}

type Stream<'a> = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + 'a>;

enum Source<'a> {
    Bytes(Cow<'a, [u8]>),
    Stream(Stream<'a>),
}

impl<'a> GgufWriter<'a> {
    /// A file with this metadata and no tensors yet. `general.alignment` is obeyed where it is set.
    pub fn new(metadata: Metadata) -> Self {
        Self {
            metadata,
            tensors: Vec::new(),
        }
    }

    /// The metadata that will be written.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Adds a tensor: `shape` in GGUF order (contiguous length first), `bytes` in rows of whole
    /// blocks. Everything is checked by [`GgufWriter::write`].
    pub fn add_tensor(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        dtype: DType,
        bytes: impl Into<Cow<'a, [u8]>>,
    ) -> &mut Self {
        self.add(name.into(), shape, dtype, Source::Bytes(bytes.into()))
    }

    /// Adds a tensor whose bytes are made by `stream` when it is their turn to be written.
    pub fn add_tensor_with(
        &mut self,
        name: impl Into<String>,
        shape: &[u64],
        dtype: DType,
        stream: impl FnOnce(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> &mut Self {
        self.add(name.into(), shape, dtype, Source::Stream(Box::new(stream)))
    }

    /// Writes the file to `path` and returns its length in bytes. The file appears under its name
    /// only when it is complete; one that was there before is replaced whole. What is no file (a
    /// folder, a device) is not replaced.
    ///
    /// # Errors
    /// [`FormatError::Io`] where the file cannot be made, finished or renamed,
    /// [`FormatError::DiskFull`] where it does not fit, else as [`GgufWriter::write`]. Nothing is
    /// left behind.
    pub fn write_to(self, path: &Path) -> Result<u64, FormatError> {
        let needed = self.byte_len()?;
        let in_file = |source| FormatError::Io {
            path: path.to_owned(),
            source,
        };
        let (file, partial) = create_beside(path).map_err(in_file)?;
        let mut file = BufWriter::new(file);
        let written = self.write(&mut file).and_then(|length| {
            let file = file
                .into_inner()
                .map_err(|error| in_file(error.into_error()))?;
            file.sync_all().map_err(in_file)?;
            fs::rename(&partial, path).map_err(in_file)?;
            Ok(length)
        });
        written.map_err(|error| {
            let written = fs::metadata(&partial).map_or(0, |partial| partial.len());
            // The error that led here says more than one about the clearing up.
            let _ = fs::remove_file(&partial);
            match error {
                FormatError::Write(source) | FormatError::Io { source, .. }
                    if source.kind() == io::ErrorKind::StorageFull =>
                {
                    FormatError::DiskFull {
                        path: path.to_owned(),
                        needed,
                        written,
                    }
                }
                error => error,
            }
        })
    }

    /// The length that the file will have, in bytes.
    ///
    /// # Errors
    /// What [`GgufWriter::write`] finds wrong before it writes.
    pub fn byte_len(&self) -> Result<u64, FormatError> {
        let alignment = alignment(&self.metadata)?;
        let header = self.header(alignment)?.len() as u64;
        let padded = |length: u64| length.next_multiple_of(alignment);
        self.tensors
            .iter()
            .try_fold(padded(header), |total, tensor| {
                Ok(total + padded(tensor.checked_byte_len(total)?))
            })
    }

    /// Writes the file into `out` and returns its length in bytes.
    ///
    /// # Errors
    /// Before anything is written: [`FormatError::BadAlignment`], [`FormatError::ArrayTooDeep`],
    /// [`FormatError::DuplicateTensor`], [`FormatError::TensorLength`], those on shapes, and
    /// [`FormatError::HeaderTooLarge`]. Under way: [`FormatError::Write`], and
    /// [`FormatError::TensorLength`] where a stream gave too few or too many bytes.
    pub fn write(self, out: &mut impl Write) -> Result<u64, FormatError> {
        let alignment = alignment(&self.metadata)?;
        let header = self.header(alignment)?;
        let mut out = Counted { out, written: 0 };

        out.write_all(&header).map_err(FormatError::Write)?;
        out.pad(alignment)?;
        for tensor in self.tensors {
            let start = out.written;
            match tensor.source {
                Source::Bytes(bytes) => out.write_all(&bytes),
                Source::Stream(stream) => stream(&mut out),
            }
            .map_err(FormatError::Write)?;
            let expected = checked_byte_len(&tensor.name, &tensor.shape, tensor.dtype, start)?;
            let found = out.written - start;
            if found != expected {
                let tensor = tensor.name;
                return Err(FormatError::TensorLength {
                    tensor,
                    expected,
                    found,
                });
            }
            out.pad(alignment)?;
        }
        out.flush().map_err(FormatError::Write)?;
        Ok(out.written)
    }

    fn add(&mut self, name: String, shape: &[u64], dtype: DType, source: Source<'a>) -> &mut Self {
        self.tensors.push(Tensor {
            name,
            shape: shape.to_vec(),
            dtype,
            source,
        });
        self
    }

    /// Everything before the data section, checked.
    fn header(&self, alignment: u64) -> Result<Vec<u8>, FormatError> {
        let mut header = b"GGUF".to_vec();
        put_u32(&mut header, VERSION);
        put_u64(&mut header, self.tensors.len() as u64);
        put_u64(&mut header, self.metadata.len() as u64);
        for (key, value) in self.metadata.iter() {
            put_text(&mut header, key);
            put_u32(&mut header, value.type_id());
            put_value(&mut header, key, value)?;
        }

        let mut offset = 0;
        let mut names = HashSet::new();
        for tensor in &self.tensors {
            let at = header.len() as u64;
            let byte_len = tensor.checked_byte_len(at)?;
            if !names.insert(&tensor.name) {
                let name = tensor.name.clone();
                return Err(FormatError::DuplicateTensor { name, at });
            }
            put_text(&mut header, &tensor.name);
            put_u32(&mut header, tensor.shape.len() as u32);
            for &length in &tensor.shape {
                put_u64(&mut header, length);
            }
            put_u32(&mut header, tensor.dtype.ggml_id());
            put_u64(&mut header, offset);
            offset = u64::checked_next_multiple_of(offset.saturating_add(byte_len), alignment)
                .ok_or_else(|| FormatError::ShapeOverflow {
                    tensor: tensor.name.clone(),
                    shape: tensor.shape.clone(),
                    at,
                })?;
        }
        match header.len() as u64 {
            at if at > HEADER_LIMIT => Err(FormatError::HeaderTooLarge {
                at,
                limit: HEADER_LIMIT,
            }),
            _ => Ok(header),
        }
    }
}

impl Tensor<'_> {
    fn checked_byte_len(&self, at: u64) -> Result<u64, FormatError> {
        let expected = checked_byte_len(&self.name, &self.shape, self.dtype, at)?;
        match &self.source {
            Source::Bytes(bytes) if bytes.len() as u64 != expected => {
                Err(FormatError::TensorLength {
                    tensor: self.name.clone(),
                    expected,
                    found: bytes.len() as u64,
                })
            }
            _ => Ok(expected),
        }
    }
}

impl fmt::Debug for GgufWriter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.tensors.iter().map(|tensor| &tensor.name);
        f.debug_struct("GgufWriter")
            .field("metadata", &self.metadata)
            .field("tensors", &names.collect::<Vec<_>>())
            .finish()
    }
}

fn put_value(header: &mut Vec<u8>, key: &str, value: &Value) -> Result<(), FormatError> {
    match value {
        Value::U8(value) => header.extend(value.to_le_bytes()),
        Value::I8(value) => header.extend(value.to_le_bytes()),
        Value::U16(value) => header.extend(value.to_le_bytes()),
        Value::I16(value) => header.extend(value.to_le_bytes()),
        Value::U32(value) => header.extend(value.to_le_bytes()),
        Value::I32(value) => header.extend(value.to_le_bytes()),
        Value::U64(value) => header.extend(value.to_le_bytes()),
        Value::I64(value) => header.extend(value.to_le_bytes()),
        Value::F32(value) => header.extend(value.to_le_bytes()),
        Value::F64(value) => header.extend(value.to_le_bytes()),
        Value::Bool(value) => header.push((*value).into()),
        Value::String(text) => put_text(header, text),
        Value::Array(array) => put_array(header, key, array, 1)?,
    }
    Ok(())
}

fn put_array(
    header: &mut Vec<u8>,
    key: &str,
    array: &Array,
    depth: usize,
) -> Result<(), FormatError> {
    if depth > ARRAY_DEPTH_LIMIT {
        return Err(FormatError::ArrayTooDeep {
            key: key.to_owned(),
            at: header.len() as u64,
            limit: ARRAY_DEPTH_LIMIT,
        });
    }
    put_u32(header, array.element_type_id());
    put_u64(header, array.len() as u64);
    match array {
        Array::U8(values) => header.extend(values),
        Array::I8(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U16(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I16(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U32(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I32(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::U64(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::I64(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F32(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::F64(values) => header.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        Array::Bool(values) => header.extend(values.iter().map(|&value| u8::from(value))),
        Array::String(texts) => texts.iter().for_each(|text| put_text(header, text)),
        Array::Array(arrays) => {
            for array in arrays {
                put_array(header, key, array, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn put_text(header: &mut Vec<u8>, text: &str) {
    put_u64(header, text.len() as u64);
    header.extend(text.as_bytes());
}

fn put_u32(header: &mut Vec<u8>, value: u32) {
    header.extend(value.to_le_bytes());
}

fn put_u64(header: &mut Vec<u8>, value: u64) {
    header.extend(value.to_le_bytes());
}

/// Knows how far the file has come.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    fn pad(&mut self, alignment: u64) -> Result<(), FormatError> {
        let padding = self.written.next_multiple_of(alignment) - self.written;
        io::copy(&mut io::Read::take(io::repeat(0), padding), self)
            .map(|_| ())
            .map_err(FormatError::Write)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A new hidden file in the folder of `path`, where renaming is atomic.
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Renaming over a device such as /dev/null succeeds, and the whole system is then without it.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        let reason = "something that is no file has this name, and it is not replaced";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, reason));
    }
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut partial_name = std::ffi::OsString::from(".");
        partial_name.push(name);
        partial_name.push(format!(".{}-{number}.partial", process::id()));
        let partial = path.with_file_name(partial_name);
        match File::options().write(true).create_new(true).open(&partial) {
            Ok(file) => return Ok((file, partial)),
            // Left by a killed process that had the same number.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
