//! The feed-forward part, and a token's embedding for the layer.

use super::{nonlinearity, precision, product, quantized};
use crate::engine::Engine;
use crate::lora::Site;
use dunlin_compute::{Gated, activate_in_place, add_assign, gate, matmul, matmul_gated};

impl Engine {
    /// `down(f(gate(x)) * up(x))` of the normed stream into the branch.
    pub(super) fn feed_forward(&mut self, index: usize) {
        let (tier, pool) = (self.config.tier, &self.pool);
        let (spec, weights, buffers) = (
            &self.spec.layers[index].feed_forward,
            &self.weights.layers[index],
            &mut self.buffers,
        );
        let tokens = buffers.positions.len();
        let width = spec.length;
        let kind = nonlinearity(spec.activation);
        let gated = &mut buffers.gated[buffers.gated_of_layer[index]];
        gated.set_precision(precision(&self.spec, tier, None));
        let quantize = quantized(&weights.down.weight);
        let fused = Gated {
            gate: weights.gate.as_ref(),
            up: &weights.up.weight,
            bias: weights.up.bias.as_deref().unwrap_or_default(),
            kind,
        };
        let (input, output) = (
            Site::FeedForwardInput(index),
            Site::FeedForwardOutput(index),
        );
        // Adapters need the factors and their product as floats.
        let adapted = self.adapters.change(input) || self.adapters.change(output);
        if !adapted && quantize && fused.fits(&buffers.normed, gated) {
            matmul_gated(pool, tier, &buffers.normed, fused, gated);
        } else {
            let gates = &mut buffers.gate[..tokens * width];
            let ups = &mut buffers.up[..tokens * width];
            let up = product(&weights.up.weight, &mut *ups);
            match &weights.gate {
                Some(gate) => {
                    let mut products = [product(gate, &mut *gates), up];
                    matmul(pool, tier, &buffers.normed, &mut products);
                }
                None => matmul(pool, tier, &buffers.normed, &mut [up]),
            }
            let outputs = [Some(&mut *gates), Some(&mut *ups), None, None];
            self.adapters
                .add(pool, tier, input, &buffers.normed, outputs);
            gated.fill_from(pool, tier, tokens, quantize, ups, |token, up, row| {
                add_assign(up, fused.bias);
                if weights.gate.is_some() {
                    let gates = &gates[token * width..][..width];
                    gate(tier, kind, gates, up, row);
                } else {
                    row.copy_from_slice(up);
                    activate_in_place(tier, kind, row);
                }
            });
        }
        let branch = &mut buffers.branch[..tokens * self.spec.hidden_size];
        let mut products = [product(&weights.down.weight, &mut *branch)];
        matmul(pool, tier, gated, &mut products);
        let outputs = [Some(branch), None, None, None];
        self.adapters.add(pool, tier, output, gated, outputs);
    }

    /// `projection(f(gate(x)) * embedding for this layer)` of the stream into the branch.
    pub(super) fn layer_input(&mut self, index: usize) {
        let (tier, pool) = (self.config.tier, &self.pool);
        let weights = &self.weights.layers[index];
        let (Some(weights), Some(width)) = (&weights.input, self.spec.per_layer_input) else {
            return;
        };
        let kind = nonlinearity(self.spec.layers[index].feed_forward.activation);
        let layers = self.spec.layers.len();
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let gates = &mut buffers.gate[..tokens * width];
        let mut products = [product(&weights.gate, &mut *gates)];
        matmul(pool, tier, &buffers.normed, &mut products);
        let inputs = &buffers.per_layer;
        let quantize = quantized(&weights.projection);
        let gated = &mut buffers.per_layer_gated;
        gated.fill(pool, tier, tokens, quantize, |token, row| {
            let input = &inputs[(token * layers + index) * width..][..width];
            gate(tier, kind, &gates[token * width..][..width], input, row);
        });
        let branch = &mut buffers.branch[..tokens * self.spec.hidden_size];
        let mut products = [product(&weights.projection, branch)];
        matmul(pool, tier, gated, &mut products);
    }
}
