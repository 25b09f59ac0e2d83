//! Hugging Face model folders to GGUF files.
//!
//! [`Folder::open`] reads what `save_pretrained` of transformers makes (config.json, safetensors in
//! one file or several, the tokenizer's files, sentence-transformers modules), [`convert()`] writes
//! it as a GGUF file whose keys, tensor names and permutations are those of llama.cpp's converter,
//! so that other tools load it. The weights stream: memory holds a few MiB of them.
//!
//! ```no_run
//! use std::{ops::ControlFlow, path::Path};
//! use dunlin_convert::{ConvertOptions, Folder, OutputType, convert};
//!
//! let folder = Folder::open(Path::new("Qwen3-0.6B"))?;
//! let options = ConvertOptions { dtype: OutputType::Q8_0, ..Default::default() };
//! let report = convert(&folder, &options, Path::new("qwen3.gguf"), &mut |_done, _total| {
//!     ControlFlow::Continue(())
//! })?;
//! println!("{} bytes", report.bytes);
//! # Ok::<(), dunlin_convert::ConvertError>(())
//! ```
//!
//! [`PeftAdapter`] reads LoRA adapters as PEFT saves them, and names their matrices as GGUF does.
//!
//! A family is a row of data (`families.rs`): what its folders call things and how GGUF does. This
//! crate knows files and names; it computes nothing and opens no connection. A folder is untrusted:
//! whatever is in it, the answer is a file or a [`ConvertError`].

mod config;
mod convert;
mod error;
mod families;
mod family;
mod folder;
mod keys;
mod model;
mod modules;
mod peft;
mod plan;
mod recipe;
mod rope;
mod tensors;

pub use convert::{ConvertOptions, OutputType, Report, convert};
pub use error::ConvertError;
pub use families::supported_architectures;
pub use folder::{Folder, is_model_folder};
pub use peft::{AttentionHeads, PeftAdapter, PeftMatrix, PeftPair};
