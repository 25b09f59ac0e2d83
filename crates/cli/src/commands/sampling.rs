//! The flags of `dunlin run` that say how tokens are chosen.

use clap::Args;
use dunlin::{EngineError, GenerateOptions, Lm, Mirostat, SamplerConfig, SamplerStep};

use crate::exit;

/// How tokens are chosen. A model may recommend settings, which then are the defaults.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sampling (defaults: the model's, where `dunlin show` says some)")]
pub(super) struct SamplingArgs {
    /// Below 1 the likely words become likelier; 0 always takes the likeliest [default: 0.8]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among this many likeliest tokens; 0: all [default: 40]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the likeliest tokens that have this probability together [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Leave out tokens below this part of the likeliest one's probability [default: 0.05]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Choose among tokens about as surprising as is to be expected, up to this probability; 1: off [default: 1]
    #[arg(
        long,
        value_name = "P",
        allow_negative_numbers = true,
        alias = "typical"
    )]
    typical_p: Option<f32>,
    /// Leave out logits more than this many standard deviations below the largest; 0: off [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top_n_sigma: Option<f32>,
    /// Chance that the likeliest tokens but one are left out; 0: off [default: 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_probability: Option<f32>,
    /// Probability from which on a token is one of these; above 0.5: off [default: 0.1]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    xtc_threshold: Option<f32>,
    /// Let the temperature go down and up by this, by how sure the model is; 0: off [default: 0]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    dynatemp_range: Option<f32>,
    /// Above 1 it stays low for longer [default: 1]
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        alias = "dynatemp-exp"
    )]
    dynatemp_exponent: Option<f32>,
    /// Make recent tokens less likely; 1: off [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// How many tokens are recent, for this and the next two; 0: none [default: 64]
    #[arg(long, value_name = "N")]
    repeat_last_n: Option<usize>,
    /// Subtract this for each recent use of a token [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Subtract this once from every recent token [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Make tokens less likely that would go on with a repetition (DRY); 0: off [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_multiplier: Option<f32>,
    /// How fast this grows with the length of the repetition [default: 1.75]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    dry_base: Option<f32>,
    /// Length in tokens from which on there is a penalty [default: 2]
    #[arg(long, value_name = "N")]
    dry_allowed_length: Option<usize>,
    /// How many tokens are searched for repetitions [default: 64]
    #[arg(long, value_name = "N")]
    dry_penalty_last_n: Option<usize>,
    /// Text through which no repetition goes; may be given several times, `none` for none [default: line end, `:`, `"`, `*`]
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// Hold the surprise of the text (mirostat 2.0) instead of all but the temperature
    #[arg(long)]
    mirostat: bool,
    /// The surprise, in bits [default: 5]
    #[arg(
        long,
        value_name = "BITS",
        allow_negative_numbers = true,
        alias = "mirostat-ent"
    )]
    mirostat_tau: Option<f32>,
    /// How fast it is corrected [default: 0.1]
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        alias = "mirostat-lr"
    )]
    mirostat_eta: Option<f32>,
    /// The steps in their order [default: penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature]
    #[arg(long, value_name = "NAMES")]
    samplers: Option<String>,
    /// Leave aside what the model's file recommends
    #[arg(long)]
    no_model_defaults: bool,
    /// Same seed, prompt and threads: same answer [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingArgs {
    /// Sets what the flags say; the rest stays.
    ///
    /// # Errors
    /// A setting is outside its range; it is named as on the command line.
    pub(super) fn apply(&self, options: &mut GenerateOptions) -> Result<(), exit::Usage> {
        let sampler = &mut options.sampler;
        for (field, value) in [
            (&mut sampler.temperature, self.temperature),
            (&mut sampler.top_p, self.top_p),
            (&mut sampler.min_p, self.min_p),
            (&mut sampler.typical_p, self.typical_p),
            (&mut sampler.top_n_sigma, self.top_n_sigma),
            (&mut sampler.xtc_probability, self.xtc_probability),
            (&mut sampler.xtc_threshold, self.xtc_threshold),
            (&mut sampler.dynatemp_range, self.dynatemp_range),
            (&mut sampler.dynatemp_exponent, self.dynatemp_exponent),
            (&mut sampler.repetition_penalty, self.repeat_penalty),
            (&mut sampler.frequency_penalty, self.frequency_penalty),
            (&mut sampler.presence_penalty, self.presence_penalty),
            (&mut sampler.dry_multiplier, self.dry_multiplier),
            (&mut sampler.dry_base, self.dry_base),
        ] {
            *field = value.unwrap_or(*field);
        }
        for (field, value) in [
            (&mut sampler.top_k, self.top_k),
            (&mut sampler.repetition_window, self.repeat_last_n),
            (&mut sampler.dry_allowed_length, self.dry_allowed_length),
            (&mut sampler.dry_window, self.dry_penalty_last_n),
        ] {
            *field = value.unwrap_or(*field);
        }
        if self.mirostat {
            sampler.mirostat.get_or_insert_default();
        }
        match &mut sampler.mirostat {
            Some(Mirostat { tau, eta }) => {
                *tau = self.mirostat_tau.unwrap_or(*tau);
                *eta = self.mirostat_eta.unwrap_or(*eta);
            }
            None if self.mirostat_tau.is_some() || self.mirostat_eta.is_some() => {
                let message = "--mirostat-tau and --mirostat-eta say nothing without --mirostat";
                return Err(exit::Usage(message.to_owned()));
            }
            None => {}
        }
        if let Some(names) = &self.samplers {
            sampler.chain = SamplerStep::parse_chain(names).map_err(in_words)?;
        }
        match &self.dry_sequence_breaker[..] {
            [] => {}
            [none] if none == "none" => options.dry_breakers.clear(),
            texts => options.dry_breakers = texts.to_vec(),
        }
        options.seed = self.seed;
        options.sampler.validate().map_err(in_words)
    }

    /// The settings with what the model recommends below what the flags say.
    ///
    /// # Errors
    /// The recommendation cannot be followed, or the two do not go together.
    pub(super) fn apply_for(&self, lm: &Lm, options: &mut GenerateOptions) -> anyhow::Result<()> {
        if self.no_model_defaults {
            return Ok(());
        }
        let mut recommended = lm.default_sampler()?;
        if self.mirostat && recommended.mirostat.is_none() {
            // It takes the place of what else is recommended.
            recommended = SamplerConfig {
                temperature: recommended.temperature,
                ..SamplerConfig::default()
            };
        }
        options.sampler = recommended;
        self.apply(options)?;
        Ok(())
    }
}

/// A setting outside its range, named as on the command line.
pub(super) fn in_words(error: EngineError) -> exit::Usage {
    exit::Usage(match error {
        EngineError::InvalidSampling {
            field,
            found,
            allowed,
        } => {
            let name = match field {
                "chain" => "samplers".to_owned(),
                field => field.replace("repetition", "repeat").replace('_', "-"),
            };
            format!("--{name} is {found}, allowed is {allowed}")
        }
        error => error.to_string(),
    })
}
