//! The engine: a model, its cache, its threads, and the one step function that everything else calls.

use crate::EngineError;
use crate::buffers::{self, Buffers};
use crate::forward::{Batch, Output};
use crate::kv::{KvCache, KvTypes, SequenceId};
use crate::lora::{AdapterSet, AdapterUse, Adapters};
use crate::memory;
use crate::prefix::Computation;
use crate::spec::{ModelSpec, RopeFactors};
use crate::weights::{self, LoadProgress, WeightSource, WeightTypes, Weights};
use dunlin_compute::{POSITIONS_PER_BLOCK, Pool, Tier};
use dunlin_format::Gguf;
use std::sync::Arc;

/// Tokens that one step takes at most, over all sequences: enough that a panel of weights is unpacked for many of them.
pub const MAX_BATCH: usize = 256;

/// How an engine is set up.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Threads that compute, the caller's included.
    pub threads: usize,
    /// Kernels to use.
    pub tier: Tier,
    /// Positions that the cache holds, over all sequences.
    pub context_length: usize,
    /// Number types of the cache.
    pub kv_types: KvTypes,
    /// Factor by which YaRN stretches the context beyond the one that the file says; `None`: as the file says.
    pub yarn_factor: Option<f32>,
}

/// A model ready to compute.
pub struct Engine {
    pub(crate) gguf: Arc<Gguf>,
    pub(crate) spec: ModelSpec,
    pub(crate) weights: Weights,
    pub(crate) cache: KvCache,
    pub(crate) buffers: Buffers,
    pub(crate) adapters: Adapters,
    pub(crate) pool: Pool,
    pub(crate) config: EngineConfig,
}

/// Tokens to append to one sequence in a step.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The sequence, which no other chunk of the step names.
    pub sequence: SequenceId,
    /// At least one token.
    pub tokens: &'a [u32],
    /// The tokens whose scores are wanted.
    pub logits: Logits,
}

/// Which tokens of a chunk give scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None: the chunk is the beginning of a prompt.
    None,
    /// The last one, to choose the next token.
    Last,
    /// All of them, to judge a text.
    All,
}

/// Scores for the token after one position.
#[derive(Debug)]
pub struct Scores<'a> {
    /// Index of the chunk in the step.
    pub chunk: usize,
    /// Position in the sequence of the token that they follow.
    pub position: usize,
    /// One score for each token of the vocabulary; may be changed in place.
    pub logits: &'a mut [f32],
}

impl Engine {
    /// Reads the description and packs the weights of a model.
    ///
    /// # Errors
    /// What the file lacks or has wrong ([`ModelSpec::from_gguf`], [`ModelSpec::check_tensors`]), a context of no tokens,
    /// threads that cannot be started, or [`EngineError::Cancelled`].
    pub fn load(
        gguf: Arc<Gguf>,
        config: EngineConfig,
        progress: LoadProgress<'_>,
    ) -> Result<Self, EngineError> {
        Self::load_with(gguf, config, &WeightSource::default(), progress)
    }

    /// As [`Engine::load`], with some matrices as other types than the file has: each is decoded, encoded and packed a few rows at a
    /// time, so that memory holds no second copy of it. Of a head that is the embedding only the head changes, the rows of tokens are
    /// read from the file.
    ///
    /// # Errors
    /// As [`Engine::load`]; [`EngineError::Convert`] for a name that is none of [`matrices`](crate::matrices), a type that cannot be
    /// encoded, rows that are no whole blocks of it, and weights that it has no code for.
    pub fn load_converted(
        gguf: Arc<Gguf>,
        config: EngineConfig,
        types: &WeightTypes,
        progress: LoadProgress<'_>,
    ) -> Result<Self, EngineError> {
        let source = WeightSource::Converted(types);
        Self::load_with(gguf, config, &source, progress)
    }

    /// As [`Engine::load`], but the matrices stay in the file and are packed piece by piece whenever they are multiplied: the
    /// same scores for the memory of a cache of keys and values, and several times the time for a token. The file's pages
    /// are the system's, which shares them between processes; do not let go of them between steps
    /// ([`Gguf::release_pages`]).
    ///
    /// # Errors
    /// As [`Engine::load`].
    pub fn load_mapped(
        gguf: Arc<Gguf>,
        config: EngineConfig,
        progress: LoadProgress<'_>,
    ) -> Result<Self, EngineError> {
        Self::load_with(gguf, config, &WeightSource::Mapped, progress)
    }

    fn load_with(
        gguf: Arc<Gguf>,
        config: EngineConfig,
        source: &WeightSource<'_>,
        progress: LoadProgress<'_>,
    ) -> Result<Self, EngineError> {
        let mut spec = ModelSpec::from_gguf(&gguf)?;
        if let Some(factor) = config.yarn_factor {
            spec = spec.stretched(factor)?;
        }
        if config.context_length == 0 {
            return Err(EngineError::CacheFull {
                needed: 1,
                available: 0,
            });
        }
        let pool = Pool::new(config.threads).map_err(EngineError::Threads)?;
        let (ropes, _) = buffers::ropes(&spec);
        let weights = weights::load(&gguf, &spec, &ropes, &pool, source, progress)?;
        // A model that reads whole texts keeps nothing between them: there is room for a step of the shortest ones, and
        // more with the first text that needs it.
        let room = match spec.causal {
            true => config.context_length,
            false => config.context_length.min(MAX_BATCH * POSITIONS_PER_BLOCK),
        };
        let step = MAX_BATCH.min(room);
        memory::check_available(&spec, &config, room, step)?;
        let cache = KvCache::new(&spec, config.kv_types, room);
        let buffers = Buffers::new(&spec, step, room, config.threads);
        Ok(Engine {
            gguf,
            spec,
            weights,
            cache,
            buffers,
            adapters: Adapters::default(),
            pool,
            config,
        })
    }

    /// The model's description.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The set-up that it was loaded with.
    pub fn config(&self) -> EngineConfig {
        self.config
    }

    /// Bytes of memory of the packed weights.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.bytes()
    }

    /// Bytes of the file that matrices are computed from ([`Engine::load_mapped`]).
    pub fn mapped_bytes(&self) -> u64 {
        self.weights.mapped_bytes()
    }

    /// Takes all memory of the cache now, and keeps the system from swapping out weights and cache. Vectors and work buffers are
    /// not locked.
    ///
    /// # Errors
    /// The process may not lock so much, or the system has no such call.
    pub fn lock_memory(&self) -> std::io::Result<()> {
        self.weights.lock()?;
        self.cache.slabs.lock()
    }

    /// Bytes of memory of the work buffers.
    pub fn buffer_bytes(&self) -> u64 {
        let positions = self.cache.capacity();
        let threads = self.config.threads;
        Buffers::bytes(&self.spec, self.max_batch(), positions, threads)
    }

    /// Tokens that one step takes at most.
    pub fn max_batch(&self) -> usize {
        self.buffers.max_tokens()
    }

    /// Starts an empty sequence.
    pub fn create_sequence(&mut self) -> SequenceId {
        self.cache.create()
    }

    /// Starts a sequence with what the cache knows of the beginning of `tokens`, from sequences that ended or go on, and
    /// returns how many tokens that are. The others must be given in steps; the last one always, for the scores that follow
    /// it. The scores are the same as without, to the last bit.
    ///
    /// In a model with recurrent layers a text can only go on where a step of several tokens or a sequence ended.
    pub fn create_sequence_with_prefix(&mut self, tokens: &[u32]) -> (SequenceId, usize) {
        self.create_with(tokens, AdapterSet::default())
    }

    /// As [`Engine::create_sequence_with_prefix`], for a sequence that is computed with these adapters at these scales as long
    /// as it lives. It begins only with what sequences with the same ones have left. The order of the adapters does not matter,
    /// and one at scale 0 is as none.
    ///
    /// # Errors
    /// [`EngineError::UnknownAdapter`], [`EngineError::AdapterTwice`], [`EngineError::AdapterScale`].
    pub fn create_adapted_sequence(
        &mut self,
        tokens: &[u32],
        adapters: &[AdapterUse],
    ) -> Result<(SequenceId, usize), EngineError> {
        let adapters = self.adapters.set_of(adapters)?;
        Ok(self.create_with(tokens, adapters))
    }

    fn create_with(&mut self, tokens: &[u32], adapters: AdapterSet) -> (SequenceId, usize) {
        let is_long = |original| tokens.len() > original;
        let long = self.original_context().is_some_and(is_long);
        let computation = Computation { long, adapters };
        self.cache.create_with_prefix(tokens, computation)
    }

    /// Starts a sequence with all tokens that another one has, without computing anything; the two go on by themselves.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`]; [`EngineError::CacheFull`] where there is no room for a copy of the last block.
    pub fn fork_sequence(&mut self, id: SequenceId) -> Result<SequenceId, EngineError> {
        self.cache.fork(id)
    }

    /// Tokens in a sequence.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`].
    pub fn sequence_length(&self, id: SequenceId) -> Result<usize, EngineError> {
        Ok(self.cache.get(id)?.length)
    }

    /// Says that a sequence will have at least so many tokens, before they are given in pieces.
    ///
    /// Models whose rotation depends on a sequence's length (LongRoPE) then begin with the right one; without this the
    /// tokens given so far are computed again when the sequence passes the original context.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`].
    pub fn expect_tokens(&mut self, id: SequenceId, tokens: usize) -> Result<(), EngineError> {
        self.cache.get_mut(id)?.expected = tokens;
        Ok(())
    }

    /// Forgets the tokens of a sequence from `length` on, and returns how many are left.
    ///
    /// That is `length`, or less in a model with recurrent layers: their state can only go back to where a step of several
    /// tokens ended, for the last few of them. The tokens between must be given again.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`].
    pub fn truncate_sequence(
        &mut self,
        id: SequenceId,
        length: usize,
    ) -> Result<usize, EngineError> {
        self.cache.truncate(id, length)
    }

    /// Ends a sequence and gives its memory back to the cache. Until that is needed, the tokens are found again by
    /// [`Engine::create_sequence_with_prefix`].
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`].
    pub fn remove_sequence(&mut self, id: SequenceId) -> Result<(), EngineError> {
        self.cache.remove(id)
    }

    /// Ends all sequences, and forgets what ended ones have left.
    pub fn clear_cache(&mut self) {
        self.cache.clear();
    }

    /// Appends tokens to any number of sequences and hands the wanted scores to `visit`, in the order of chunks and
    /// positions.
    ///
    /// # Errors
    /// An empty chunk, a sequence that is unknown or named twice, a token outside the vocabulary, more than
    /// [`Engine::max_batch`] tokens, a full cache, or a model that gives no scores. Nothing has changed then.
    pub fn step(
        &mut self,
        batch: &[Chunk<'_>],
        mut visit: impl FnMut(Scores<'_>),
    ) -> Result<(), EngineError> {
        if !self.spec.can_generate() {
            return Err(EngineError::NoLogits {
                architecture: self.spec.architecture.clone(),
            });
        }
        self.run(Batch::of(batch), &mut Output::Scores(&mut visit))
    }

    /// Checks a batch, counts its tokens in and computes it.
    pub(crate) fn run(
        &mut self,
        batch: Batch<'_>,
        output: &mut Output<'_>,
    ) -> Result<(), EngineError> {
        self.check(batch.chunks)?;
        for chunk in batch.chunks {
            self.rotate_for(chunk)?;
        }
        for chunk in batch.chunks {
            self.cache.extend(chunk.sequence, chunk.tokens.len())?;
        }
        let result = self.forward(&batch, output);
        for chunk in batch.chunks {
            let sequence = self.cache.get_mut(chunk.sequence)?;
            match result {
                Ok(()) => sequence.tokens.extend_from_slice(chunk.tokens),
                // What is counted in but not computed must not be used.
                Err(_) => {
                    let length = sequence.length - chunk.tokens.len();
                    self.cache.truncate(chunk.sequence, length)?;
                }
            }
        }
        result?;
        for chunk in batch.chunks.iter().filter(|chunk| chunk.tokens.len() > 1) {
            self.cache.save_checkpoint(chunk.sequence)?;
        }
        Ok(())
    }

    /// The length beyond which sequences are computed with another rotation, where there is one.
    pub(crate) fn original_context(&self) -> Option<usize> {
        let by_length = |factors| match factors {
            RopeFactors::ByLength { original_context } => Some(original_context),
            _ => None,
        };
        let mut factors = self.spec.attentions().map(|layer| layer.rope.factors);
        factors.find_map(by_length)
    }

    /// Where the rotation depends on a sequence's length: computes its tokens again when the new ones change it.
    fn rotate_for(&mut self, chunk: &Chunk<'_>) -> Result<(), EngineError> {
        let original = self.original_context();
        let Some(original) = original else {
            return Ok(());
        };
        let sequence = self.cache.get_mut(chunk.sequence)?;
        let length = sequence.length + chunk.tokens.len();
        let long = length.max(sequence.expected) > original;
        let again = match sequence.computation.long == long {
            true => Vec::new(),
            false => std::mem::take(&mut sequence.tokens),
        };
        sequence.computation.long = long;
        if !again.is_empty() {
            self.cache.truncate(chunk.sequence, 0)?;
        }
        for tokens in again.chunks(self.max_batch()) {
            self.cache.extend(chunk.sequence, tokens.len())?;
            let piece = [Chunk {
                sequence: chunk.sequence,
                tokens,
                logits: Logits::None,
            }];
            self.forward(&Batch::of(&piece), &mut Output::None)?;
        }
        self.cache.get_mut(chunk.sequence)?.tokens.extend(again);
        Ok(())
    }

    fn check(&self, batch: &[Chunk<'_>]) -> Result<(), EngineError> {
        let tokens: usize = batch.iter().map(|chunk| chunk.tokens.len()).sum();
        if tokens > self.max_batch() || batch.iter().any(|chunk| chunk.tokens.is_empty()) {
            return Err(EngineError::WrongBatch {
                tokens,
                limit: self.max_batch(),
            });
        }
        for (index, chunk) in batch.iter().enumerate() {
            self.cache.get(chunk.sequence)?;
            if batch[..index]
                .iter()
                .any(|other| other.sequence == chunk.sequence)
            {
                return Err(EngineError::SequenceTwice);
            }
            let vocab_size = self.spec.vocab_size;
            if let Some(&token) = chunk
                .tokens
                .iter()
                .find(|&&token| token as usize >= vocab_size)
            {
                return Err(EngineError::TokenOutOfRange { token, vocab_size });
            }
        }
        let wanted = batch
            .iter()
            .map(|chunk| (chunk.sequence, chunk.tokens.len()));
        self.cache.check_room(wanted)
    }
}
