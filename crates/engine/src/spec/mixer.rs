//! What mixes the tokens of a sequence: attention, the gated delta net, or a short convolution.

use super::RopeSpec;
use dunlin_compute::KvLayout;

/// A layer's token mixer.
#[derive(Debug, Clone, PartialEq)]
pub enum Mixer {
    /// Softmax attention over the KV cache.
    Attention(AttentionSpec),
    /// Linear attention with a state of fixed size.
    DeltaNet(DeltaNetSpec),
    /// A gated convolution over the last few tokens.
    ShortConv(ShortConvSpec),
}

/// Softmax attention of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Number of query heads.
    pub head_count: usize,
    /// Number of key and value heads; divides `head_count`. Query head `h` reads key head `h / (head_count / head_count_kv)`.
    pub head_count_kv: usize,
    /// Length of a query or key head.
    pub head_dim_k: usize,
    /// Length of a value head.
    pub head_dim_v: usize,
    /// Rotation of queries and keys by position.
    pub rope: RopeSpec,
    /// A query at position `p` sees the keys at `p - window + 1 ..= p` (in a model that sees both sides: `window / 2` to
    /// each); `None`: all.
    pub sliding_window: Option<u32>,
    /// Factor on the product of query and key, before the softmax.
    pub scale: f32,
    /// `cap * tanh(score / cap)` on the scaled scores (Gemma 2).
    pub softcap: Option<f32>,
    /// Queries grow with their position (Mistral 3).
    pub temperature: Option<Temperature>,
    /// The file holds queries, keys and values in one matrix, in this order.
    pub fused_qkv: bool,
    /// Queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// The output has a bias.
    pub output_bias: bool,
    /// Queries and keys are normalised before rope.
    pub qk_norm: Option<QkNorm>,
    /// Values are normalised per head, without a weight (Gemma 4).
    pub value_norm: bool,
    /// The file's query matrix holds, for each head, its rows and then those of a gate: the sigmoid of the gate multiplies
    /// the head's result (Qwen 3.5).
    pub output_gate: bool,
    /// The layer has no keys and values of its own and reads those of an earlier one (Gemma 4).
    pub shares_kv_of: Option<usize>,
}

/// What the norm of queries and keys covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head.
    PerHead,
    /// All heads together.
    Whole,
}

/// Queries at position `p` are multiplied by `1 + scale * ln(1 + floor(p / length))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Temperature {
    /// How much it grows.
    pub scale: f32,
    /// Positions of one step.
    pub length: usize,
}

/// The gated delta rule (Yang et al. 2024, arXiv:2412.06464) behind a short convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaNetSpec {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values; value head `h` uses key head `h % key_heads`.
    pub value_heads: usize,
    /// Length of a query or key head.
    pub head_dim_k: usize,
    /// Length of a value head.
    pub head_dim_v: usize,
    /// Tokens that the convolution sees, the token's own included.
    pub conv_taps: usize,
}

/// `out(c * convolution(b * x))`, with `b`, `c` and `x` from one projection (Liquid AI's LFM2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvSpec {
    /// Channels: the hidden size.
    pub channels: usize,
    /// Tokens that the convolution sees, the token's own included.
    pub conv_taps: usize,
}

impl Mixer {
    /// Elements of the mixer's result before its output projection.
    #[must_use]
    pub fn output_size(&self) -> usize {
        match self {
            Mixer::Attention(attention) => attention.output_size(),
            Mixer::DeltaNet(delta) => delta.value_size(),
            Mixer::ShortConv(conv) => conv.channels,
        }
    }

    /// Elements of state that a sequence keeps for this layer, beside keys and values.
    #[must_use]
    pub fn state_len(&self) -> usize {
        match self {
            Mixer::Attention(_) => 0,
            Mixer::DeltaNet(delta) => {
                delta.conv_state_len() + delta.value_size() * delta.head_dim_k
            }
            Mixer::ShortConv(conv) => (conv.conv_taps - 1) * conv.channels,
        }
    }
}

impl AttentionSpec {
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
    pub fn output_size(&self) -> usize {
        self.head_count * self.head_dim_v
    }

    /// The shape of its keys and values in the cache.
    #[must_use]
    pub fn kv_layout(&self) -> KvLayout {
        KvLayout {
            heads: self.head_count_kv,
            head_dim_k: self.head_dim_k,
            head_dim_v: self.head_dim_v,
        }
    }

    /// The first position that a query at `position` sees, in a model where tokens see those before them.
    #[must_use]
    pub fn first_visible(&self, position: usize) -> usize {
        match self.sliding_window {
            Some(window) => (position + 1).saturating_sub(window as usize),
            None => 0,
        }
    }
}

impl DeltaNetSpec {
    /// Elements of all key heads together.
    #[must_use]
    pub fn key_size(&self) -> usize {
        self.key_heads * self.head_dim_k
    }

    /// Elements of all value heads together.
    #[must_use]
    pub fn value_size(&self) -> usize {
        self.value_heads * self.head_dim_v
    }

    /// Channels of the convolution: queries, keys and values.
    #[must_use]
    pub fn channels(&self) -> usize {
        2 * self.key_size() + self.value_size()
    }

    /// Elements of state of the convolution.
    #[must_use]
    pub fn conv_state_len(&self) -> usize {
        (self.conv_taps - 1) * self.channels()
    }
}

impl Temperature {
    /// The factor on a query at `position`.
    #[must_use]
    pub fn at(&self, position: u32) -> f32 {
        let steps = (position as usize / self.length.max(1)) as f32;
        1.0 + self.scale * (1.0 + steps).ln()
    }
}
