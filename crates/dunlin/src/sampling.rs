//! The sampling settings that a model's own metadata recommend.

use dunlin_engine::{Mirostat, SamplerConfig, SamplerStep};
use dunlin_format::{Metadata, Value};
use serde::Serialize;

use crate::{Error, Lm};

/// The settings that a file recommends: its `general.sampling.*` keys, which converters write from the authors'
/// `generation_config.json`. What it does not say is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct RecommendedSampling {
    /// Order of the steps (`general.sampling.sequence`), as the file writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<String>,
    /// `general.sampling.temp`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// `general.sampling.top_k`; 0 and less: all tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// `general.sampling.top_p`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// `general.sampling.min_p`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// `general.sampling.xtc_probability`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_probability: Option<f64>,
    /// `general.sampling.xtc_threshold`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xtc_threshold: Option<f64>,
    /// `general.sampling.penalty_repeat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f64>,
    /// `general.sampling.penalty_last_n`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repetition_window: Option<i64>,
    /// `general.sampling.mirostat`: 0, 1 or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat: Option<i64>,
    /// `general.sampling.mirostat_tau`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat_tau: Option<f64>,
    /// `general.sampling.mirostat_eta`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirostat_eta: Option<f64>,
    /// A key whose value is of another type.
    #[serde(skip)]
    unreadable: Option<&'static str>,
}

const SEQUENCE: &str = "general.sampling.sequence";

impl RecommendedSampling {
    /// What the metadata say.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let mut unreadable = None;
        let mut number = |key: &'static str| {
            let value = metadata.get(key)?;
            let number = number(value);
            if number.is_none() {
                unreadable.get_or_insert(key);
            }
            number
        };
        let mut said = RecommendedSampling {
            chain: None,
            temperature: number("general.sampling.temp"),
            top_k: number("general.sampling.top_k").map(|value| value as i64),
            top_p: number("general.sampling.top_p"),
            min_p: number("general.sampling.min_p"),
            xtc_probability: number("general.sampling.xtc_probability"),
            xtc_threshold: number("general.sampling.xtc_threshold"),
            repetition_penalty: number("general.sampling.penalty_repeat"),
            repetition_window: number("general.sampling.penalty_last_n").map(|value| value as i64),
            mirostat: number("general.sampling.mirostat").map(|value| value as i64),
            mirostat_tau: number("general.sampling.mirostat_tau"),
            mirostat_eta: number("general.sampling.mirostat_eta"),
            unreadable: None,
        };
        match metadata.get(SEQUENCE) {
            Some(Value::String(chain)) => said.chain = Some(chain.clone()),
            Some(_) => unreadable = Some(SEQUENCE),
            None => {}
        }
        said.unreadable = unreadable;
        said
    }

    /// Whether the file recommends nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The default settings with the recommended ones in their place. With mirostat, nothing but the temperature counts
    /// beside it, as in llama.cpp.
    ///
    /// # Errors
    /// [`Error::SamplingMetadata`] for a chain with a step that there is none of, for the first version of mirostat, and for values
    /// outside their ranges.
    pub fn to_config(&self) -> Result<SamplerConfig, Error> {
        if let Some(key) = self.unreadable {
            let allowed = "a number was expected (a text for the sequence)".to_owned();
            return Err(refuse(key, "a value of another type", allowed));
        }
        let mut config = SamplerConfig::default();
        set(&mut config.temperature, self.temperature);
        match self.mirostat {
            Some(2) => {
                let mut mirostat = Mirostat::default();
                set(&mut mirostat.tau, self.mirostat_tau);
                set(&mut mirostat.eta, self.mirostat_eta);
                config.mirostat = Some(mirostat);
            }
            None | Some(0) => {
                if let Some(chain) = &self.chain {
                    config.chain = SamplerStep::parse_chain(chain)
                        .map_err(|error| refuse(SEQUENCE, chain, error.to_string()))?;
                }
                config.top_k = self.top_k.map_or(config.top_k, size);
                set(&mut config.top_p, self.top_p);
                set(&mut config.min_p, self.min_p);
                set(&mut config.xtc_probability, self.xtc_probability);
                set(&mut config.xtc_threshold, self.xtc_threshold);
                set(&mut config.repetition_penalty, self.repetition_penalty);
                config.repetition_window = self
                    .repetition_window
                    .map_or(config.repetition_window, size);
            }
            Some(other) => {
                let allowed = "only its version 2 is there".to_owned();
                return Err(refuse("general.sampling.mirostat", other, allowed));
            }
        }
        let checked = config.validate();
        checked.map_err(|error| refuse("general.sampling", "settings", error.to_string()))?;
        Ok(config)
    }

    /// The settings in words: names and values.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let text = |value: Option<f64>| value.map(|value| value.to_string());
        let whole = |value: Option<i64>| value.map(|value| value.to_string());
        let all = [
            ("chain", self.chain.clone()),
            ("temperature", text(self.temperature)),
            ("top-k", whole(self.top_k)),
            ("top-p", text(self.top_p)),
            ("min-p", text(self.min_p)),
            ("xtc-probability", text(self.xtc_probability)),
            ("xtc-threshold", text(self.xtc_threshold)),
            ("repeat-penalty", text(self.repetition_penalty)),
            ("repeat-last-n", whole(self.repetition_window)),
            ("mirostat", whole(self.mirostat)),
            ("mirostat-tau", text(self.mirostat_tau)),
            ("mirostat-eta", text(self.mirostat_eta)),
        ];
        let said = all.into_iter();
        said.filter_map(|(name, value)| Some((name, value?)))
            .collect()
    }
}

impl Lm {
    /// The default settings with those in their place that the model's own metadata recommend
    /// ([`ModelInfo::sampling`](crate::ModelInfo::sampling)); the default itself where they recommend none. Change its fields for what
    /// shall be otherwise.
    ///
    /// # Errors
    /// [`Error::SamplingMetadata`] for a recommendation that cannot be followed.
    pub fn default_sampler(&self) -> Result<SamplerConfig, Error> {
        self.info().sampling.to_config()
    }
}

fn refuse(key: &'static str, found: impl ToString, allowed: String) -> Error {
    Error::SamplingMetadata {
        key,
        found: found.to_string(),
        allowed,
    }
}

fn set(field: &mut f32, value: Option<f64>) {
    if let Some(value) = value {
        *field = value as f32;
    }
}

fn size(value: i64) -> usize {
    usize::try_from(value).unwrap_or(0)
}

/// Any kind of number; single precision as it is written in decimal, without the digits of its rounding.
fn number(value: &Value) -> Option<f64> {
    Some(match value {
        Value::F32(value) => value.to_string().parse().ok()?,
        Value::F64(value) => *value,
        Value::U8(value) => f64::from(*value),
        Value::I8(value) => f64::from(*value),
        Value::U16(value) => f64::from(*value),
        Value::I16(value) => f64::from(*value),
        Value::U32(value) => f64::from(*value),
        Value::I32(value) => f64::from(*value),
        Value::U64(value) => *value as f64,
        Value::I64(value) => *value as f64,
        Value::Bool(_) | Value::String(_) | Value::Array(_) => return None,
    })
}
