//! The settings of a sampler, and their ranges.

use crate::EngineError;

/// How the next token is chosen.
///
/// The default is the one of llama.cpp: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, no penalties.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits: below 1 the likely tokens become likelier. 0: always the likeliest. From 0 to 100.
    pub temperature: f32,
    /// How many of the largest logits are kept. 0: all.
    pub top_k: usize,
    /// Sum of the probabilities that are kept, likeliest first (Holtzman et al. 2019, arXiv:1904.09751). From 0 (the
    /// likeliest alone) to 1 (all).
    pub top_p: f32,
    /// Least probability that is kept, as a part of the largest (Nguyen et al. 2024, arXiv:2407.01082). From 0 (all) to 1.
    pub min_p: f32,
    /// Divides positive logits of recent tokens, multiplies negative ones (Keskar et al. 2019, arXiv:1909.05858).
    /// 1: none. From 0.01 to 100.
    pub repetition_penalty: f32,
    /// How many tokens at the end of the history are recent, for all three penalties. 0: none.
    pub repetition_window: usize,
    /// Subtracted from a logit for each time that its token is recent (as in OpenAI's API). From -100 to 100; 0: none.
    pub frequency_penalty: f32,
    /// Subtracted from a logit once when its token is recent (as in OpenAI's API). From -100 to 100; 0: none.
    pub presence_penalty: f32,
    /// Added to the logits of tokens; minus infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random generator.
    pub seed: u64,
}

impl Default for SamplerConfig {
    fn default() -> Self {
        SamplerConfig {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
            repetition_window: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// Always the likeliest token, without penalties.
    #[must_use]
    pub fn greedy() -> Self {
        SamplerConfig {
            temperature: 0.0,
            ..Self::default()
        }
    }

    /// Whether a penalty can change a logit.
    pub(super) fn has_penalties(&self) -> bool {
        self.repetition_window > 0
            && (self.repetition_penalty != 1.0
                || self.frequency_penalty != 0.0
                || self.presence_penalty != 0.0)
    }

    /// Checks every setting's range.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidSampling`] for the first setting outside its range.
    pub fn validate(&self) -> Result<(), EngineError> {
        // Wider than anybody needs, and narrow enough that no ordinary logit leaves the range of f32.
        let ranges = [
            (
                "temperature",
                self.temperature,
                0.0,
                100.0,
                "0 (greedy) to 100",
            ),
            ("top_p", self.top_p, 0.0, 1.0, "0 to 1"),
            ("min_p", self.min_p, 0.0, 1.0, "0 to 1"),
            (
                "repetition_penalty",
                self.repetition_penalty,
                0.01,
                100.0,
                "0.01 to 100 (1: off)",
            ),
            (
                "frequency_penalty",
                self.frequency_penalty,
                -100.0,
                100.0,
                "-100 to 100",
            ),
            (
                "presence_penalty",
                self.presence_penalty,
                -100.0,
                100.0,
                "-100 to 100",
            ),
        ];
        for (field, found, least, most, allowed) in ranges {
            if !(least..=most).contains(&found) {
                return Err(invalid(field, found.to_string(), allowed));
            }
        }
        match self
            .logit_bias
            .iter()
            .find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY)
        {
            Some((token, bias)) => {
                let found = format!("{bias} for token {token}");
                Err(invalid(
                    "logit_bias",
                    found,
                    "a finite number, or minus infinity to forbid the token",
                ))
            }
            None => Ok(()),
        }
    }
}

fn invalid(field: &'static str, found: String, allowed: &'static str) -> EngineError {
    EngineError::InvalidSampling {
        field,
        found,
        allowed,
    }
}
