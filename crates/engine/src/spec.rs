//! A decoder model's description as data.
//!
//! All decoder families here are one block with switches. [`ModelSpec`] holds the switches; it is read once from a
//! file's metadata and tensor table, and everything behind it (weight binding, forward pass, cache, oracle) reads it
//! and never asks for the family's name. A new dense family is a row in `families.rs` and a golden test.
//!
//! The block, for one layer and one token's hidden state `x` (`[hidden_size]`):
//!
//! ```text
//! a = attention(norm(x))          q, k: optional bias, optional norm per head, rope
//! x = x + post_norm?(a)
//! f = down(activation(gate(norm(x))) * up(norm(x)))
//! x = x + post_norm?(f)
//! ```

mod families;
mod read;
mod tensors;

pub use families::supported_architectures;
pub use tensors::{Expected, names};

use crate::EngineError;

/// What a decoder model computes, apart from its weights.
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
    /// Factor on the embedding row of a token; 1 for most families, `sqrt(hidden_size)` for Gemma.
    pub embedding_scale: f32,
    /// The norm of all places: before attention, before the feed-forward part, per head, after, and before the head.
    pub norm: Norm,
    /// The non-linearity of the gated feed-forward part.
    pub activation: Activation,
    /// `cap * tanh(score / cap)` on the scaled attention scores (Gemma 2).
    pub attention_softcap: Option<f32>,
    /// `cap * tanh(logit / cap)` on the logits (Gemma 2).
    pub final_logit_softcap: Option<f32>,
    /// The head is the embedding matrix: the file has no `output.weight`.
    pub tied_head: bool,
    /// One description a layer, in order.
    pub layers: Vec<LayerSpec>,
}

/// What one decoder layer computes.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerSpec {
    /// Number of query heads.
    pub head_count: usize,
    /// Number of key and value heads; divides `head_count`. Query head `h` reads key head `h / (head_count / head_count_kv)`.
    pub head_count_kv: usize,
    /// Length of a query or key head.
    pub head_dim_k: usize,
    /// Length of a value head.
    pub head_dim_v: usize,
    /// Rows of the gate and up matrices.
    pub feed_forward_length: usize,
    /// Rotation of queries and keys by position.
    pub rope: RopeSpec,
    /// A query at position `p` sees the keys at `p - window + 1 ..= p`; `None`: all up to `p`.
    pub sliding_window: Option<u32>,
    /// Factor on the product of query and key, before the softmax.
    pub attention_scale: f32,
    /// Queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Queries and keys are normalised per head, before rope.
    pub qk_norm: bool,
    /// The results of attention and of the feed-forward part are normalised before they are added.
    pub post_norms: bool,
}

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeSpec {
    /// Which elements of a head form a pair.
    pub kind: RopeKind,
    /// How many elements of a head, from its start, are rotated; even, at most the head's length.
    pub dims: usize,
    /// Base of the geometric row of frequencies (`rope_theta`).
    pub base: f32,
    /// Factor on every frequency: 1 / the factor of linear position scaling (Chen et al. 2023, arXiv:2306.15595).
    pub scale: f32,
    /// The file divides each frequency by an element of `rope_freqs.weight` (Llama 3.1's long-context factors).
    pub has_factors: bool,
}

/// Which two elements of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeKind {
    /// `i` and `i + dims / 2`, as in GPT-NeoX and in Hugging Face's code.
    Neox,
    /// `2 i` and `2 i + 1`, as in the original paper; GGUF files of the llama family are permuted for it.
    Interleaved,
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
}

/// The non-linearity of the gated feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`
    Silu,
    /// GELU in its tanh form: `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`
    GeluTanh,
}

impl ModelSpec {
    /// Number of decoder layers.
    #[must_use]
    pub fn layer_count(&self) -> usize {
        self.layers.len()
    }

    /// Bytes that one token takes in the KV cache of all layers, at `element_bytes` bytes per element (F16: 2, F32: 4).
    ///
    /// Layers with a sliding window count in full; a cache that drops what the window has left needs less.
    #[must_use]
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> u64 {
        let elements: u64 = self
            .layers
            .iter()
            .map(|layer| (layer.k_size() + layer.v_size()) as u64)
            .sum();
        elements * element_bytes as u64
    }
}

impl LayerSpec {
    /// Elements of all query heads together.
    #[must_use]
    pub fn q_size(&self) -> usize {
        self.head_count * self.head_dim_k
    }

    /// Elements of all key heads together.
    #[must_use]
    pub fn k_size(&self) -> usize {
        self.head_count_kv * self.head_dim_k
    }

    /// Elements of all value heads together.
    #[must_use]
    pub fn v_size(&self) -> usize {
        self.head_count_kv * self.head_dim_v
    }

    /// Elements of attention's result before the output projection.
    #[must_use]
    pub fn attention_size(&self) -> usize {
        self.head_count * self.head_dim_v
    }

    /// The first position that a query at `position` sees.
    #[must_use]
    pub fn first_visible(&self, position: usize) -> usize {
        match self.sliding_window {
            Some(window) => (position + 1).saturating_sub(window as usize),
            None => 0,
        }
    }
}

impl RopeSpec {
    /// The angle in radians by which pair `i` turns per position, for `i` in `0 .. dims / 2`:
    /// `base^(-2 i / dims) * scale / factors[i]`.
    ///
    /// `factors` is the content of `rope_freqs.weight`, to be given exactly where [`has_factors`](Self::has_factors)
    /// is set.
    ///
    /// # Errors
    ///
    /// [`EngineError::WrongShape`] when there is not one factor a pair, [`EngineError::InvalidTensorValue`] when a
    /// factor is not a finite number above zero.
    pub fn frequencies(&self, factors: Option<&[f32]>) -> Result<Vec<f64>, EngineError> {
        let pairs = self.dims / 2;
        if let Some(factors) = factors {
            if factors.len() != pairs {
                return Err(EngineError::WrongShape {
                    name: names::ROPE_FREQS.to_owned(),
                    expected: vec![pairs as u64],
                    found: vec![factors.len() as u64],
                });
            }
            if let Some(index) = factors
                .iter()
                .position(|factor| !factor.is_normal() || *factor < 0.0)
            {
                return Err(EngineError::InvalidTensorValue {
                    name: names::ROPE_FREQS.to_owned(),
                    index,
                    found: factors[index],
                    expected: "a finite number above zero",
                });
            }
        }
        let frequency = |pair: usize| {
            let exponent = -2.0 * pair as f64 / self.dims as f64;
            let factor = factors.map_or(1.0, |factors| f64::from(factors[pair]));
            f64::from(self.base).powf(exponent) * f64::from(self.scale) / factor
        };
        Ok((0..pairs).map(frequency).collect())
    }
}

impl Norm {
    /// The constant that keeps the division finite.
    #[must_use]
    pub fn eps(self) -> f32 {
        match self {
            Norm::Rms { eps } => eps,
        }
    }
}
