//! The tensors of the encoders: BERT and its kin, and the heads that make rerankers of them.

use super::tensor;
use crate::family::{Bias, Change, Length, Place, Tensor};
use Length::{
    FeedForward, Hidden, Labels, Positions, Query, QueryKeyValue, TokenTypes, TwiceFeedForward,
    Vocabulary,
};

pub(crate) const POSITIONS: &[Tensor] = &[tensor(
    "embeddings.position_embeddings",
    "position_embd",
    &[Positions, Hidden],
)];

/// RoBERTa counts positions from the padding token's number on.
pub(crate) const POSITIONS_AFTER_PADDING: &[Tensor] =
    &[POSITIONS[0].change(Change::SkipPaddingRows)];

/// BERT and XLM-RoBERTa, without positions and heads.
pub(crate) const BERT: &[Tensor] = &[
    tensor(
        "embeddings.word_embeddings",
        "token_embd",
        &[Vocabulary, Hidden],
    ),
    tensor(
        "embeddings.token_type_embeddings",
        "token_types",
        &[TokenTypes, Hidden],
    ),
    tensor("embeddings.LayerNorm", "token_embd_norm", &[Hidden]).bias(Bias::Required),
    tensor(
        "encoder.layer.{}.attention.self.query",
        "blk.{}.attn_q",
        &[Query, Hidden],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layer.{}.attention.self.key",
        "blk.{}.attn_k",
        &[Query, Hidden],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layer.{}.attention.self.value",
        "blk.{}.attn_v",
        &[Query, Hidden],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layer.{}.attention.output.dense",
        "blk.{}.attn_output",
        &[Hidden, Query],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layer.{}.attention.output.LayerNorm",
        "blk.{}.attn_output_norm",
        &[Hidden],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layer.{}.intermediate.dense",
        "blk.{}.ffn_up",
        &[FeedForward, Hidden],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layer.{}.output.dense",
        "blk.{}.ffn_down",
        &[Hidden, FeedForward],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layer.{}.output.LayerNorm",
        "blk.{}.layer_output_norm",
        &[Hidden],
    )
    .bias(Bias::Required),
];

/// The head of a BERT cross-encoder: the pooler goes where llama.cpp looks for the layer before the
/// last, or rankings come out wrong.
pub(crate) const BERT_CLASSIFIER: &[Tensor] = &[
    tensor("pooler.dense", "cls", &[Hidden, Hidden]).bias(Bias::Required),
    tensor("classifier", "cls.output", &[Labels, Hidden]).bias(Bias::Required),
];

pub(crate) const ROBERTA_CLASSIFIER: &[Tensor] = &[
    tensor("classifier.dense", "cls", &[Hidden, Hidden]).bias(Bias::Required),
    tensor("classifier.out_proj", "cls.output", &[Labels, Hidden]).bias(Bias::Required),
];

pub(crate) const NOMIC_BERT: &[Tensor] = &[
    tensor(
        "embeddings.word_embeddings",
        "token_embd",
        &[Vocabulary, Hidden],
    ),
    tensor(
        "embeddings.token_type_embeddings",
        "token_types",
        &[TokenTypes, Hidden],
    ),
    tensor("emb_ln", "token_embd_norm", &[Hidden]).bias(Bias::Required),
    tensor(
        "encoder.layers.{}.attn.Wqkv",
        "blk.{}.attn_qkv",
        &[QueryKeyValue, Hidden],
    ),
    tensor(
        "encoder.layers.{}.attn.out_proj",
        "blk.{}.attn_output",
        &[Hidden, Query],
    ),
    tensor(
        "encoder.layers.{}.norm1",
        "blk.{}.attn_output_norm",
        &[Hidden],
    )
    .bias(Bias::Required),
    tensor(
        "encoder.layers.{}.mlp.fc11",
        "blk.{}.ffn_up",
        &[FeedForward, Hidden],
    ),
    tensor(
        "encoder.layers.{}.mlp.fc12",
        "blk.{}.ffn_gate",
        &[FeedForward, Hidden],
    ),
    tensor(
        "encoder.layers.{}.mlp.fc2",
        "blk.{}.ffn_down",
        &[Hidden, FeedForward],
    ),
    tensor(
        "encoder.layers.{}.norm2",
        "blk.{}.layer_output_norm",
        &[Hidden],
    )
    .bias(Bias::Required),
];

pub(crate) const MODERN_BERT: &[Tensor] = &[
    tensor(
        "embeddings.tok_embeddings",
        "token_embd",
        &[Vocabulary, Hidden],
    ),
    tensor("embeddings.norm", "token_embd_norm", &[Hidden]),
    tensor("final_norm", "output_norm", &[Hidden]),
    tensor("layers.{}.attn_norm", "blk.{}.attn_norm", &[Hidden]).place(Place::NotFirst),
    tensor(
        "layers.{}.attn.Wqkv",
        "blk.{}.attn_qkv",
        &[QueryKeyValue, Hidden],
    ),
    tensor("layers.{}.attn.Wo", "blk.{}.attn_output", &[Hidden, Query]),
    tensor("layers.{}.mlp_norm", "blk.{}.ffn_norm", &[Hidden]),
    tensor(
        "layers.{}.mlp.Wi",
        "blk.{}.ffn_up",
        &[TwiceFeedForward, Hidden],
    ),
    tensor(
        "layers.{}.mlp.Wo",
        "blk.{}.ffn_down",
        &[Hidden, FeedForward],
    ),
];

pub(crate) const MODERN_BERT_CLASSIFIER: &[Tensor] = &[
    tensor("head.dense", "cls", &[Hidden, Hidden]),
    tensor("head.norm", "cls.norm", &[Hidden]),
    tensor("classifier", "cls.output", &[Labels, Hidden]).bias(Bias::Possible),
];
