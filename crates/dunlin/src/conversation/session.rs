//! Conversations in files, with what was computed of them.

mod file;
mod head;

use std::path::Path;

use dunlin_engine::EngineError;

use super::Conversation;
use crate::{Error, Lm};
use file::SessionFile;
use head::Head;

/// How a session is saved.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SaveOptions {
    /// With keys, values and states of all layers, so that a restored conversation computes its new tokens only. Without, the file
    /// is small, and the first turn after a restore computes the whole conversation. Default: with.
    pub kv: bool,
}

impl Default for SaveOptions {
    fn default() -> Self {
        SaveOptions { kv: true }
    }
}

impl SaveOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With or without what was computed.
    #[must_use]
    pub fn with_kv(mut self, kv: bool) -> Self {
        self.kv = kv;
        self
    }
}

/// What was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Saved {
    /// Bytes of the file.
    pub bytes: u64,
    /// Tokens of the conversation as the model last read and wrote it.
    pub tokens: usize,
    /// Those of them that were computed and are in the file: all but the last one or so, and fewer where the cache had given them
    /// up for other conversations or, in a model with recurrent layers, has no state behind them.
    pub kv_tokens: usize,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Tokens of the conversation as the model last read and wrote it.
    pub tokens: usize,
    /// Those of them that need not be computed again. The others will be, with the next turn: none stood in the file, or the context
    /// of this model is too short for them.
    pub kv_tokens: usize,
}

impl Conversation {
    /// Saves the conversation to a file: messages, summary, tools and template variables, tokens, and what was computed of them
    /// (about the bytes of [`MemoryEstimate`](crate::MemoryEstimate)'s cache for as many tokens). Options for answers and the policy are the
    /// program's, and no part of it. A file that is there is replaced in one step.
    ///
    /// # Errors
    /// [`Error::SessionFile`], [`Error::SessionTooLarge`]; what keeps the model's file from being read.
    pub fn save(&self, path: impl AsRef<Path>, options: &SaveOptions) -> Result<Saved, Error> {
        let path = path.as_ref();
        let tokens = self.talk.history.ids(self.lm.tokenizer());
        // Before the model is locked: hashing it takes a while.
        let mut head = Head::of(self);
        let bytes = if options.kv {
            let mut state = self.lm.lock();
            head.kv_tokens = state.find(&tokens)?;
            file::write(path, &head, |out| match head.kv_tokens {
                0 => Ok(()),
                _ => state
                    .export(out)
                    .map_err(|error| as_file_error(path, error)),
            })?
        } else {
            file::write(path, &head, |_| Ok(()))?
        };
        Ok(Saved {
            bytes,
            tokens: tokens.len(),
            kv_tokens: head.kv_tokens,
        })
    }

    /// Restores a conversation from a file. Its next turn computes new tokens only, as far as the outcome says so; on the same kind
    /// of processor the answers are those of a conversation that was never saved.
    ///
    /// # Errors
    /// [`Error::SessionMismatch`] where the model is another one, or was loaded with other settings; [`Error::SessionDamaged`],
    /// [`Error::SessionVersion`], [`Error::SessionFile`]. Nothing was restored then.
    pub fn restore(lm: &Lm, path: impl AsRef<Path>) -> Result<(Self, Restored), Error> {
        let path = path.as_ref();
        let session = file::open(path)?;
        session.head.check(lm, path)?;
        let (head, kv_tokens) = import(lm, path, session)?;
        let mut conversation = Conversation::new(lm);
        (conversation.talk, conversation.options.template) = head.into_talk();
        let tokens = conversation.talk.history.ids(lm.tokenizer()).len();
        Ok((conversation, Restored { tokens, kv_tokens }))
    }

    /// Gives what was computed of a session in a file back to the cache. Returns how many tokens that are.
    pub(super) fn import_computed(lm: &Lm, path: &Path) -> Result<usize, Error> {
        let session = file::open(path)?;
        session.head.check(lm, path)?;
        Ok(import(lm, path, session)?.1)
    }
}

/// Puts the computed part of a checked session into the cache, where there is one and it fits.
fn import(lm: &Lm, path: &Path, mut session: SessionFile) -> Result<(Head, usize), Error> {
    let tokens = session.head.computed(lm.tokenizer());
    let mut state = lm.lock();
    let expected = match tokens.is_empty() {
        true => 0,
        false => state.export_bytes(tokens.len()),
    };
    if session.rest_bytes != expected {
        return Err(Error::SessionDamaged {
            path: path.to_owned(),
            reason: format!(
                "its {} computed tokens take {expected} bytes, and it has {}",
                tokens.len(),
                session.rest_bytes
            ),
        });
    }
    if tokens.is_empty() {
        return Ok((session.head, 0));
    }
    match state.import(&tokens, &mut session.rest) {
        Ok(()) => Ok((session.head, tokens.len())),
        Err(EngineError::CacheFull { .. }) => Ok((session.head, 0)),
        Err(error) => Err(as_file_error(path, error)),
    }
}

/// Says of which file the engine could not read or write.
fn as_file_error(path: &Path, error: EngineError) -> Error {
    match error {
        EngineError::Transfer(source) => Error::SessionFile {
            path: path.to_owned(),
            source,
        },
        error => error.into(),
    }
}
