//! Model description, weights, forward pass, KV cache and sampling.

mod buffers;
mod embed;
mod engine;
mod error;
mod forward;
mod kv;
mod lora;
mod memory;
mod prefix;
pub mod reference;
pub mod sampler;
pub mod spec;
pub mod stop;
mod transfer;

pub use buffers::SCORE_ROWS;
pub use dunlin_compute::{KvElement, KvElements};
pub use embed::Input;
pub use engine::{Chunk, Engine, EngineConfig, Logits, MAX_BATCH, Scores};
pub use error::EngineError;
pub use kv::{KvTypes, SequenceId};
pub use lora::{AdapterId, AdapterUse, LORA_RANK_MAX, LoraAdapter, LoraMatrix, LoraPair};
pub use memory::{
    MemoryPlan, mapped_weight_bytes, matrices, weight_bytes, weight_bytes_beside_mapped,
};
pub use sampler::{Mirostat, Random, Sampler, SamplerConfig, SamplerStep};
pub use spec::{ModelSpec, Pooling};
pub use stop::StopMatcher;
pub use weights::{LoadProgress, WeightTypes};

mod weights;
