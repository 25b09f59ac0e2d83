//! Whether a text is for or against something.

use super::Classifier;
use crate::{Error, Lm};

/// What the model is told. Of several ways to ask, this one sorted most sentences rightly, calibrated, with a 0.5B model, and as many as
/// any other with a 135M one (50 and 100 sentences that `docs/tasks.md` does not count).
const INSTRUCTION: &str = "Is the sentiment of the text {labels}? Answer with one word.";

impl Classifier {
    /// Sorts texts into `negative` and `positive`. A text without sentiment has probabilities near one half; where that is to be told,
    /// [`Classifier::with_none_of_these`] does it.
    ///
    /// # Errors
    /// [`Error::CannotGenerate`] for a model that only reads.
    pub fn sentiment(lm: &Lm) -> Result<Self, Error> {
        Ok(Classifier::new(lm, ["negative", "positive"])?.with_instruction(INSTRUCTION))
    }
}
