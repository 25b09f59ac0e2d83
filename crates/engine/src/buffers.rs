//! The memory of a step, sized once from the model's description.

use crate::spec::{LayerSpec, ModelSpec};
use dunlin_compute::Activations;

/// Rows whose scores are computed together.
pub(crate) const SCORE_ROWS: usize = 16;

/// Everything a step writes to, sized once.
pub(crate) struct Buffers {
    max_tokens: usize,
    /// The residual stream `[tokens, hidden_size]`.
    pub stream: Vec<f32>,
    /// A product's result that is added to the stream, `[tokens, hidden_size]`.
    pub branch: Vec<f32>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    pub logits: Vec<f32>,
    pub normed: Activations,
    pub attended: Vec<Activations>,
    pub gated: Vec<Activations>,
    pub scored: Activations,
    /// Position of each token, and its place in the cache.
    pub positions: Vec<u32>,
    pub places: Vec<(u32, u32)>,
    /// Cosines and sines of each token, one table for each distinct rotation.
    pub tables: Vec<Vec<(f32, f32)>>,
    /// Which table a layer uses.
    pub table_of_layer: Vec<usize>,
    /// Which of `attended` and `gated` a layer uses (their widths can differ by layer).
    pub attended_of_layer: Vec<usize>,
    pub gated_of_layer: Vec<usize>,
}

impl Buffers {
    pub(crate) fn new(spec: &ModelSpec, max_tokens: usize) -> Self {
        let widest =
            |size: fn(&LayerSpec) -> usize| spec.layers.iter().map(size).max().unwrap_or(0);
        let zeros = |width: usize| vec![0.0; max_tokens * width];
        let (ropes, table_of_layer) = distinct(spec.layers.iter().map(|layer| layer.rope.clone()));
        let (attended, attended_of_layer) =
            distinct(spec.layers.iter().map(LayerSpec::attention_size));
        let (gated, gated_of_layer) =
            distinct(spec.layers.iter().map(|layer| layer.feed_forward_length));
        let activations = |widths: Vec<usize>| {
            widths
                .into_iter()
                .map(|width| Activations::new(max_tokens, width))
                .collect()
        };
        let score_rows = SCORE_ROWS.min(max_tokens);
        Buffers {
            max_tokens,
            stream: zeros(spec.hidden_size),
            branch: zeros(spec.hidden_size),
            q: zeros(widest(LayerSpec::q_size)),
            k: zeros(widest(LayerSpec::k_size)),
            v: zeros(widest(LayerSpec::v_size)),
            gate: zeros(widest(|layer| layer.feed_forward_length)),
            up: zeros(widest(|layer| layer.feed_forward_length)),
            logits: vec![0.0; score_rows * spec.vocab_size],
            normed: Activations::new(max_tokens, spec.hidden_size),
            attended: activations(attended),
            gated: activations(gated),
            scored: Activations::new(score_rows, spec.hidden_size),
            positions: Vec::with_capacity(max_tokens),
            places: Vec::with_capacity(max_tokens),
            tables: ropes
                .iter()
                .map(|rope| vec![(0.0, 0.0); max_tokens * rope.dims / 2])
                .collect(),
            table_of_layer,
            attended_of_layer,
            gated_of_layer,
        }
    }

    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    pub(crate) fn bytes(&self) -> u64 {
        let floats = [
            &self.stream,
            &self.branch,
            &self.q,
            &self.k,
            &self.v,
            &self.gate,
            &self.up,
            &self.logits,
        ];
        let floats: usize = floats.iter().map(|buffer| buffer.len() * 4).sum();
        let tables: usize = self.tables.iter().map(|table| table.len() * 8).sum();
        let activations = self
            .attended
            .iter()
            .chain(&self.gated)
            .chain([&self.normed, &self.scored]);
        (floats + tables + activations.map(Activations::bytes).sum::<usize>()) as u64
    }
}

/// The distinct values of a list, and for each element the index of its value.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> (Vec<T>, Vec<usize>) {
    let mut values = Vec::new();
    let mut indices = Vec::new();
    for item in items {
        let found = values.iter().position(|value| *value == item);
        indices.push(found.unwrap_or(values.len()));
        if found.is_none() {
            values.push(item);
        }
    }
    (values, indices)
}
