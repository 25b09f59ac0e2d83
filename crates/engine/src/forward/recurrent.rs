//! Mixers with a state: the gated delta net and the short convolution.

use super::{product, quantized};
use crate::EngineError;
use crate::engine::{Chunk, Engine};
use crate::spec::{DeltaNetSpec, ShortConvSpec};
use crate::weights::MixerWeights;
use dunlin_compute::{
    Conv, DeltaNet, Nonlinearity, convolve, delta_net, for_each_rows, gate, matmul,
    rms_norm_in_place,
};

/// What keeps the length of queries and keys from zero, in Hugging Face's code for this mixer.
const L2_EPS: f32 = 1e-6;

impl Engine {
    /// Queries, keys and values through a convolution and the delta rule; the normed, gated result into the branch.
    pub(super) fn delta_net(
        &mut self,
        index: usize,
        spec: DeltaNetSpec,
        chunks: &[Chunk<'_>],
    ) -> Result<(), EngineError> {
        let (tier, pool) = (self.config.tier, &self.pool);
        let MixerWeights::DeltaNet(weights) = &self.weights.layers[index].mixer else {
            return Ok(());
        };
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let (channels, values, heads) = (spec.channels(), spec.value_size(), spec.value_heads);
        let rows = &mut buffers.q[..tokens * channels];
        let z = &mut buffers.gate[..tokens * values];
        let (decay, beta) = buffers.up[..2 * tokens * heads].split_at_mut(tokens * heads);
        matmul(
            pool,
            tier,
            &buffers.normed,
            &mut [
                product(&weights.mixed, &mut *rows),
                product(&weights.gate, &mut *z),
                product(&weights.alpha, &mut *decay),
                product(&weights.beta, &mut *beta),
            ],
        );
        for decay in decay.chunks_exact_mut(heads) {
            for ((x, bias), a) in decay.iter_mut().zip(&weights.dt_bias).zip(&weights.a) {
                *x = (softplus(*x + bias) * a).exp();
            }
        }
        beta.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp()));

        let out = &mut buffers.v[..tokens * values];
        let at = self.cache.state_of_layer[index];
        let (conv_len, state_len) = (spec.conv_state_len(), values * spec.head_dim_k);
        let mut first = 0;
        for chunk in chunks {
            let sequence = self.cache.get_mut(chunk.sequence)?;
            let state = &mut sequence.state[at..at + conv_len + state_len];
            let (conv_state, state) = state.split_at_mut(conv_len);
            let these = first..first + chunk.tokens.len();
            first = these.end;
            let rows = &mut rows[these.start * channels..these.end * channels];
            let conv = Conv {
                weight: &weights.conv,
                channels,
                rows: &mut *rows,
                stride: channels,
                state: conv_state,
                silu: true,
            };
            convolve(pool, tier, conv);
            let q_length = 1.0 / (spec.head_dim_k as f32).sqrt();
            for_each_rows(pool, chunk.tokens.len(), rows, &mut [], |_, row, _| {
                let (q, rest) = row.split_at_mut(spec.key_size());
                for head in q.chunks_exact_mut(spec.head_dim_k) {
                    to_length(head, q_length);
                }
                for head in rest[..spec.key_size()].chunks_exact_mut(spec.head_dim_k) {
                    to_length(head, 1.0);
                }
            });
            let job = DeltaNet {
                key_heads: spec.key_heads,
                value_heads: heads,
                dim_k: spec.head_dim_k,
                dim_v: spec.head_dim_v,
                mixed: rows,
                decay: &decay[these.start * heads..these.end * heads],
                beta: &beta[these.start * heads..these.end * heads],
                state,
                out: &mut out[these.start * values..these.end * values],
            };
            delta_net(pool, tier, job);
        }

        let eps = self.spec.norm.eps();
        let mixed = &mut buffers.mixed[buffers.mixed_of_layer[index]];
        let z = &*z;
        let quantize = quantized(&weights.output);
        mixed.fill_from(pool, tier, tokens, quantize, out, |token, normed, row| {
            for head in normed.chunks_exact_mut(spec.head_dim_v) {
                rms_norm_in_place(tier, head, &weights.norm, eps);
            }
            let z = &z[token * values..][..values];
            gate(tier, Nonlinearity::Silu, z, normed, row);
        });
        let branch = &mut buffers.branch[..tokens * self.spec.hidden_size];
        matmul(pool, tier, mixed, &mut [product(&weights.output, branch)]);
        Ok(())
    }

    /// `c * convolution(b * x)` through the output projection into the branch.
    pub(super) fn short_conv(
        &mut self,
        index: usize,
        spec: ShortConvSpec,
        chunks: &[Chunk<'_>],
    ) -> Result<(), EngineError> {
        let (tier, pool) = (self.config.tier, &self.pool);
        let MixerWeights::ShortConv(weights) = &self.weights.layers[index].mixer else {
            return Ok(());
        };
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let (channels, stride) = (spec.channels, 3 * spec.channels);
        let rows = &mut buffers.q[..tokens * stride];
        matmul(
            pool,
            tier,
            &buffers.normed,
            &mut [product(&weights.input, &mut *rows)],
        );
        for row in rows.chunks_exact_mut(stride) {
            let (b, rest) = row.split_at_mut(channels);
            for (b, x) in b.iter_mut().zip(&rest[channels..]) {
                *b *= x;
            }
        }
        let at = self.cache.state_of_layer[index];
        let state_len = (spec.conv_taps - 1) * channels;
        let mut first = 0;
        for chunk in chunks {
            let sequence = self.cache.get_mut(chunk.sequence)?;
            let last = first + chunk.tokens.len();
            let conv = Conv {
                weight: &weights.conv,
                channels,
                rows: &mut rows[first * stride..last * stride],
                stride,
                state: &mut sequence.state[at..at + state_len],
                silu: false,
            };
            convolve(pool, tier, conv);
            first = last;
        }
        let rows = &*rows;
        let mixed = &mut buffers.mixed[buffers.mixed_of_layer[index]];
        let quantize = quantized(&weights.output);
        mixed.fill(pool, tier, tokens, quantize, |token, out| {
            let row = &rows[token * stride..][..stride];
            let (y, rest) = row.split_at(channels);
            for ((out, y), c) in out.iter_mut().zip(y).zip(rest) {
                *out = y * c;
            }
        });
        let branch = &mut buffers.branch[..tokens * self.spec.hidden_size];
        matmul(pool, tier, mixed, &mut [product(&weights.output, branch)]);
        Ok(())
    }
}

/// `ln(1 + e^x)`, which is `x` where `e^x` would overflow.
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { x.exp().ln_1p() }
}

/// Scales a head to the given length.
fn to_length(head: &mut [f32], length: f32) {
    let squares: f32 = head.iter().map(|x| x * x).sum();
    let scale = length / (squares + L2_EPS).sqrt();
    head.iter_mut().for_each(|x| *x *= scale);
}
