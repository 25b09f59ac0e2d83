//! The memory of a model, from its header alone.

use std::path::Path;

use dunlin_engine::{
    KvTypes, MemoryPlan, ModelSpec, SCORE_ROWS, mapped_weight_bytes, weight_bytes,
    weight_bytes_beside_mapped,
};
use dunlin_format::{Array, Gguf, Value};
use serde::{Serialize, Serializer};

use crate::{Error, FitOptions, TypePlan};

/// What a program takes that has loaded nothing: its own code as far as it is used, stacks, the allocator. Measured.
const PROCESS_BYTES: u64 = 10_000_000;
/// Bytes that an entry of a text array takes beside its text.
const TEXT_ENTRY_BYTES: u64 = 8;

/// Memory of a model, in bytes, part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryEstimate {
    /// Packed weights. (Embedding rows are read from the file, a row at a time.)
    pub weights: u64,
    /// Weights that are left in the file ([`LoadOptions::mapped_weights`](crate::LoadOptions::mapped_weights)). They are in
    /// memory as far as there is room, once for all processes, and not in [`MemoryEstimate::total`].
    pub mapped_weights: u64,
    /// Number types of the cache of keys and values.
    #[serde(rename = "kv_type", serialize_with = "as_text")]
    pub kv_types: KvTypes,
    /// Keys and values of a whole context. The memory is taken as the context fills.
    pub kv_cache: u64,
    /// Those of them that layers with a sliding window keep, as long as the others'; 0 in an encoder, which shares all.
    pub window_kv_cache: u64,
    /// Keys and values of one token.
    pub kv_cache_per_token: u64,
    /// Work buffers, and the states of recurrent layers.
    pub buffers: u64,
    /// Vocabulary, merges, chat template and all other metadata, and the tables that the tokenizer is made of.
    pub tokenizer: u64,
    /// The program itself: code as far as it is used, stacks, the allocator. A measured figure; a program that does more than
    /// run a model has its own.
    pub process: u64,
    /// Tokens of the context.
    pub context_length: usize,
}

impl MemoryEstimate {
    /// The memory that a model would take with a context of this many tokens, a cache in F16 and its weights packed. Only the
    /// file's header is read.
    ///
    /// # Errors
    /// [`Error::Format`] for what is no sound GGUF file, [`Error::Engine`] for a model that this build cannot compute,
    /// [`Error::ContextLength`].
    pub fn for_model(path: &Path, context_length: usize) -> Result<Self, Error> {
        Self::with_options(path, context_length, &FitOptions::default())
    }

    /// As [`for_model`](Self::for_model), with another type of cache, with the weights left in the file, or with other types
    /// of weights.
    ///
    /// # Errors
    /// As [`for_model`](Self::for_model) and [`TypePlan::for_model`]; [`Error::MappedConversion`].
    pub fn with_options(
        path: &Path,
        context_length: usize,
        options: &FitOptions,
    ) -> Result<Self, Error> {
        Sizes::open(path, options)?.estimate(context_length, options)
    }

    /// All of it: what the process holds once the context is full.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.loaded() + self.kv_cache + self.buffers
    }

    /// What the process holds right after loading, before the first token: the system gives the cache and the buffers when
    /// they are first written.
    #[must_use]
    pub fn loaded(&self) -> u64 {
        self.weights + self.tokenizer + self.process
    }
}

/// A model whose memory can be reckoned.
pub(crate) struct Sizes {
    spec: ModelSpec,
    header: Header,
}

impl Sizes {
    /// # Errors
    /// As [`MemoryEstimate::for_model`].
    pub(crate) fn open(path: &Path, options: &FitOptions) -> Result<Self, Error> {
        if options.mapped_weights && !options.tensor_types.is_empty() {
            return Err(Error::MappedConversion);
        }
        let gguf = Gguf::open(path)?;
        let spec = ModelSpec::from_gguf(&gguf)?;
        spec.check_tensors(&gguf)?;
        let types = TypePlan::of(&gguf, &spec, &options.tensor_types)?;
        let header = Header::of(&gguf, &spec, &types);
        Ok(Sizes { spec, header })
    }

    /// Tokens of the longest context.
    pub(crate) fn longest_context(&self) -> usize {
        self.spec.context_length
    }

    /// # Errors
    /// [`Error::ContextLength`].
    pub(crate) fn estimate(
        &self,
        context_length: usize,
        options: &FitOptions,
    ) -> Result<MemoryEstimate, Error> {
        let limit = self.longest_context();
        if !(1..=limit).contains(&context_length) {
            return Err(Error::ContextLength {
                requested: context_length,
                limit,
            });
        }
        let (spec, types) = (&self.spec, options.kv_types);
        Ok(match options.mapped_weights {
            true => self.header.memory_mapped(spec, context_length, types),
            false => self.header.memory(spec, context_length, types),
        })
    }
}

/// The parts of the prediction that do not depend on the context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    weights: u64,
    mapped_weights: u64,
    beside_mapped: u64,
    tokenizer: u64,
}

impl Header {
    pub(crate) fn of(gguf: &Gguf, spec: &ModelSpec, types: &TypePlan) -> Self {
        Header {
            weights: weight_bytes(spec, gguf.tensors(), &types.weight_types()),
            mapped_weights: mapped_weight_bytes(spec, gguf.tensors()),
            beside_mapped: weight_bytes_beside_mapped(spec, gguf.tensors()),
            tokenizer: tokenizer_bytes(gguf),
        }
    }

    /// The memory with a context of this many tokens and a cache of these number types.
    pub(crate) fn memory(
        &self,
        spec: &ModelSpec,
        context_length: usize,
        kv_types: KvTypes,
    ) -> MemoryEstimate {
        let plan = MemoryPlan::of(spec, self.weights, context_length, kv_types);
        MemoryEstimate {
            weights: plan.weights,
            mapped_weights: 0,
            kv_types,
            kv_cache: plan.kv_cache,
            window_kv_cache: plan.window_kv_cache,
            kv_cache_per_token: spec.kv_bytes_per_token(kv_types),
            buffers: plan.buffers + plan.states - untouched_scores(spec, context_length),
            tokenizer: self.tokenizer,
            process: PROCESS_BYTES,
            context_length,
        }
    }

    /// The same with the weights left in the file.
    pub(crate) fn memory_mapped(
        &self,
        spec: &ModelSpec,
        context_length: usize,
        kv_types: KvTypes,
    ) -> MemoryEstimate {
        MemoryEstimate {
            weights: self.beside_mapped,
            mapped_weights: self.mapped_weights,
            ..self.memory(spec, context_length, kv_types)
        }
    }
}

fn as_text<S: Serializer>(types: &KvTypes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(types)
}

/// Bytes of the engine's rows of scores that a generation never touches, so that they take no memory: it asks for one row at
/// a time.
fn untouched_scores(spec: &ModelSpec, context_length: usize) -> u64 {
    match spec.can_generate() {
        true => {
            let rows = SCORE_ROWS.min(context_length).saturating_sub(1);
            (rows * spec.vocab_size * 4) as u64
        }
        false => 0,
    }
}

/// What the metadata take, and the tokenizer that is built from them: of each token its kind and its place in an index,
/// and a score or a merge.
fn tokenizer_bytes(gguf: &Gguf) -> u64 {
    let metadata = gguf.metadata();
    let kept: u64 = metadata
        .iter()
        .map(|(_, value)| match value {
            Value::Array(array) => array_bytes(array),
            Value::String(text) => text.len() as u64,
            _ => 0,
        })
        .sum();
    let tokens = match metadata.get("tokenizer.ggml.tokens") {
        Some(Value::Array(Array::String(tokens))) => tokens.len() as u64,
        _ => 0,
    };
    let a_token = match metadata.str("tokenizer.ggml.model") {
        Ok(Some("gpt2")) => 27,
        Ok(Some("llama")) => 13,
        _ => 100,
    };
    kept + tokens * a_token
}

fn array_bytes(array: &Array) -> u64 {
    let sized = |count: usize, bytes: usize| (count * bytes) as u64;
    match array {
        Array::String(texts) => texts
            .iter()
            .map(|text| text.len() as u64 + TEXT_ENTRY_BYTES)
            .sum(),
        Array::F32(numbers) => sized(numbers.len(), 4),
        Array::I32(numbers) => sized(numbers.len(), 4),
        Array::U32(numbers) => sized(numbers.len(), 4),
        // Rare and short.
        _ => 0,
    }
}
