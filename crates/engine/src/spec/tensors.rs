//! Which tensors a description needs, and whether a file has them.

use std::collections::HashSet;

use dunlin_format::Gguf;

use super::ModelSpec;
use crate::EngineError;

/// The names of tensors as GGUF files of all families write them.
pub mod names {
    /// Embedding rows, `[hidden_size, vocab_size]`; also the head where the head is tied.
    pub const TOKEN_EMBEDDING: &str = "token_embd.weight";
    /// Head, `[hidden_size, vocab_size]`.
    pub const OUTPUT: &str = "output.weight";
    /// Norm before the head, `[hidden_size]`.
    pub const OUTPUT_NORM: &str = "output_norm.weight";
    /// Divisors of the rope frequencies, `[rope dims / 2]`, for all layers.
    pub const ROPE_FREQS: &str = "rope_freqs.weight";

    /// Norm before attention, `[hidden_size]`.
    pub const ATTN_NORM: &str = "attn_norm.weight";
    /// Query projection, `[hidden_size, q_size]`.
    pub const ATTN_Q: &str = "attn_q.weight";
    /// Key projection, `[hidden_size, k_size]`.
    pub const ATTN_K: &str = "attn_k.weight";
    /// Value projection, `[hidden_size, v_size]`.
    pub const ATTN_V: &str = "attn_v.weight";
    /// Query bias, `[q_size]`.
    pub const ATTN_Q_BIAS: &str = "attn_q.bias";
    /// Key bias, `[k_size]`.
    pub const ATTN_K_BIAS: &str = "attn_k.bias";
    /// Value bias, `[v_size]`.
    pub const ATTN_V_BIAS: &str = "attn_v.bias";
    /// Norm of each query head, `[head_dim_k]`.
    pub const ATTN_Q_NORM: &str = "attn_q_norm.weight";
    /// Norm of each key head, `[head_dim_k]`.
    pub const ATTN_K_NORM: &str = "attn_k_norm.weight";
    /// Output projection of attention, `[attention_size, hidden_size]`.
    pub const ATTN_OUTPUT: &str = "attn_output.weight";
    /// Norm of attention's result, `[hidden_size]`.
    pub const POST_ATTENTION_NORM: &str = "post_attention_norm.weight";
    /// Norm before the feed-forward part, `[hidden_size]`.
    pub const FFN_NORM: &str = "ffn_norm.weight";
    /// Gate projection, `[hidden_size, feed_forward_length]`.
    pub const FFN_GATE: &str = "ffn_gate.weight";
    /// Up projection, `[hidden_size, feed_forward_length]`.
    pub const FFN_UP: &str = "ffn_up.weight";
    /// Down projection, `[feed_forward_length, hidden_size]`.
    pub const FFN_DOWN: &str = "ffn_down.weight";
    /// Norm of the feed-forward part's result, `[hidden_size]`.
    pub const POST_FFW_NORM: &str = "post_ffw_norm.weight";

    /// The full name of a tensor of layer `index`: `blk.3.attn_q.weight`.
    #[must_use]
    pub fn layer(index: usize, suffix: &str) -> String {
        format!("blk.{index}.{suffix}")
    }
}

/// A tensor that a model cannot run without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The tensor's name.
    pub name: String,
    /// Its shape in GGUF order: columns (contiguous) first, then rows.
    pub shape: Vec<u64>,
}

impl ModelSpec {
    /// All tensors of this model, in the order of their use.
    #[must_use]
    pub fn expected_tensors(&self) -> Vec<Expected> {
        let hidden = self.hidden_size;
        let mut table = vec![
            expect(
                names::TOKEN_EMBEDDING.to_owned(),
                &[hidden, self.vocab_size],
            ),
            expect(names::OUTPUT_NORM.to_owned(), &[hidden]),
        ];
        if !self.tied_head {
            table.push(expect(names::OUTPUT.to_owned(), &[hidden, self.vocab_size]));
        }
        if let Some(layer) = self.layers.iter().find(|layer| layer.rope.has_factors) {
            table.push(expect(names::ROPE_FREQS.to_owned(), &[layer.rope.dims / 2]));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let mut need = |suffix: &str, shape: &[usize]| {
                table.push(expect(names::layer(index, suffix), shape))
            };
            need(names::ATTN_NORM, &[hidden]);
            need(names::ATTN_Q, &[hidden, layer.q_size()]);
            need(names::ATTN_K, &[hidden, layer.k_size()]);
            need(names::ATTN_V, &[hidden, layer.v_size()]);
            if layer.qkv_bias {
                need(names::ATTN_Q_BIAS, &[layer.q_size()]);
                need(names::ATTN_K_BIAS, &[layer.k_size()]);
                need(names::ATTN_V_BIAS, &[layer.v_size()]);
            }
            if layer.qk_norm {
                need(names::ATTN_Q_NORM, &[layer.head_dim_k]);
                need(names::ATTN_K_NORM, &[layer.head_dim_k]);
            }
            need(names::ATTN_OUTPUT, &[layer.attention_size(), hidden]);
            if layer.post_norms {
                need(names::POST_ATTENTION_NORM, &[hidden]);
            }
            need(names::FFN_NORM, &[hidden]);
            need(names::FFN_GATE, &[hidden, layer.feed_forward_length]);
            need(names::FFN_UP, &[hidden, layer.feed_forward_length]);
            need(names::FFN_DOWN, &[layer.feed_forward_length, hidden]);
            if layer.post_norms {
                need(names::POST_FFW_NORM, &[hidden]);
            }
        }
        table
    }

    /// Checks that a file has every tensor of this model in its right shape, and none that the model has no place for.
    ///
    /// Tensors of an image or audio tower (`v.`, `a.`, `mm.`) that some files carry beside the language model are not
    /// the decoder's and are let pass.
    ///
    /// # Errors
    ///
    /// [`EngineError::MissingTensor`], [`EngineError::WrongShape`] or [`EngineError::UnexpectedTensor`], each for the
    /// first such tensor.
    pub fn check_tensors(&self, gguf: &Gguf) -> Result<(), EngineError> {
        let expected = self.expected_tensors();
        for tensor in &expected {
            match gguf.tensor(&tensor.name) {
                None => {
                    return Err(EngineError::MissingTensor {
                        name: tensor.name.clone(),
                    });
                }
                Some(found)
                    if without_trailing_ones(&found.shape)
                        != without_trailing_ones(&tensor.shape) =>
                {
                    return Err(EngineError::WrongShape {
                        name: tensor.name.clone(),
                        expected: tensor.shape.clone(),
                        found: found.shape.clone(),
                    });
                }
                _ => {}
            }
        }
        let known: HashSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        let stranger = gguf.tensors().iter().find(|tensor| {
            let name = tensor.name.as_str();
            !known.contains(name) && !OTHER_TOWERS.iter().any(|prefix| name.starts_with(prefix))
        });
        match stranger {
            Some(tensor) => Err(EngineError::UnexpectedTensor {
                name: tensor.name.clone(),
                architecture: self.architecture.clone(),
            }),
            None => Ok(()),
        }
    }
}

const OTHER_TOWERS: [&str; 3] = ["v.", "a.", "mm."];

fn expect(name: String, shape: &[usize]) -> Expected {
    Expected {
        name,
        shape: shape.iter().map(|length| *length as u64).collect(),
    }
}

fn without_trailing_ones(shape: &[u64]) -> &[u64] {
    let used = shape
        .iter()
        .rposition(|length| *length != 1)
        .map_or(0, |last| last + 1);
    &shape[..used]
}
