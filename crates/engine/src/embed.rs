//! Whole sequences as one vector, or as scores of a classification head: callers of the forward pass that keep nothing.

use crate::EngineError;
use crate::buffers::Buffers;
use crate::engine::{Chunk, Engine, Logits};
use crate::forward::{Batch, Output, normalize_in_place};
use crate::kv::SequenceId;
use crate::memory;
use crate::spec::{Classifier, ClassifierActivation, ModelSpec, Norm, Pooling};
use crate::weights::Linear;
use dunlin_compute::{
    Activations, Matmul, Nonlinearity, POSITIONS_PER_BLOCK, PackedMatrix, PanelFormat, Precision,
    activate_in_place, add_assign, matmul, scale_in_place,
};

impl ModelSpec {
    /// The pooling that turns a sequence into an embedding, unless the caller names another: what the file says. `None`
    /// for models that were not made for it, and for rerankers.
    #[must_use]
    pub fn embedding_pooling(&self) -> Option<Pooling> {
        self.pooling.filter(|pooling| *pooling != Pooling::Rank)
    }

    /// Length of an embedding.
    #[must_use]
    pub fn embedding_length(&self) -> usize {
        self.dense
            .last()
            .map_or(self.hidden_size, |(_, rows)| *rows)
    }
}

/// A sequence to be embedded or scored.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Its tokens, the special ones too.
    pub tokens: &'a [u32],
    /// One type a token, or none: all of type 0.
    pub token_types: &'a [u32],
}

impl<'a> Input<'a> {
    /// Tokens of type 0.
    #[must_use]
    pub fn new(tokens: &'a [u32]) -> Self {
        Input {
            tokens,
            token_types: &[],
        }
    }
}

impl Engine {
    /// The embedding of each sequence, of [`ModelSpec::embedding_length`] numbers: its hidden states pooled, through the
    /// dense matrices where the model has some. Not normalised.
    ///
    /// Short sequences are computed together, which is much faster than one after the other.
    ///
    /// # Errors
    /// A sequence of no tokens, tokens or types outside the model's tables, more tokens than the context holds, or
    /// [`Pooling::Rank`].
    pub fn embed(
        &mut self,
        inputs: &[Input<'_>],
        pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        if pooling == Pooling::Rank {
            return Err(EngineError::RankIsNoEmbedding);
        }
        let mut pooled = self.pool_states(inputs, pooling)?;
        for row in &mut pooled {
            for weights in &self.weights.dense {
                *row = self.multiply(weights, None, row);
            }
        }
        Ok(pooled)
    }

    /// The scores of each sequence by the model's classification head, one a label; a reranker has one. Several go through
    /// a softmax where the family says so.
    ///
    /// # Errors
    /// As [`Engine::embed`], or [`EngineError::NoClassifier`].
    pub fn rank(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>, EngineError> {
        let Some(spec) = self.spec.classifier.clone() else {
            return Err(EngineError::NoClassifier);
        };
        let pooled = self.pool_states(inputs, spec.pooling)?;
        let scores = pooled.into_iter().map(|row| self.classify(&spec, row));
        let mut scores: Vec<Vec<f32>> = scores.collect::<Result<_, _>>()?;
        for scores in scores
            .iter_mut()
            .filter(|row| spec.softmax && row.len() > 1)
        {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let sum: f32 = scores.iter().sum();
            scale_in_place(scores, 1.0 / sum);
        }
        Ok(scores)
    }

    fn classify(&self, spec: &Classifier, mut x: Vec<f32>) -> Result<Vec<f32>, EngineError> {
        let Some(weights) = &self.weights.classifier else {
            return Err(EngineError::NoClassifier);
        };
        if let (Some(dense), Some(activation)) = (&weights.dense, spec.dense) {
            x = self.apply(dense, &x);
            match activation {
                ClassifierActivation::Tanh => x.iter_mut().for_each(|x| *x = x.tanh()),
                ClassifierActivation::Gelu => {
                    activate_in_place(self.config.tier, Nonlinearity::Gelu, &mut x);
                }
            }
        }
        if let Some(norm) = &weights.norm {
            let kind = Norm::Layer {
                eps: self.spec.norm.eps(),
                bias: false,
            };
            normalize_in_place(self.config.tier, kind, norm, &mut x);
        }
        Ok(self.apply(&weights.output, &x))
    }

    /// Computes sequences that are forgotten afterwards, and pools the hidden states of each.
    fn pool_states(
        &mut self,
        inputs: &[Input<'_>],
        pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        for input in inputs {
            self.check_input(input)?;
        }
        if !self.spec.causal {
            let longest = inputs.iter().map(|input| input.tokens.len()).max();
            self.make_room_for_text(longest.unwrap_or(0))?;
        }
        let mut pooled = Vec::with_capacity(inputs.len());
        let mut rest = inputs;
        while !rest.is_empty() {
            let (group, later) = rest.split_at(self.group_len(rest));
            rest = later;
            let sequences = Vec::from_iter(group.iter().map(|_| self.create_sequence()));
            let result = self.pool_group(group, &sequences, pooling);
            for sequence in sequences {
                self.cache.discard(sequence)?;
            }
            pooled.extend(result?);
        }
        Ok(pooled)
    }

    /// A model that sees both sides needs the whole sequence at once.
    fn make_room_for_text(&mut self, tokens: usize) -> Result<(), EngineError> {
        let available = self.config.context_length;
        if tokens > available {
            return Err(EngineError::CacheFull {
                needed: tokens,
                available,
            });
        }
        if tokens <= self.max_batch() {
            return Ok(());
        }
        let kv_types = self.config.kv_types;
        memory::check_available(&self.spec, &self.config, tokens, tokens)?;
        if tokens > self.cache.capacity() {
            self.cache.grow(&self.spec, kv_types, tokens);
        }
        let positions = self.cache.capacity();
        self.buffers = Buffers::new(&self.spec, tokens, positions, self.config.threads);
        Ok(())
    }

    /// How many of the first inputs fit a step and the cache together; at least one.
    fn group_len(&self, inputs: &[Input<'_>]) -> usize {
        let (mut tokens, mut blocks) = (0, 0);
        let fits = inputs.iter().take_while(|input| {
            tokens += input.tokens.len();
            blocks += input.tokens.len().div_ceil(POSITIONS_PER_BLOCK);
            tokens <= self.max_batch() && blocks <= self.cache.free_blocks()
        });
        fits.count().max(1)
    }

    /// Pools sequences that are computed in one step, or a single one in as many as it needs.
    fn pool_group(
        &mut self,
        inputs: &[Input<'_>],
        sequences: &[SequenceId],
        pooling: Pooling,
    ) -> Result<Vec<Vec<f32>>, EngineError> {
        let width = self.spec.hidden_size;
        let start = |input: &Input<'_>| Pooled::new(pooling, input.tokens.len(), width);
        let mut pooled = Vec::from_iter(inputs.iter().map(start));
        if let ([input], [sequence]) = (inputs, sequences) {
            self.pool_alone(input, *sequence, &mut pooled[0])?;
        } else {
            let chunks = inputs.iter().zip(sequences).map(|(input, sequence)| Chunk {
                sequence: *sequence,
                tokens: input.tokens,
                logits: Logits::None,
            });
            let chunks = Vec::from_iter(chunks);
            let types = |input: &Input<'_>| match input.token_types {
                [] => vec![0; input.tokens.len()],
                types => types.to_vec(),
            };
            let token_types = Vec::from_iter(inputs.iter().flat_map(types));
            let batch = Batch {
                chunks: &chunks,
                token_types: &token_types,
            };
            let mut at = 0;
            let mut visit = |state: &[f32]| {
                while pooled[at].is_full() {
                    at += 1;
                }
                pooled[at].take(state);
            };
            self.run(batch, &mut Output::Hidden(&mut visit))?;
        }
        Ok(pooled.into_iter().map(Pooled::finish).collect())
    }

    fn pool_alone(
        &mut self,
        input: &Input<'_>,
        sequence: SequenceId,
        pooled: &mut Pooled,
    ) -> Result<(), EngineError> {
        let count = input.tokens.len();
        self.cache.check_room([(sequence, count)].into_iter())?;
        self.expect_tokens(sequence, count)?;
        let piece = self.max_batch();
        let mut types = input.token_types.chunks(piece);
        for tokens in input.tokens.chunks(piece) {
            let chunk = [Chunk {
                sequence,
                tokens,
                logits: Logits::None,
            }];
            let batch = Batch {
                chunks: &chunk,
                token_types: types.next().unwrap_or_default(),
            };
            let mut visit = |state: &[f32]| pooled.take(state);
            self.run(batch, &mut Output::Hidden(&mut visit))?;
        }
        Ok(())
    }

    fn check_input(&self, input: &Input<'_>) -> Result<(), EngineError> {
        let Input {
            tokens,
            token_types,
        } = input;
        if tokens.is_empty() {
            return Err(EngineError::WrongBatch {
                tokens: 0,
                limit: self.config.context_length,
            });
        }
        if !token_types.is_empty() && token_types.len() != tokens.len() {
            return Err(EngineError::WrongTokenTypes {
                types: token_types.len(),
                tokens: tokens.len(),
            });
        }
        // Without a table there is only type 0.
        let types = self.spec.token_types.max(1);
        match token_types.iter().find(|kind| **kind as usize >= types) {
            Some(&token_type) => Err(EngineError::TokenTypeOutOfRange { token_type, types }),
            None => Ok(()),
        }
    }

    fn apply(&self, linear: &Linear, x: &[f32]) -> Vec<f32> {
        self.multiply(&linear.weight, linear.bias.as_ref(), x)
    }

    /// A product with one row.
    fn multiply(&self, weights: &PackedMatrix, bias: Option<&Vec<f32>>, x: &[f32]) -> Vec<f32> {
        let mut input = Activations::with_precision(1, x.len(), Precision::Bits16);
        let quantize = PanelFormat::is_quantized(weights.format());
        input.fill(&self.pool, self.config.tier, 1, quantize, |_, row| {
            row.copy_from_slice(x)
        });
        let mut out = vec![0.0; weights.rows()];
        let mut products = [Matmul {
            weights,
            out: &mut out,
        }];
        matmul(&self.pool, self.config.tier, &input, &mut products);
        if let Some(bias) = bias {
            add_assign(&mut out, bias);
        }
        out
    }
}

/// The states of a sequence on their way to one vector.
struct Pooled {
    pooling: Pooling,
    tokens: usize,
    seen: usize,
    vector: Vec<f32>,
}

impl Pooled {
    fn new(pooling: Pooling, tokens: usize, width: usize) -> Self {
        Pooled {
            pooling,
            tokens,
            seen: 0,
            vector: vec![0.0; width],
        }
    }

    fn is_full(&self) -> bool {
        self.seen == self.tokens
    }

    fn take(&mut self, state: &[f32]) {
        self.seen += 1;
        match self.pooling {
            Pooling::Mean => add_assign(&mut self.vector, state),
            Pooling::Cls if self.seen > 1 => {}
            Pooling::Cls | Pooling::Last | Pooling::Rank => self.vector.copy_from_slice(state),
        }
    }

    fn finish(mut self) -> Vec<f32> {
        if self.pooling == Pooling::Mean {
            scale_in_place(&mut self.vector, 1.0 / self.seen as f32);
        }
        self.vector
    }
}
