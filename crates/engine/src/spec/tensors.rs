//! Which tensors a description needs, and whether a file has them.

use std::collections::HashSet;

use dunlin_format::Gguf;

use super::{
    AttentionSpec, FeedForward, FeedForwardGate, Head, LayerSpec, Mixer, ModelSpec, Norm, Norms,
    QkNorm,
};
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
    /// The same for sequences of up to the original context.
    pub const ROPE_FACTORS_SHORT: &str = "rope_factors_short.weight";
    /// The same for longer ones.
    pub const ROPE_FACTORS_LONG: &str = "rope_factors_long.weight";
    /// Norm of the embedding, `[hidden_size]`; LFM2 files give this name to the norm before the head.
    pub const TOKEN_EMBEDDING_NORM: &str = "token_embd_norm.weight";
    /// Embedding of positions, `[hidden_size, positions]`.
    pub const POSITION_EMBEDDING: &str = "position_embd.weight";
    /// Embedding of token types, `[hidden_size, types]`.
    pub const TOKEN_TYPES: &str = "token_types.weight";
    /// Embeddings of a token for each layer, `[layers * per_layer_input, vocab_size]`.
    pub const PER_LAYER_EMBEDDING: &str = "per_layer_token_embd.weight";
    /// Projection of the embedding to the same, `[hidden_size, layers * per_layer_input]`.
    pub const PER_LAYER_PROJECTION: &str = "per_layer_model_proj.weight";
    /// Norm of that projection, `[per_layer_input]`.
    pub const PER_LAYER_PROJECTION_NORM: &str = "per_layer_proj_norm.weight";
    /// Matrices behind the pooling of an embedding.
    pub const DENSE: [&str; 2] = ["dense_2.weight", "dense_3.weight"];
    /// Square matrix of a classification head, `[hidden_size, hidden_size]`.
    pub const CLASSIFIER: &str = "cls.weight";
    /// Norm behind it, `[hidden_size]`.
    pub const CLASSIFIER_NORM: &str = "cls.norm.weight";
    /// Output of a classification head, `[hidden_size, labels]`.
    pub const CLASSIFIER_OUTPUT: &str = "cls.output.weight";

    /// Norm before attention, `[hidden_size]`.
    pub const ATTN_NORM: &str = "attn_norm.weight";
    /// Query projection, `[hidden_size, q_size]`.
    pub const ATTN_Q: &str = "attn_q.weight";
    /// Key projection, `[hidden_size, k_size]`.
    pub const ATTN_K: &str = "attn_k.weight";
    /// Value projection, `[hidden_size, v_size]`.
    pub const ATTN_V: &str = "attn_v.weight";
    /// The three in one, queries first.
    pub const ATTN_QKV: &str = "attn_qkv.weight";
    /// Gate of a gated delta net's result, `[hidden_size, value_size]`.
    pub const ATTN_GATE: &str = "attn_gate.weight";
    /// Norm of the sum of attention and its input, `[hidden_size]`.
    pub const ATTN_OUTPUT_NORM: &str = "attn_output_norm.weight";
    /// Norm of the sum of the feed-forward part and its input, `[hidden_size]`.
    pub const LAYER_OUTPUT_NORM: &str = "layer_output_norm.weight";
    /// Logarithmic decay of a delta net's heads, negative, `[value_heads]`.
    pub const SSM_A: &str = "ssm_a";
    /// Bias of the decay, `[value_heads]`.
    pub const SSM_DT_BIAS: &str = "ssm_dt.bias";
    /// Projection to the decay, `[hidden_size, value_heads]`.
    pub const SSM_ALPHA: &str = "ssm_alpha.weight";
    /// Projection to the strength of writing, `[hidden_size, value_heads]`.
    pub const SSM_BETA: &str = "ssm_beta.weight";
    /// Convolution of a delta net, `[taps, channels]`.
    pub const SSM_CONV: &str = "ssm_conv1d.weight";
    /// Norm of each head's result, `[head_dim_v]`.
    pub const SSM_NORM: &str = "ssm_norm.weight";
    /// Output projection of a delta net, `[value_size, hidden_size]`.
    pub const SSM_OUT: &str = "ssm_out.weight";
    /// Input projection of a short convolution: `b`, `c` and `x`, `[hidden_size, 3 hidden_size]`.
    pub const CONV_IN: &str = "shortconv.in_proj.weight";
    /// Its weights, `[taps, hidden_size]`.
    pub const CONV: &str = "shortconv.conv.weight";
    /// Its output projection, `[hidden_size, hidden_size]`.
    pub const CONV_OUT: &str = "shortconv.out_proj.weight";
    /// Gate of the per-layer embedding, `[hidden_size, per_layer_input]`.
    pub const INPUT_GATE: &str = "inp_gate.weight";
    /// Its projection back, `[per_layer_input, hidden_size]`.
    pub const INPUT_PROJECTION: &str = "proj.weight";
    /// Norm of that, `[hidden_size]`.
    pub const POST_NORM: &str = "post_norm.weight";
    /// Factor on a layer's result, `[1]`.
    pub const LAYER_OUTPUT_SCALE: &str = "layer_output_scale.weight";
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

    /// The name of the bias that goes with a weight: `attn_q.weight`, `attn_q.bias`.
    #[must_use]
    pub fn bias(weight: &str) -> String {
        format!("{}.bias", weight.strip_suffix(".weight").unwrap_or(weight))
    }

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
        let mut table = Table::default();
        table.add(names::TOKEN_EMBEDDING, &[hidden, self.vocab_size]);
        if let Some(positions) = self.position_embeddings {
            table.add(names::POSITION_EMBEDDING, &[hidden, positions]);
        }
        if self.token_types > 0 {
            table.add(names::TOKEN_TYPES, &[hidden, self.token_types]);
        }
        if self.embedding_norm {
            table.norm(names::TOKEN_EMBEDDING_NORM, hidden, self.norm);
        }
        if let Some(width) = self.per_layer_input {
            let all = width * self.layers.len();
            table.add(names::PER_LAYER_EMBEDDING, &[all, self.vocab_size]);
            table.add(names::PER_LAYER_PROJECTION, &[hidden, all]);
            table.add(names::PER_LAYER_PROJECTION_NORM, &[width]);
        }
        for attention in self.attentions() {
            for name in attention.rope.factor_tensors() {
                if !table.has(name) {
                    table.add(name, &[attention.rope.dims / 2]);
                }
            }
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let mut tensors = Table::default();
            self.layer_tensors(layer, &mut tensors);
            table.0.extend(tensors.0.into_iter().map(|tensor| Expected {
                name: names::layer(index, &tensor.name),
                ..tensor
            }));
        }
        if let Some(name) = self.output_norm {
            table.norm(name, hidden, self.norm);
        }
        if self.head == Head::Own {
            table.add(names::OUTPUT, &[hidden, self.vocab_size]);
        }
        for ((columns, rows), name) in self.dense.iter().zip(names::DENSE) {
            table.add(name, &[*columns, *rows]);
        }
        if let Some(classifier) = &self.classifier {
            if classifier.dense.is_some() {
                table.linear(names::CLASSIFIER, hidden, hidden, classifier.dense_bias);
            }
            if classifier.norm {
                table.add(names::CLASSIFIER_NORM, &[hidden]);
            }
            let labels = classifier.labels;
            table.linear(
                names::CLASSIFIER_OUTPUT,
                hidden,
                labels,
                classifier.output_bias,
            );
        }
        table.0
    }

    fn layer_tensors(&self, layer: &LayerSpec, table: &mut Table) {
        let hidden = self.hidden_size;
        table.norms(&layer.mixer_norms, hidden, self.norm);
        match &layer.mixer {
            Mixer::Attention(attention) => attention_tensors(attention, hidden, table),
            Mixer::DeltaNet(delta) => {
                table.add(names::ATTN_QKV, &[hidden, delta.channels()]);
                table.add(names::ATTN_GATE, &[hidden, delta.value_size()]);
                table.add(names::SSM_ALPHA, &[hidden, delta.value_heads]);
                table.add(names::SSM_BETA, &[hidden, delta.value_heads]);
                table.add(names::SSM_CONV, &[delta.conv_taps, delta.channels()]);
                table.add(names::SSM_DT_BIAS, &[delta.value_heads]);
                table.add(names::SSM_A, &[delta.value_heads]);
                table.add(names::SSM_NORM, &[delta.head_dim_v]);
                table.add(names::SSM_OUT, &[delta.value_size(), hidden]);
            }
            Mixer::ShortConv(conv) => {
                table.add(names::CONV_IN, &[hidden, 3 * hidden]);
                table.add(names::CONV, &[conv.conv_taps, hidden]);
                table.add(names::CONV_OUT, &[hidden, hidden]);
            }
        }
        table.norms(&layer.feed_forward_norms, hidden, self.norm);
        let FeedForward {
            length, gate, bias, ..
        } = layer.feed_forward;
        match gate {
            FeedForwardGate::Own => table.add(names::FFN_GATE, &[hidden, length]),
            FeedForwardGate::None | FeedForwardGate::Fused => {}
        }
        let up = match gate {
            FeedForwardGate::Fused => 2 * length,
            FeedForwardGate::None | FeedForwardGate::Own => length,
        };
        table.linear(names::FFN_UP, hidden, up, bias);
        table.linear(names::FFN_DOWN, length, hidden, bias);
        if let Some(width) = self.per_layer_input {
            table.add(names::INPUT_GATE, &[hidden, width]);
            table.add(names::INPUT_PROJECTION, &[width, hidden]);
            table.add(names::POST_NORM, &[hidden]);
        }
        if layer.output_scale {
            table.add(names::LAYER_OUTPUT_SCALE, &[1]);
        }
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
            !known.contains(name) && !self.is_beside_the_model(name)
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

impl ModelSpec {
    /// Whether a tensor of the file is part of this model.
    pub(crate) fn is_used(&self, name: &str) -> bool {
        !self.is_beside_the_model(name)
    }

    /// Whether a tensor serves something else than the language model, lies behind its last layer (the blocks that predict
    /// further tokens stand there), or holds keys and values of a layer that reads those of another: Gemma 4 was saved with
    /// them.
    fn is_beside_the_model(&self, name: &str) -> bool {
        if OTHER_TOWERS.iter().any(|prefix| name.starts_with(prefix)) {
            return true;
        }
        let Some((block, suffix)) = name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split_once('.'))
        else {
            return false;
        };
        let layer = block
            .parse::<usize>()
            .ok()
            .map(|index| self.layers.get(index));
        match layer {
            Some(Some(layer)) => {
                let attention = layer.attention();
                let shares = attention.is_some_and(|layer| layer.shares_kv_of.is_some());
                let own = [names::ATTN_K, names::ATTN_V, names::ATTN_K_NORM];
                shares && own.contains(&suffix)
            }
            Some(None) => self.prediction_blocks > 0,
            None => false,
        }
    }
}

fn attention_tensors(attention: &AttentionSpec, hidden: usize, table: &mut Table) {
    let q_rows = attention.q_size() * if attention.output_gate { 2 } else { 1 };
    let (k_rows, v_rows) = (attention.k_size(), attention.v_size());
    let bias = attention.qkv_bias;
    let own_kv = attention.shares_kv_of.is_none();
    if attention.fused_qkv {
        table.linear(names::ATTN_QKV, hidden, q_rows + k_rows + v_rows, bias);
    } else {
        table.linear(names::ATTN_Q, hidden, q_rows, bias);
        if own_kv {
            table.linear(names::ATTN_K, hidden, k_rows, bias);
            table.linear(names::ATTN_V, hidden, v_rows, bias);
        }
    }
    if let Some(kind) = attention.qk_norm {
        let (q, k) = match kind {
            QkNorm::PerHead => (attention.head_dim_k, attention.head_dim_k),
            QkNorm::Whole => (attention.q_size(), attention.k_size()),
        };
        table.add(names::ATTN_Q_NORM, &[q]);
        if own_kv {
            table.add(names::ATTN_K_NORM, &[k]);
        }
    }
    table.linear(
        names::ATTN_OUTPUT,
        attention.output_size(),
        hidden,
        attention.output_bias,
    );
}

/// A growing list of tensors.
#[derive(Default)]
struct Table(Vec<Expected>);

impl Table {
    fn add(&mut self, name: &str, shape: &[usize]) {
        self.0.push(Expected {
            name: name.to_owned(),
            shape: shape.iter().map(|length| *length as u64).collect(),
        });
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|tensor| tensor.name == name)
    }

    fn linear(&mut self, weight: &str, columns: usize, rows: usize, bias: bool) {
        self.add(weight, &[columns, rows]);
        if bias {
            self.add(&names::bias(weight), &[rows]);
        }
    }

    fn norm(&mut self, weight: &str, length: usize, norm: Norm) {
        self.add(weight, &[length]);
        if norm.has_bias() {
            self.add(&names::bias(weight), &[length]);
        }
    }

    fn norms(&mut self, norms: &Norms, length: usize, norm: Norm) {
        for name in [norms.before, norms.branch, norms.after]
            .into_iter()
            .flatten()
        {
            self.norm(name, length, norm);
        }
    }
}

const OTHER_TOWERS: [&str; 3] = ["v.", "a.", "mm."];

fn without_trailing_ones(shape: &[u64]) -> &[u64] {
    let used = shape
        .iter()
        .rposition(|length| *length != 1)
        .map_or(0, |last| last + 1);
    &shape[..used]
}
