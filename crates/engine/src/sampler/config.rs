//! The settings of a sampler, and their ranges.

use super::step::{SamplerStep, require_once};
use crate::EngineError;

/// How the next token is chosen.
///
/// The default is the one of llama.cpp: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, and nothing else. Every setting
/// means what it means there.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerConfig {
    /// Divides the logits: below 1 the likely tokens become likelier. 0: always the likeliest. From 0 to 100.
    pub temperature: f32,
    /// How far the temperature goes down where the model is sure and up where it is not, at most (Zhu et al. 2023,
    /// arXiv:2309.02772, in the form of llama.cpp): it is `low + (high - low) * (entropy / largest entropy)^exponent`, where
    /// `low` is `temperature - range`, 0 at least, and `high` is `temperature + range`. From 0 (off) to 100.
    pub dynatemp_range: f32,
    /// The exponent of it. From 0 to 100.
    pub dynatemp_exponent: f32,
    /// How many of the largest logits are kept. 0: all.
    pub top_k: usize,
    /// Sum of the probabilities that are kept, likeliest first (Holtzman et al. 2019, arXiv:1904.09751). From 0 (the
    /// likeliest alone) to 1 (all).
    pub top_p: f32,
    /// Least probability that is kept, as a part of the largest (Nguyen et al. 2024, arXiv:2407.01082). From 0 (all) to 1.
    pub min_p: f32,
    /// Sum of the probabilities that are kept, those first whose surprise is nearest to the expected one (Meister et al. 2022,
    /// arXiv:2202.00666). From 0 to 1 (all).
    pub typical_p: f32,
    /// Logits are kept that are at most so many standard deviations of all logits below the largest (Tang et al. 2024,
    /// arXiv:2411.07641). Up to 100; 0 and below: off.
    pub top_n_sigma: f32,
    /// Chance that of the tokens at or above [`xtc_threshold`](Self::xtc_threshold) all but the least likely are left out
    /// ("exclude top choices", p-e-w 2024). From 0 (off) to 1.
    pub xtc_probability: f32,
    /// Probability from which on a token is a top choice. From 0 to 1; above 0.5 there are never two of them: off.
    pub xtc_threshold: f32,
    /// Divides positive logits of recent tokens, multiplies negative ones (Keskar et al. 2019, arXiv:1909.05858).
    /// 1: none. From 0.01 to 100.
    pub repetition_penalty: f32,
    /// How many tokens at the end of the history are recent, for all three penalties. 0: none.
    pub repetition_window: usize,
    /// Subtracted from a logit for each time that its token is recent (as in OpenAI's API). From -100 to 100; 0: none.
    pub frequency_penalty: f32,
    /// Subtracted from a logit once when its token is recent (as in OpenAI's API). From -100 to 100; 0: none.
    pub presence_penalty: f32,
    /// A token that would go on with a repetition ("don't repeat yourself", p-e-w 2024) has
    /// `multiplier * base^(length - allowed length)` subtracted from its logit, where `length` is that of the longest end of the
    /// history that the token followed before. From 0 (off) to 100.
    pub dry_multiplier: f32,
    /// The base of it. From 1 to 100.
    pub dry_base: f32,
    /// Length from which on there is a penalty, in tokens.
    pub dry_allowed_length: usize,
    /// How many tokens at the end of the history are searched for repetitions. 0: none.
    pub dry_window: usize,
    /// Runs of tokens through which no repetition goes, such as line ends. A token that is one by itself has no penalty.
    pub dry_breakers: Vec<Vec<u32>>,
    /// Steers the surprise of the tokens instead of cutting at a fixed place: takes the place of the chain, of which nothing but
    /// the temperature is left.
    pub mirostat: Option<Mirostat>,
    /// The steps in their order. A step that is not in it is not taken, whatever its settings.
    pub chain: Vec<SamplerStep>,
    /// Added to the logits of tokens before all steps; minus infinity forbids a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the random generator.
    pub seed: u64,
}

/// Mirostat 2.0 (Basu et al. 2020, arXiv:2007.14966): tokens more surprising than a limit are left out, and the limit follows
/// the surprise of the tokens that were drawn. It begins at `2 tau`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mirostat {
    /// The surprise to be held, in bits. From 0 to 100.
    pub tau: f32,
    /// How fast the limit follows. From 0 to 10.
    pub eta: f32,
}

impl Default for Mirostat {
    /// That of llama.cpp.
    fn default() -> Self {
        Mirostat { tau: 5.0, eta: 0.1 }
    }
}

impl Default for SamplerConfig {
    fn default() -> Self {
        SamplerConfig {
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: 0.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repetition_penalty: 1.0,
            repetition_window: 64,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            dry_multiplier: 0.0,
            dry_base: 1.75,
            dry_allowed_length: 2,
            dry_window: 64,
            dry_breakers: Vec::new(),
            mirostat: None,
            chain: SamplerStep::DEFAULT_CHAIN.to_vec(),
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

    /// Whether the settings of a step turn it on.
    pub(super) fn is_on(&self, step: SamplerStep) -> bool {
        match step {
            SamplerStep::Penalties => {
                self.repetition_window > 0
                    && (self.repetition_penalty != 1.0
                        || self.frequency_penalty != 0.0
                        || self.presence_penalty != 0.0)
            }
            SamplerStep::Dry => self.dry_multiplier > 0.0 && self.dry_window > 0,
            SamplerStep::TopNSigma => self.top_n_sigma > 0.0,
            SamplerStep::TopK => self.top_k > 0,
            SamplerStep::TypicalP => self.typical_p < 1.0,
            SamplerStep::TopP => self.top_p < 1.0,
            SamplerStep::MinP => self.min_p > 0.0,
            SamplerStep::Xtc => self.xtc_probability > 0.0 && self.xtc_threshold <= 0.5,
            SamplerStep::Temperature => self.temperature != 1.0 || self.dynatemp_range > 0.0,
        }
    }

    /// Whether the temperature leaves the likeliest token alone, whatever the logits.
    pub(super) fn is_cold(&self) -> bool {
        self.temperature == 0.0 && self.dynatemp_range == 0.0
    }

    /// Checks every setting's range.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidSampling`] for the first setting outside its range, for a step that is twice in the chain, for
    /// an empty breaker, and for a step that is off by default and would not be taken because of mirostat.
    pub fn validate(&self) -> Result<(), EngineError> {
        for (field, found, least, most, allowed) in self.ranges() {
            if !(least..=most).contains(&found) {
                return Err(invalid(field, found.to_string(), allowed));
            }
        }
        let is_bad = |bias: f32| bias.is_nan() || bias == f32::INFINITY;
        if let Some((token, bias)) = self.logit_bias.iter().find(|(_, bias)| is_bad(*bias)) {
            return Err(invalid(
                "logit_bias",
                format!("{bias} for token {token}"),
                "a finite number, or minus infinity to forbid the token",
            ));
        }
        if self.dry_breakers.iter().any(Vec::is_empty) {
            return Err(invalid(
                "dry_breakers",
                "an empty run of tokens".to_owned(),
                "runs of one token or more",
            ));
        }
        require_once(&self.chain)?;
        self.require_alone()
    }

    /// Wider than anybody needs, and narrow enough that no ordinary logit leaves the range of f32.
    fn ranges(&self) -> [(&'static str, f32, f32, f32, &'static str); 16] {
        let mirostat = self.mirostat.unwrap_or_default();
        let to_hundred = "0 to 100";
        [
            (
                "temperature",
                self.temperature,
                0.0,
                100.0,
                "0 (greedy) to 100",
            ),
            (
                "dynatemp_range",
                self.dynatemp_range,
                0.0,
                100.0,
                to_hundred,
            ),
            (
                "dynatemp_exponent",
                self.dynatemp_exponent,
                0.0,
                100.0,
                to_hundred,
            ),
            ("top_p", self.top_p, 0.0, 1.0, "0 to 1"),
            ("min_p", self.min_p, 0.0, 1.0, "0 to 1"),
            ("typical_p", self.typical_p, 0.0, 1.0, "0 to 1"),
            (
                "top_n_sigma",
                self.top_n_sigma,
                f32::MIN,
                100.0,
                "at most 100 (0 and below: off)",
            ),
            ("xtc_probability", self.xtc_probability, 0.0, 1.0, "0 to 1"),
            ("xtc_threshold", self.xtc_threshold, 0.0, 1.0, "0 to 1"),
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
            (
                "dry_multiplier",
                self.dry_multiplier,
                0.0,
                100.0,
                to_hundred,
            ),
            ("dry_base", self.dry_base, 1.0, 100.0, "1 to 100"),
            ("mirostat_tau", mirostat.tau, 0.0, 100.0, to_hundred),
            ("mirostat_eta", mirostat.eta, 0.0, 10.0, "0 to 10"),
        ]
    }

    /// The filters that are on by default say nothing of what the caller wants; what was turned on would be lost.
    fn require_alone(&self) -> Result<(), EngineError> {
        if self.mirostat.is_none() {
            return Ok(());
        }
        let steps = [
            SamplerStep::Penalties,
            SamplerStep::Dry,
            SamplerStep::TopNSigma,
            SamplerStep::TypicalP,
            SamplerStep::Xtc,
        ];
        match steps.into_iter().find(|step| self.is_on(*step)) {
            Some(step) => Err(invalid(
                "mirostat",
                format!("on together with {step}"),
                "mirostat without penalties, dry, top_n_sigma, typ_p and xtc, whose place it takes",
            )),
            None if self.dynatemp_range > 0.0 => Err(invalid(
                "mirostat",
                format!("on together with dynatemp_range {}", self.dynatemp_range),
                "mirostat with a fixed temperature",
            )),
            None => Ok(()),
        }
    }
}

pub(super) fn invalid(field: &'static str, found: String, allowed: &'static str) -> EngineError {
    EngineError::InvalidSampling {
        field,
        found,
        allowed,
    }
}
