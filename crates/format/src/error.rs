//! Everything that can be wrong with a model file, one variant each.

use std::{io, path::PathBuf};

use crate::{DType, encodable_types};

/// What is wrong with a file, a value in it, or a request on it. Where a byte is to blame, `at` is
/// its offset in the file (in the part, for a split file).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are what the message above them says"
)]
pub enum FormatError {
    /// The operating system refused to open, map or write a file.
    #[error("cannot access {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The disk has no room for a file that was being written.
    #[error(
        "the disk is full: {} needs {needed} bytes, there was room for {written}. \
         Nothing was left behind; free some space or write to another disk",
        path.display()
    )]
    DiskFull {
        path: PathBuf,
        needed: u64,
        written: u64,
    },
    /// Writing to a stream failed.
    #[error("writing the model failed: {0}")]
    Write(#[source] io::Error),
    /// An error in one part of a split file; `at` of the source counts in that part.
    #[error("in the part {}: {source}", path.display())]
    Part {
        path: PathBuf,
        source: Box<FormatError>,
    },

    /// The file does not start with `GGUF`.
    #[error(
        "not a GGUF file: it starts with {found:02x?} instead of 47 47 55 46 (\"GGUF\"). \
         Convert the model to GGUF, or check that the download is not an error page"
    )]
    BadMagic { found: [u8; 4] },
    /// A version of GGUF other than 2 and 3.
    #[error(
        "GGUF version {version} (at byte 4) is not supported, only 2 and 3 are. \
         Convert the model again with current tools"
    )]
    UnsupportedVersion { version: u32 },
    /// A file written for big-endian machines.
    #[error(
        "this is a big-endian GGUF file; only little-endian ones are supported. \
         Convert the model again without the big-endian option"
    )]
    BigEndian,
    /// The file ends before the thing that must stand there.
    #[error(
        "the file ends inside {what}: {needed} bytes are needed from byte {at}, {left} are left. \
         It is incomplete or damaged; get it again"
    )]
    Truncated {
        what: &'static str,
        at: u64,
        needed: u64,
        left: u64,
    },
    /// A count that cannot be true, since that many things do not fit into the rest of the file.
    #[error(
        "{what} at byte {at} claims {count} bytes or entries, but only {left} bytes follow. \
         The file is incomplete or damaged; get it again"
    )]
    CountTooLarge {
        what: &'static str,
        at: u64,
        count: u64,
        left: u64,
    },
    /// Metadata and tensor table need more memory than any real model's.
    #[error(
        "metadata and tensor table need more than {limit} bytes of memory (reached at byte {at}). \
         No known model is near that; the file is damaged or hostile"
    )]
    HeaderTooLarge { at: u64, limit: u64 },

    /// Text that is not UTF-8.
    #[error("{what} at byte {at} is not valid UTF-8; the file is damaged or badly converted")]
    InvalidUtf8 { what: &'static str, at: u64 },
    /// A metadata type that GGUF does not define.
    #[error("metadata key `{key}` has the unknown value type {id} (at byte {at})")]
    UnknownValueType { key: String, id: u32, at: u64 },
    /// A truth value other than 0 and 1.
    #[error("metadata key `{key}` has the truth value {value} (at byte {at}); only 0 and 1 exist")]
    InvalidBool { key: String, value: u8, at: u64 },
    /// Arrays in arrays beyond the accepted depth.
    #[error("metadata key `{key}` nests arrays deeper than {limit} (at byte {at})")]
    ArrayTooDeep { key: String, at: u64, limit: usize },
    /// The same metadata key twice.
    #[error("metadata key `{key}` stands twice in the file (again at byte {at})")]
    DuplicateKey { key: String, at: u64 },
    /// An alignment that GGUF forbids or that is of no use.
    #[error(
        "`general.alignment` is {alignment}; it must be a power of two, at least 8 \
         (32 where the key is absent)"
    )]
    BadAlignment { alignment: u64 },

    /// The same tensor name twice.
    #[error("tensor `{name}` stands twice in the file (again at byte {at})")]
    DuplicateTensor { name: String, at: u64 },
    /// A tensor type that ggml does not define.
    #[error(
        "tensor `{tensor}` has the unknown type {id} (at byte {at}). \
         It may be newer than this version of Dunlin, or one that ggml has removed"
    )]
    UnknownTensorType { tensor: String, id: u32, at: u64 },
    /// No dimension or more than four.
    #[error("tensor `{tensor}` has {dimensions} dimensions (at byte {at}); 1 to 4 are possible")]
    DimensionCount {
        tensor: String,
        dimensions: u32,
        at: u64,
    },
    /// A dimension of length zero.
    #[error("tensor `{tensor}` has the shape {shape:?} with a dimension of zero (at byte {at})")]
    ZeroDimension {
        tensor: String,
        shape: Vec<u64>,
        at: u64,
    },
    /// A shape whose size does not fit into 63 bits.
    #[error("tensor `{tensor}` has the shape {shape:?} (at byte {at}): too large to exist")]
    ShapeOverflow {
        tensor: String,
        shape: Vec<u64>,
        at: u64,
    },
    /// A row that is not a whole number of quantization blocks.
    #[error(
        "tensor `{tensor}` has rows of {columns} weights (at byte {at}), \
         but {dtype} comes in blocks of {}", dtype.block_len()
    )]
    PartialBlock {
        tensor: String,
        columns: u64,
        dtype: DType,
        at: u64,
    },
    /// A tensor that does not start at a multiple of the alignment.
    #[error(
        "tensor `{tensor}` has the offset {offset} (at byte {at}), not a multiple of the \
         alignment {alignment}"
    )]
    MisalignedTensor {
        tensor: String,
        offset: u64,
        alignment: u64,
        at: u64,
    },
    /// A tensor that ends after the file does.
    #[error(
        "tensor `{tensor}` (described at byte {at}) lies at bytes {start} to {end}, but the file \
         has {file_bytes} bytes. It is incomplete or damaged; get it again"
    )]
    TensorPastEnd {
        tensor: String,
        at: u64,
        start: u64,
        end: u128,
        file_bytes: u64,
    },
    /// Two tensors that share bytes.
    #[error("tensors `{first}` and `{second}` overlap at byte {at} of the file")]
    OverlappingTensors {
        first: String,
        second: String,
        at: u64,
    },

    /// A metadata value of another type than its reader needs.
    #[error("metadata key `{key}` should be {expected}, but has the type {found}")]
    WrongType {
        key: String,
        expected: &'static str,
        found: &'static str,
    },
    /// A number that does not fit what its reader needs.
    #[error("metadata key `{key}` is {value}, which does not fit {expected}")]
    OutOfRange {
        key: String,
        value: String,
        expected: &'static str,
    },
    /// A metadata key that has to be there.
    #[error("metadata key `{key}` is missing; the model needs it")]
    MissingKey { key: String },
    /// A tokenizer array whose length is not that of the token list.
    #[error(
        "`{key}` has {length} entries, but there are {tokens} tokens; \
         the vocabulary is damaged or badly converted"
    )]
    VocabularyLength {
        key: &'static str,
        length: usize,
        tokens: usize,
    },

    /// A part of a split file is not there.
    #[error(
        "part {number} of {count} is missing: expected {} beside the other parts", path.display()
    )]
    MissingPart {
        path: PathBuf,
        number: u32,
        count: u32,
    },
    /// A part whose name does not say its place, so that the others cannot be found.
    #[error(
        "{} is part {number} of {count} of a split model, but its name does not end in \
         -{number:05}-of-{count:05}.gguf, so the other parts cannot be found. \
         Give all parts their original names", path.display()
    )]
    SplitName {
        path: PathBuf,
        number: u32,
        count: u32,
    },
    /// Parts that disagree on their number.
    #[error("{} says that the model has {found} parts, {expected} were expected", path.display())]
    SplitCount {
        path: PathBuf,
        expected: u32,
        found: u32,
    },
    /// A part in the place of another.
    #[error("{} is part {found}, but stands in the place of part {expected}", path.display())]
    SplitNumber {
        path: PathBuf,
        expected: u32,
        found: u32,
    },
    /// The parts together do not have the tensors that they should.
    #[error("the parts hold {found} tensors together, but `split.tensors.count` says {expected}")]
    SplitTensorCount { expected: u64, found: u64 },
    /// The same tensor name in two parts.
    #[error("tensor `{name}` stands in part {first} and again in part {second}")]
    DuplicateAcrossParts {
        name: String,
        first: usize,
        second: usize,
    },
    /// Part of a split model given as bytes in memory.
    #[error(
        "these bytes are one of {count} parts of a split model; \
         open it by its path, or merge the parts first"
    )]
    SplitInMemory { count: u32 },

    /// A type that is not read as weights: whole numbers, F64, blocks that only stand for activations; for the decoding into
    /// codes also types of another kind.
    #[error(
        "tensors of type {dtype} cannot be read as weights; choose a file of another quantization"
    )]
    UnsupportedDType { dtype: DType },
    /// Bytes that are not the blocks of the weights asked for.
    #[error("{values} weights of type {dtype} do not lie in {bytes} bytes")]
    BlockLength {
        dtype: DType,
        values: usize,
        bytes: usize,
    },
    /// A type that weights cannot be brought into.
    #[error(
        "weights cannot be encoded as {dtype}; {} are possible",
        encodable_names()
    )]
    UnsupportedEncoding { dtype: DType },
    /// A weight that blocks of this type have no code for.
    #[error(
        "weight {index} is {value:e}, and {dtype} takes finite numbers of a magnitude below {largest:e}: \
         keep these weights in another type, or get the model again if it should have no such weight"
    )]
    NotEncodable {
        dtype: DType,
        index: usize,
        value: f32,
        largest: f32,
    },
    /// Weights to encode that are not whole blocks.
    #[error("{values} weights are not whole blocks of {dtype}, which holds {} each", dtype.block_len())]
    PartialBlocks { dtype: DType, values: usize },
    /// A safetensors file whose header is wrong.
    #[error(
        "{} is not a readable safetensors file: {reason}. It is incomplete or damaged; get it again",
        path.display()
    )]
    SafeTensors { path: PathBuf, reason: String },
    /// A tensor given to the writer whose bytes do not match its shape.
    #[error("tensor `{tensor}` needs {expected} bytes for its shape, {found} were given")]
    TensorLength {
        tensor: String,
        expected: u64,
        found: u64,
    },
}

fn encodable_names() -> String {
    let names: Vec<&str> = encodable_types().map(DType::name).collect();
    names.join(", ")
}

impl FormatError {
    /// The metadata key to blame, for errors about the meaning of an entry.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::WrongType { key, .. }
            | Self::OutOfRange { key, .. }
            | Self::MissingKey { key } => Some(key),
            Self::VocabularyLength { key, .. } => Some(key),
            _ => None,
        }
    }
}
