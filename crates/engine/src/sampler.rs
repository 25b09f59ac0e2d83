//! From logits to a token.
//!
//! What each setting does, and the order in which it happens, are those of llama.cpp, so that the same settings mean the same
//! thing. First `logit_bias` is added. Then come the steps of the chain ([`SamplerConfig::chain`]), each of which looks at
//! what the ones before have left; in the order of the default:
//!
//! 1. `penalties` on tokens of the recent history (repetition, then frequency and presence);
//! 2. `dry`: penalties on tokens that would go on with a repetition;
//! 3. `top_n_sigma` keeps the logits near the largest;
//! 4. `top_k` keeps the k largest;
//! 5. `typ_p` keeps the tokens that are about as surprising as is to be expected;
//! 6. `top_p` keeps the smallest set of most likely tokens whose probabilities sum up to p or more;
//! 7. `min_p` keeps the tokens at least `min_p` times as likely as the most likely one;
//! 8. `xtc` leaves out the likeliest tokens now and then;
//! 9. `temperature` divides the logits; 0 takes the largest, the lowest id among equal ones.
//!
//! In the end a token is drawn from the softmax of what is left. With mirostat the chain is the temperature alone, and its
//! cut comes before the draw.
//!
//! One thing differs: a token that is left out or forbidden is gone, and does not count as one of the tokens by whose number
//! the dynamic temperature measures entropy.

mod config;
mod dry;
mod dynatemp;
mod filter;
mod mirostat;
mod penalty;
mod random;
mod selection;
mod sigma;
mod step;
mod typical;
mod xtc;

pub use config::{Mirostat, SamplerConfig};
pub use random::Random;
pub use step::SamplerStep;

use dry::Dry;
use mirostat::Limit;
use penalty::Penalties;
use selection::Selection;

use crate::EngineError;

/// Chooses tokens: settings, the state of a random generator, and buffers that are used again for each token.
///
/// The same settings (seed included), logits and history give the same tokens.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplerConfig,
    /// The steps that do something.
    steps: Vec<SamplerStep>,
    random: Random,
    selection: Selection,
    penalties: Penalties,
    dry: Dry,
    mirostat: Option<Limit>,
}

impl Sampler {
    /// Checks the settings and seeds the generator.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidSampling`] for the first setting outside its range.
    pub fn new(config: SamplerConfig) -> Result<Self, EngineError> {
        config.validate()?;
        Ok(Sampler {
            steps: steps(&config),
            random: Random::new(config.seed),
            selection: Selection::default(),
            penalties: Penalties::default(),
            dry: Dry::new(&config),
            mirostat: config.mirostat.map(Limit::new),
            config,
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
        if let Some(token) = self.narrow(logits, history, None)? {
            return Ok(token);
        }
        let candidates = self.selection.weighed(logits)?;
        let drawn = filter::draw(candidates, self.random.unit())?;
        if let Some(mirostat) = &mut self.mirostat {
            mirostat.follow(drawn, candidates);
        }
        Ok(drawn.token)
    }

    /// The tokens that [`sample`](Self::sample) would draw from, with their probabilities; these sum up to 1. Where a step
    /// is left to chance (XTC), both ways count with theirs.
    ///
    /// Draws nothing. What shows the choices asks here.
    ///
    /// # Errors
    ///
    /// As [`sample`](Self::sample).
    pub fn distribution(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
    ) -> Result<Vec<(u32, f64)>, EngineError> {
        let chance = match self.steps.contains(&SamplerStep::Xtc) {
            true => f64::from(self.config.xtc_probability),
            false => 0.0,
        };
        let mut whole = Vec::new();
        if chance < 1.0 {
            // Bias and penalties are worked into the logits once.
            let mut copy = logits.to_vec();
            self.add_share(&mut copy, history, false, 1.0 - chance, &mut whole)?;
        }
        if chance > 0.0 {
            self.add_share(logits, history, true, chance, &mut whole)?;
        }
        if chance > 0.0 && chance < 1.0 {
            whole.sort_by_key(|(token, _)| *token);
            whole.dedup_by(|second, first| {
                let is_same = second.0 == first.0;
                if is_same {
                    first.1 += second.1;
                }
                is_same
            });
        }
        Ok(whole)
    }

    /// Adds the probabilities of one of the two ways.
    fn add_share(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        excludes: bool,
        share: f64,
        whole: &mut Vec<(u32, f64)>,
    ) -> Result<(), EngineError> {
        if let Some(token) = self.narrow(logits, history, Some(excludes))? {
            whole.push((token, share));
            return Ok(());
        }
        let candidates = self.selection.weighed(logits)?;
        let total = filter::total(candidates);
        let probability = |weight| share * weight / total;
        whole.extend(
            candidates
                .iter()
                .map(|candidate| (candidate.token, probability(candidate.weight))),
        );
        Ok(())
    }

    /// Takes the steps up to the draw. A token where there is nothing to be drawn, because it is the likeliest that is wanted.
    /// `excludes`: what a step that is left to chance shall do.
    fn narrow(
        &mut self,
        logits: &mut [f32],
        history: &[u32],
        excludes: Option<bool>,
    ) -> Result<Option<u32>, EngineError> {
        let (config, selection) = (&self.config, &mut self.selection);
        selection.reset();
        penalty::add_bias(logits, &config.logit_bias)?;
        for step in &self.steps {
            match step {
                SamplerStep::Penalties => {
                    self.penalties.apply(selection, logits, history, config)?;
                }
                SamplerStep::Dry => self.dry.apply(selection, logits, history, config)?,
                SamplerStep::TopNSigma => {
                    sigma::keep_top_n_sigma(selection.list(logits)?, config.top_n_sigma);
                }
                SamplerStep::TopK => selection.keep_top_k(logits, config.top_k)?,
                SamplerStep::TypicalP => {
                    typical::keep_typical(selection.weighed(logits)?, config.typical_p);
                    selection.forget_weights();
                }
                SamplerStep::TopP => filter::keep_top_p(selection.weighed(logits)?, config.top_p),
                SamplerStep::MinP => filter::keep_min_p(selection.weighed(logits)?, config.min_p),
                SamplerStep::Xtc => {
                    let candidates = selection.weighed(logits)?;
                    let chance = f64::from(config.xtc_probability);
                    let random = &mut self.random;
                    if candidates.len() > 1 && excludes.unwrap_or_else(|| random.unit() <= chance) {
                        xtc::exclude_top(candidates, config.xtc_threshold);
                        selection.forget_weights();
                    }
                }
                SamplerStep::Temperature => {
                    let temperature = match config.dynatemp_range > 0.0 {
                        true => dynatemp::temperature(selection.weighed(logits)?, config),
                        false => f64::from(config.temperature),
                    };
                    if temperature == 0.0 {
                        return Ok(Some(selection.likeliest(logits)?));
                    }
                    selection.heat(temperature);
                }
            }
        }
        if let Some(mirostat) = &self.mirostat {
            mirostat.cut(selection.weighed(logits)?);
        }
        Ok(None)
    }
}

/// The steps that do something.
fn steps(config: &SamplerConfig) -> Vec<SamplerStep> {
    let chain = match config.mirostat {
        Some(_) => &[SamplerStep::Temperature][..],
        None => &config.chain,
    };
    let mut steps: Vec<SamplerStep> = chain
        .iter()
        .copied()
        .filter(|step| config.is_on(*step))
        .collect();
    let temperature = steps
        .iter()
        .position(|step| *step == SamplerStep::Temperature);
    if let Some(index) = temperature.filter(|_| config.is_cold()) {
        // The likeliest token is the answer: what follows finds it alone, and what keeps it need not be done.
        steps.truncate(index);
        while let Some(
            SamplerStep::TopNSigma | SamplerStep::TopK | SamplerStep::TopP | SamplerStep::MinP,
        ) = steps.last()
        {
            steps.pop();
        }
        steps.push(SamplerStep::Temperature);
    }
    steps
}
