//! How the tokens of a model see each other, layer by layer.

use dunlin_engine::ModelSpec;
use dunlin_engine::spec::{LayerSpec, Mixer};
use serde::Serialize;

/// How the tokens of a model see each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AttentionLayout {
    /// The kinds of layers, over the shortest stretch that repeats through the model.
    pub pattern: Vec<LayerRun>,
    /// Layers that see all tokens before, or of an encoder all tokens.
    pub global_layers: usize,
    /// Layers that see a window of tokens.
    pub sliding_layers: usize,
    /// Layers that keep a state of constant size instead of keys and values.
    pub recurrent_layers: usize,
    /// Layers that read the keys and values of an earlier one.
    pub sharing_layers: usize,
    /// Tokens that a sliding layer sees.
    pub window: Option<u32>,
    /// A token sees those behind it, too: an encoder.
    pub is_bidirectional: bool,
}

/// Layers of one kind in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LayerRun {
    /// What they do.
    pub kind: LayerKind,
    /// How many they are.
    pub layers: usize,
}

/// What a layer mixes tokens with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LayerKind {
    /// Attention to all tokens before.
    Global,
    /// Attention to a window of tokens.
    Sliding,
    /// A gated delta net: a matrix a head as its state.
    DeltaNet,
    /// A short convolution: the last few tokens as its state.
    ShortConv,
}

impl AttentionLayout {
    pub(super) fn of(spec: &ModelSpec) -> Self {
        let kinds: Vec<LayerKind> = spec.layers.iter().map(kind_of).collect();
        let count = |kind| kinds.iter().filter(|known| **known == kind).count();
        AttentionLayout {
            pattern: runs(&kinds[..period(&kinds)]),
            global_layers: count(LayerKind::Global),
            sliding_layers: count(LayerKind::Sliding),
            recurrent_layers: count(LayerKind::DeltaNet) + count(LayerKind::ShortConv),
            sharing_layers: spec
                .attentions()
                .filter(|attention| attention.shares_kv_of.is_some())
                .count(),
            window: spec
                .attentions()
                .find_map(|attention| attention.sliding_window),
            is_bidirectional: !spec.causal,
        }
    }

    /// The pattern in words: "5 sliding, 1 global".
    #[must_use]
    pub fn pattern_in_words(&self) -> String {
        let words = |run: &LayerRun| {
            let kind = match run.kind {
                LayerKind::Global => "global",
                LayerKind::Sliding => "sliding",
                LayerKind::DeltaNet => "gated delta net",
                LayerKind::ShortConv => "short convolution",
            };
            format!("{} {kind}", run.layers)
        };
        let words: Vec<String> = self.pattern.iter().map(words).collect();
        words.join(", ")
    }
}

fn kind_of(layer: &LayerSpec) -> LayerKind {
    match &layer.mixer {
        Mixer::Attention(attention) if attention.sliding_window.is_some() => LayerKind::Sliding,
        Mixer::Attention(_) => LayerKind::Global,
        Mixer::DeltaNet(_) => LayerKind::DeltaNet,
        Mixer::ShortConv(_) => LayerKind::ShortConv,
    }
}

/// Length of the shortest beginning whose repetition gives the whole list.
fn period(kinds: &[LayerKind]) -> usize {
    (1..kinds.len())
        .find(|period| (*period..kinds.len()).all(|at| kinds[at] == kinds[at - period]))
        .unwrap_or(kinds.len())
}

fn runs(kinds: &[LayerKind]) -> Vec<LayerRun> {
    let runs = kinds.chunk_by(|a, b| a == b).map(|run| LayerRun {
        kind: run[0],
        layers: run.len(),
    });
    runs.collect()
}

#[cfg(test)]
mod tests {
    use super::LayerKind::{Global as G, Sliding as S};
    use super::{period, runs};

    #[test]
    fn the_pattern_is_the_shortest_that_repeats() {
        assert_eq!(period(&[S, S, G, S, S, G, S]), 3);
        assert_eq!(period(&[G; 12]), 1);
        assert_eq!(period(&[S, G, G]), 3);
        assert_eq!(period(&[]), 0);
        let runs: Vec<_> = runs(&[S, S, G]).iter().map(|run| run.layers).collect();
        assert_eq!(runs, [2, 1]);
    }
}
