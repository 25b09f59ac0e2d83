//! The engine with the one sequence that generations continue.

use dunlin_engine::{Chunk, Engine, EngineError, Logits, SequenceId};
use dunlin_text::TokenId;

/// An engine and the tokens whose keys and values its sequence holds.
pub(crate) struct State {
    engine: Engine,
    sequence: Option<SequenceId>,
    tokens: Vec<TokenId>,
}

impl State {
    pub(crate) fn new(engine: Engine) -> Self {
        State {
            engine,
            sequence: None,
            tokens: Vec::new(),
        }
    }

    /// The tokens whose keys and values are kept.
    pub(crate) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Tokens that one step takes at most.
    pub(crate) fn max_batch(&self) -> usize {
        self.engine.max_batch()
    }

    /// Forgets all tokens and gives the sequence's memory back.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        if let Some(sequence) = self.sequence.take() {
            // The engine knows every sequence that it gave out and that was not removed.
            let _ = self.engine.remove_sequence(sequence);
        }
    }

    /// Keeps of the tokens those with which `prompt` begins, too, and leaves at least its last one to be computed,
    /// because the scores that follow it are wanted. Returns how many are kept.
    pub(crate) fn reuse(&mut self, prompt: &[TokenId]) -> Result<usize, EngineError> {
        let same = self
            .tokens
            .iter()
            .zip(prompt)
            .take_while(|(kept, wanted)| kept == wanted)
            .count();
        let kept = same.min(prompt.len().saturating_sub(1));
        if let Some(sequence) = self.sequence {
            self.engine.truncate_sequence(sequence, kept)?;
        }
        self.tokens.truncate(kept);
        Ok(kept)
    }

    /// Appends at most [`State::max_batch`] tokens and hands each wanted row of scores with its position to `visit`.
    ///
    /// # Errors
    /// What the engine says; the prompt state is forgotten then, because it may be half computed.
    pub(crate) fn append(
        &mut self,
        tokens: &[TokenId],
        logits: Logits,
        mut visit: impl FnMut(usize, &mut [f32]),
    ) -> Result<(), EngineError> {
        let sequence = match self.sequence {
            Some(sequence) => sequence,
            None => *self.sequence.insert(self.engine.create_sequence()),
        };
        let chunk = Chunk {
            sequence,
            tokens,
            logits,
        };
        let result = self
            .engine
            .step(&[chunk], |scores| visit(scores.position, scores.logits));
        match result {
            Ok(()) => self.tokens.extend_from_slice(tokens),
            Err(_) => self.clear(),
        }
        result
    }
}
