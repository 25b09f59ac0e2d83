//! The engine with the one sequence that a generation continues. What earlier ones have left is found again by their tokens.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use dunlin_engine::{
    AdapterId, AdapterUse, Chunk, Engine, EngineError, Input, Logits, LoraAdapter, Pooling, Scores,
    SequenceId,
};
use dunlin_format::Gguf;
use dunlin_text::TokenId;

use crate::speculate::StepCosts;

/// An engine and the tokens whose keys and values its sequence holds.
pub(crate) struct State {
    engine: Engine,
    gguf: Arc<Gguf>,
    /// The engine computes from the file's pages.
    mapped: bool,
    sequence: Option<SequenceId>,
    tokens: Vec<TokenId>,
    step_costs: StepCosts,
}

impl State {
    pub(crate) fn new(engine: Engine, gguf: Arc<Gguf>, mapped: bool) -> Self {
        State {
            engine,
            gguf,
            mapped,
            sequence: None,
            tokens: Vec::new(),
            step_costs: StepCosts::default(),
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

    /// Forgets all tokens, those of earlier prompts and answers, too.
    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.sequence = None;
        self.engine.clear_cache();
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

    /// Begins a prompt with what the cache knows of it from earlier prompts and answers, and leaves at least its last token to
    /// be computed, because the scores that follow it are wanted. Returns how many tokens are known: fewer in a model with
    /// recurrent layers, which only goes on from the end of an earlier prompt, piece of a prompt, or answer.
    pub(crate) fn reuse(
        &mut self,
        prompt: &[TokenId],
        adapters: &[AdapterUse],
    ) -> Result<usize, EngineError> {
        self.leave()?;
        let (sequence, known) = self.engine.create_adapted_sequence(prompt, adapters)?;
        self.sequence = Some(sequence);
        self.tokens.extend_from_slice(&prompt[..known]);
        Ok(known)
    }

    /// Finds what the cache knows of these tokens, computed without adapters, all of them included, and returns how many that are.
    pub(crate) fn find(&mut self, tokens: &[TokenId]) -> Result<usize, EngineError> {
        // The last token of a prompt is never taken from the cache.
        self.reuse(&[tokens, &[0]].concat(), &[])
    }

    /// Writes what was computed of the tokens that are kept.
    pub(crate) fn export(&mut self, out: &mut impl Write) -> Result<(), EngineError> {
        let sequence = self.sequence();
        self.engine.export_sequence(sequence, out)
    }

    /// Bytes that [`State::export`] writes for so many tokens.
    pub(crate) fn export_bytes(&self, tokens: usize) -> u64 {
        self.engine.export_bytes(tokens)
    }

    /// Puts what was exported of these tokens into the cache.
    pub(crate) fn import(
        &mut self,
        tokens: &[TokenId],
        from: &mut impl Read,
    ) -> Result<(), EngineError> {
        self.leave()?;
        let sequence = self.engine.import_sequence(tokens, from)?;
        self.engine.remove_sequence(sequence)
    }

    /// Gives the memory of these tokens back to the cache, as far as no other text begins with them.
    pub(crate) fn forget(&mut self, tokens: &[TokenId]) -> Result<(), EngineError> {
        self.leave()?;
        self.engine.forget_prefix(tokens);
        Ok(())
    }

    /// Ends the sequence, whose tokens the cache finds again.
    fn leave(&mut self) -> Result<(), EngineError> {
        self.tokens.clear();
        match self.sequence.take() {
            Some(sequence) => self.engine.remove_sequence(sequence),
            None => Ok(()),
        }
    }

    pub(crate) fn add_adapter(&mut self, adapter: &LoraAdapter) -> Result<AdapterId, EngineError> {
        self.engine.add_adapter(adapter)
    }

    pub(crate) fn remove_adapter(&mut self, adapter: AdapterId) -> Result<(), EngineError> {
        self.leave()?;
        self.engine.remove_adapter(adapter)
    }

    pub(crate) fn adapter_bytes(&self) -> u64 {
        self.engine.adapter_bytes()
    }

    /// Forgets the tokens from `length` on. For models that can go back to any length.
    pub(crate) fn cut(&mut self, length: usize) -> Result<(), EngineError> {
        if let Some(sequence) = self.sequence.filter(|_| length < self.tokens.len()) {
            let left = self.engine.truncate_sequence(sequence, length)?;
            self.tokens.truncate(left);
        }
        Ok(())
    }

    /// What steps take on this machine.
    pub(crate) fn step_costs(&self) -> &StepCosts {
        &self.step_costs
    }

    /// Learns what a step of this many tokens took.
    pub(crate) fn learn_cost(&mut self, tokens: usize, elapsed: Duration) {
        self.step_costs.learn(tokens, elapsed.as_secs_f64());
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

    /// Hands the sequence over to a caller that forks it. What it holds is no prompt state any more.
    pub(crate) fn hand_over(&mut self) -> SequenceId {
        let sequence = self.sequence();
        self.sequence = None;
        self.tokens.clear();
        sequence
    }

    /// A sequence with the tokens of one that was handed over.
    pub(crate) fn fork(&mut self, sequence: SequenceId) -> Result<SequenceId, EngineError> {
        self.engine.fork_sequence(sequence)
    }

    /// Ends a sequence that was handed over; the next prompts find its tokens.
    pub(crate) fn end(&mut self, sequence: SequenceId) -> Result<(), EngineError> {
        self.engine.remove_sequence(sequence)
    }

    /// Appends tokens to sequences that were handed over.
    pub(crate) fn step(
        &mut self,
        batch: &[Chunk<'_>],
        visit: impl FnMut(Scores<'_>),
    ) -> Result<(), EngineError> {
        let result = self.engine.step(batch, visit);
        self.release_pages();
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
