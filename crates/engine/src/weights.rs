//! A model's weights, packed for the kernels and bound to their places.

mod bind;
mod convert;

pub(crate) use bind::load;

use dunlin_compute::{PackedMatrix, PanelFormat};
use dunlin_format::DType;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Told while weights are packed: bytes done, and of how many. Break to give up.
pub type LoadProgress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Types that matrices are to have in memory, by the names of their tensors. The others keep those of the file.
pub type WeightTypes = BTreeMap<String, DType>;

/// Where a model's matrices are computed from.
#[derive(Default)]
pub(crate) enum WeightSource<'a> {
    /// Panels in memory, of the file's types.
    #[default]
    Packed,
    /// Panels in memory, some of other types.
    Converted(&'a WeightTypes),
    /// The file's pages.
    Mapped,
}

/// All weights of a model but its embedding rows, which are read from the file a row at a time.
pub(crate) struct Weights {
    /// `[positions, hidden_size]`
    pub positions: Option<Vec<f32>>,
    /// `[types, hidden_size]`
    pub token_types: Vec<f32>,
    pub embedding_norm: Option<NormWeights>,
    pub per_layer: Option<PerLayerWeights>,
    pub layers: Vec<LayerWeights>,
    /// The distinct rotations, in the order of [`crate::buffers::Buffers::tables`].
    pub rotations: Vec<Rotation>,
    pub output_norm: Option<NormWeights>,
    pub head: Option<PackedMatrix>,
    pub dense: Vec<PackedMatrix>,
    pub classifier: Option<ClassifierWeights>,
}

/// One layer.
pub(crate) struct LayerWeights {
    pub mixer_norms: NormSet,
    pub mixer: MixerWeights,
    pub feed_forward_norms: NormSet,
    pub gate: Option<PackedMatrix>,
    pub up: Linear,
    pub down: Linear,
    pub input: Option<LayerInputWeights>,
    pub output_scale: Option<f32>,
}

pub(crate) enum MixerWeights {
    Attention(AttentionWeights),
    DeltaNet(DeltaNetWeights),
    ShortConv(ShortConvWeights),
}

pub(crate) struct AttentionWeights {
    pub q: Linear,
    /// Keys and values; `None` where the layer reads those of another.
    pub kv: Option<[Linear; 2]>,
    /// Gate of the result.
    pub gate: Option<PackedMatrix>,
    pub q_norm: Option<Vec<f32>>,
    pub k_norm: Option<Vec<f32>>,
    /// Ones, as long as a value head.
    pub v_norm: Option<Vec<f32>>,
    pub output: Linear,
}

pub(crate) struct DeltaNetWeights {
    pub mixed: PackedMatrix,
    pub gate: PackedMatrix,
    pub alpha: PackedMatrix,
    pub beta: PackedMatrix,
    /// `[taps, channels]`
    pub conv: Vec<f32>,
    pub dt_bias: Vec<f32>,
    /// Negative.
    pub a: Vec<f32>,
    pub norm: Vec<f32>,
    pub output: PackedMatrix,
}

pub(crate) struct ShortConvWeights {
    pub input: PackedMatrix,
    /// `[taps, channels]`
    pub conv: Vec<f32>,
    pub output: PackedMatrix,
}

/// What turns a token's embedding into one for each layer.
pub(crate) struct PerLayerWeights {
    pub projection: PackedMatrix,
    pub norm: Vec<f32>,
}

/// What adds such an embedding to a layer.
pub(crate) struct LayerInputWeights {
    pub gate: PackedMatrix,
    pub projection: PackedMatrix,
    pub norm: NormWeights,
}

pub(crate) struct ClassifierWeights {
    pub dense: Option<Linear>,
    pub norm: Option<NormWeights>,
    pub output: Linear,
}

/// A matrix and what is added to its product.
pub(crate) struct Linear {
    pub weight: PackedMatrix,
    pub bias: Option<Vec<f32>>,
}

pub(crate) struct NormWeights {
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
}

/// The norms around a part of a layer.
pub(crate) struct NormSet {
    pub before: Option<NormWeights>,
    pub branch: Option<NormWeights>,
    pub after: Option<NormWeights>,
}

/// Radians per position of each rotated pair.
pub(crate) struct Rotation {
    pub frequencies: Vec<f32>,
    /// Those of sequences past the original context, where they differ.
    pub long: Option<Vec<f32>>,
    pub magnitude: f32,
}

impl Weights {
    /// Bytes of memory of the packed matrices.
    pub(crate) fn bytes(&self) -> u64 {
        let matrices = self.matrices().into_iter();
        matrices.map(|matrix| matrix.bytes() as u64).sum()
    }

    /// Bytes of the file that matrices are computed from.
    pub(crate) fn mapped_bytes(&self) -> u64 {
        let matrices = self.matrices().into_iter();
        matrices.map(|matrix| matrix.shared_bytes() as u64).sum()
    }

    /// Keeps the system from swapping packed matrices out.
    pub(crate) fn lock(&self) -> std::io::Result<()> {
        self.matrices().into_iter().try_for_each(PackedMatrix::lock)
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        let mut matrices = Vec::new();
        matrices.extend(&self.head);
        matrices.extend(&self.dense);
        matrices.extend(self.per_layer.as_ref().map(|weights| &weights.projection));
        if let Some(classifier) = &self.classifier {
            matrices.extend(classifier.dense.as_ref().map(|dense| &dense.weight));
            matrices.push(&classifier.output.weight);
        }
        for layer in &self.layers {
            matrices.extend(layer.mixer.inputs());
            matrices.push(layer.mixer.output());
            matrices.extend(&layer.gate);
            matrices.extend([&layer.up.weight, &layer.down.weight]);
            if let Some(input) = &layer.input {
                matrices.extend([&input.gate, &input.projection]);
            }
        }
        matrices
    }
}

impl MixerWeights {
    /// The matrices that read the layer's normed input.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &PackedMatrix> {
        let matrices = match self {
            MixerWeights::Attention(AttentionWeights { q, kv, gate, .. }) => {
                let [k, v] = match kv {
                    Some([k, v]) => [Some(&k.weight), Some(&v.weight)],
                    None => [None, None],
                };
                [Some(&q.weight), k, v, gate.as_ref()]
            }
            MixerWeights::DeltaNet(delta) => {
                [&delta.mixed, &delta.gate, &delta.alpha, &delta.beta].map(Some)
            }
            MixerWeights::ShortConv(conv) => [Some(&conv.input), None, None, None],
        };
        matrices.into_iter().flatten()
    }

    /// What is added to the mixer's result.
    pub(crate) fn output_bias(&self) -> Option<&Vec<f32>> {
        match self {
            MixerWeights::Attention(attention) => attention.output.bias.as_ref(),
            MixerWeights::DeltaNet(_) | MixerWeights::ShortConv(_) => None,
        }
    }

    fn output(&self) -> &PackedMatrix {
        match self {
            MixerWeights::Attention(attention) => &attention.output.weight,
            MixerWeights::DeltaNet(delta) => &delta.output,
            MixerWeights::ShortConv(conv) => &conv.output,
        }
    }
}

/// Whether a product with any of these weights needs quantized activations.
pub(crate) fn any_quantized<'a>(weights: impl IntoIterator<Item = &'a PackedMatrix>) -> bool {
    weights
        .into_iter()
        .any(|matrix| PanelFormat::is_quantized(matrix.format()))
}
