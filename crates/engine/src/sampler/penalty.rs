//! Bias and penalties: what changes logits one by one.

use super::SamplerConfig;
use super::selection::Selection;
use crate::EngineError;

pub(super) fn add_bias(logits: &mut [f32], bias: &[(u32, f32)]) -> Result<(), EngineError> {
    let vocab_size = logits.len();
    for (token, bias) in bias {
        let token = *token;
        let logit = logits.get_mut(token as usize);
        *logit.ok_or(EngineError::TokenOutOfRange { token, vocab_size })? += bias;
    }
    Ok(())
}

/// `logit = (logit > 0 ? logit / repetition : logit * repetition) - count * frequency - presence` for each token that is
/// `count` times among the recent ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Penalties {
    /// Buffers that are used again for each token.
    sorted: Vec<u32>,
    counts: Vec<(u32, u32)>,
}

impl Penalties {
    pub(super) fn apply(
        &mut self,
        selection: &mut Selection,
        logits: &mut [f32],
        history: &[u32],
        config: &SamplerConfig,
    ) -> Result<(), EngineError> {
        let recent = history.len().saturating_sub(config.repetition_window);
        self.sorted.clear();
        self.sorted.extend_from_slice(&history[recent..]);
        self.sorted.sort_unstable();
        self.counts.clear();
        let runs = self.sorted.chunk_by(|a, b| a == b);
        self.counts
            .extend(runs.map(|same| (same[0], same.len() as u32)));
        let repetition = config.repetition_penalty;
        selection.change(logits, &self.counts, |logit, count| {
            let divided = if logit > 0.0 {
                logit / repetition
            } else {
                logit * repetition
            };
            divided - count as f32 * config.frequency_penalty - config.presence_penalty
        })
    }
}
