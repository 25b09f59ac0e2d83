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
    Activations, Matmul, Nonlinearity, PackedMatrix, PanelFormat, Precision, activate_in_place,
    add_assign, matmul, scale_in_place,
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

impl Engine {
    /// The embedding of a sequence, of [`ModelSpec::embedding_length`] numbers: its hidden states pooled, through the dense
    /// matrices where the model has some. Not normalised.
    ///
    /// `tokens` holds the special tokens too. `token_types` has one type a token, or is empty: all of type 0.
    ///
    /// # Errors
    /// No tokens, tokens or types outside the model's tables, more tokens than the context holds, or [`Pooling::Rank`].
    pub fn embed(
        &mut self,
        tokens: &[u32],
        token_types: &[u32],
        pooling: Pooling,
    ) -> Result<Vec<f32>, EngineError> {
        if pooling == Pooling::Rank {
            return Err(EngineError::RankIsNoEmbedding);
        }
        let mut pooled = self.pool_states(tokens, token_types, pooling)?;
        for index in 0..self.weights.dense.len() {
            pooled = self.multiply(&self.weights.dense[index], None, &pooled);
        }
        Ok(pooled)
    }

    /// The scores of a sequence by the model's classification head, one a label; a reranker has one. Several go through a
    /// softmax where the family says so.
    ///
    /// `tokens` and `token_types` as for [`Engine::embed`].
    ///
    /// # Errors
    /// As [`Engine::embed`], or [`EngineError::NoClassifier`].
    pub fn rank(&mut self, tokens: &[u32], token_types: &[u32]) -> Result<Vec<f32>, EngineError> {
        let Some(spec) = self.spec.classifier.clone() else {
            return Err(EngineError::NoClassifier);
        };
        let pooled = self.pool_states(tokens, token_types, spec.pooling)?;
        let mut scores = self.classify(&spec, pooled)?;
        if spec.softmax && scores.len() > 1 {
            let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scores.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let sum: f32 = scores.iter().sum();
            scale_in_place(&mut scores, 1.0 / sum);
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

    /// Computes a sequence that is forgotten afterwards, and pools its hidden states.
    fn pool_states(
        &mut self,
        tokens: &[u32],
        token_types: &[u32],
        pooling: Pooling,
    ) -> Result<Vec<f32>, EngineError> {
        self.check_token_types(tokens, token_types)?;
        if !self.spec.causal {
            self.make_room_for_text(tokens.len())?;
        }
        let sequence = self.create_sequence();
        let pooled = self.pool_sequence(sequence, tokens, token_types, pooling);
        self.remove_sequence(sequence)?;
        pooled
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
        let kv_element = self.config.kv_element;
        memory::check_available(&self.spec, kv_element, tokens, tokens)?;
        self.cache.grow(&self.spec, kv_element, tokens);
        self.buffers = Buffers::new(&self.spec, tokens);
        Ok(())
    }

    fn pool_sequence(
        &mut self,
        sequence: SequenceId,
        tokens: &[u32],
        token_types: &[u32],
        pooling: Pooling,
    ) -> Result<Vec<f32>, EngineError> {
        self.cache
            .check_room([(sequence, tokens.len())].into_iter())?;
        self.expect_tokens(sequence, tokens.len())?;
        let mut pooled = vec![0.0; self.spec.hidden_size];
        let mut seen = 0;
        let mut visit = |state: &[f32]| {
            match pooling {
                Pooling::Mean => add_assign(&mut pooled, state),
                Pooling::Cls if seen > 0 => {}
                Pooling::Cls | Pooling::Last | Pooling::Rank => pooled.copy_from_slice(state),
            }
            seen += 1;
        };
        let piece = self.max_batch();
        let mut types = token_types.chunks(piece);
        for tokens in tokens.chunks(piece) {
            let chunk = [Chunk {
                sequence,
                tokens,
                logits: Logits::None,
            }];
            let batch = Batch {
                chunks: &chunk,
                token_types: types.next().unwrap_or_default(),
            };
            self.run(batch, &mut Output::Hidden(&mut visit))?;
        }
        if seen == 0 {
            return Err(EngineError::WrongBatch {
                tokens: 0,
                limit: self.config.context_length,
            });
        }
        if pooling == Pooling::Mean {
            scale_in_place(&mut pooled, 1.0 / seen as f32);
        }
        Ok(pooled)
    }

    fn check_token_types(&self, tokens: &[u32], token_types: &[u32]) -> Result<(), EngineError> {
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
