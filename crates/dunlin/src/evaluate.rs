//! Windows for engineers: raw scores and perplexity.

use dunlin_engine::{AdapterUse, EngineError, Logits};
use dunlin_text::TokenId;

use crate::{Error, Lm};

/// Tokens of a window of [`Lm::perplexity`].
const WINDOW: usize = 512;

/// How surprised a model is by a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Perplexity {
    /// `exp` of the mean negative log-probability of the scored tokens.
    pub perplexity: f64,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Windows of 512 tokens.
    pub windows: usize,
    /// The perplexity after each window.
    pub running: Vec<f64>,
}

impl Lm {
    /// The raw scores for the token after each of `positions`, in their order: `[positions][vocab_size]`. The ids are
    /// fed exactly as they are, in a fresh sequence; the prompt state is forgotten.
    ///
    /// # Errors
    /// [`Error::CannotGenerate`] for an encoder; [`Error::PromptTooLong`] for more ids than the context holds; [`Error::Engine`] for a position that no id has or
    /// an id outside the vocabulary.
    pub fn logits(&self, ids: &[TokenId], positions: &[usize]) -> Result<Vec<Vec<f32>>, Error> {
        self.scores(ids, positions, &[])
    }

    pub(crate) fn scores(
        &self,
        ids: &[TokenId],
        positions: &[usize],
        adapters: &[AdapterUse],
    ) -> Result<Vec<Vec<f32>>, Error> {
        let tokens = ids.len();
        if let Some(&position) = positions.iter().find(|&&position| position >= tokens) {
            return Err(EngineError::PositionOutOfRange { position, tokens }.into());
        }
        self.check_writes()?;
        self.check_length(tokens)?;
        let mut rows = vec![Vec::new(); positions.len()];
        let wanted = |at: usize| positions.contains(&at);
        self.feed(ids, adapters, wanted, |at, logits| {
            for (row, _) in rows
                .iter_mut()
                .zip(positions)
                .filter(|(_, position)| **position == at)
            {
                row.extend_from_slice(logits);
            }
        })?;
        Ok(rows)
    }

    /// The perplexity of a text by llama.cpp's method: the whole text is encoded once (BOS where the model wants one)
    /// and cut into windows of 512 tokens that do not overlap; an incomplete last one is left out. Each window is run
    /// alone, its first token replaced by BOS where the model wants one, and its second half is scored: positions 256
    /// to 510 predict the tokens 257 to 511. The prompt state is forgotten.
    ///
    /// # Errors
    /// [`Error::TextTooShort`] for a text without one whole window, or a context that holds none.
    pub fn perplexity(&self, text: &str) -> Result<Perplexity, Error> {
        self.perplexity_with(text, &mut |_, _| std::ops::ControlFlow::Continue(()))
    }

    /// As [`Lm::perplexity`]; after each window `progress` is told how many of how many are done, and ends the
    /// measurement with [`Error::Cancelled`] by [`ControlFlow::Break`](std::ops::ControlFlow::Break).
    ///
    /// # Errors
    /// As [`Lm::perplexity`].
    pub fn perplexity_with(
        &self,
        text: &str,
        progress: &mut dyn FnMut(usize, usize) -> std::ops::ControlFlow<()>,
    ) -> Result<Perplexity, Error> {
        self.check_writes()?;
        let ids = self.text().encode_completion(text)?;
        let context_length = self.context_length();
        let windows = ids.len() / WINDOW;
        if windows == 0 || context_length < WINDOW {
            let tokens = ids.len();
            return Err(Error::TextTooShort {
                tokens,
                window: WINDOW,
                context_length,
            });
        }
        let bos = self
            .tokenizer()
            .bos()
            .filter(|_| self.tokenizer().adds_bos());
        let mut running = Vec::with_capacity(windows);
        let (mut surprise, mut tokens) = (0.0, 0);
        for window in ids.chunks_exact(WINDOW) {
            let mut window = window.to_vec();
            if let Some(bos) = bos {
                window[0] = bos;
            }
            self.feed(
                &window,
                &[],
                |at| (WINDOW / 2..WINDOW - 1).contains(&at),
                |at, logits| {
                    surprise -= log_probability(logits, window[at + 1]);
                    tokens += 1;
                },
            )?;
            running.push((surprise / tokens as f64).exp());
            if progress(running.len(), windows).is_break() {
                return Err(Error::Cancelled);
            }
        }
        let perplexity = running.last().copied().unwrap_or(f64::NAN);
        Ok(Perplexity {
            perplexity,
            tokens,
            windows,
            running,
        })
    }

    /// Computes a fresh sequence and shows the scores after the wanted positions.
    fn feed(
        &self,
        ids: &[TokenId],
        adapters: &[AdapterUse],
        wanted: impl Fn(usize) -> bool,
        mut visit: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let mut state = self.lock();
        state.clear();
        state.reuse(ids, adapters)?;
        let mut start = 0;
        for chunk in ids.chunks(state.max_batch()) {
            let any = (start..start + chunk.len()).any(&wanted);
            let logits = if any { Logits::All } else { Logits::None };
            state.append(chunk, logits, |at, logits| {
                if wanted(at) {
                    visit(at, logits);
                }
            })?;
            start += chunk.len();
        }
        state.clear();
        Ok(())
    }

    /// Whether the model can write at all: encoders and rerankers only read.
    ///
    /// # Errors
    /// [`Error::CannotGenerate`] where it cannot.
    pub fn check_writes(&self) -> Result<(), Error> {
        if self.spec().can_generate() {
            return Ok(());
        }
        let architecture = self.spec().architecture.clone();
        Err(Error::CannotGenerate { architecture })
    }

    /// # Errors
    /// [`Error::PromptTooLong`].
    pub(crate) fn check_length(&self, prompt_tokens: usize) -> Result<(), Error> {
        let context_length = self.context_length();
        if prompt_tokens > context_length {
            return Err(Error::PromptTooLong {
                prompt_tokens,
                context_length,
            });
        }
        Ok(())
    }
}

/// The natural logarithm of a token's probability: `logit - ln(sum(exp(logits)))`.
fn log_probability(logits: &[f32], token: TokenId) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from(logit - largest).exp())
        .sum();
    // A token outside the vocabulary ends the measurement with an error as soon as it is fed.
    let logit = logits.get(token as usize).copied().unwrap_or(f32::NAN);
    f64::from(logit - largest) - sum.ln()
}
