//! The memory of a model, from its header alone.

use dunlin_engine::{
    KvElement, MemoryPlan, ModelSpec, SCORE_ROWS, mapped_weight_bytes, weight_bytes,
    weight_bytes_beside_mapped,
};
use dunlin_format::{Array, Gguf, Value};
use serde::Serialize;

/// What a program takes that has loaded nothing: its own code as far as it is used, stacks, the allocator. Measured.
const PROGRAM_BYTES: u64 = 10_000_000;
/// Bytes that an entry of a text array takes beside its text.
const TEXT_ENTRY_BYTES: u64 = 8;

/// Memory of a model, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Memory {
    /// Packed weights. (Embedding rows are read from the file, a row at a time.)
    pub weights: u64,
    /// Weights that are left in the file ([`LoadOptions::mapped_weights`](crate::LoadOptions::mapped_weights)). They are in
    /// memory as far as there is room, once for all processes, and not in [`Memory::total`].
    pub mapped_weights: u64,
    /// Number type of the cache of keys and values.
    pub kv_type: &'static str,
    /// Keys and values of a whole context.
    pub kv_cache: u64,
    /// Keys and values of one token.
    pub kv_cache_per_token: u64,
    /// Work buffers, and the states of recurrent layers.
    pub buffers: u64,
    /// Metadata and tokenizer, and the program itself: by measured figures.
    pub vocabulary: u64,
    /// Tokens of the context.
    pub context_length: usize,
}

impl Memory {
    /// All of it: what the process holds once the context is full.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.weights + self.kv_cache + self.buffers + self.vocabulary
    }
}

/// The parts of the prediction that do not depend on the context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    weights: u64,
    mapped_weights: u64,
    beside_mapped: u64,
    pub(crate) vocabulary: u64,
}

impl Header {
    pub(crate) fn of(gguf: &Gguf, spec: &ModelSpec) -> Self {
        Header {
            weights: weight_bytes(spec, gguf.tensors()),
            mapped_weights: mapped_weight_bytes(spec, gguf.tensors()),
            beside_mapped: weight_bytes_beside_mapped(spec, gguf.tensors()),
            vocabulary: vocabulary_bytes(gguf),
        }
    }

    /// The memory with a context of this many tokens and a cache of this number type.
    pub(crate) fn memory(
        &self,
        spec: &ModelSpec,
        context_length: usize,
        kv_element: KvElement,
    ) -> Memory {
        let plan = MemoryPlan::of(spec, self.weights, context_length, kv_element);
        Memory {
            weights: plan.weights,
            mapped_weights: 0,
            kv_type: kv_element.name(),
            kv_cache: plan.kv_cache,
            kv_cache_per_token: spec.kv_bytes_per_token(kv_element),
            buffers: plan.buffers + plan.states - untouched_scores(spec, context_length),
            vocabulary: self.vocabulary,
            context_length,
        }
    }

    /// The same with the weights left in the file.
    pub(crate) fn memory_mapped(
        &self,
        spec: &ModelSpec,
        context_length: usize,
        kv_element: KvElement,
    ) -> Memory {
        Memory {
            weights: self.beside_mapped,
            mapped_weights: self.mapped_weights,
            ..self.memory(spec, context_length, kv_element)
        }
    }
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
fn vocabulary_bytes(gguf: &Gguf) -> u64 {
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
    PROGRAM_BYTES + kept + tokens * a_token
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
