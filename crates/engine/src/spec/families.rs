//! The families, a row each: what a family fixes by its name and does not write into its files.

use super::{Activation, FeedForwardGate, Norms, QkNorm, RopeKind, names};

/// One family.
pub(super) struct Family {
    pub(super) architecture: &'static str,
    pub(super) rope: Rope,
    pub(super) activation: Activation,
    pub(super) windows: Windows,
    /// The files must hold biases for queries, keys and values; other families have them where the file has them.
    pub(super) qkv_bias: bool,
    pub(super) qk_norm: Option<QkNorm>,
    pub(super) mixer_norms: Norms,
    pub(super) feed_forward_norms: Norms,
    pub(super) feed_forward: FeedForwardGate,
    /// Layer norms instead of RMS norms.
    pub(super) layer_norm: bool,
    pub(super) output_norm: Option<&'static str>,
    pub(super) causal: bool,
    /// What scales attention scores where the file does not say it.
    pub(super) attention_scale: AttentionScale,
    /// Soft caps of scores and logits where the file does not say them.
    pub(super) softcaps: Option<(f32, f32)>,
    /// Embedding rows are multiplied by the root of the hidden size.
    pub(super) scaled_embedding: bool,
    /// `embedding_scale`, `residual_scale` and `logit_scale` are honoured.
    pub(super) multipliers: bool,
    pub(super) mixers: Mixers,
    /// Embeddings per layer, values with a norm, layers that share keys and values, a factor on each layer's result.
    pub(super) per_layer_embeddings: bool,
}

/// How positions come in.
pub(super) enum Rope {
    /// Each layer rotates.
    All(RopeKind),
    /// Each but every `n`-th.
    AllBut(RopeKind, usize),
    /// Positions have embeddings of their own.
    None,
}

/// Which layers `attention.sliding_window` is for.
pub(super) enum Windows {
    /// The family knows no window.
    None,
    /// All layers.
    All,
    /// Local and global layers take turns: one in `period` is global, the last of them or the first. Local layers rotate
    /// with a base of their own (`None`: the same) and without position scaling.
    Alternating {
        period: u32,
        global_first: bool,
        local_base: Option<f32>,
    },
}

/// What scales attention scores.
pub(super) enum AttentionScale {
    /// `1 / sqrt(head length)`
    HeadDim,
    /// As [`AttentionScale::HeadDim`], but `1 / sqrt(hidden size / heads)` in the model with so many layers, whose files do
    /// not say so.
    HiddenOverHeads(usize),
    /// 1
    One,
}

/// What mixes tokens in layers that do not attend.
pub(super) enum Mixers {
    /// There are none.
    Attention,
    /// `attention.recurrent_layers` or `full_attention_interval` say where a gated delta net stands, and attention has an
    /// output gate.
    DeltaNet,
    /// Layers of no key heads are short convolutions.
    ShortConv,
}

const BEFORE_MIXER: Norms = Norms {
    before: Some(names::ATTN_NORM),
    branch: None,
    after: None,
};
const BEFORE_FFN: Norms = Norms {
    before: Some(names::FFN_NORM),
    branch: None,
    after: None,
};

const LLAMA: Family = Family {
    architecture: "llama",
    rope: Rope::All(RopeKind::Interleaved),
    activation: Activation::Silu,
    windows: Windows::All,
    qkv_bias: false,
    qk_norm: None,
    mixer_norms: BEFORE_MIXER,
    feed_forward_norms: BEFORE_FFN,
    feed_forward: FeedForwardGate::Own,
    layer_norm: false,
    output_norm: Some(names::OUTPUT_NORM),
    causal: true,
    attention_scale: AttentionScale::HeadDim,
    softcaps: None,
    scaled_embedding: false,
    multipliers: false,
    mixers: Mixers::Attention,
    per_layer_embeddings: false,
};

const MISTRAL3: Family = Family {
    architecture: "mistral3",
    ..LLAMA
};

const GRANITE: Family = Family {
    architecture: "granite",
    windows: Windows::None,
    multipliers: true,
    ..LLAMA
};

const SMOLLM3: Family = Family {
    architecture: "smollm3",
    rope: Rope::AllBut(RopeKind::Interleaved, 4),
    windows: Windows::None,
    ..LLAMA
};

const QWEN2: Family = Family {
    architecture: "qwen2",
    rope: Rope::All(RopeKind::Neox),
    windows: Windows::None,
    qkv_bias: true,
    ..LLAMA
};

const QWEN3: Family = Family {
    architecture: "qwen3",
    qkv_bias: false,
    qk_norm: Some(QkNorm::PerHead),
    ..QWEN2
};

const QWEN35: Family = Family {
    architecture: "qwen35",
    feed_forward_norms: Norms {
        before: Some(names::POST_ATTENTION_NORM),
        branch: None,
        after: None,
    },
    mixers: Mixers::DeltaNet,
    ..QWEN3
};

const LFM2: Family = Family {
    architecture: "lfm2",
    windows: Windows::All,
    output_norm: Some(names::TOKEN_EMBEDDING_NORM),
    mixers: Mixers::ShortConv,
    ..QWEN3
};

const OLMO2: Family = Family {
    architecture: "olmo2",
    qk_norm: Some(QkNorm::Whole),
    mixer_norms: Norms {
        before: None,
        branch: Some(names::POST_ATTENTION_NORM),
        after: None,
    },
    feed_forward_norms: Norms {
        before: None,
        branch: Some(names::POST_FFW_NORM),
        after: None,
    },
    ..QWEN3
};

const PHI3: Family = Family {
    architecture: "phi3",
    windows: Windows::All,
    qkv_bias: false,
    feed_forward: FeedForwardGate::Fused,
    ..QWEN2
};

const GEMMA2: Family = Family {
    architecture: "gemma2",
    rope: Rope::All(RopeKind::Neox),
    activation: Activation::GeluTanh,
    windows: Windows::Alternating {
        period: 2,
        global_first: false,
        local_base: None,
    },
    mixer_norms: Norms {
        branch: Some(names::POST_ATTENTION_NORM),
        ..BEFORE_MIXER
    },
    feed_forward_norms: Norms {
        branch: Some(names::POST_FFW_NORM),
        ..BEFORE_FFN
    },
    attention_scale: AttentionScale::HiddenOverHeads(46),
    softcaps: Some((50.0, 30.0)),
    scaled_embedding: true,
    ..LLAMA
};

const GEMMA3: Family = Family {
    architecture: "gemma3",
    windows: Windows::Alternating {
        period: 6,
        global_first: false,
        local_base: Some(10_000.0),
    },
    qk_norm: Some(QkNorm::PerHead),
    attention_scale: AttentionScale::HiddenOverHeads(62),
    softcaps: None,
    ..GEMMA2
};

const GEMMA4: Family = Family {
    architecture: "gemma4",
    attention_scale: AttentionScale::One,
    per_layer_embeddings: true,
    ..GEMMA3
};

const GEMMA_EMBEDDING: Family = Family {
    architecture: "gemma-embedding",
    causal: false,
    attention_scale: AttentionScale::HeadDim,
    ..GEMMA3
};

const BERT: Family = Family {
    architecture: "bert",
    rope: Rope::None,
    activation: Activation::Gelu,
    windows: Windows::None,
    mixer_norms: Norms {
        before: None,
        branch: None,
        after: Some(names::ATTN_OUTPUT_NORM),
    },
    feed_forward_norms: Norms {
        before: None,
        branch: None,
        after: Some(names::LAYER_OUTPUT_NORM),
    },
    feed_forward: FeedForwardGate::None,
    layer_norm: true,
    output_norm: None,
    causal: false,
    ..LLAMA
};

const NOMIC_BERT: Family = Family {
    architecture: "nomic-bert",
    rope: Rope::All(RopeKind::Neox),
    activation: Activation::Silu,
    feed_forward: FeedForwardGate::Own,
    ..BERT
};

const MODERN_BERT: Family = Family {
    architecture: "modern-bert",
    rope: Rope::All(RopeKind::Neox),
    windows: Windows::Alternating {
        period: 3,
        global_first: true,
        local_base: Some(10_000.0),
    },
    mixer_norms: BEFORE_MIXER,
    feed_forward_norms: BEFORE_FFN,
    feed_forward: FeedForwardGate::Fused,
    output_norm: Some(names::OUTPUT_NORM),
    ..BERT
};

pub(super) const FAMILIES: [&Family; 17] = [
    &LLAMA,
    &MISTRAL3,
    &GRANITE,
    &SMOLLM3,
    &QWEN2,
    &QWEN3,
    &QWEN35,
    &LFM2,
    &OLMO2,
    &PHI3,
    &GEMMA2,
    &GEMMA3,
    &GEMMA4,
    &GEMMA_EMBEDDING,
    &BERT,
    &NOMIC_BERT,
    &MODERN_BERT,
];

/// The architectures that a [`ModelSpec`](super::ModelSpec) can be read for, as they stand in `general.architecture`.
pub fn supported_architectures() -> impl ExactSizeIterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.architecture)
}
