//! The tensors of the decoder families: names on both sides, shapes, and what changes on the way.
//!
//! The names are those of transformers and of llama.cpp (`gguf-py/gguf/tensor_mapping.py` there).

pub(crate) mod encoders;

use crate::family::{Bias, Change, Length, Place, Tensor};
use Length::{
    AllPerLayer, DeltaHeadWidth, DeltaHeads, DeltaQueryKeyValue, DeltaValue, FeedForward,
    HeadWidth, Hidden, Key, Labels, One, PerLayer, PerLayerVocabulary, Query, QueryAndGate,
    QueryKeyValue, Taps, ThreeHidden, TwiceFeedForward, Vocabulary,
};

const fn tensor(from: &'static str, to: &'static str, shape: &'static [Length]) -> Tensor {
    Tensor::new(from, to, shape)
}

/// Token embeddings and the last norm.
pub(crate) const ENDS: &[Tensor] = &[
    tensor("embed_tokens", "token_embd", &[Vocabulary, Hidden]),
    tensor("norm", "output_norm", &[Hidden]),
];

pub(crate) const HEAD: &[Tensor] =
    &[tensor("lm_head", "output", &[Vocabulary, Hidden]).bias(Bias::Possible)];

pub(crate) const NORMS_BEFORE: &[Tensor] = &[
    tensor("layers.{}.input_layernorm", "blk.{}.attn_norm", &[Hidden]),
    tensor(
        "layers.{}.post_attention_layernorm",
        "blk.{}.ffn_norm",
        &[Hidden],
    ),
];

/// Norms after attention and feed-forward (OLMo 2).
pub(crate) const NORMS_AFTER: &[Tensor] = &[
    tensor(
        "layers.{}.post_attention_layernorm",
        "blk.{}.post_attention_norm",
        &[Hidden],
    ),
    tensor(
        "layers.{}.post_feedforward_layernorm",
        "blk.{}.post_ffw_norm",
        &[Hidden],
    ),
];

pub(crate) const ATTENTION: &[Tensor] = &[
    tensor(
        "layers.{}.self_attn.q_proj",
        "blk.{}.attn_q",
        &[Query, Hidden],
    )
    .bias(Bias::Possible),
    tensor(
        "layers.{}.self_attn.k_proj",
        "blk.{}.attn_k",
        &[Key, Hidden],
    )
    .bias(Bias::Possible),
    tensor(
        "layers.{}.self_attn.v_proj",
        "blk.{}.attn_v",
        &[Key, Hidden],
    )
    .bias(Bias::Possible),
    tensor(
        "layers.{}.self_attn.o_proj",
        "blk.{}.attn_output",
        &[Hidden, Query],
    )
    .bias(Bias::Possible),
];

/// Attention whose rotation llama.cpp does on neighbours.
pub(crate) const PAIRED_ATTENTION: &[Tensor] = &[
    ATTENTION[0].change(Change::PairQueryRows),
    ATTENTION[1].change(Change::PairKeyRows),
    ATTENTION[2],
    ATTENTION[3],
];

/// Attention with biases that must be there (Qwen 2).
pub(crate) const BIASED_ATTENTION: &[Tensor] = &[
    ATTENTION[0].bias(Bias::Required),
    ATTENTION[1].bias(Bias::Required),
    ATTENTION[2].bias(Bias::Required),
    ATTENTION[3],
];

pub(crate) const HEAD_NORMS: &[Tensor] = &[
    tensor(
        "layers.{}.self_attn.q_norm",
        "blk.{}.attn_q_norm",
        &[HeadWidth],
    ),
    tensor(
        "layers.{}.self_attn.k_norm",
        "blk.{}.attn_k_norm",
        &[HeadWidth],
    ),
];

/// Norms over all heads at once (OLMo 2).
pub(crate) const WIDE_NORMS: &[Tensor] = &[
    tensor("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", &[Query]),
    tensor("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", &[Key]),
];

pub(crate) const GATED_FEED_FORWARD: &[Tensor] = &[
    tensor(
        "layers.{}.mlp.gate_proj",
        "blk.{}.ffn_gate",
        &[FeedForward, Hidden],
    )
    .bias(Bias::Possible),
    tensor(
        "layers.{}.mlp.up_proj",
        "blk.{}.ffn_up",
        &[FeedForward, Hidden],
    )
    .bias(Bias::Possible),
    tensor(
        "layers.{}.mlp.down_proj",
        "blk.{}.ffn_down",
        &[Hidden, FeedForward],
    )
    .bias(Bias::Possible),
];

/// Fused projections (Phi 3 and 4).
pub(crate) const FUSED: &[Tensor] = &[
    tensor(
        "layers.{}.self_attn.qkv_proj",
        "blk.{}.attn_qkv",
        &[QueryKeyValue, Hidden],
    ),
    tensor(
        "layers.{}.self_attn.o_proj",
        "blk.{}.attn_output",
        &[Hidden, Query],
    ),
    tensor(
        "layers.{}.mlp.gate_up_proj",
        "blk.{}.ffn_up",
        &[TwiceFeedForward, Hidden],
    ),
    tensor(
        "layers.{}.mlp.down_proj",
        "blk.{}.ffn_down",
        &[Hidden, FeedForward],
    ),
];

/// The head of a decoder trained to score.
pub(crate) const SCORE: &[Tensor] =
    &[tensor("score", "cls.output", &[Labels, Hidden]).bias(Bias::Possible)];

/// Gemma's norms hold the difference from 1.
pub(crate) const GEMMA_ENDS: &[Tensor] = &[
    ENDS[0].change(Change::CutToVocabulary),
    ENDS[1].change(Change::AddOne),
];

pub(crate) const GEMMA_NORMS: &[Tensor] = &[
    NORMS_BEFORE[0].change(Change::AddOne),
    NORMS_AFTER[0].change(Change::AddOne),
    tensor(
        "layers.{}.pre_feedforward_layernorm",
        "blk.{}.ffn_norm",
        &[Hidden],
    )
    .change(Change::AddOne),
    NORMS_AFTER[1].change(Change::AddOne),
];

pub(crate) const GEMMA_HEAD_NORMS: &[Tensor] = &[
    HEAD_NORMS[0].change(Change::AddOne),
    HEAD_NORMS[1].change(Change::AddOne),
];

/// Gemma 4: keys and values may be shared, each layer has an embedding of its own.
pub(crate) const GEMMA4: &[Tensor] = &[
    ENDS[0].change(Change::CutToVocabulary),
    ENDS[1],
    tensor(
        "embed_tokens_per_layer",
        "per_layer_token_embd",
        &[PerLayerVocabulary, AllPerLayer],
    )
    .optional(),
    tensor(
        "per_layer_model_projection",
        "per_layer_model_proj",
        &[AllPerLayer, Hidden],
    )
    .optional(),
    tensor(
        "per_layer_projection_norm",
        "per_layer_proj_norm",
        &[PerLayer],
    )
    .optional(),
    NORMS_BEFORE[0],
    NORMS_AFTER[0],
    tensor(
        "layers.{}.pre_feedforward_layernorm",
        "blk.{}.ffn_norm",
        &[Hidden],
    ),
    NORMS_AFTER[1],
    ATTENTION[0],
    ATTENTION[1].place(Place::OwnKeys),
    // Layers in which values are the keys have none.
    ATTENTION[2].place(Place::OwnKeys).optional(),
    ATTENTION[3],
    HEAD_NORMS[0],
    HEAD_NORMS[1].place(Place::OwnKeys),
    tensor(
        "layers.{}.per_layer_input_gate",
        "blk.{}.inp_gate",
        &[PerLayer, Hidden],
    )
    .optional(),
    tensor(
        "layers.{}.per_layer_projection",
        "blk.{}.proj",
        &[Hidden, PerLayer],
    )
    .optional(),
    tensor(
        "layers.{}.post_per_layer_input_norm",
        "blk.{}.post_norm",
        &[Hidden],
    )
    .optional(),
    tensor(
        "layers.{}.layer_scalar",
        "blk.{}.layer_output_scale.weight",
        &[One],
    )
    .exact()
    .optional(),
];

pub(crate) const QWEN35: &[Tensor] = &[
    ENDS[0],
    ENDS[1].change(Change::AddOne),
    NORMS_BEFORE[0].change(Change::AddOne),
    NORMS_AFTER[0].change(Change::AddOne),
    tensor(
        "layers.{}.self_attn.q_proj",
        "blk.{}.attn_q",
        &[QueryAndGate, Hidden],
    )
    .place(Place::Attention),
    ATTENTION[1].place(Place::Attention),
    ATTENTION[2].place(Place::Attention),
    ATTENTION[3].place(Place::Attention),
    HEAD_NORMS[0].change(Change::AddOne).place(Place::Attention),
    HEAD_NORMS[1].change(Change::AddOne).place(Place::Attention),
    tensor(
        "layers.{}.linear_attn.in_proj_qkv",
        "blk.{}.attn_qkv",
        &[DeltaQueryKeyValue, Hidden],
    )
    .change(Change::ReorderValueRowsAfterKeys)
    .place(Place::Recurrent),
    tensor(
        "layers.{}.linear_attn.in_proj_z",
        "blk.{}.attn_gate",
        &[DeltaValue, Hidden],
    )
    .change(Change::ReorderValueRows)
    .place(Place::Recurrent),
    tensor(
        "layers.{}.linear_attn.in_proj_a",
        "blk.{}.ssm_alpha",
        &[DeltaHeads, Hidden],
    )
    .change(Change::ReorderValueHeads)
    .place(Place::Recurrent),
    tensor(
        "layers.{}.linear_attn.in_proj_b",
        "blk.{}.ssm_beta",
        &[DeltaHeads, Hidden],
    )
    .change(Change::ReorderValueHeads)
    .place(Place::Recurrent),
    tensor(
        "layers.{}.linear_attn.conv1d",
        "blk.{}.ssm_conv1d",
        &[DeltaQueryKeyValue, One, Taps],
    )
    .change(Change::ReorderValueRowsAfterKeys)
    .place(Place::Recurrent),
    tensor("layers.{}.linear_attn.A_log", "blk.{}.ssm_a", &[DeltaHeads])
        .change(Change::DecayOfValueHeads)
        .place(Place::Recurrent)
        .exact(),
    tensor(
        "layers.{}.linear_attn.dt_bias",
        "blk.{}.ssm_dt.bias",
        &[DeltaHeads],
    )
    .change(Change::ReorderValueHeads)
    .place(Place::Recurrent)
    .exact(),
    // Not one of the norms that hold the difference from 1.
    tensor(
        "layers.{}.linear_attn.norm",
        "blk.{}.ssm_norm",
        &[DeltaHeadWidth],
    )
    .place(Place::Recurrent),
    tensor(
        "layers.{}.linear_attn.out_proj",
        "blk.{}.ssm_out",
        &[Hidden, DeltaValue],
    )
    .change(Change::ReorderValueColumns)
    .place(Place::Recurrent),
];

pub(crate) const LFM2: &[Tensor] = &[
    ENDS[0],
    tensor("embedding_norm", "token_embd_norm", &[Hidden]),
    tensor("layers.{}.operator_norm", "blk.{}.attn_norm", &[Hidden]),
    tensor("layers.{}.ffn_norm", "blk.{}.ffn_norm", &[Hidden]),
    ATTENTION[0].place(Place::Attention),
    ATTENTION[1].place(Place::Attention),
    ATTENTION[2].place(Place::Attention),
    tensor(
        "layers.{}.self_attn.out_proj",
        "blk.{}.attn_output",
        &[Hidden, Query],
    )
    .place(Place::Attention),
    tensor(
        "layers.{}.self_attn.q_layernorm",
        "blk.{}.attn_q_norm",
        &[HeadWidth],
    )
    .place(Place::Attention),
    tensor(
        "layers.{}.self_attn.k_layernorm",
        "blk.{}.attn_k_norm",
        &[HeadWidth],
    )
    .place(Place::Attention),
    tensor(
        "layers.{}.conv.conv",
        "blk.{}.shortconv.conv",
        &[Hidden, One, Taps],
    )
    .place(Place::Recurrent),
    tensor(
        "layers.{}.conv.in_proj",
        "blk.{}.shortconv.in_proj",
        &[ThreeHidden, Hidden],
    )
    .place(Place::Recurrent),
    tensor(
        "layers.{}.conv.out_proj",
        "blk.{}.shortconv.out_proj",
        &[Hidden, Hidden],
    )
    .place(Place::Recurrent),
    tensor(
        "layers.{}.feed_forward.w1",
        "blk.{}.ffn_gate",
        &[FeedForward, Hidden],
    ),
    tensor(
        "layers.{}.feed_forward.w2",
        "blk.{}.ffn_down",
        &[Hidden, FeedForward],
    ),
    tensor(
        "layers.{}.feed_forward.w3",
        "blk.{}.ffn_up",
        &[FeedForward, Hidden],
    ),
];
