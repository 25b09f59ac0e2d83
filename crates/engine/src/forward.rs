//! The one forward pass of all models, on packed weights and static buffers.
//!
//! A decoder layer is five parallel regions (queries, keys and values; attention; its output; gate and up; down), with the
//! work on rows between them done by the caller for a few tokens and in parallel for many.

mod attention;
mod feed_forward;
mod input;
mod output;
mod recurrent;

pub(crate) use output::Output;

use crate::EngineError;
use crate::engine::{Chunk, Engine};
use crate::spec::{Activation, Mixer, ModelSpec, Norm};
use crate::weights::{NormSet, NormWeights, Weights, any_quantized};
use dunlin_compute::{
    Matmul, Nonlinearity, PackedMatrix, Precision, Tier, add_assign, add_sum_assign, layer_norm,
    layer_norm_in_place, rms_norm, rms_norm_in_place, scale_in_place,
};

/// What a step computes.
pub(crate) struct Batch<'a> {
    pub chunks: &'a [Chunk<'a>],
    /// One a token, or none: all of type 0.
    pub token_types: &'a [u32],
}

impl<'a> Batch<'a> {
    /// Tokens without types.
    pub(crate) fn of(chunks: &'a [Chunk<'a>]) -> Self {
        Batch {
            chunks,
            token_types: &[],
        }
    }
}

/// A part of a layer that adds to the stream.
#[derive(Clone, Copy)]
enum Part {
    Mixer,
    FeedForward,
    /// The token's embedding for the layer.
    Input,
}

impl Engine {
    /// Computes a checked batch whose positions the cache has counted in.
    pub(crate) fn forward(
        &mut self,
        batch: &Batch<'_>,
        output: &mut Output<'_>,
    ) -> Result<(), EngineError> {
        self.place(batch.chunks)?;
        self.embed_tokens(batch)?;
        let mut last = None;
        for layer in 0..self.spec.layers.len() {
            self.enter(last, layer, Part::Mixer);
            match self.spec.layers[layer].mixer {
                Mixer::Attention(_) => self.attention(layer),
                Mixer::DeltaNet(spec) => self.delta_net(layer, spec, batch.chunks)?,
                Mixer::ShortConv(spec) => self.short_conv(layer, spec, batch.chunks)?,
            }
            self.enter(Some((layer, Part::Mixer)), layer, Part::FeedForward);
            self.feed_forward(layer);
            last = Some((layer, Part::FeedForward));
            if self.weights.layers[layer].input.is_some() {
                self.enter(last, layer, Part::Input);
                self.layer_input(layer);
                last = Some((layer, Part::Input));
            }
        }
        self.leave(last);
        self.output(batch.chunks, output)
    }

    /// Adds what the last part computed to the stream, then puts the normed stream into the input of the next part's
    /// products.
    fn enter(&mut self, last: Option<(usize, Part)>, layer: usize, part: Part) {
        let (tier, hidden, kind) = (self.config.tier, self.spec.hidden_size, self.spec.norm);
        let sum =
            last.map(|(layer, part)| Sum::of(&self.weights, layer, part, self.spec.residual_scale));
        let weights = &self.weights.layers[layer];
        let (norm, quantize) = match part {
            Part::Mixer => (
                weights.mixer_norms.before.as_ref(),
                any_quantized(weights.mixer.inputs()),
            ),
            Part::FeedForward => (
                weights.feed_forward_norms.before.as_ref(),
                any_quantized(
                    [Some(&weights.up.weight), weights.gate.as_ref()]
                        .into_iter()
                        .flatten(),
                ),
            ),
            Part::Input => (
                None,
                any_quantized(weights.input.as_ref().map(|input| &input.gate)),
            ),
        };
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let branch = &buffers.branch;
        let stream = &mut buffers.stream[..tokens * hidden];
        let exact = matches!(part, Part::Mixer).then_some(layer);
        buffers
            .normed
            .set_precision(precision(&self.spec, tier, exact));
        buffers.normed.fill_from(
            &self.pool,
            tier,
            tokens,
            quantize,
            stream,
            |token, stream, out| {
                if let Some(sum) = &sum {
                    sum.add(tier, kind, stream, &branch[token * hidden..][..hidden], out);
                }
                match norm {
                    Some(norm) => normalize(tier, kind, norm, stream, out),
                    None => out.copy_from_slice(stream),
                }
            },
        );
    }

    /// Adds what the last part computed to the stream at the end of the layers.
    fn leave(&mut self, last: Option<(usize, Part)>) {
        let Some((layer, part)) = last else { return };
        let (tier, hidden, kind) = (self.config.tier, self.spec.hidden_size, self.spec.norm);
        let sum = Sum::of(&self.weights, layer, part, self.spec.residual_scale);
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let branch = &buffers.branch;
        let stream = &mut buffers.stream[..tokens * hidden];
        buffers.normed.fill_from(
            &self.pool,
            tier,
            tokens,
            false,
            stream,
            |token, stream, scratch| {
                sum.add(
                    tier,
                    kind,
                    stream,
                    &branch[token * hidden..][..hidden],
                    scratch,
                );
            },
        );
    }
}

/// How exact the input of a product is; `mixer` is the layer whose queries, keys and values it gives, if it does.
///
/// Embeddings are compared with those of other engines and kept: models that make nothing else get more exact inputs than a choice
/// of the next token needs. Where bytes are faster, those are kept for what decides most: what the later layers attend to, whose
/// errors no layer evens out (`docs/performance.md` has the figures).
fn precision(spec: &ModelSpec, tier: Tier, mixer: Option<usize>) -> Precision {
    let decides = |layer| 2 * layer >= spec.layers.len();
    match spec.causal || tier.has_dot_product() && !mixer.is_some_and(decides) {
        true => Precision::Bits8,
        false => Precision::Bits16,
    }
}

/// How a part's result joins the stream: `stream = after?(stream + scale * norm?(branch + bias?)) * output_scale?`
struct Sum<'a> {
    bias: Option<&'a Vec<f32>>,
    norm: Option<&'a NormWeights>,
    scale: f32,
    after: Option<&'a NormWeights>,
    output_scale: Option<f32>,
}

impl<'a> Sum<'a> {
    fn of(weights: &'a Weights, layer: usize, part: Part, scale: f32) -> Self {
        let weights = &weights.layers[layer];
        let of = |bias, norms: &'a NormSet, output_scale| Sum {
            bias,
            norm: norms.branch.as_ref(),
            scale,
            after: norms.after.as_ref(),
            output_scale,
        };
        match part {
            Part::Mixer => of(weights.mixer.output_bias(), &weights.mixer_norms, None),
            Part::FeedForward => of(
                weights.down.bias.as_ref(),
                &weights.feed_forward_norms,
                weights.output_scale.filter(|_| weights.input.is_none()),
            ),
            Part::Input => Sum {
                bias: None,
                norm: weights.input.as_ref().map(|input| &input.norm),
                scale: 1.0,
                after: None,
                output_scale: weights.output_scale,
            },
        }
    }

    /// `scratch` is a row like the others.
    fn add(&self, tier: Tier, kind: Norm, stream: &mut [f32], branch: &[f32], scratch: &mut [f32]) {
        let mut branch = branch;
        let mut bias = self.bias.map_or(&[][..], Vec::as_slice);
        if self.norm.is_some() || self.scale != 1.0 {
            scratch.copy_from_slice(branch);
            add_assign(scratch, bias);
            bias = &[];
            if let Some(norm) = self.norm {
                normalize_in_place(tier, kind, norm, scratch);
            }
            if self.scale != 1.0 {
                scale_in_place(scratch, self.scale);
            }
            branch = scratch;
        }
        match bias {
            [] => add_assign(stream, branch),
            bias => add_sum_assign(stream, branch, bias),
        }
        if let Some(after) = self.after {
            normalize_in_place(tier, kind, after, stream);
        }
        if let Some(scale) = self.output_scale {
            scale_in_place(stream, scale);
        }
    }
}

fn normalize(tier: Tier, kind: Norm, norm: &NormWeights, x: &[f32], out: &mut [f32]) {
    match kind {
        Norm::Rms { eps } => rms_norm(tier, x, &norm.weight, eps, out),
        Norm::Layer { eps, .. } => {
            layer_norm(tier, x, &norm.weight, norm.bias.as_deref(), eps, out);
        }
    }
}

pub(crate) fn normalize_in_place(tier: Tier, kind: Norm, norm: &NormWeights, x: &mut [f32]) {
    match kind {
        Norm::Rms { eps } => rms_norm_in_place(tier, x, &norm.weight, eps),
        Norm::Layer { eps, .. } => {
            layer_norm_in_place(tier, x, &norm.weight, norm.bias.as_deref(), eps);
        }
    }
}

fn nonlinearity(activation: Activation) -> Nonlinearity {
    match activation {
        Activation::Silu => Nonlinearity::Silu,
        Activation::GeluTanh => Nonlinearity::GeluTanh,
        Activation::Gelu => Nonlinearity::Gelu,
    }
}

fn product<'a>(weights: &'a PackedMatrix, out: &'a mut [f32]) -> Matmul<'a> {
    Matmul { weights, out }
}

/// Whether a product with this matrix needs quantized activations.
fn quantized(matrix: &PackedMatrix) -> bool {
    any_quantized([matrix])
}
