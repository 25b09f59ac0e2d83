//! The end of a pass: logits for the tokens that want them, or hidden states.

use super::{normalize, product, quantized};
use crate::EngineError;
use crate::buffers::SCORE_ROWS;
use crate::engine::{Chunk, Engine, Logits, Scores};
use crate::lora::Site;
use dunlin_compute::{matmul, scale_in_place};

/// Who gets the results of a pass.
pub(crate) enum Output<'a> {
    /// Nobody: only the cache is wanted.
    None,
    /// The scores that the chunks ask for.
    Scores(&'a mut dyn FnMut(Scores<'_>)),
    /// The normed hidden states of all tokens, in order.
    Hidden(&'a mut dyn FnMut(&[f32])),
}

impl Engine {
    pub(super) fn output(
        &mut self,
        chunks: &[Chunk<'_>],
        output: &mut Output<'_>,
    ) -> Result<(), EngineError> {
        match output {
            Output::None => Ok(()),
            Output::Scores(visit) => self.score(chunks, visit),
            Output::Hidden(visit) => {
                self.hidden_states(visit);
                Ok(())
            }
        }
    }

    fn hidden_states(&mut self, visit: &mut dyn FnMut(&[f32])) {
        let (tier, hidden) = (self.config.tier, self.spec.hidden_size);
        let buffers = &mut self.buffers;
        let tokens = buffers.positions.len();
        for token in 0..tokens {
            let row = &buffers.stream[token * hidden..][..hidden];
            match &self.weights.output_norm {
                Some(norm) => {
                    let out = &mut buffers.branch[..hidden];
                    normalize(tier, self.spec.norm, norm, row, out);
                    visit(out);
                }
                None => visit(row),
            }
        }
    }

    /// Computes the scores that the batch asks for, some rows at a time.
    fn score(
        &mut self,
        chunks: &[Chunk<'_>],
        visit: &mut dyn FnMut(Scores<'_>),
    ) -> Result<(), EngineError> {
        let Some(head) = &self.weights.head else {
            return Err(EngineError::NoLogits {
                architecture: self.spec.architecture.clone(),
            });
        };
        let mut wanted = Vec::new();
        let mut row = 0;
        for (index, chunk) in chunks.iter().enumerate() {
            let count = chunk.tokens.len();
            let rows = match chunk.logits {
                Logits::None => row..row,
                Logits::Last => row + count - 1..row + count,
                Logits::All => row..row + count,
            };
            wanted.extend(rows.map(|row| (index, row)));
            row += count;
        }
        let (tier, hidden, vocab) = (
            self.config.tier,
            self.spec.hidden_size,
            self.spec.vocab_size,
        );
        let buffers = &mut self.buffers;
        let norm = self.weights.output_norm.as_ref();
        for rows in wanted.chunks(SCORE_ROWS.min(buffers.max_tokens())) {
            let stream = &buffers.stream;
            let scored = &mut buffers.scored;
            scored.fill(&self.pool, tier, rows.len(), quantized(head), |i, out| {
                let row = &stream[rows[i].1 * hidden..][..hidden];
                match norm {
                    Some(norm) => normalize(tier, self.spec.norm, norm, row, out),
                    None => out.copy_from_slice(row),
                }
            });
            let logits = &mut buffers.logits[..rows.len() * vocab];
            matmul(&self.pool, tier, scored, &mut [product(head, &mut *logits)]);
            let outputs = [Some(&mut *logits), None, None, None];
            self.adapters
                .add_to_rows(&self.pool, tier, Site::Head, scored, outputs, |of| {
                    let before = |end: usize| rows.partition_point(|(_, row)| *row < end);
                    before(of.start)..before(of.end)
                });
            if self.spec.logit_scale != 1.0 {
                scale_in_place(logits, self.spec.logit_scale);
            }
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
