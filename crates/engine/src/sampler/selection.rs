//! What is left of the vocabulary on the way through the chain.
//!
//! It begins as the logits themselves, because most steps that come first touch few of them, or keep few. The first step that
//! leaves tokens out makes a list of candidates.

use super::filter::{self, Candidate};
use crate::EngineError;

/// The candidates; the buffer is used again for each token.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    candidates: Vec<Candidate>,
    /// The candidates are a list, and the logits of the model are not looked at any more.
    is_listed: bool,
    /// The weights are those of the logits and the temperature, and the largest is 1.
    is_weighed: bool,
    /// Divides the logits. Kept apart from them, so that none is rounded.
    temperature: f64,
}

impl Selection {
    /// Begins again with all tokens.
    pub(super) fn reset(&mut self) {
        self.candidates.clear();
        self.is_listed = false;
        self.is_weighed = false;
        self.temperature = 1.0;
    }

    /// Changes the logits of those tokens that are left; `changes` are in the order of tokens.
    pub(super) fn change(
        &mut self,
        logits: &mut [f32],
        changes: &[(u32, u32)],
        change: impl Fn(f32, u32) -> f32,
    ) -> Result<(), EngineError> {
        let vocab_size = logits.len();
        if let Some((token, _)) = changes.last().filter(|last| last.0 as usize >= vocab_size) {
            let token = *token;
            return Err(EngineError::TokenOutOfRange { token, vocab_size });
        }
        self.is_weighed = false;
        if !self.is_listed {
            for (token, by) in changes {
                let logit = &mut logits[*token as usize];
                *logit = change(*logit, *by);
            }
            return Ok(());
        }
        let temperature = std::mem::replace(&mut self.temperature, 1.0);
        for candidate in &mut self.candidates {
            candidate.logit = (f64::from(candidate.logit) / temperature) as f32;
            let found = changes.binary_search_by_key(&candidate.token, |(token, _)| *token);
            if let Ok(index) = found {
                candidate.logit = change(candidate.logit, changes[index].1);
            }
        }
        Ok(())
    }

    /// Divides the logits.
    pub(super) fn heat(&mut self, temperature: f64) {
        self.temperature *= temperature;
        self.is_weighed = false;
    }

    /// Keeps the `top_k` largest logits.
    pub(super) fn keep_top_k(&mut self, logits: &[f32], top_k: usize) -> Result<(), EngineError> {
        if self.is_listed {
            filter::keep_top_k(&mut self.candidates, top_k);
            return Ok(());
        }
        filter::collect(logits, top_k, &mut self.candidates)?;
        self.is_listed = true;
        Ok(())
    }

    /// The tokens that are left, all of them where none was left out yet.
    pub(super) fn list(&mut self, logits: &[f32]) -> Result<&mut Vec<Candidate>, EngineError> {
        if !self.is_listed {
            filter::collect(logits, 0, &mut self.candidates)?;
            self.is_listed = true;
        }
        Ok(&mut self.candidates)
    }

    /// As [`list`](Self::list), with weights.
    pub(super) fn weighed(&mut self, logits: &[f32]) -> Result<&mut Vec<Candidate>, EngineError> {
        self.list(logits)?;
        if !self.is_weighed {
            filter::weigh(&mut self.candidates, self.temperature);
            self.is_weighed = true;
        }
        Ok(&mut self.candidates)
    }

    /// Says that the likeliest may have been left out, so that weights have to be computed again.
    pub(super) fn forget_weights(&mut self) {
        self.is_weighed = false;
    }

    /// The token with the largest logit, the lowest id among equal ones.
    pub(super) fn likeliest(&self, logits: &[f32]) -> Result<u32, EngineError> {
        match self.is_listed {
            true => self
                .candidates
                .iter()
                .min()
                .map(|candidate| candidate.token)
                .ok_or(filter::NOTHING_LEFT),
            false => filter::argmax(logits),
        }
    }
}
