//! The engine with the one sequence that generations continue.

use std::sync::Arc;

use dunlin_engine::{Chunk, Engine, EngineError, Input, Logits, Pooling, SequenceId};
use dunlin_format::Gguf;
use dunlin_text::TokenId;

/// An engine and the tokens whose keys and values its sequence holds.
pub(crate) struct State {
    engine: Engine,
    gguf: Arc<Gguf>,
    /// The engine computes from the file's pages.
    mapped: bool,
    sequence: Option<SequenceId>,
    tokens: Vec<TokenId>,
}

impl State {
    pub(crate) fn new(engine: Engine, gguf: Arc<Gguf>, mapped: bool) -> Self {
        State {
            engine,
            gguf,
            mapped,
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

    /// The embedding of each whole sequence. The prompt state is forgotten: the cache must hold the sequences.
    pub(crate) fn embed(
        &mut self,
        inputs: &[Input<'_>],
        pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        self.clear();
        let vectors = self.engine.embed(inputs, pooling);
        self.release_pages();
        vectors
    }

    /// The scores of each whole sequence. The prompt state is forgotten.
    pub(crate) fn rank(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>, EngineError> {
        self.clear();
        let scores = self.engine.rank(inputs);
        self.release_pages();
        scores
    }

    /// Keeps of the tokens those with which `prompt` begins, too, and leaves at least its last one to be computed,
    /// because the scores that follow it are wanted. Returns how many are kept: fewer than those in a model with recurrent
    /// layers, whose state only goes back to the end of an earlier prompt or piece of a prompt.
    pub(crate) fn reuse(&mut self, prompt: &[TokenId]) -> Result<usize, EngineError> {
        let same = self
            .tokens
            .iter()
            .zip(prompt)
            .take_while(|(kept, wanted)| kept == wanted)
            .count();
        let same = same.min(prompt.len().saturating_sub(1));
        let sequence = self.sequence();
        let kept = self.engine.truncate_sequence(sequence, same)?;
        self.engine.expect_tokens(sequence, prompt.len())?;
        self.tokens.truncate(kept);
        Ok(kept)
    }

    fn sequence(&mut self) -> SequenceId {
        let engine = &mut self.engine;
        *self
            .sequence
            .get_or_insert_with(|| engine.create_sequence())
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
        let sequence = self.sequence();
        let chunk = Chunk {
            sequence,
            tokens,
            logits,
        };
        let result = self
            .engine
            .step(&[chunk], |scores| visit(scores.position, scores.logits));
        self.release_pages();
        match result {
            Ok(()) => self.tokens.extend_from_slice(tokens),
            Err(_) => self.clear(),
        }
        result
    }

    /// Each embedding row that is read brings a stretch of the file into memory, which nothing else needs where the weights
    /// are packed.
    fn release_pages(&self) {
        if !self.mapped {
            self.gguf.release_pages();
        }
    }
}
