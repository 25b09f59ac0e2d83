//! The engine: a model, its cache, its threads, and the one step function that everything else calls.

use crate::EngineError;
use crate::buffers::Buffers;
use crate::kv::{KvCache, SequenceId};
use crate::spec::ModelSpec;
use crate::weights::{LoadProgress, Weights};
use dunlin_compute::{KvElement, Pool, Tier};
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
    /// Number type of the cache.
    pub kv_element: KvElement,
}

/// A model ready to compute.
pub struct Engine {
    pub(crate) gguf: Arc<Gguf>,
    pub(crate) spec: ModelSpec,
    pub(crate) weights: Weights,
    pub(crate) cache: KvCache,
    pub(crate) buffers: Buffers,
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
        let spec = ModelSpec::from_gguf(&gguf)?;
        if spec.attention_softcap.is_some() {
            let feature = "a soft cap on attention scores (attn_logit_softcapping)".to_owned();
            return Err(EngineError::UnsupportedFeature { feature });
        }
        if config.context_length == 0 {
            return Err(EngineError::CacheFull {
                needed: 1,
                available: 0,
            });
        }
        let pool = Pool::new(config.threads).map_err(EngineError::Threads)?;
        let weights = Weights::load(&gguf, &spec, &pool, progress)?;
        let cache = KvCache::new(&spec, config.kv_element, config.context_length);
        let buffers = Buffers::new(&spec, MAX_BATCH.min(config.context_length));
        Ok(Engine {
            gguf,
            spec,
            weights,
            cache,
            buffers,
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

    /// Bytes of memory of the work buffers.
    pub fn buffer_bytes(&self) -> u64 {
        self.buffers.bytes()
    }

    /// Tokens that one step takes at most.
    pub fn max_batch(&self) -> usize {
        self.buffers.max_tokens()
    }

    /// Starts an empty sequence.
    pub fn create_sequence(&mut self) -> SequenceId {
        self.cache.create()
    }

    /// Tokens in a sequence.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`].
    pub fn sequence_length(&self, id: SequenceId) -> Result<usize, EngineError> {
        Ok(self.cache.get(id)?.length)
    }

    /// Forgets the tokens of a sequence from `length` on.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`].
    pub fn truncate_sequence(&mut self, id: SequenceId, length: usize) -> Result<(), EngineError> {
        self.cache.truncate(id, length)
    }

    /// Ends a sequence and gives its memory back to the cache.
    ///
    /// # Errors
    /// [`EngineError::UnknownSequence`].
    pub fn remove_sequence(&mut self, id: SequenceId) -> Result<(), EngineError> {
        self.cache.remove(id)
    }

    /// Appends tokens to any number of sequences and hands the wanted scores to `visit`, in the order of chunks and
    /// positions.
    ///
    /// # Errors
    /// An empty chunk, a sequence that is unknown or named twice, a token outside the vocabulary, more than
    /// [`Engine::max_batch`] tokens, or a full cache. Nothing has changed then.
    pub fn step(
        &mut self,
        batch: &[Chunk<'_>],
        mut visit: impl FnMut(Scores<'_>),
    ) -> Result<(), EngineError> {
        self.check(batch)?;
        for (index, chunk) in batch.iter().enumerate() {
            if let Err(error) = self.cache.extend(chunk.sequence, chunk.tokens.len()) {
                for chunk in &batch[..index] {
                    let length = self.cache.get(chunk.sequence)?.length - chunk.tokens.len();
                    self.cache.truncate(chunk.sequence, length)?;
                }
                return Err(error);
            }
        }
        self.forward(batch, &mut visit)
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
        Ok(())
    }
}
