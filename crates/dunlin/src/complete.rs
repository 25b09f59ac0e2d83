//! One prompt, one answer.

use crate::{Completion, Error, GenerateOptions, Lm, Prompt};

impl Lm {
    /// Continues a text or answers a conversation, and returns the whole answer: [`Lm::generate`] for those who do not show it piece
    /// by piece.
    ///
    /// # Errors
    /// As [`Lm::generate`], and what goes wrong on the way.
    pub fn complete(
        &self,
        prompt: &Prompt,
        options: &GenerateOptions,
    ) -> Result<Completion, Error> {
        self.generate(prompt, options)?.complete()
    }
}
