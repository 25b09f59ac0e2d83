//! Idle conversations give their part of the cache back.

use std::path::{Path, PathBuf};

use super::{Conversation, SaveOptions, Saved};
use crate::Error;

impl Conversation {
    /// Saves the conversation to a file and gives its part of the model's cache back to other conversations, as far as none of
    /// them begins in the same way. (The memory of the cache itself was reserved when the model was loaded and stays so.)
    ///
    /// The next turn brings it back from there, as does [`Conversation::wake`]. The file is the caller's: it may also be restored
    /// elsewhere, and is left where it is.
    ///
    /// # Errors
    /// As [`Conversation::save`]; the cache keeps its part then.
    pub fn hibernate(&mut self, path: impl Into<PathBuf>) -> Result<Saved, Error> {
        let path = path.into();
        let saved = self.save(&path, &SaveOptions::default())?;
        let tokens = self.talk.history.ids(self.lm.tokenizer());
        self.lm.lock().forget(&tokens)?;
        self.talk.asleep = Some(path);
        Ok(saved)
    }

    /// The file with what was computed, where the conversation hibernates.
    #[must_use]
    pub fn hibernates_in(&self) -> Option<&Path> {
        self.talk.asleep.as_deref()
    }

    /// Brings what was computed back into the cache, where the conversation hibernates, and returns how many tokens that are.
    ///
    /// # Errors
    /// As [`Conversation::restore`]. The conversation does not hibernate any more in any case: after an error, the next turn
    /// computes all of it again.
    pub fn wake(&mut self) -> Result<usize, Error> {
        match self.talk.asleep.take() {
            Some(path) => Conversation::import_computed(&self.lm, &path),
            None => Ok(0),
        }
    }
}
