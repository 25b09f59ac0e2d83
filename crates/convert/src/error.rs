//! Everything that can stand in the way of a conversion, one variant each.

use std::{io, path::PathBuf};

use dunlin_format::{DType, FormatError};
use dunlin_text::TextError;

/// Why a folder could not be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(
    missing_docs,
    reason = "the fields are what the message above them says"
)]
pub enum ConvertError {
    /// The operating system refused to read a file of the folder.
    #[error("cannot read {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// The folder is not one of a model.
    #[error(
        "{} is not the folder of a Hugging Face model: {reason}. It needs config.json, the weights \
         as safetensors and the tokenizer's files", path.display()
    )]
    NotAModel { path: PathBuf, reason: String },
    /// A file that should hold JSON does not, or not the JSON that it should.
    #[error("{} cannot be read: {reason}. It is damaged or incomplete; get it again", path.display())]
    BadFile { path: PathBuf, reason: String },
    /// Part of the weights is not there.
    #[error(
        "{} is missing, which model.safetensors.index.json lists. Get the whole repository again",
        path.display()
    )]
    MissingShard { path: PathBuf },
    /// A tensor of the index does not stand in the file that the index names.
    #[error(
        "the tensor `{tensor}` is not in {}, where model.safetensors.index.json says it is. \
         Get the whole repository again", path.display()
    )]
    NotInShard { tensor: String, path: PathBuf },

    /// The file to be written is one of those that are converted.
    #[error(
        "{} belongs to the model folder and would be replaced. Give the new file another name, \
         one that ends in .gguf", path.display()
    )]
    OutIsSource { path: PathBuf },
    /// A family of models that this crate does not know.
    #[error(
        "the architecture `{found}` (in config.json) is not supported. Supported are: {}",
        supported.join(", ")
    )]
    UnknownArchitecture {
        found: String,
        supported: Vec<&'static str>,
    },
    /// Something in the configuration that would change what the model computes and that the
    /// converted file could not say.
    #[error("{what} is not supported for {family} models")]
    Unsupported { family: &'static str, what: String },
    /// An entry that config.json must have.
    #[error("`{key}` is missing in config.json; {family} models need it")]
    MissingSetting { family: &'static str, key: String },
    /// An entry of config.json with a value that makes no sense.
    #[error("`{key}` in config.json is {found}; {expected} is needed")]
    BadSetting {
        key: String,
        found: String,
        expected: &'static str,
    },

    /// A tensor that the family needs.
    #[error(
        "the tensor `{tensor}` is missing; {family} models need it (as `{gguf}`). The weights are \
         incomplete, or belong to another architecture. Supported are: {}", supported.join(", ")
    )]
    MissingTensor {
        tensor: String,
        gguf: String,
        family: &'static str,
        supported: Vec<&'static str>,
    },
    /// A tensor that the family has no place for.
    #[error(
        "the tensor `{tensor}` has no place in {family} models. The model has parts that are not \
         supported, or config.json names the wrong architecture"
    )]
    UnknownTensor {
        tensor: String,
        family: &'static str,
    },
    /// A tensor whose shape is not what config.json makes one expect.
    #[error("the tensor `{tensor}` has the shape {found:?}, config.json asks for {expected:?}")]
    WrongShape {
        tensor: String,
        found: Vec<u64>,
        expected: Vec<u64>,
    },
    /// A tensor of numbers that cannot be converted.
    #[error(
        "the tensor `{tensor}` holds numbers of the type {dtype}; F32, F16 and BF16 can be \
         converted. Get the repository of the unquantized model"
    )]
    UnsupportedType { tensor: String, dtype: String },
    /// A weight that is too large for the type asked for, or no number where it takes numbers only.
    #[error(
        "the tensor `{tensor}` holds {value:e}, which {dtype} cannot express. Convert to bf16 or \
         f32 instead"
    )]
    TooLarge {
        tensor: String,
        value: f32,
        dtype: DType,
    },

    /// Files that should be an adapter are none.
    #[error("{} is no LoRA adapter: {reason}. A folder as PEFT saves it is needed", path.display())]
    NotAnAdapter { path: PathBuf, reason: String },
    /// An adapter that does more than change linear layers by pairs of matrices.
    #[error(
        "the adapter's {name} is not supported: {reason}. Leaving it out would give wrong answers; \
         merge the adapter into its model and convert that, or train it without"
    )]
    AdapterUnsupported { name: String, reason: String },
    /// An entry of adapter_config.json with a value that makes no sense.
    #[error(
        "`{key}` in adapter_config.json is {found}; a finite number other than 0 is needed \
         (a whole number for ranks)"
    )]
    AdapterSetting { key: String, found: String },
    /// A matrix of an adapter that does not go with the rest.
    #[error("the adapter's {tensor} {reason}. It is incomplete or damaged; get it again")]
    AdapterTensor { tensor: String, reason: String },

    /// There is less room on the disk than the file needs.
    #[error(
        "not enough space for {}: it needs {needed} bytes, {free} are free. Free some space, \
         choose a smaller type or another disk", path.display()
    )]
    NoSpace {
        path: PathBuf,
        needed: u64,
        free: u64,
    },
    /// The caller asked to stop.
    #[error("the conversion was cancelled; nothing was left behind")]
    Cancelled,
    /// Reading the weights or writing the file failed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The tokenizer's files were no good.
    #[error("the tokenizer cannot be converted: {0}")]
    Text(#[from] TextError),
}
