//! The memory of a step, sized once from the model's description.

use crate::spec::{LayerSpec, Mixer, ModelSpec, RopeSpec};
use dunlin_compute::{Activations, AttentionJob, AttentionScratch, KvLayout, Precision};

/// Rows whose scores are computed together, and for which a generating model keeps room.
pub const SCORE_ROWS: usize = 16;

/// Everything a step writes to, sized once.
pub(crate) struct Buffers {
    max_tokens: usize,
    /// The residual stream `[tokens, hidden_size]`.
    pub stream: Vec<f32>,
    /// A product's result that is added to the stream, `[tokens, hidden_size]`.
    pub branch: Vec<f32>,
    /// Queries, or all that a recurrent mixer projects.
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    /// Gate of the feed-forward part or of a mixer's result.
    pub gate: Vec<f32>,
    /// Up projection, or the decays and strengths of a delta net.
    pub up: Vec<f32>,
    /// Embeddings of each token for each layer.
    pub per_layer: Vec<f32>,
    pub per_layer_row: Vec<f32>,
    pub logits: Vec<f32>,
    pub normed: Activations,
    pub mixed: Vec<Activations>,
    pub gated: Vec<Activations>,
    pub per_layer_gated: Activations,
    pub scored: Activations,
    /// Position of each token, and its place in the cache.
    pub positions: Vec<u32>,
    pub places: Vec<(u32, u32)>,
    /// The tokens of each chunk, and the blocks of their sequences one after the other.
    pub jobs: Vec<AttentionJob>,
    pub blocks: Vec<u32>,
    pub attention: AttentionScratch,
    /// Cosines and sines of each token, one table for each distinct rotation.
    pub tables: Vec<Vec<(f32, f32)>>,
    /// Which table a layer uses; 0 where it has none.
    pub table_of_layer: Vec<usize>,
    /// Which of `mixed` and `gated` a layer uses (their widths can differ by layer).
    pub mixed_of_layer: Vec<usize>,
    pub gated_of_layer: Vec<usize>,
}

/// Elements for each token of the buffers that hold plain numbers.
struct Widths {
    hidden: usize,
    q: usize,
    k: usize,
    v: usize,
    gate: usize,
    up: usize,
    per_layer: usize,
}

impl Widths {
    fn of(spec: &ModelSpec) -> Self {
        let widest =
            |size: &dyn Fn(&LayerSpec) -> usize| spec.layers.iter().map(size).max().unwrap_or(0);
        let feed_forward = widest(&|layer| layer.feed_forward.length);
        Widths {
            hidden: spec.hidden_size,
            q: widest(&|layer| match &layer.mixer {
                Mixer::Attention(attention) => attention.q_size(),
                Mixer::DeltaNet(delta) => delta.channels(),
                Mixer::ShortConv(conv) => 3 * conv.channels,
            }),
            k: widest(&|layer| layer.attention().map_or(0, |attention| attention.k_size())),
            v: widest(&|layer| match &layer.mixer {
                Mixer::Attention(attention) => attention.v_size(),
                // Its results, before they are normed and gated.
                Mixer::DeltaNet(delta) => delta.value_size(),
                Mixer::ShortConv(_) => 0,
            }),
            gate: feed_forward.max(widest(&|layer| match &layer.mixer {
                Mixer::Attention(attention) if attention.output_gate => attention.output_size(),
                Mixer::DeltaNet(delta) => delta.value_size(),
                _ => 0,
            })),
            up: feed_forward.max(widest(&|layer| match &layer.mixer {
                Mixer::DeltaNet(delta) => 2 * delta.value_heads,
                _ => 0,
            })),
            per_layer: spec.per_layer_input.unwrap_or(0) * spec.layers.len(),
        }
    }
}

impl Buffers {
    /// For steps of so many tokens that see up to `positions`, on so many threads.
    pub(crate) fn new(
        spec: &ModelSpec,
        max_tokens: usize,
        positions: usize,
        threads: usize,
    ) -> Self {
        let widths = Widths::of(spec);
        let zeros = |width: usize| vec![0.0; max_tokens * width];
        let (ropes, table_of_layer) = ropes(spec);
        let (mixed, mixed_of_layer) =
            distinct(spec.layers.iter().map(|layer| layer.mixer.output_size()));
        let (gated, gated_of_layer) =
            distinct(spec.layers.iter().map(|layer| layer.feed_forward.length));
        let input = |tokens, width| Activations::with_precision(tokens, width, precision(spec));
        let inputs = |widths: Vec<usize>| {
            let inputs = widths.into_iter().map(|width| input(max_tokens, width));
            inputs.collect()
        };
        let score_rows = score_rows(spec, max_tokens);
        Buffers {
            max_tokens,
            stream: zeros(widths.hidden),
            branch: zeros(widths.hidden),
            q: zeros(widths.q),
            k: zeros(widths.k),
            v: zeros(widths.v),
            gate: zeros(widths.gate),
            up: zeros(widths.up),
            per_layer: zeros(widths.per_layer),
            per_layer_row: vec![0.0; widths.per_layer],
            logits: vec![0.0; score_rows * spec.vocab_size],
            normed: input(max_tokens, spec.hidden_size),
            mixed: inputs(mixed),
            gated: inputs(gated),
            per_layer_gated: input(max_tokens, spec.per_layer_input.unwrap_or(0)),
            scored: input(score_rows, spec.hidden_size),
            positions: Vec::with_capacity(max_tokens),
            places: Vec::with_capacity(max_tokens),
            jobs: Vec::with_capacity(max_tokens),
            blocks: Vec::with_capacity(max_tokens),
            attention: AttentionScratch::new(threads, max_tokens, positions, attentions(spec)),
            tables: ropes
                .iter()
                .map(|rope| vec![(0.0, 0.0); max_tokens * rope.dims / 2])
                .collect(),
            table_of_layer,
            mixed_of_layer,
            gated_of_layer,
        }
    }

    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Bytes that [`Buffers::new`] takes for the same.
    pub(crate) fn bytes(
        spec: &ModelSpec,
        max_tokens: usize,
        positions: usize,
        threads: usize,
    ) -> u64 {
        let (widths, precision) = (Widths::of(spec), precision(spec));
        let numbers = 2 * widths.hidden
            + widths.q
            + widths.k
            + widths.v
            + widths.gate
            + widths.up
            + widths.per_layer
            + ropes(spec).0.iter().map(|rope| rope.dims).sum::<usize>();
        let (mixed, _) = distinct(spec.layers.iter().map(|layer| layer.mixer.output_size()));
        let (gated, _) = distinct(spec.layers.iter().map(|layer| layer.feed_forward.length));
        let inputs = mixed
            .into_iter()
            .chain(gated)
            .chain([spec.hidden_size, spec.per_layer_input.unwrap_or(0)]);
        let inputs: usize = inputs
            .map(|width| Activations::bytes_for(max_tokens, width, precision))
            .sum();
        let rows = score_rows(spec, max_tokens);
        let scores =
            4 * rows * spec.vocab_size + Activations::bytes_for(rows, spec.hidden_size, precision);
        let attention = AttentionScratch::bytes(threads, max_tokens, positions, attentions(spec));
        let rest = 4 * (max_tokens * numbers + widths.per_layer) + inputs + scores;
        attention as u64 + rest as u64
    }
}

/// The most exact rows that products of a model may take.
fn precision(spec: &ModelSpec) -> Precision {
    match spec.causal {
        true => Precision::Bits8,
        false => Precision::Bits16,
    }
}

fn score_rows(spec: &ModelSpec, max_tokens: usize) -> usize {
    match spec.can_generate() {
        true => SCORE_ROWS.min(max_tokens),
        false => 0,
    }
}

/// Query heads and cache of each layer that attends.
fn attentions(spec: &ModelSpec) -> impl Iterator<Item = (usize, KvLayout)> {
    spec.attentions()
        .map(|layer| (layer.head_count, layer.kv_layout()))
}

/// The distinct rotations of a model, and for each layer the index of its own.
pub(crate) fn ropes(spec: &ModelSpec) -> (Vec<RopeSpec>, Vec<usize>) {
    let (ropes, of_attention) = distinct(spec.attentions().map(|layer| layer.rope.clone()));
    let mut of_attention = of_attention.into_iter();
    let of_layer = spec.layers.iter().map(|layer| match layer.attention() {
        Some(_) => of_attention.next().unwrap_or(0),
        None => 0,
    });
    let of_layer = of_layer.collect();
    (ropes, of_layer)
}

/// The distinct values of a list, and for each element the index of its value.
pub(crate) fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> (Vec<T>, Vec<usize>) {
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
