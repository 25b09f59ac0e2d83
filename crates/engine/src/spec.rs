//! A model's description as data.
//!
//! All families here are one block with switches. [`ModelSpec`] holds the switches; it is read once from a file's metadata
//! and tensor table, and everything behind it (weight binding, forward pass, cache, oracle) reads it and never asks for the
//! family's name. A new dense family is a row in `families.rs` and a golden test.
//!
//! The block, for one layer and one token's hidden state `x` (`[hidden_size]`):
//!
//! ```text
//! x = after?(x + r * branch?(mixer(before?(x))))            mixer: attention, gated delta net or short convolution
//! x = after?(x + r * branch?(down(f(gate(y)) * up(y))))     y = before?(x); without a gate: down(f(up(y)))
//! x = x + branch?(proj(f(inp_gate(x)) * per_layer))         where tokens have an embedding per layer (Gemma 4)
//! x = x * output_scale                                      where the layer has one
//! ```

mod build;
mod families;
mod layers;
mod mixer;
mod read;
mod rope;
mod ropes;
mod tensors;

pub use families::supported_architectures;
pub use mixer::{AttentionSpec, DeltaNetSpec, Mixer, QkNorm, ShortConvSpec, Temperature};
pub use rope::{RopeFactors, RopeKind, RopeSpec, Yarn};
pub use tensors::{Expected, names};

use crate::kv::KvTypes;
use dunlin_compute::POSITIONS_PER_BLOCK;

/// What a model computes, apart from its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The family's name as in `general.architecture`. For people; no computation depends on it.
    pub architecture: String,
    /// Number of tokens: rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Length of a token's hidden state.
    pub hidden_size: usize,
    /// Number of tokens for which the model was trained.
    pub context_length: usize,
    /// A token sees those before it; `false`: all of its sequence, so that the model embeds and cannot generate.
    pub causal: bool,
    /// Factor on the embedding row of a token; 1 for most families, `sqrt(hidden_size)` for Gemma.
    pub embedding_scale: f32,
    /// Learned positions that are added to the embedding (BERT).
    pub position_embeddings: Option<usize>,
    /// Token types whose rows are added to the embedding (BERT); 0: none.
    pub token_types: usize,
    /// The embedding is normalised before the first layer.
    pub embedding_norm: bool,
    /// Length of a token's embedding for each layer (Gemma 4).
    pub per_layer_input: Option<usize>,
    /// The norm of all places.
    pub norm: Norm,
    /// Factor on what a mixer or a feed-forward part adds (Granite).
    pub residual_scale: f32,
    /// One description a layer, in order.
    pub layers: Vec<LayerSpec>,
    /// Blocks of the file behind the last layer that predict further tokens; they are not used.
    pub prediction_blocks: usize,
    /// The tensor of the norm behind the last layer, where there is one.
    pub output_norm: Option<&'static str>,
    /// What turns hidden states into logits.
    pub head: Head,
    /// Factor on the logits (Granite: 1 / `logit_scale`).
    pub logit_scale: f32,
    /// `cap * tanh(logit / cap)` on the logits (Gemma 2).
    pub final_logit_softcap: Option<f32>,
    /// How the file says that hidden states become one embedding.
    pub pooling: Option<Pooling>,
    /// Tokens of the longest text that should be embedded, special ones included, where the file says that it is less
    /// than the context (`max_seq_length` of sentence-transformers).
    pub longest_text: Option<usize>,
    /// Matrices that a pooled embedding goes through, `(columns, rows)` each (EmbeddingGemma).
    pub dense: Vec<(usize, usize)>,
    /// The head that scores a sequence (cross-encoders).
    pub classifier: Option<Classifier>,
}

/// What one layer computes.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// What mixes tokens.
    pub mixer: Mixer,
    /// Norms around the mixer.
    pub mixer_norms: Norms,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
    /// Norms around the feed-forward part.
    pub feed_forward_norms: Norms,
    /// The layer's result is multiplied by a number of the file (Gemma 4).
    pub output_scale: bool,
}

/// Which norms stand around a part of a layer: the names of their tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Norms {
    /// On the part's input.
    pub before: Option<&'static str>,
    /// On the part's result, before it is added.
    pub branch: Option<&'static str>,
    /// On the sum.
    pub after: Option<&'static str>,
}

/// The feed-forward part of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FeedForward {
    /// Rows of the up matrix, columns of the down matrix.
    pub length: usize,
    /// Whether and where there is a gate.
    pub gate: FeedForwardGate,
    /// Its non-linearity.
    pub activation: Activation,
    /// Up and down have a bias.
    pub bias: bool,
}

/// Whether the feed-forward part has a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedForwardGate {
    /// `down(f(up(x)))`
    None,
    /// `down(f(gate(x)) * up(x))`
    Own,
    /// As [`FeedForwardGate::Own`], and the file's up matrix holds the gate's rows before those of up.
    Fused,
}

/// How a hidden state is normalised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019, arXiv:1910.07467). Gemma's `1 + weight` is
    /// already added in the file.
    Rms {
        /// Added to the mean of squares.
        eps: f32,
    },
    /// `(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias` (Ba et al. 2016, arXiv:1607.06450).
    Layer {
        /// Added to the variance.
        eps: f32,
        /// Each norm has a bias.
        bias: bool,
    },
}

/// The non-linearity of a feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    Silu,
    /// GELU in its tanh form: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
    GeluTanh,
    /// GELU: `x / 2 * (1 + erf(x / sqrt(2)))`
    Gelu,
}

/// What turns hidden states into logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// The embedding matrix: the file has no `output.weight`.
    Tied,
    /// A matrix of its own.
    Own,
    /// Nothing: the model gives no logits.
    None,
}

/// How the hidden states of a sequence become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    Cls,
    /// The last token's.
    Last,
    /// Scores of the classification head: a reranker, which does not embed.
    Rank,
}

/// The head of a cross-encoder: `output(norm?(f(dense(pooled))))`.
#[derive(Debug, Clone, PartialEq)]
pub struct Classifier {
    /// What it reads of the sequence.
    pub pooling: Pooling,
    /// There is a square matrix with this non-linearity before the output.
    pub dense: Option<ClassifierActivation>,
    /// The matrix has a bias.
    pub dense_bias: bool,
    /// A norm stands before the output.
    pub norm: bool,
    /// Number of scores.
    pub labels: usize,
    /// The output has a bias.
    pub output_bias: bool,
    /// The scores go through a softmax when there are several (Qwen 3 rerankers: yes and no).
    pub softmax: bool,
    /// What the scores stand for, where the file says it.
    pub label_names: Vec<String>,
}

/// The non-linearity of a classification head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClassifierActivation {
    /// `tanh(x)`
    Tanh,
    /// GELU in its exact form.
    Gelu,
}

impl ModelSpec {
    /// Number of layers.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Whether the model gives logits for the next token.
    #[must_use]
    pub fn can_generate(&self) -> bool {
        self.causal && self.head != Head::None
    }

    /// Bytes that one token takes in a KV cache of these types, of all layers.
    ///
    /// Layers with a sliding window count in full; a cache that drops what the window has left needs less. 0 for a model
    /// that sees whole sequences: it keeps nothing.
    #[must_use]
    pub fn kv_bytes_per_token(&self, types: impl Into<KvTypes>) -> u64 {
        let types = types.into();
        self.kv_bytes_where(types, |_| true)
    }

    /// As [`kv_bytes_per_token`](Self::kv_bytes_per_token), of the layers with a sliding window alone.
    #[must_use]
    pub fn window_kv_bytes_per_token(&self, types: impl Into<KvTypes>) -> u64 {
        self.kv_bytes_where(types.into(), |layer| layer.sliding_window.is_some())
    }

    fn kv_bytes_where(&self, types: KvTypes, counts: impl Fn(&AttentionSpec) -> bool) -> u64 {
        if !self.causal {
            return 0;
        }
        let own = self
            .attentions()
            .filter(|layer| layer.shares_kv_of.is_none() && counts(layer));
        let block: usize = own
            .map(|layer| layer.kv_layout().block_bytes(types.of(layer)))
            .sum();
        (block / POSITIONS_PER_BLOCK) as u64
    }

    /// Bytes of state that a sequence takes beside the KV cache, whatever its length.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        let lengths = self.layers.iter().map(|layer| layer.mixer.state_len());
        lengths.sum::<usize>() as u64 * 4
    }

    /// The layers that attend.
    pub fn attentions(&self) -> impl Iterator<Item = &AttentionSpec> {
        self.layers.iter().filter_map(LayerSpec::attention)
    }
}

impl LayerSpec {
    /// The layer's attention, if that is what mixes its tokens.
    #[must_use]
    pub fn attention(&self) -> Option<&AttentionSpec> {
        match &self.mixer {
            Mixer::Attention(attention) => Some(attention),
            _ => None,
        }
    }
}

impl Norm {
    /// The constant that keeps the division finite.
    #[must_use]
    pub fn eps(self) -> f32 {
        match self {
            Norm::Rms { eps } | Norm::Layer { eps, .. } => eps,
        }
    }

    /// Whether its tensors come with a bias.
    #[must_use]
    pub fn has_bias(self) -> bool {
        matches!(self, Norm::Layer { bias: true, .. })
    }
}
