//! Texts as vectors.

use std::ops::ControlFlow;

use dunlin_engine::{EngineError, Input, Pooling};
use dunlin_hub::ModelRef;
use dunlin_text::TokenId;

use crate::{Error, Lm, LoadOptions};

/// How texts become vectors. Every field has a default; the builder methods set one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedOptions {
    /// How the vectors of a text's tokens become one; `None`: as the model says. A model that was made for writing says
    /// nothing, and embeds (not very well) with what is named here.
    pub pooling: Option<Pooling>,
    /// Cut a text that is too long at its end instead of refusing it.
    pub truncate: bool,
    /// Scale vectors to length 1, so that their dot product is the cosine.
    pub normalize: bool,
}

impl Default for EmbedOptions {
    fn default() -> Self {
        EmbedOptions {
            pooling: None,
            truncate: false,
            normalize: true,
        }
    }
}

impl EmbedOptions {
    /// The defaults: the model's own pooling, vectors of length 1, nothing cut.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this pooling.
    #[must_use]
    pub fn with_pooling(mut self, pooling: Pooling) -> Self {
        self.pooling = Some(pooling);
        self
    }

    /// With texts that are too long cut, or refused.
    #[must_use]
    pub fn with_truncate(mut self, truncate: bool) -> Self {
        self.truncate = truncate;
        self
    }

    /// With vectors of length 1, or as the model gives them.
    #[must_use]
    pub fn with_normalize(mut self, normalize: bool) -> Self {
        self.normalize = normalize;
        self
    }
}

/// Turns texts into vectors whose nearness is that of their meanings.
///
/// ```no_run
/// use dunlin::Embedder;
///
/// let embedder = Embedder::load_from_model_id("all-minilm:l6-v2")?;
/// let vectors = embedder.embed(&["A cat sleeps.", "A kitten naps.", "Shares fell."])?;
/// let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
/// assert!(cosine(&vectors[0], &vectors[1]) > cosine(&vectors[0], &vectors[2]));
/// # Ok::<(), dunlin::Error>(())
/// ```
#[derive(Clone)]
pub struct Embedder {
    lm: Lm,
    pooling: Pooling,
    options: EmbedOptions,
}

impl Embedder {
    /// Loads the model of this name with all defaults: see [`Lm::load_from_model_id`].
    ///
    /// # Errors
    /// As [`Embedder::load`].
    pub fn load_from_model_id(id: &str) -> Result<Self, Error> {
        Self::load(id.parse()?, LoadOptions::default(), EmbedOptions::default())
    }

    /// Loads a model.
    ///
    /// # Errors
    /// As [`Lm::load`] and [`Embedder::new`].
    pub fn load(
        model: ModelRef,
        load: LoadOptions<'_>,
        options: EmbedOptions,
    ) -> Result<Self, Error> {
        Self::new(Lm::load(model, load)?, options)
    }

    /// Embeds with a loaded model, which can be used for other things meanwhile.
    ///
    /// # Errors
    /// [`Error::NoPooling`] for a model that was not made for embedding, where `options` names no pooling;
    /// [`EngineError::RankIsNoEmbedding`] for a reranker.
    pub fn new(lm: Lm, options: EmbedOptions) -> Result<Self, Error> {
        let pooling = match options.pooling.or(lm.spec().pooling) {
            Some(Pooling::Rank) => return Err(EngineError::RankIsNoEmbedding.into()),
            Some(pooling) => pooling,
            None => {
                let architecture = lm.spec().architecture.clone();
                return Err(Error::NoPooling { architecture });
            }
        };
        Ok(Embedder {
            lm,
            pooling,
            options,
        })
    }

    /// One vector a text, in their order. Short texts are computed together, which is faster than one by one.
    ///
    /// # Errors
    /// [`Error::TextTooLong`] with the numbers, unless the options say to cut; [`Error::Text`] for a text that the
    /// vocabulary cannot express. Either is found before the first text is computed.
    pub fn embed(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, Error> {
        self.embed_with(texts, &mut |_, _| ControlFlow::Continue(()))
    }

    /// As [`Embedder::embed`]; now and then `progress` is told how many of how many are done, and ends the work with
    /// [`Error::Cancelled`] by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn embed_with(
        &self,
        texts: &[impl AsRef<str>],
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let inputs: Vec<Vec<TokenId>> = texts
            .iter()
            .enumerate()
            .map(|(index, text)| self.encode(index, text.as_ref()))
            .collect::<Result<_, _>>()?;
        let inputs: Vec<Input<'_>> = inputs.iter().map(|ids| Input::new(ids)).collect();
        in_groups(&self.lm, &inputs, progress, |group| self.compute(group))
    }

    /// The vector of these token ids, exactly as they are: the special tokens must be among them, and nothing is cut.
    ///
    /// # Errors
    /// [`Error::TextTooLong`]; [`Error::Engine`] for an id outside the vocabulary; [`Error::EmptyPrompt`].
    pub fn embed_ids(&self, ids: &[TokenId]) -> Result<Vec<f32>, Error> {
        check_length(self.lm.context_length(), 0, ids.len())?;
        Ok(self.compute(&[Input::new(ids)])?.remove(0))
    }

    /// The token ids of a text as it is embedded: with special tokens, and cut where the options say so.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        self.encode(0, text)
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.lm.spec().embedding_length()
    }

    /// Tokens that a text can have, special ones included: the context, or less where the model's makers embed no longer
    /// texts.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        let longest = self.lm.spec().longest_text.unwrap_or(usize::MAX);
        self.lm.context_length().min(longest)
    }

    /// How the vectors of a text's tokens become one.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// The model.
    #[must_use]
    pub fn lm(&self) -> &Lm {
        &self.lm
    }

    fn encode(&self, index: usize, text: &str) -> Result<Vec<TokenId>, Error> {
        let tokenizer = self.lm.tokenizer();
        let mut ids = tokenizer.encode(text, false)?;
        if self.options.truncate {
            let special = tokenizer.add_special(Vec::new()).len();
            ids.truncate(self.max_tokens().saturating_sub(special));
        }
        let ids = tokenizer.add_special(ids);
        check_length(self.max_tokens(), index, ids.len())?;
        Ok(ids)
    }

    fn compute(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>, Error> {
        if inputs.iter().any(|input| input.tokens.is_empty()) {
            return Err(Error::EmptyPrompt);
        }
        let mut vectors = self.lm.lock().embed(inputs, self.pooling)?;
        for vector in &mut vectors {
            require_numbers(vector)?;
            if self.options.normalize {
                normalize(vector);
            }
        }
        Ok(vectors)
    }
}

/// One answer an input, computed in groups that fit one step of the engine. After each group `progress` hears how many are
/// done and can stop; between two others can have the model.
///
/// # Errors
/// What `compute` gives; [`Error::Cancelled`].
pub(crate) fn in_groups<T>(
    lm: &Lm,
    inputs: &[Input<'_>],
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    compute: impl Fn(&[Input<'_>]) -> Result<Vec<T>, Error>,
) -> Result<Vec<T>, Error> {
    let max_tokens = lm.lock().max_batch();
    let mut outputs = Vec::with_capacity(inputs.len());
    while outputs.len() < inputs.len() {
        let rest = &inputs[outputs.len()..];
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|input| {
            tokens += input.tokens.len();
            tokens <= max_tokens
        });
        let count = fitting.count().max(1);
        outputs.extend(compute(&rest[..count])?);
        if progress(outputs.len(), inputs.len()).is_break() {
            return Err(Error::Cancelled);
        }
    }
    Ok(outputs)
}

/// # Errors
/// [`Error::TextTooLong`].
pub(crate) fn check_length(limit: usize, index: usize, tokens: usize) -> Result<(), Error> {
    if tokens <= limit {
        return Ok(());
    }
    Err(Error::TextTooLong {
        index,
        tokens,
        limit,
    })
}

/// # Errors
/// [`Error::NotANumber`].
pub(crate) fn require_numbers(values: &[f32]) -> Result<(), Error> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&found) => Err(Error::NotANumber { found }),
        None => Ok(()),
    }
}

/// Scales a vector to length 1; one of zeros stays.
fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let length = square.sqrt();
    if length > 0.0 {
        vector
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
