//! What a model is and needs, from its metadata alone.

mod abilities;
mod attention;
mod memory;

use std::path::{Path, PathBuf};

use dunlin_compute::has_fast_kernel;
use dunlin_engine::{EngineError, KvTypes, ModelSpec, Pooling};
use dunlin_format::{DType, Gguf};
use dunlin_hub::Capability;
use serde::Serialize;

use crate::Error;
use crate::code::can_infill;
use crate::load::{DEFAULT_CONTEXT_LENGTH, TypePlan};
use crate::sampling::RecommendedSampling;

pub use attention::{AttentionLayout, LayerKind, LayerRun};
pub use memory::MemoryEstimate;
pub(crate) use memory::{Header, Sizes};

/// What a model file says of itself. Absent figures are absent in the file.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Model family (`general.architecture`).
    pub architecture: Option<String>,
    /// Name (`general.name`).
    pub name: Option<String>,
    /// Number of weights in all tensors.
    pub parameters: u64,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Number of files.
    pub parts: usize,
    /// GGUF version.
    pub gguf_version: u32,
    /// Tokens that the model was trained for.
    pub context_length: Option<usize>,
    /// Decoder layers.
    pub layer_count: Option<usize>,
    /// Length of a token's hidden state.
    pub hidden_size: Option<usize>,
    /// Number of tokens of the vocabulary.
    pub vocab_size: Option<usize>,
    /// How its tokens see each other; `None` where this build cannot compute it.
    pub attention: Option<AttentionLayout>,
    /// How the vectors of a text's tokens become one (`mean`, `cls`, `last`), or its score (`rank`); `None` where the file
    /// does not say, or this build cannot compute it.
    pub pooling: Option<&'static str>,
    /// Numbers of an embedding, where the file says how it is pooled.
    pub embedding_length: Option<usize>,
    /// Tokens of the longest text that should be embedded, where the file says that it is less than the context.
    pub longest_text: Option<usize>,
    /// Whether the vocabulary has tokens for filling in the middle of a text.
    pub can_infill: bool,
    /// The tensor types, the one with the most bytes first.
    pub tensor_types: Vec<TensorTypeUse>,
    /// Kind of tokenizer (`tokenizer.ggml.model`).
    pub tokenizer: Option<String>,
    /// How it splits text (`tokenizer.ggml.pre`).
    pub pre_tokenizer: Option<String>,
    /// Whether it has a chat template.
    pub has_chat_template: bool,
    /// Licence as the file says it.
    pub license: Option<String>,
    /// The sampling settings that it recommends.
    pub sampling: RecommendedSampling,
    /// What it can do, as far as the file shows: a chat template, tools or thinking in it, tokens for filling in code,
    /// pooling. A card of the catalog may know more.
    pub capabilities: Vec<Capability>,
    /// The memory that it would take with the default context; `None` where it cannot be computed.
    pub memory: Option<MemoryEstimate>,
    /// Why this build cannot compute it.
    pub unsupported: Option<String>,
    #[serde(skip)]
    path: Option<PathBuf>,
    #[serde(skip)]
    spec: Option<ModelSpec>,
    #[serde(skip)]
    header: Option<Header>,
}

/// How much of a model is of one tensor type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TensorTypeUse {
    /// Name, such as `Q4_K`.
    pub name: &'static str,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weights in them.
    pub elements: u64,
    /// Bytes of them in the file.
    pub bytes: u64,
    /// Whether matrices of this type run on a kernel of their own; the others are decoded on the way, several times slower.
    pub fast_kernel: bool,
}

impl ModelInfo {
    /// Reads a file of this machine (all parts of a split one) without touching its weights.
    ///
    /// # Errors
    /// [`Error::Format`] for what is no sound GGUF file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut info = Self::of(&Gguf::open(path)?)?;
        info.path = Some(path.to_owned());
        Ok(info)
    }

    /// What an open file says.
    ///
    /// # Errors
    /// [`Error::Format`] for metadata of the wrong type.
    pub fn of(gguf: &Gguf) -> Result<Self, Error> {
        let metadata = gguf.metadata();
        let architecture = metadata.str("general.architecture")?;
        let spec = computable(gguf);
        let pooling = spec.as_ref().ok().and_then(|spec| spec.pooling).map(name);
        let size = |suffix: &str| match architecture {
            Some(family) => Ok(metadata
                .u32(&format!("{family}.{suffix}"))?
                .map(|size| size as usize)),
            None => Ok::<_, Error>(None),
        };
        let text = |key: &str| Ok::<_, Error>(metadata.str(key)?.map(str::to_owned));
        let mut info = ModelInfo {
            architecture: architecture.map(str::to_owned),
            name: text("general.name")?,
            parameters: gguf.tensors().iter().map(|tensor| tensor.elements()).sum(),
            file_bytes: gguf.file_bytes(),
            parts: gguf.parts(),
            gguf_version: gguf.version(),
            context_length: size("context_length")?,
            layer_count: size("block_count")?,
            hidden_size: size("embedding_length")?,
            vocab_size: metadata
                .strings("tokenizer.ggml.tokens")?
                .map(|tokens| tokens.len()),
            tensor_types: tensor_types(gguf),
            tokenizer: text("tokenizer.ggml.model")?,
            pre_tokenizer: text("tokenizer.ggml.pre")?,
            has_chat_template: metadata.str("tokenizer.chat_template")?.is_some(),
            license: text("general.license")?,
            attention: spec.as_ref().ok().map(AttentionLayout::of),
            pooling,
            embedding_length: spec.as_ref().ok().and_then(|spec| {
                let embeds = spec.embedding_pooling().is_some();
                embeds.then(|| spec.embedding_length())
            }),
            longest_text: spec.as_ref().ok().and_then(|spec| spec.longest_text),
            can_infill: can_infill(metadata)?,
            sampling: RecommendedSampling::of(metadata),
            capabilities: abilities::capabilities(metadata, pooling)?,
            memory: None,
            unsupported: spec.as_ref().err().map(ToString::to_string),
            path: None,
            header: spec.as_ref().ok().map(|spec| {
                let types = TypePlan::default();
                Header::of(gguf, spec, &types)
            }),
            spec: spec.ok(),
        };
        info.memory = info.memory_for(info.context_length.unwrap_or(0).min(DEFAULT_CONTEXT_LENGTH));
        Ok(info)
    }

    /// The file that it was read from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The memory that it would take with a context of this many tokens and an F16 cache, from the header alone. `None`
    /// where it cannot be computed. (What a loaded model takes is in [`Lm::memory`](crate::Lm::memory).)
    #[must_use]
    pub fn memory_for(&self, context_length: usize) -> Option<MemoryEstimate> {
        self.memory_with(context_length, KvTypes::default())
    }

    /// As [`ModelInfo::memory_for`], with a cache of other number types.
    #[must_use]
    pub fn memory_with(
        &self,
        context_length: usize,
        kv_types: impl Into<KvTypes>,
    ) -> Option<MemoryEstimate> {
        let (spec, header) = (self.spec.as_ref()?, self.header.as_ref()?);
        Some(header.memory(spec, context_length, kv_types.into()))
    }

    /// As [`memory_with`](Self::memory_with), with the weights left in the file
    /// ([`LoadOptions::mapped_weights`](crate::LoadOptions::mapped_weights)).
    #[must_use]
    pub fn memory_mapped_with(
        &self,
        context_length: usize,
        kv_types: impl Into<KvTypes>,
    ) -> Option<MemoryEstimate> {
        let (spec, header) = (self.spec.as_ref()?, self.header.as_ref()?);
        Some(header.memory_mapped(spec, context_length, kv_types.into()))
    }
}

fn name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
        Pooling::Last => "last",
        Pooling::Rank => "rank",
    }
}

/// The description for the engine, if it can compute the model.
fn computable(gguf: &Gguf) -> Result<ModelSpec, EngineError> {
    let spec = ModelSpec::from_gguf(gguf)?;
    spec.check_tensors(gguf)?;
    Ok(spec)
}

fn tensor_types(gguf: &Gguf) -> Vec<TensorTypeUse> {
    let mut types: Vec<(DType, TensorTypeUse)> = Vec::new();
    for tensor in gguf.tensors() {
        let place = types.iter().position(|(dtype, _)| *dtype == tensor.dtype);
        let place = place.unwrap_or_else(|| {
            let name = tensor.dtype.name();
            types.push((
                tensor.dtype,
                TensorTypeUse {
                    name,
                    tensors: 0,
                    elements: 0,
                    bytes: 0,
                    fast_kernel: has_fast_kernel(tensor.dtype),
                },
            ));
            types.len() - 1
        });
        let used = &mut types[place].1;
        used.tensors += 1;
        used.elements += tensor.elements();
        used.bytes += tensor.byte_len();
    }
    let mut types: Vec<_> = types.into_iter().map(|(_, used)| used).collect();
    types.sort_by_key(|used| std::cmp::Reverse(used.bytes));
    types
}
