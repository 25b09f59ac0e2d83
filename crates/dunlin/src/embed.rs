//! Texts as vectors.

mod options;
mod prefixes;

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};

use dunlin_engine::{EngineError, Input, Pooling};
use dunlin_hub::ModelRef;
use dunlin_text::TokenId;

use crate::search::ModelIdentity;
use crate::{Error, Lm, LoadOptions};

pub use options::{EmbedOptions, TooLong};
pub use prefixes::Prefixes;

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
    dimensions: usize,
    prefixes: Prefixes,
    options: EmbedOptions,
    identity: Arc<OnceLock<ModelIdentity>>,
}

/// What a text is in a search. It decides the words before it ([`Prefixes`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextRole {
    /// Neither: nothing is written before it.
    #[default]
    Plain,
    /// What is asked.
    Query,
    /// What may answer.
    Document,
}

/// Vectors, and what had to be done for them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Embeddings {
    /// One a text, in their order.
    pub vectors: Vec<Vec<f32>>,
    /// The texts that had more tokens than the model takes, and were treated as [`EmbedOptions::too_long`] says.
    pub too_long: Vec<LongText>,
}

/// A text that had more tokens than the model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LongText {
    /// Index of the text.
    pub index: usize,
    /// Its tokens, special ones included.
    pub tokens: usize,
    /// Tokens that the model takes.
    pub limit: usize,
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
    /// [`EngineError::RankIsNoEmbedding`] for a reranker; [`Error::Dimensions`] for more numbers than a vector has, or none.
    pub fn new(lm: Lm, options: EmbedOptions) -> Result<Self, Error> {
        let pooling = match options.pooling.or(lm.spec().pooling) {
            Some(Pooling::Rank) => return Err(EngineError::RankIsNoEmbedding.into()),
            Some(pooling) => pooling,
            None => {
                let architecture = lm.spec().architecture.clone();
                return Err(Error::NoPooling { architecture });
            }
        };
        let limit = lm.spec().embedding_length();
        let dimensions = options.dimensions.unwrap_or(limit);
        if !(1..=limit).contains(&dimensions) {
            let requested = dimensions;
            return Err(Error::Dimensions { requested, limit });
        }
        let prefixes = match &options.prefixes {
            Some(prefixes) => prefixes.clone(),
            None => Prefixes::of_model(&lm).unwrap_or_default(),
        };
        Ok(Embedder {
            lm,
            pooling,
            dimensions,
            prefixes,
            options,
            identity: Arc::default(),
        })
    }

    /// One vector a text, in their order. Short texts are computed together, which is faster than one by one. Nothing is
    /// written before them: for a search use [`Embedder::embed_query`] and [`Embedder::embed_documents`].
    ///
    /// # Errors
    /// [`Error::TextTooLong`] with the numbers, unless the options say otherwise; [`Error::Text`] for a text that the
    /// vocabulary cannot express. Either is found before the first text is computed.
    pub fn embed(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, Error> {
        self.embed_with(texts, &mut |_, _| ControlFlow::Continue(()))
    }

    /// The vector of what is asked, with the model's words for queries before it.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn embed_query(&self, query: &str) -> Result<Vec<f32>, Error> {
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let mut embeddings = self.embed_as(TextRole::Query, &[query], go_on)?;
        Ok(embeddings.vectors.remove(0))
    }

    /// One vector a document, with the model's words for documents before each.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn embed_documents(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>, Error> {
        let go_on = &mut |_, _| ControlFlow::Continue(());
        Ok(self.embed_as(TextRole::Document, texts, go_on)?.vectors)
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
        Ok(self.embed_as(TextRole::Plain, texts, progress)?.vectors)
    }

    /// As [`Embedder::embed_with`], with the words before each text that belong to its role, and with a list of the texts that
    /// were too long. What `progress` counts are the pieces that are computed, which are more than the texts where long ones
    /// are split.
    ///
    /// # Errors
    /// As [`Embedder::embed`].
    pub fn embed_as(
        &self,
        role: TextRole,
        texts: &[impl AsRef<str>],
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Embeddings, Error> {
        let mut pieces = Vec::with_capacity(texts.len());
        let mut pieces_of_text = Vec::with_capacity(texts.len());
        let mut too_long = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let before = pieces.len();
            let tokens = self.encode(index, role, text.as_ref(), &mut pieces)?;
            pieces_of_text.push(pieces.len() - before);
            let limit = self.max_tokens();
            if tokens > limit {
                too_long.push(LongText {
                    index,
                    tokens,
                    limit,
                });
            }
        }
        let inputs: Vec<Input<'_>> = pieces.iter().map(|ids| Input::new(ids)).collect();
        let computed = in_groups(&self.lm, &inputs, progress, |group| self.compute(group))?;
        let lengths = pieces.iter().map(Vec::len);
        let mut computed = computed.into_iter().zip(lengths);
        let vectors = pieces_of_text.into_iter().map(|count| {
            let of_text: Vec<_> = computed.by_ref().take(count).collect();
            self.one_of(of_text)
        });
        Ok(Embeddings {
            vectors: vectors.collect(),
            too_long,
        })
    }

    /// The vector of these token ids, exactly as they are: the special tokens must be among them, and nothing is cut.
    ///
    /// # Errors
    /// [`Error::TextTooLong`]; [`Error::Engine`] for an id outside the vocabulary; [`Error::EmptyPrompt`].
    pub fn embed_ids(&self, ids: &[TokenId]) -> Result<Vec<f32>, Error> {
        check_length(self.lm.context_length(), 0, ids.len())?;
        let vector = self.compute(&[Input::new(ids)])?.remove(0);
        Ok(self.one_of(vec![(vector, ids.len())]))
    }

    /// The token ids of a text as it is embedded by [`Embedder::embed`]: with special tokens, and cut where the options say so.
    ///
    /// # Errors
    /// As [`Embedder::embed`], and [`Error::TextTooLong`] for a text that is embedded in several pieces.
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let mut pieces = Vec::new();
        let tokens = self.encode(0, TextRole::Plain, text, &mut pieces)?;
        match pieces.len() {
            1 => Ok(pieces.remove(0)),
            _ => Err(Error::TextTooLong {
                index: 0,
                tokens,
                limit: self.max_tokens(),
            }),
        }
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.dimensions
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

    /// What is written before queries and documents.
    #[must_use]
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Which vectors these are: those of two embedders can be compared where this is equal. The model's weights are read once
    /// for it, at the first call.
    ///
    /// # Errors
    /// [`Error::Format`] where the model's file is there no more.
    pub fn identity(&self) -> Result<&ModelIdentity, Error> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity);
        }
        let identity = ModelIdentity::of(self)?;
        Ok(self.identity.get_or_init(|| identity))
    }

    /// The model.
    #[must_use]
    pub fn lm(&self) -> &Lm {
        &self.lm
    }

    /// Tokens that a text has more when it is embedded in this role.
    pub(crate) fn tokens_beside(&self, role: TextRole) -> Result<usize, Error> {
        let tokenizer = self.lm.tokenizer();
        let special = tokenizer.add_special(Vec::new()).len();
        Ok(match self.prefix(role) {
            "" => special,
            // Joined, the words' last token and the text's first may be others than apart.
            prefix => special + tokenizer.encode(prefix, false)?.len() + 1,
        })
    }

    fn prefix(&self, role: TextRole) -> &str {
        match role {
            TextRole::Plain => "",
            TextRole::Query => &self.prefixes.query,
            TextRole::Document => &self.prefixes.document,
        }
    }

    /// Appends the token ids of a text, in pieces that fit. Returns how many tokens it had, special ones included.
    fn encode(
        &self,
        index: usize,
        role: TextRole,
        text: &str,
        pieces: &mut Vec<Vec<TokenId>>,
    ) -> Result<usize, Error> {
        let tokenizer = self.lm.tokenizer();
        let mut ids = match self.prefix(role) {
            "" => tokenizer.encode(text, false)?,
            prefix => tokenizer.encode(&format!("{prefix}{text}"), false)?,
        };
        let special = tokenizer.add_special(Vec::new()).len();
        let tokens = ids.len() + special;
        let room = self.max_tokens().saturating_sub(special);
        match self.options.too_long {
            TooLong::ChunkAndMean if ids.len() > room && room > 0 => {
                let even = ids.len().div_ceil(ids.len().div_ceil(room));
                pieces.extend(
                    ids.chunks(even)
                        .map(|ids| tokenizer.add_special(ids.to_vec())),
                );
                return Ok(tokens);
            }
            TooLong::Truncate => ids.truncate(room),
            _ => check_length(self.max_tokens(), index, tokens)?,
        }
        pieces.push(tokenizer.add_special(ids));
        Ok(tokens)
    }

    fn compute(&self, inputs: &[Input<'_>]) -> Result<Vec<Vec<f32>>, Error> {
        if inputs.iter().any(|input| input.tokens.is_empty()) {
            return Err(Error::EmptyPrompt);
        }
        let vectors = self.lm.lock().embed(inputs, self.pooling)?;
        for vector in &vectors {
            require_numbers(vector)?;
        }
        Ok(vectors)
    }

    /// The vector of a text out of those of its pieces with their tokens: cut and scaled as the options say.
    fn one_of(&self, pieces: Vec<(Vec<f32>, usize)>) -> Vec<f32> {
        let scale = |mut vector: Vec<f32>| {
            if self.options.normalize {
                normalize(&mut vector);
            }
            vector
        };
        let whole = match <[_; 1]>::try_from(pieces) {
            Ok([(vector, _)]) => vector,
            Err(pieces) => {
                let pieces = pieces.into_iter();
                weighted_mean(
                    pieces
                        .map(|(vector, tokens)| (scale(vector), tokens))
                        .collect(),
                )
            }
        };
        scale(whole[..self.dimensions.min(whole.len())].to_vec())
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

/// The mean of vectors of one length, each with its weight.
fn weighted_mean(vectors: Vec<(Vec<f32>, usize)>) -> Vec<f32> {
    let total: f64 = vectors.iter().map(|(_, weight)| *weight as f64).sum();
    let mut sums = vec![0.0_f64; vectors.first().map_or(0, |(vector, _)| vector.len())];
    for (vector, weight) in &vectors {
        for (sum, x) in sums.iter_mut().zip(vector) {
            *sum += f64::from(*x) * *weight as f64;
        }
    }
    sums.into_iter().map(|sum| (sum / total) as f32).collect()
}

/// Scales a vector to length 1; one of zeros stays.
pub(crate) fn normalize(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let length = square.sqrt();
    if length > 0.0 {
        vector
            .iter_mut()
            .for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
