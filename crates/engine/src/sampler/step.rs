//! The steps of a sampler, by the names that llama.cpp gives them.

use std::fmt;
use std::str::FromStr;

use crate::EngineError;

/// A step between the logits and the draw. Each does nothing until its settings turn it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SamplerStep {
    /// Repetition, frequency and presence penalties.
    Penalties,
    /// Penalties on tokens that would go on with a repetition.
    Dry,
    /// Keeps logits near the largest.
    TopNSigma,
    /// Keeps a number of tokens.
    TopK,
    /// Keeps tokens about as surprising as is to be expected.
    TypicalP,
    /// Keeps the likeliest up to a sum of probabilities.
    TopP,
    /// Keeps tokens above a part of the largest probability.
    MinP,
    /// Now and then leaves out the likeliest.
    Xtc,
    /// Divides the logits.
    Temperature,
}

impl SamplerStep {
    /// The order of llama.cpp.
    pub const DEFAULT_CHAIN: [SamplerStep; 9] = [
        SamplerStep::Penalties,
        SamplerStep::Dry,
        SamplerStep::TopNSigma,
        SamplerStep::TopK,
        SamplerStep::TypicalP,
        SamplerStep::TopP,
        SamplerStep::MinP,
        SamplerStep::Xtc,
        SamplerStep::Temperature,
    ];

    /// The name that llama.cpp gives it (`--samplers`, `general.sampling.sequence`).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SamplerStep::Penalties => "penalties",
            SamplerStep::Dry => "dry",
            SamplerStep::TopNSigma => "top_n_sigma",
            SamplerStep::TopK => "top_k",
            SamplerStep::TypicalP => "typ_p",
            SamplerStep::TopP => "top_p",
            SamplerStep::MinP => "min_p",
            SamplerStep::Xtc => "xtc",
            SamplerStep::Temperature => "temperature",
        }
    }

    /// Reads a chain: names with semicolons between, each at most once.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidSampling`] for a name that is none of a step, and for one that comes twice.
    pub fn parse_chain(text: &str) -> Result<Vec<SamplerStep>, EngineError> {
        let names = text.split(';').map(str::trim);
        let chain = names
            .filter(|name| !name.is_empty())
            .map(str::parse)
            .collect::<Result<Vec<_>, _>>()?;
        require_once(&chain)?;
        Ok(chain)
    }
}

impl fmt::Display for SamplerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SamplerStep {
    type Err = EngineError;

    /// Hyphens may stand for underscores, `typical_p` for `typ_p` and `temp` for `temperature`.
    fn from_str(name: &str) -> Result<Self, EngineError> {
        let plain = name.to_ascii_lowercase().replace('-', "_");
        let canonical = match plain.as_str() {
            "typical_p" | "typical" => "typ_p",
            "temp" => "temperature",
            name => name,
        };
        Self::DEFAULT_CHAIN
            .into_iter()
            .find(|step| step.name() == canonical)
            .ok_or_else(|| EngineError::InvalidSampling {
                field: "chain",
                found: format!("{name:?}"),
                allowed: "penalties, dry, top_n_sigma, top_k, typ_p, top_p, min_p, xtc and temperature, with semicolons between",
            })
    }
}

/// # Errors
///
/// [`EngineError::InvalidSampling`] for a step that comes twice.
pub(super) fn require_once(chain: &[SamplerStep]) -> Result<(), EngineError> {
    let mut seen = chain.iter().enumerate();
    match seen.find(|(index, step)| chain[..*index].contains(step)) {
        Some((_, step)) => Err(EngineError::InvalidSampling {
            field: "chain",
            found: format!("{step} twice"),
            allowed: "each step at most once",
        }),
        None => Ok(()),
    }
}
