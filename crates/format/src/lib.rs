//! Model files, GGUF and safetensors, and the block types of their tensors.
//!
//! [`Gguf`] opens a file (versions 2 and 3, little endian, in one part or several) and checks all
//! of it but the weights; [`SafeTensors`] does the same for Hugging Face's files. [`decode()`]
//! turns blocks of weights into numbers, [`encode()`] numbers into blocks, and [`GgufWriter`]
//! writes a file whose weights stream. The bytes are untrusted: whatever they are, the answer is a
//! value or a [`FormatError`] that says the byte, never a panic, and never more than 64 MiB of
//! memory.
//!
//! This crate knows nothing of model families, devices or the network.

mod cursor;
mod decode;
mod dtype;
mod encode;
mod error;
mod gguf;
mod header;
mod map;
mod metadata;
mod safetensors;
mod split;
mod tensors;
mod validate;
mod value;
mod vocabulary;
mod writer;

pub use decode::{CODES_PER_SCALE, can_decode, decode, decode_codes};
pub use dtype::DType;
pub use encode::{can_encode, encodable_types, encode, encoding_for_width};
pub use error::FormatError;
pub use gguf::Gguf;
pub use metadata::Metadata;
pub use safetensors::{SafeTensor, SafeTensors};
pub use tensors::TensorInfo;
pub use validate::{DTypeUse, Problem, Report, validate};
pub use value::{Array, StringArray, Value};
pub use vocabulary::check_vocabulary;
pub use writer::GgufWriter;
