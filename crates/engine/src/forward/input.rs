//! The beginning of a pass: positions, places in the cache, rotations and embeddings.

use super::{Batch, normalize_in_place, product};
use crate::EngineError;
use crate::engine::{Chunk, Engine};
use crate::spec::names;
use dunlin_compute::{
    AttentionJob, POSITIONS_PER_BLOCK, add_assign, matmul, rms_norm_in_place, rope_table,
    scale_in_place,
};
use dunlin_format::{Gguf, decode};

impl Engine {
    /// Finds each token's position and place in the cache, and its rotations.
    pub(super) fn place(&mut self, chunks: &[Chunk<'_>]) -> Result<(), EngineError> {
        let buffers = &mut self.buffers;
        buffers.positions.clear();
        buffers.places.clear();
        buffers.jobs.clear();
        buffers.blocks.clear();
        self.adapters.clear_active();
        for chunk in chunks {
            let sequence = self.cache.get(chunk.sequence)?;
            let first = buffers.positions.len();
            let first_position = sequence.length - chunk.tokens.len();
            buffers.jobs.push(AttentionJob {
                tokens: chunk.tokens.len(),
                first_position,
                first_block: buffers.blocks.len(),
            });
            buffers.blocks.extend_from_slice(&sequence.blocks);
            let rows = first..first + chunk.tokens.len();
            self.adapters
                .activate(rows, &sequence.computation.adapters)?;
            for position in first_position..sequence.length {
                buffers.positions.push(position as u32);
                let block = sequence.blocks[position / POSITIONS_PER_BLOCK];
                buffers
                    .places
                    .push((block, (position % POSITIONS_PER_BLOCK) as u32));
            }
            for (table, rotation) in buffers.tables.iter_mut().zip(&self.weights.rotations) {
                let frequencies = match &rotation.long {
                    Some(long) if sequence.computation.long => long,
                    _ => &rotation.frequencies,
                };
                let pairs = frequencies.len();
                if pairs == 0 {
                    continue;
                }
                let rows = table[first * pairs..].chunks_exact_mut(pairs);
                for (row, position) in rows.zip(&buffers.positions[first..]) {
                    rope_table(*position, frequencies, rotation.magnitude, row);
                }
            }
        }
        Ok(())
    }

    /// Reads the embedding rows into the stream, and what is added to them.
    pub(super) fn embed_tokens(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        let (tier, hidden) = (self.config.tier, self.spec.hidden_size);
        let tokens = batch.chunks.iter().flat_map(|chunk| chunk.tokens);
        let rows = self.buffers.stream.chunks_exact_mut(hidden);
        for (&token, row) in tokens.zip(rows) {
            read_row(
                &self.gguf,
                names::TOKEN_EMBEDDING,
                self.spec.vocab_size,
                token,
                row,
            )?;
            if self.spec.embedding_scale != 1.0 {
                scale_in_place(row, self.spec.embedding_scale);
            }
        }
        let count = self.buffers.positions.len();
        let rows = self.buffers.stream[..count * hidden].chunks_exact_mut(hidden);
        for (index, row) in rows.enumerate() {
            if let Some(positions) = &self.weights.positions {
                let position = self.buffers.positions[index] as usize;
                add_assign(row, &positions[position * hidden..][..hidden]);
            }
            if self.spec.token_types > 0 {
                let kind = batch.token_types.get(index).copied().unwrap_or(0) as usize;
                add_assign(row, &self.weights.token_types[kind * hidden..][..hidden]);
            }
            if let Some(norm) = &self.weights.embedding_norm {
                normalize_in_place(tier, self.spec.norm, norm, row);
            }
        }
        match self.spec.per_layer_input {
            Some(width) => self.embed_for_layers(batch, width),
            None => Ok(()),
        }
    }

    /// The token's embedding for each layer: `(norm(projection(x) / sqrt(hidden)) + row * sqrt(width)) / sqrt(2)`.
    fn embed_for_layers(&mut self, batch: &Batch<'_>, width: usize) -> Result<(), EngineError> {
        let Some(weights) = &self.weights.per_layer else {
            return Ok(());
        };
        let (tier, hidden, eps) = (
            self.config.tier,
            self.spec.hidden_size,
            self.spec.norm.eps(),
        );
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        let all = width * self.spec.layers.len();
        let stream = &buffers.stream;
        let quantize = super::quantized(&weights.projection);
        buffers
            .normed
            .fill(&self.pool, tier, tokens, quantize, |token, row| {
                row.copy_from_slice(&stream[token * hidden..][..hidden]);
            });
        let out = &mut buffers.per_layer[..tokens * all];
        matmul(
            &self.pool,
            tier,
            &buffers.normed,
            &mut [product(&weights.projection, out)],
        );
        let ids = batch.chunks.iter().flat_map(|chunk| chunk.tokens);
        let (own_scale, row_scale) = (1.0 / (hidden as f32).sqrt(), (width as f32).sqrt());
        let rows = buffers.per_layer.chunks_exact_mut(all);
        for (&token, row) in ids.zip(rows) {
            let own = &mut buffers.per_layer_row;
            read_row(
                &self.gguf,
                names::PER_LAYER_EMBEDDING,
                self.spec.vocab_size,
                token,
                own,
            )?;
            scale_in_place(row, own_scale);
            for part in row.chunks_exact_mut(width) {
                rms_norm_in_place(tier, part, &weights.norm, eps);
            }
            scale_in_place(own, row_scale);
            add_assign(row, own);
            scale_in_place(row, std::f32::consts::FRAC_1_SQRT_2);
        }
        Ok(())
    }
}

/// One row of a table with a row for each token.
fn read_row(
    gguf: &Gguf,
    name: &str,
    rows: usize,
    token: u32,
    out: &mut [f32],
) -> Result<(), EngineError> {
    let info = gguf
        .tensor(name)
        .ok_or_else(|| EngineError::MissingTensor {
            name: name.to_owned(),
        })?;
    let table = gguf.data(info);
    let row_bytes = table.len() / rows;
    let row = &table[token as usize * row_bytes..][..row_bytes];
    Ok(decode(info.dtype, row, out)?)
}
