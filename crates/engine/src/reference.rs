//! The scalar oracle: a whole forward pass, readable top to bottom.
//!
//! Slow, obvious, and what the fast path is compared with. Weights are decoded to F32 once, the sequence goes through
//! the layers as a whole, nothing is cached, and each step stands next to its equation. Sums of norms, of softmax and
//! of attention are kept in F64. It shares the description ([`ModelSpec`]) with the fast path, and no arithmetic but
//! the rope frequencies.
//!
//! It covers the dense decoders of separate projections and RMS norms (Llama, Qwen 2 and 3, Gemma 2 and 3, SmolLM3,
//! Granite, OLMo 2); the other families are compared with recorded answers of Hugging Face transformers alone.

use dunlin_format::{Gguf, decode};

use crate::EngineError;
use crate::spec::{
    Activation, AttentionSpec, FeedForwardGate, Head, LayerSpec, ModelSpec, Norm, QkNorm,
    RopeFactors, RopeKind, names,
};

/// A model decoded to F32, and its forward pass in scalar code.
///
/// Takes four bytes of memory for each weight.
#[derive(Debug)]
pub struct Oracle {
    spec: ModelSpec,
    token_embedding: Matrix,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    /// `None`: the head is the embedding.
    output: Option<Matrix>,
}

#[derive(Debug)]
struct Layer {
    attn_norm: Option<Vec<f32>>,
    q: Linear,
    k: Linear,
    v: Linear,
    q_norm: Option<Vec<f32>>,
    k_norm: Option<Vec<f32>>,
    /// Radians per position, one for each rotated pair.
    rope_frequencies: Vec<f64>,
    attn_output: Matrix,
    post_attention_norm: Option<Vec<f32>>,
    ffn_norm: Option<Vec<f32>>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
    post_ffw_norm: Option<Vec<f32>>,
}

/// `[rows, columns]`, row after row; a product gives one number a row.
#[derive(Debug)]
struct Matrix {
    columns: usize,
    values: Vec<f32>,
}

#[derive(Debug)]
struct Linear {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

impl Oracle {
    /// Decodes all weights of a model.
    ///
    /// # Errors
    ///
    /// Those of [`ModelSpec::from_gguf`] and [`ModelSpec::check_tensors`], and [`EngineError::Format`] for a tensor
    /// type that cannot be decoded.
    pub fn new(gguf: &Gguf) -> Result<Self, EngineError> {
        let spec = ModelSpec::from_gguf(gguf)?;
        spec.check_tensors(gguf)?;
        refuse_what_is_not_covered(&spec)?;

        let with_factors = |layer: &AttentionSpec| layer.rope.factors == RopeFactors::Fixed;
        let rope_factors = match spec.attentions().any(with_factors) {
            true => Some(load(gguf, names::ROPE_FREQS)?),
            false => None,
        };
        let layers = spec.layers.iter().enumerate();
        let layers = layers
            .map(|(index, layer)| Layer::load(gguf, index, layer, rope_factors.as_deref()))
            .collect::<Result<_, _>>()?;
        Ok(Oracle {
            token_embedding: Matrix::load(gguf, names::TOKEN_EMBEDDING, spec.hidden_size)?,
            layers,
            output_norm: load(gguf, names::OUTPUT_NORM)?,
            output: match spec.head {
                Head::Own => Some(Matrix::load(gguf, names::OUTPUT, spec.hidden_size)?),
                Head::Tied | Head::None => None,
            },
            spec,
        })
    }

    /// The model's description.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The logits after each token: `[tokens][vocab_size]`, row `p` for the token that follows `ids[p]`.
    ///
    /// # Errors
    ///
    /// As [`logits_at`](Self::logits_at).
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.logits_at(ids, &Vec::from_iter(0..ids.len()))
    }

    /// The logits after the tokens at `positions` only, in their order: `[positions][vocab_size]`.
    ///
    /// # Errors
    ///
    /// [`EngineError::TokenOutOfRange`] and [`EngineError::PositionOutOfRange`].
    pub fn logits_at(
        &self,
        ids: &[u32],
        positions: &[usize],
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        if let Some(&position) = positions.iter().find(|position| **position >= ids.len()) {
            return Err(EngineError::PositionOutOfRange {
                position,
                tokens: ids.len(),
            });
        }
        let mut hidden = self.embed(ids)?;
        let attentions = self.spec.attentions();
        for ((weights, layer), attention) in
            self.layers.iter().zip(&self.spec.layers).zip(attentions)
        {
            self.attention(&mut hidden, weights, attention);
            self.feed_forward(&mut hidden, weights, layer);
        }
        let wanted = positions
            .iter()
            .map(|position| hidden[*position].clone())
            .collect();
        Ok(self.head(wanted))
    }

    /// `x = embedding[id] * scale`
    fn embed(&self, ids: &[u32]) -> Result<Vec<Vec<f32>>, EngineError> {
        let row = |id: &u32| {
            if *id as usize >= self.spec.vocab_size {
                let vocab_size = self.spec.vocab_size;
                return Err(EngineError::TokenOutOfRange {
                    token: *id,
                    vocab_size,
                });
            }
            let row = self.token_embedding.row(*id as usize);
            Ok(row
                .iter()
                .map(|value| value * self.spec.embedding_scale)
                .collect())
        };
        ids.iter().map(row).collect()
    }

    /// `x = x + post_norm(output(softmax(q k * scale) v))`
    fn attention(&self, hidden: &mut [Vec<f32>], weights: &Layer, layer: &AttentionSpec) {
        let normed = norm_all(hidden, weights.attn_norm.as_deref(), self.spec.norm);
        let mut q = weights.q.apply(&normed);
        let mut k = weights.k.apply(&normed);
        let v = weights.v.apply(&normed);

        let frequencies = &weights.rope_frequencies;
        for (all, head_norm) in [(&mut q, &weights.q_norm), (&mut k, &weights.k_norm)] {
            for (position, heads) in all.iter_mut().enumerate() {
                if let (Some(QkNorm::Whole), Some(weight)) = (layer.qk_norm, head_norm) {
                    norm(heads, weight, self.spec.norm);
                }
                for head in heads.chunks_exact_mut(layer.head_dim_k) {
                    if let (Some(QkNorm::PerHead), Some(weight)) = (layer.qk_norm, head_norm) {
                        norm(head, weight, self.spec.norm);
                    }
                    rotate(head, position, layer.rope.kind, frequencies);
                }
            }
        }

        let mixed: Vec<Vec<f32>> = (0..hidden.len())
            .map(|position| self.attend(position, &q[position], &k, &v, layer))
            .collect();
        let mut result = weights.attn_output.apply(&mixed);
        result = norm_all(
            &result,
            weights.post_attention_norm.as_deref(),
            self.spec.norm,
        );
        add(hidden, &result, self.spec.residual_scale);
    }

    /// One query position against all keys that it sees; gives `[head_count * head_dim_v]`.
    fn attend(
        &self,
        position: usize,
        q: &[f32],
        k: &[Vec<f32>],
        v: &[Vec<f32>],
        layer: &AttentionSpec,
    ) -> Vec<f32> {
        let visible = layer.first_visible(position)..=position;
        let heads_per_kv = layer.head_count / layer.head_count_kv;
        let mut mixed = Vec::with_capacity(layer.output_size());

        for (head, q) in q.chunks_exact(layer.head_dim_k).enumerate() {
            let k_at = head / heads_per_kv * layer.head_dim_k;
            let v_at = head / heads_per_kv * layer.head_dim_v;

            let mut scores: Vec<f64> = k[visible.clone()]
                .iter()
                .map(|k| {
                    let k = &k[k_at..k_at + layer.head_dim_k];
                    let score = f64::from(dot(q, k)) * f64::from(layer.scale);
                    softcap(score, layer.softcap)
                })
                .collect();
            softmax(&mut scores);

            let mut sum = vec![0.0f64; layer.head_dim_v];
            for (probability, v) in scores.iter().zip(&v[visible.clone()]) {
                for (sum, v) in sum.iter_mut().zip(&v[v_at..v_at + layer.head_dim_v]) {
                    *sum += probability * f64::from(*v);
                }
            }
            mixed.extend(sum.iter().map(|sum| *sum as f32));
        }
        mixed
    }

    /// `x = x + post_norm(down(activation(gate(norm(x))) * up(norm(x))))`
    fn feed_forward(&self, hidden: &mut [Vec<f32>], weights: &Layer, layer: &LayerSpec) {
        let normed = norm_all(hidden, weights.ffn_norm.as_deref(), self.spec.norm);
        let mut gated = weights.gate.apply(&normed);
        let up = weights.up.apply(&normed);
        for (gate, up) in gated.iter_mut().flatten().zip(up.iter().flatten()) {
            *gate = activate(*gate, layer.feed_forward.activation) * up;
        }
        let mut result = weights.down.apply(&gated);
        result = norm_all(&result, weights.post_ffw_norm.as_deref(), self.spec.norm);
        add(hidden, &result, self.spec.residual_scale);
    }

    /// `logits = softcap(head(norm(x)))`
    fn head(&self, hidden: Vec<Vec<f32>>) -> Vec<Vec<f32>> {
        let normed = norm_all(&hidden, Some(&self.output_norm), self.spec.norm);
        let head = self.output.as_ref().unwrap_or(&self.token_embedding);
        let mut logits = head.apply(&normed);
        for logit in logits.iter_mut().flatten() {
            let scaled = f64::from(*logit) * f64::from(self.spec.logit_scale);
            *logit = softcap(scaled, self.spec.final_logit_softcap) as f32;
        }
        logits
    }
}

impl Layer {
    fn load(
        gguf: &Gguf,
        index: usize,
        layer: &LayerSpec,
        rope_factors: Option<&[f32]>,
    ) -> Result<Self, EngineError> {
        let Some(attention) = layer.attention() else {
            return Err(not_covered("a layer that does not attend"));
        };
        let vector = |suffix: &str| load(gguf, &names::layer(index, suffix));
        let vector_if = |there: bool, suffix: &str| there.then(|| vector(suffix)).transpose();
        let norm = |name: Option<&str>| name.map(vector).transpose();
        let matrix = |suffix: &str| {
            let name = names::layer(index, suffix);
            let columns = gguf.tensor(&name).map_or(0, |tensor| tensor.cols());
            Matrix::load(gguf, &name, columns)
        };
        let linear = |weight: &str| -> Result<Linear, EngineError> {
            Ok(Linear {
                weight: matrix(weight)?,
                bias: vector_if(attention.qkv_bias, &names::bias(weight))?,
            })
        };
        let factors = rope_factors.filter(|_| attention.rope.factors == RopeFactors::Fixed);
        let factors = factors.map(|factors| (names::ROPE_FREQS, factors));
        let normed = attention.qk_norm.is_some();
        Ok(Layer {
            attn_norm: norm(layer.mixer_norms.before)?,
            q: linear(names::ATTN_Q)?,
            k: linear(names::ATTN_K)?,
            v: linear(names::ATTN_V)?,
            q_norm: vector_if(normed, names::ATTN_Q_NORM)?,
            k_norm: vector_if(normed, names::ATTN_K_NORM)?,
            rope_frequencies: attention.rope.frequencies(factors)?,
            attn_output: matrix(names::ATTN_OUTPUT)?,
            post_attention_norm: norm(layer.mixer_norms.branch)?,
            ffn_norm: norm(layer.feed_forward_norms.before)?,
            gate: matrix(names::FFN_GATE)?,
            up: matrix(names::FFN_UP)?,
            down: matrix(names::FFN_DOWN)?,
            post_ffw_norm: norm(layer.feed_forward_norms.branch)?,
        })
    }
}

/// The oracle says so rather than leave a part of a model out.
fn refuse_what_is_not_covered(spec: &ModelSpec) -> Result<(), EngineError> {
    let plain = spec.attentions().all(|layer| {
        !layer.fused_qkv
            && !layer.output_bias
            && !layer.output_gate
            && !layer.value_norm
            && layer.shares_kv_of.is_none()
            && layer.temperature.is_none()
            && layer.rope.magnitude == 1.0
            && !matches!(layer.rope.factors, RopeFactors::ByLength { .. })
    });
    let gated = spec.layers.iter().all(|layer| {
        let ffn = layer.feed_forward;
        ffn.gate == FeedForwardGate::Own && !ffn.bias && !layer.output_scale
    });
    let covered = plain
        && gated
        && spec.can_generate()
        && !spec.embedding_norm
        && spec.output_norm == Some(names::OUTPUT_NORM)
        && matches!(spec.norm, Norm::Rms { .. });
    match covered {
        true => Ok(()),
        false => Err(not_covered(&spec.architecture)),
    }
}

fn not_covered(what: &str) -> EngineError {
    EngineError::UnsupportedFeature {
        feature: format!("{what} in the scalar reference"),
    }
}

impl Matrix {
    fn load(gguf: &Gguf, name: &str, columns: usize) -> Result<Self, EngineError> {
        Ok(Matrix {
            columns,
            values: load(gguf, name)?,
        })
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.columns..][..self.columns]
    }

    /// `y[t][r] = sum over c of x[t][c] * w[r][c]`
    ///
    /// Row by row for all tokens: a row is read from memory once.
    fn apply(&self, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let rows = self.values.len() / self.columns;
        let mut y = vec![Vec::with_capacity(rows); x.len()];
        for row in self.values.chunks_exact(self.columns) {
            for (y, x) in y.iter_mut().zip(x) {
                y.push(dot(row, x));
            }
        }
        y
    }
}

impl Linear {
    fn apply(&self, x: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let mut y = self.weight.apply(x);
        if let Some(bias) = &self.bias {
            for y in &mut y {
                for (y, bias) in y.iter_mut().zip(bias) {
                    *y += bias;
                }
            }
        }
        y
    }
}

fn load(gguf: &Gguf, name: &str) -> Result<Vec<f32>, EngineError> {
    let Some(tensor) = gguf.tensor(name) else {
        return Err(EngineError::MissingTensor {
            name: name.to_owned(),
        });
    };
    let mut values = vec![0.0; tensor.elements() as usize];
    decode(tensor.dtype, gguf.data(tensor), &mut values)?;
    Ok(values)
}

/// Without a weight the rows stay as they are.
fn norm_all(hidden: &[Vec<f32>], weight: Option<&[f32]>, kind: Norm) -> Vec<Vec<f32>> {
    let mut normed = hidden.to_vec();
    if let Some(weight) = weight {
        for x in &mut normed {
            norm(x, weight, kind);
        }
    }
    normed
}

/// `x / sqrt(mean(x^2) + eps) * weight`
fn norm(x: &mut [f32], weight: &[f32], kind: Norm) {
    let eps = kind.eps();
    let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
    let scale = 1.0 / (squares / x.len() as f64 + f64::from(eps)).sqrt();
    for (x, weight) in x.iter_mut().zip(weight) {
        *x = (f64::from(*x) * scale * f64::from(*weight)) as f32;
    }
}

/// Turns each pair `(a, b)` by `position * frequency`: `(a cos - b sin, a sin + b cos)`.
fn rotate(head: &mut [f32], position: usize, kind: RopeKind, frequencies: &[f64]) {
    let pairs = frequencies.len();
    for (pair, frequency) in frequencies.iter().enumerate() {
        let (first, second) = match kind {
            RopeKind::Neox => (pair, pair + pairs),
            RopeKind::Interleaved => (2 * pair, 2 * pair + 1),
        };
        let (sin, cos) = (position as f64 * frequency).sin_cos();
        let (a, b) = (f64::from(head[first]), f64::from(head[second]));
        head[first] = (a * cos - b * sin) as f32;
        head[second] = (a * sin + b * cos) as f32;
    }
}

fn softmax(scores: &mut [f64]) {
    let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

fn softcap(x: f64, cap: Option<f32>) -> f64 {
    match cap {
        Some(cap) => f64::from(cap) * (x / f64::from(cap)).tanh(),
        None => x,
    }
}

fn activate(x: f32, activation: Activation) -> f32 {
    let x = f64::from(x);
    let y = match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        // The oracle's families do not have it.
        Activation::Gelu => f64::NAN,
    };
    y as f32
}

fn add(hidden: &mut [Vec<f32>], result: &[Vec<f32>], scale: f32) {
    for (x, y) in hidden.iter_mut().flatten().zip(result.iter().flatten()) {
        *x += y * scale;
    }
}

/// Many sums side by side, because the compiler may not reorder the additions of a single one into a vector. With 16 of
/// them it unrolls the inner loop and forgets to make vectors; with 32 the oracle runs three times as fast.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut sums = [0.0f32; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
