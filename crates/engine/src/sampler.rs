//! From logits to a token.
//!
//! The steps and their order are those of llama.cpp's default chain, so that the same settings mean the same thing:
//!
//! 1. `logit_bias` is added;
//! 2. penalties on tokens of the recent history (repetition, then frequency and presence);
//! 3. `temperature` 0 ends here: the largest logit wins, the lowest id among equal ones;
//! 4. `top_k` keeps the k largest;
//! 5. `top_p` keeps the smallest set of most likely tokens whose probabilities sum up to p or more;
//! 6. `min_p` keeps the tokens at least `min_p` times as likely as the most likely one;
//! 7. the logits are divided by `temperature`, and a token is drawn from their softmax.
//!
//! Steps 5 and 6 look at the probabilities of what the steps before have kept, at temperature 1.

mod config;
mod filter;
mod penalty;
mod random;

pub use config::SamplerConfig;

use filter::Candidate;
use random::Random;

use crate::EngineError;

/// Chooses tokens: settings, the state of a random generator, and buffers that are used again for each token.
///
/// The same settings (seed included), logits and history give the same tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    random: Random,
    candidates: Vec<Candidate>,
    recent: Vec<u32>,
}

impl Sampler {
    /// Checks the settings and seeds the generator.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidSampling`] for the first setting outside its range.
    pub fn new(config: SamplerConfig) -> Result<Self, EngineError> {
        config.validate()?;
        let random = Random::new(config.seed);
        Ok(Sampler {
            config,
            random,
            candidates: Vec::new(),
            recent: Vec::new(),
        })
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// Chooses the next token.
    ///
    /// `logits` holds one number a token of the vocabulary; minus infinity forbids a token. Bias and penalties are
    /// worked into it. `history` is the sequence so far, oldest first: prompt and answer, or what of it shall count for
    /// the penalties.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidLogit`] for a logit that is not a number or plus infinity, [`EngineError::NoCandidate`]
    /// when every token is forbidden, [`EngineError::TokenOutOfRange`] when the history or the bias names a token that
    /// the vocabulary does not have.
    pub fn sample(&mut self, logits: &mut [f32], history: &[u32]) -> Result<u32, EngineError> {
        self.adjust(logits, history)?;
        if self.config.temperature == 0.0 {
            return filter::argmax(logits);
        }
        self.keep_candidates(logits)?;
        Ok(filter::draw(&self.candidates, self.random.unit()))
    }

    /// The tokens that [`sample`](Self::sample) would draw from, with their probabilities; these sum up to 1.
    ///
    /// Draws nothing. What verifies a speculated token, or shows the choices, asks here.
    ///
    /// # Errors
    ///
    /// As [`sample`](Self::sample).
    pub fn distribution(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
    ) -> Result<Vec<(u32, f64)>, EngineError> {
        self.adjust(logits, history)?;
        if self.config.temperature == 0.0 {
            return Ok(vec![(filter::argmax(logits)?, 1.0)]);
        }
        self.keep_candidates(logits)?;
        let total: f64 = self
            .candidates
            .iter()
            .map(|candidate| candidate.weight)
            .sum();
        let probability = |candidate: &Candidate| (candidate.token, candidate.weight / total);
        Ok(self.candidates.iter().map(probability).collect())
    }

    /// Steps 1 and 2.
    fn adjust(&mut self, logits: &mut [f32], history: &[u32]) -> Result<(), EngineError> {
        penalty::add_bias(logits, &self.config.logit_bias)?;
        let recent = history.len().saturating_sub(self.config.repetition_window);
        penalty::penalise(logits, &history[recent..], &self.config, &mut self.recent)
    }

    /// Steps 4 to 7, up to the draw: what is left in `candidates` has its weight at the set temperature.
    fn keep_candidates(&mut self, logits: &[f32]) -> Result<(), EngineError> {
        let candidates = &mut self.candidates;
        filter::collect(logits, self.config.top_k, candidates)?;
        if self.config.top_p < 1.0 || self.config.min_p > 0.0 {
            filter::weigh(candidates, 1.0);
            filter::keep_top_p(candidates, self.config.top_p);
            filter::keep_min_p(candidates, self.config.min_p);
        }
        filter::weigh(candidates, self.config.temperature);
        Ok(())
    }
}
