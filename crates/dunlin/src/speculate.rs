//! Speculation: tokens are guessed, and one step of the model checks many guesses.
//!
//! A step of a few tokens costs little more than one of a single token. The sampler then chooses at each position from the
//! scores of the model itself, with its own random numbers, and a guess counts where it is what the sampler chose. So the
//! text is the one that would have come without, token for token, for any sampler.

mod draft;
mod lookup;
mod pace;

use dunlin_text::TokenId;

use crate::{Error, Lm};
use draft::DraftSpeculator;
use lookup::LookupSpeculator;

pub use draft::DraftModel;
pub(crate) use pace::{MOST_TOKENS, StepCosts};

/// How tokens are guessed to compute several in one step (Leviathan et al. 2022, arXiv:2211.17192). The answer is the same,
/// token for token, whichever way is chosen; only its speed differs.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Speculation {
    /// As [`Speculation::PromptLookup`] where the model allows it, else not at all.
    #[default]
    Auto,
    /// One token a step.
    Off,
    /// What followed the last few tokens where they stood before, in prompt or answer, is guessed to follow again
    /// (Saxena 2023, prompt lookup decoding). Costs no memory and no second model; pays for edits, summaries, code and lists,
    /// and rests where nothing repeats.
    PromptLookup {
        /// Guesses a step.
        length: DraftLength,
    },
    /// A small model with the same vocabulary guesses. Pays where it is many times faster and often right: a model of a tenth
    /// the size and of the same family.
    Draft {
        /// The model that guesses.
        model: DraftModel,
        /// Guesses a step.
        length: DraftLength,
    },
}

/// How many tokens are guessed for a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DraftLength {
    /// As many as pay, judged by how often guesses were right and by what steps take on this machine; none where none do.
    #[default]
    Adaptive,
    /// Always so many, as far as there is something to guess and a step takes them (15 at most): for measurements.
    Fixed(usize),
}

impl DraftLength {
    /// The length, at most `limit`, where `adaptive` says it for the adaptive one.
    fn choose(self, limit: usize, adaptive: impl FnOnce() -> usize) -> usize {
        let length = match self {
            DraftLength::Adaptive => adaptive(),
            DraftLength::Fixed(length) => length,
        };
        length.min(limit).min(MOST_TOKENS - 1)
    }
}

/// The guesses of one generation.
pub(crate) enum Speculator {
    /// None.
    Off,
    /// From the text so far.
    Lookup(LookupSpeculator),
    /// From another model.
    Draft(DraftSpeculator),
}

impl Speculator {
    /// # Errors
    /// [`Error::CannotSpeculate`] where the model's state cannot be cut back to the last good guess, and
    /// [`Error::DraftVocabulary`] for a draft model that speaks another language.
    pub(crate) fn new(speculation: &Speculation, lm: &Lm) -> Result<Self, Error> {
        let length = match speculation {
            Speculation::Off => return Ok(Speculator::Off),
            Speculation::Auto if lm.spec().state_bytes() > 0 => return Ok(Speculator::Off),
            Speculation::Auto => DraftLength::Adaptive,
            Speculation::PromptLookup { length } | Speculation::Draft { length, .. } => *length,
        };
        require_going_back(lm)?;
        match speculation {
            Speculation::Draft { model, .. } => {
                let draft = DraftSpeculator::new(model, length, lm.tokenizer())?;
                Ok(Speculator::Draft(draft))
            }
            _ => Ok(Speculator::Lookup(LookupSpeculator::new(length))),
        }
    }

    /// Appends at most `limit` guesses to the text.
    ///
    /// # Errors
    /// Those of the draft model.
    pub(crate) fn propose(
        &mut self,
        text: &mut Vec<TokenId>,
        limit: usize,
        costs: &StepCosts,
    ) -> Result<(), Error> {
        match self {
            Speculator::Off => Ok(()),
            Speculator::Lookup(lookup) => {
                lookup.propose(text, limit, costs);
                Ok(())
            }
            Speculator::Draft(draft) => draft.propose(text, limit, costs),
        }
    }

    /// Learns from the tokens that the sampler chose after the text and after each guess that was right.
    pub(crate) fn learn(&mut self, chosen: impl Iterator<Item = TokenId>) {
        match self {
            Speculator::Off => {}
            Speculator::Lookup(lookup) => lookup.learn(chosen),
            Speculator::Draft(draft) => draft.learn(chosen),
        }
    }
}

/// # Errors
/// [`Error::CannotSpeculate`] where wrong guesses cannot be taken back.
fn require_going_back(lm: &Lm) -> Result<(), Error> {
    match lm.spec().state_bytes() {
        0 => Ok(()),
        _ => Err(Error::CannotSpeculate {
            architecture: lm.spec().architecture.clone(),
        }),
    }
}
