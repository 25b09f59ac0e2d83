//! Attention over the cache.

use super::{precision, product, quantized};
use crate::engine::Engine;
use crate::lora::Site;
use crate::spec::{AttentionSpec, QkNorm, RopeKind};
use crate::weights::MixerWeights;
use dunlin_compute::{
    Attention, Sight, Tier, add_assign, attend, for_each_rows, matmul, rms_norm_in_place,
    rope_in_place, scale_in_place, sigmoid_gate, store_kv,
};

impl Engine {
    /// Queries, keys and values of the normed stream, attention, and its output into the branch.
    pub(super) fn attention(&mut self, index: usize) {
        let (tier, pool) = (self.config.tier, &self.pool);
        let (Some(spec), MixerWeights::Attention(weights)) = (
            self.spec.layers[index].attention(),
            &self.weights.layers[index].mixer,
        ) else {
            return;
        };
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let kv_tokens = if weights.kv.is_some() { tokens } else { 0 };
        let q = &mut buffers.q[..tokens * spec.q_size()];
        let k = &mut buffers.k[..kv_tokens * spec.k_size()];
        let v = &mut buffers.v[..kv_tokens * spec.v_size()];
        let gate_tokens = if weights.gate.is_some() { tokens } else { 0 };
        let gate = &mut buffers.gate[..gate_tokens * spec.output_size()];
        let q_product = product(&weights.q.weight, &mut *q);
        match (&weights.kv, &weights.gate) {
            (Some([wk, wv]), None) => {
                let mut products = [
                    q_product,
                    product(&wk.weight, &mut *k),
                    product(&wv.weight, &mut *v),
                ];
                matmul(pool, tier, &buffers.normed, &mut products);
            }
            (Some([wk, wv]), Some(wg)) => {
                let mut products = [
                    q_product,
                    product(&wk.weight, &mut *k),
                    product(&wv.weight, &mut *v),
                    product(wg, &mut *gate),
                ];
                matmul(pool, tier, &buffers.normed, &mut products);
            }
            (None, _) => matmul(pool, tier, &buffers.normed, &mut [q_product]),
        }
        self.adapters.add(
            pool,
            tier,
            Site::MixerInput(index),
            &buffers.normed,
            [
                Some(&mut *q),
                Some(&mut *k),
                Some(&mut *v),
                Some(&mut *gate),
            ],
        );
        let eps = self.spec.norm.eps();
        let v_bias = weights.kv.as_ref().and_then(|[_, v]| v.bias.as_ref());
        if v_bias.is_some() || weights.v_norm.is_some() {
            for_each_rows(pool, kv_tokens, v, &mut [], |_, v, _| {
                add_assign(v, v_bias.map_or(&[], Vec::as_slice));
                if let Some(ones) = &weights.v_norm {
                    for head in v.chunks_exact_mut(spec.head_dim_v) {
                        rms_norm_in_place(tier, head, ones, eps);
                    }
                }
            });
        }
        let slab = self.cache.slab_of_layer[index];
        let table = &buffers.tables[buffers.table_of_layer[index]];
        let pairs = spec.rope.dims / 2;
        let positions = &buffers.positions;
        let k_bias = weights.kv.as_ref().and_then(|[k, _]| k.bias.as_ref());
        let prepare_q = |token: usize, q: &mut [f32]| {
            let table = &table[token * pairs..][..pairs];
            prepare(
                tier,
                spec,
                weights.q.bias.as_ref(),
                weights.q_norm.as_ref(),
                eps,
                table,
                q,
            );
            if let Some(temperature) = &spec.temperature {
                scale_in_place(q, temperature.at(positions[token]));
            }
        };
        if kv_tokens > 0 {
            for_each_rows(pool, tokens, q, k, |token, q, k| {
                prepare_q(token, q);
                let table = &table[token * pairs..][..pairs];
                prepare(tier, spec, k_bias, weights.k_norm.as_ref(), eps, table, k);
            });
            let slabs = &mut self.cache.slabs;
            store_kv(pool, tier, slabs, slab, &buffers.places, k, v);
        } else {
            for_each_rows(pool, tokens, q, &mut [], |token, q, _| prepare_q(token, q));
        }
        let mixed = &mut buffers.mixed[buffers.mixed_of_layer[index]];
        let window = spec.sliding_window.map(|window| window as usize);
        let layer = Attention {
            slabs: &self.cache.slabs,
            slab,
            blocks: &buffers.blocks,
            jobs: &buffers.jobs,
            heads: spec.head_count,
            sight: match self.spec.causal {
                true => Sight::Causal { window },
                false => Sight::Both { window },
            },
            scale: spec.scale,
            softcap: spec.softcap,
            q,
            out: mixed.rows_mut(tokens),
        };
        attend(pool, tier, &mut buffers.attention, layer);
        let width = spec.output_size();
        let quantize = quantized(&weights.output.weight);
        mixed.set_precision(precision(&self.spec, tier, None));
        mixed.fill(pool, tier, tokens, quantize, |token, row| {
            if gate_tokens > 0 {
                sigmoid_gate(tier, row, &gate[token * width..][..width]);
            }
        });
        let branch = &mut buffers.branch[..tokens * self.spec.hidden_size];
        let mut products = [product(&weights.output.weight, &mut *branch)];
        matmul(pool, tier, mixed, &mut products);
        let outputs = [Some(branch), None, None, None];
        self.adapters
            .add(pool, tier, Site::MixerOutput(index), mixed, outputs);
    }
}

/// Bias, norm and rotation of a token's queries or keys.
fn prepare(
    tier: Tier,
    spec: &AttentionSpec,
    bias: Option<&Vec<f32>>,
    norm: Option<&Vec<f32>>,
    eps: f32,
    table: &[(f32, f32)],
    row: &mut [f32],
) {
    if let Some(bias) = bias {
        add_assign(row, bias);
    }
    if let Some(norm) = norm {
        match spec.qk_norm {
            Some(QkNorm::Whole) => rms_norm_in_place(tier, row, norm, eps),
            _ => {
                for head in row.chunks_exact_mut(spec.head_dim_k) {
                    rms_norm_in_place(tier, head, norm, eps);
                }
            }
        }
    }
    rope_in_place(
        tier,
        row,
        spec.head_dim_k,
        table,
        spec.rope.kind == RopeKind::Interleaved,
    );
}
