//! Bias and penalties: the steps that change logits one by one.

use super::SamplerConfig;
use crate::EngineError;

pub(super) fn add_bias(logits: &mut [f32], bias: &[(u32, f32)]) -> Result<(), EngineError> {
    for (token, bias) in bias {
        *logit_of(logits, *token)? += bias;
    }
    Ok(())
}

/// `logit = (logit > 0 ? logit / repetition : logit * repetition) - count * frequency - presence` for each token that is
/// `count` times in `recent`. `sorted` is a buffer.
pub(super) fn penalise(
    logits: &mut [f32],
    recent: &[u32],
    config: &SamplerConfig,
    sorted: &mut Vec<u32>,
) -> Result<(), EngineError> {
    if !config.has_penalties() {
        return Ok(());
    }
    sorted.clear();
    sorted.extend_from_slice(recent);
    sorted.sort_unstable();
    for same in sorted.chunk_by(|a, b| a == b) {
        let logit = logit_of(logits, same[0])?;
        let repetition = config.repetition_penalty;
        let divided = if *logit > 0.0 {
            *logit / repetition
        } else {
            *logit * repetition
        };
        let count = same.len() as f32;
        *logit = divided - count * config.frequency_penalty - config.presence_penalty;
    }
    Ok(())
}

fn logit_of(logits: &mut [f32], token: u32) -> Result<&mut f32, EngineError> {
    let vocab_size = logits.len();
    let logit = logits.get_mut(token as usize);
    logit.ok_or(EngineError::TokenOutOfRange { token, vocab_size })
}
