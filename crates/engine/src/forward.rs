//! The one forward pass of all decoder models, on packed weights and static buffers.
//!
//! A layer is five parallel regions (queries, keys and values; attention; its output; gate and up; down), with the work on
//! rows between them done by the caller for a few tokens and in parallel for many.

use crate::EngineError;
use crate::buffers::SCORE_ROWS;
use crate::engine::{Chunk, Engine, Logits, Scores};
use crate::spec::{Activation, LayerSpec, RopeKind, names};
use crate::weights::{LayerWeights, any_quantized};
use dunlin_compute::{
    AttentionJob, Matmul, Nonlinearity, POSITIONS_PER_BLOCK, Sight, Tier, add_assign, attend,
    for_each_rows, gate, matmul, rms_norm, rms_norm_in_place, rope_in_place, rope_table,
    scale_in_place, store_kv,
};
use dunlin_format::decode;

impl Engine {
    /// Computes a checked batch whose positions the cache has counted in.
    pub(crate) fn forward(
        &mut self,
        batch: &[Chunk<'_>],
        visit: &mut dyn FnMut(Scores<'_>),
    ) -> Result<(), EngineError> {
        self.place(batch)?;
        self.embed(batch)?;
        for layer in 0..self.spec.layers.len() {
            self.attention(layer, batch)?;
            self.feed_forward(layer);
        }
        self.add_branch(self.spec.layers.len().checked_sub(1), |post_norms| {
            &post_norms[1]
        });
        self.score(batch, visit)
    }

    /// Finds each token's position and place in the cache, and its rotations.
    fn place(&mut self, batch: &[Chunk<'_>]) -> Result<(), EngineError> {
        let buffers = &mut self.buffers;
        buffers.positions.clear();
        buffers.places.clear();
        for chunk in batch {
            let sequence = self.cache.get(chunk.sequence)?;
            for position in sequence.length - chunk.tokens.len()..sequence.length {
                buffers.positions.push(position as u32);
                let block = sequence.blocks[position / POSITIONS_PER_BLOCK];
                buffers
                    .places
                    .push((block, (position % POSITIONS_PER_BLOCK) as u32));
            }
        }
        for (index, table) in buffers.tables.iter_mut().enumerate() {
            let Some(layer) = buffers
                .table_of_layer
                .iter()
                .position(|used| *used == index)
            else {
                continue;
            };
            let frequencies = &self.weights.layers[layer].rope;
            for (row, position) in table
                .chunks_exact_mut(frequencies.len().max(1))
                .zip(&buffers.positions)
            {
                rope_table(*position, frequencies, 1.0, row);
            }
        }
        Ok(())
    }

    /// Reads the embedding rows into the stream.
    fn embed(&mut self, batch: &[Chunk<'_>]) -> Result<(), EngineError> {
        let name = names::TOKEN_EMBEDDING;
        let info = self
            .gguf
            .tensor(name)
            .ok_or_else(|| EngineError::MissingTensor {
                name: name.to_owned(),
            })?;
        let table = self.gguf.data(info);
        let row_bytes = table.len() / self.spec.vocab_size;
        let tokens = batch.iter().flat_map(|chunk| chunk.tokens);
        for (&token, row) in tokens.zip(self.buffers.stream.chunks_exact_mut(self.spec.hidden_size))
        {
            decode(
                info.dtype,
                &table[token as usize * row_bytes..][..row_bytes],
                row,
            )?;
            if self.spec.embedding_scale != 1.0 {
                scale_in_place(row, self.spec.embedding_scale);
            }
        }
        Ok(())
    }

    fn attention(&mut self, index: usize, batch: &[Chunk<'_>]) -> Result<(), EngineError> {
        self.add_and_norm(
            index.checked_sub(1),
            |post_norms| &post_norms[1],
            index,
            |layer| &layer.attn_norm,
        );
        let (tier, pool) = (self.config.tier, &self.pool);
        let (spec, weights, buffers) = (
            &self.spec.layers[index],
            &self.weights.layers[index],
            &mut self.buffers,
        );
        let tokens = buffers.positions.len();
        let q = &mut buffers.q[..tokens * spec.q_size()];
        let k = &mut buffers.k[..tokens * spec.k_size()];
        let v = &mut buffers.v[..tokens * spec.v_size()];
        let products = [
            (&weights.q, &mut *q),
            (&weights.k, &mut *k),
            (&weights.v, &mut *v),
        ];
        matmul(
            pool,
            tier,
            &buffers.normed,
            &mut products.map(|(weights, out)| Matmul { weights, out }),
        );
        if let Some([_, _, bias]) = &weights.qkv_bias {
            v.chunks_exact_mut(bias.len())
                .for_each(|row| add_assign(row, bias));
        }
        let table = &buffers.tables[buffers.table_of_layer[index]];
        let eps = self.spec.norm.eps();
        for_each_rows(pool, tokens, q, k, |token, q, k| {
            let table = &table[token * spec.rope.dims / 2..][..spec.rope.dims / 2];
            for (which, row) in [q, k].into_iter().enumerate() {
                prepare(tier, spec, weights, which, eps, table, row);
            }
        });
        let slab = &mut self.cache.slabs[index];
        store_kv(pool, tier, slab, &buffers.places, k, v);
        let attended = &mut buffers.attended[buffers.attended_of_layer[index]];
        let mut q = &*q;
        let mut out = attended.rows_mut(tokens);
        for chunk in batch {
            let sequence = self.cache.get(chunk.sequence)?;
            let count = chunk.tokens.len();
            let (this_q, this_out);
            (this_q, q) = q.split_at(count * spec.q_size());
            (this_out, out) = out.split_at_mut(count * spec.attention_size());
            let job = AttentionJob {
                slab: &self.cache.slabs[index],
                blocks: &sequence.blocks,
                heads: spec.head_count,
                first_position: sequence.length - count,
                sight: Sight::Causal {
                    window: spec.sliding_window.map(|window| window as usize),
                },
                softcap: None,
                scale: spec.attention_scale,
                q: this_q,
                out: this_out,
            };
            attend(pool, tier, job);
        }
        attended.fill(
            pool,
            tier,
            tokens,
            any_quantized(&[&weights.attn_output]),
            |_, _| {},
        );
        let branch = &mut buffers.branch[..tokens * self.spec.hidden_size];
        matmul(
            pool,
            tier,
            attended,
            &mut [Matmul {
                weights: &weights.attn_output,
                out: branch,
            }],
        );
        Ok(())
    }

    fn feed_forward(&mut self, index: usize) {
        self.add_and_norm(
            Some(index),
            |post_norms| &post_norms[0],
            index,
            |layer| &layer.ffn_norm,
        );
        let (tier, pool) = (self.config.tier, &self.pool);
        let (spec, weights, buffers) = (
            &self.spec.layers[index],
            &self.weights.layers[index],
            &mut self.buffers,
        );
        let tokens = buffers.positions.len();
        let width = spec.feed_forward_length;
        let gates = &mut buffers.gate[..tokens * width];
        let ups = &mut buffers.up[..tokens * width];
        let products = [(&weights.gate, &mut *gates), (&weights.up, &mut *ups)];
        matmul(
            pool,
            tier,
            &buffers.normed,
            &mut products.map(|(weights, out)| Matmul { weights, out }),
        );
        let gated = &mut buffers.gated[buffers.gated_of_layer[index]];
        let kind = match self.spec.activation {
            Activation::Silu => Nonlinearity::Silu,
            Activation::GeluTanh => Nonlinearity::GeluTanh,
        };
        gated.fill(
            pool,
            tier,
            tokens,
            any_quantized(&[&weights.down]),
            |token, row| {
                let at = token * width..(token + 1) * width;
                gate(tier, kind, &gates[at.clone()], &ups[at], row);
            },
        );
        let branch = &mut buffers.branch[..tokens * self.spec.hidden_size];
        matmul(
            pool,
            tier,
            gated,
            &mut [Matmul {
                weights: &weights.down,
                out: branch,
            }],
        );
    }

    /// Adds the last branch to the stream (with the post norm of layer `branch_of`, where there is a branch), then puts the
    /// normed stream into the input of the next products.
    fn add_and_norm(
        &mut self,
        branch_of: Option<usize>,
        post_norm: fn(&[Vec<f32>; 2]) -> &Vec<f32>,
        index: usize,
        norm: fn(&LayerWeights) -> &Vec<f32>,
    ) {
        let (tier, pool, hidden, eps) = (
            self.config.tier,
            &self.pool,
            self.spec.hidden_size,
            self.spec.norm.eps(),
        );
        let weights = &self.weights.layers[index];
        let post_norm = branch_of.map(|layer| {
            self.weights.layers[layer]
                .post_norms
                .as_ref()
                .map(post_norm)
        });
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let quantize = any_quantized(&[
            &weights.q,
            &weights.k,
            &weights.v,
            &weights.gate,
            &weights.up,
        ]);
        let branch = &buffers.branch;
        let stream = &mut buffers.stream[..tokens * hidden];
        buffers.normed.fill_from(
            pool,
            tier,
            tokens,
            quantize,
            stream,
            |token, stream, out| {
                if let Some(post_norm) = post_norm {
                    add(
                        tier,
                        stream,
                        &branch[token * hidden..][..hidden],
                        post_norm,
                        eps,
                        out,
                    );
                }
                rms_norm(tier, stream, norm(weights), eps, out);
            },
        );
    }

    /// Adds the last branch to the stream at the end of the layers.
    fn add_branch(&mut self, branch_of: Option<usize>, post_norm: fn(&[Vec<f32>; 2]) -> &Vec<f32>) {
        let Some(layer) = branch_of else { return };
        let (tier, hidden, eps) = (
            self.config.tier,
            self.spec.hidden_size,
            self.spec.norm.eps(),
        );
        let post_norm = self.weights.layers[layer]
            .post_norms
            .as_ref()
            .map(post_norm);
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let stream = &mut buffers.stream[..tokens * hidden];
        let branch = &buffers.branch;
        buffers.normed.fill_from(
            &self.pool,
            tier,
            tokens,
            false,
            stream,
            |token, stream, scratch| {
                add(
                    tier,
                    stream,
                    &branch[token * hidden..][..hidden],
                    post_norm,
                    eps,
                    scratch,
                );
            },
        );
    }

    /// Computes the scores that the batch asks for, some rows at a time.
    fn score(
        &mut self,
        batch: &[Chunk<'_>],
        visit: &mut dyn FnMut(Scores<'_>),
    ) -> Result<(), EngineError> {
        let mut wanted = Vec::new();
        let mut row = 0;
        for (index, chunk) in batch.iter().enumerate() {
            let count = chunk.tokens.len();
            let rows = match chunk.logits {
                Logits::None => row..row,
                Logits::Last => row + count - 1..row + count,
                Logits::All => row..row + count,
            };
            wanted.extend(rows.map(|row| (index, row)));
            row += count;
        }
        let (tier, hidden, vocab, eps) = (
            self.config.tier,
            self.spec.hidden_size,
            self.spec.vocab_size,
            self.spec.norm.eps(),
        );
        let (buffers, weights) = (&mut self.buffers, &self.weights);
        for rows in wanted.chunks(SCORE_ROWS.min(buffers.max_tokens())) {
            let stream = &buffers.stream;
            let quantize = any_quantized(&[&weights.head]);
            buffers
                .scored
                .fill(&self.pool, tier, rows.len(), quantize, |i, out| {
                    rms_norm(
                        tier,
                        &stream[rows[i].1 * hidden..][..hidden],
                        &weights.output_norm,
                        eps,
                        out,
                    );
                });
            let logits = &mut buffers.logits[..rows.len() * vocab];
            matmul(
                &self.pool,
                tier,
                &buffers.scored,
                &mut [Matmul {
                    weights: &weights.head,
                    out: logits,
                }],
            );
            for (&(chunk, row), logits) in rows.iter().zip(logits.chunks_exact_mut(vocab)) {
                if let Some(cap) = self.spec.final_logit_softcap {
                    logits.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
                }
                visit(Scores {
                    chunk,
                    position: buffers.positions[row] as usize,
                    logits,
                });
            }
        }
        Ok(())
    }
}

/// `stream += post_norm?(branch)`; `scratch` holds the normed branch.
fn add(
    tier: Tier,
    stream: &mut [f32],
    branch: &[f32],
    post_norm: Option<&Vec<f32>>,
    eps: f32,
    scratch: &mut [f32],
) {
    match post_norm {
        Some(weight) => {
            rms_norm(tier, branch, weight, eps, scratch);
            add_assign(stream, scratch);
        }
        None => add_assign(stream, branch),
    }
}

/// Bias, norm per head and rotation of a token's queries (`which` 0) or keys (1).
fn prepare(
    tier: Tier,
    spec: &LayerSpec,
    weights: &LayerWeights,
    which: usize,
    eps: f32,
    table: &[(f32, f32)],
    row: &mut [f32],
) {
    if let Some(bias) = &weights.qkv_bias {
        add_assign(row, &bias[which]);
    }
    if let Some(norms) = &weights.qk_norm {
        for head in row.chunks_exact_mut(spec.head_dim_k) {
            rms_norm_in_place(tier, head, &norms[which], eps);
        }
    }
    rope_in_place(
        row,
        spec.head_dim_k,
        table,
        spec.rope.kind == RopeKind::Interleaved,
    );
}
