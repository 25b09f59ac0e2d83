//! Texts in pieces that a model reads at once.

use std::ops::Range;

use dunlin_text::{TextError, Tokenizer};
use text_splitter::{ChunkConfig, ChunkConfigError, MarkdownSplitter, TextSplitter, TryChunkSizer};

use super::SearchError;
use crate::{Embedder, Error, TextRole};

/// Tokens of a piece where the caller names none: about a paragraph, which says one thing.
const DEFAULT_TOKENS: usize = 200;

/// How texts are cut. Every field has a default; the builder methods set one each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChunkOptions {
    /// Tokens of a piece at most, without special ones and prefix; `None`: 200, or what the model takes where that is less.
    pub max_tokens: Option<usize>,
    /// Tokens at the end of a piece that the next one begins with again, at most: whole paragraphs, lines, sentences or words,
    /// whichever the text was cut between.
    pub overlap: usize,
    /// Where a text is cut.
    pub format: TextFormat,
}

/// Where a text is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextFormat {
    /// Between paragraphs, else lines, sentences, words, characters: at the highest of these borders that gives pieces which
    /// are short enough.
    #[default]
    Plain,
    /// Before headings and between the blocks of CommonMark, below them as plain text.
    Markdown,
}

impl ChunkOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With pieces of at most this many tokens.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        self.max_tokens = Some(tokens);
        self
    }

    /// With pieces that share this many tokens with the next one.
    #[must_use]
    pub fn with_overlap(mut self, tokens: usize) -> Self {
        self.overlap = tokens;
        self
    }

    /// With texts of this format.
    #[must_use]
    pub fn with_format(mut self, format: TextFormat) -> Self {
        self.format = format;
        self
    }
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk<'a> {
    /// Where it stands in the text, in bytes.
    pub bytes: Range<usize>,
    /// The text there, without white space around it.
    pub text: &'a str,
}

/// Cuts texts into pieces of so many tokens of a model.
pub struct Chunker<'a> {
    tokenizer: &'a Tokenizer,
    max_tokens: usize,
    overlap: usize,
    format: TextFormat,
}

impl<'a> Chunker<'a> {
    /// For pieces that an embedder takes as documents: special tokens and the model's words before documents have their
    /// place beside them.
    ///
    /// # Errors
    /// [`SearchError::ChunkSize`] for pieces that the model does not take, or that would share all their tokens.
    pub fn for_embedder(embedder: &'a Embedder, options: ChunkOptions) -> Result<Self, Error> {
        let beside = embedder.tokens_beside(TextRole::Document)?;
        let limit = embedder.max_tokens().saturating_sub(beside);
        let tokenizer = embedder.lm().tokenizer();
        Ok(Self::new(tokenizer, limit, options)?)
    }

    /// For pieces of at most `limit` tokens of any tokenizer.
    ///
    /// # Errors
    /// As [`Chunker::for_embedder`].
    pub fn new(
        tokenizer: &'a Tokenizer,
        limit: usize,
        options: ChunkOptions,
    ) -> Result<Self, SearchError> {
        let max_tokens = options.max_tokens.unwrap_or(DEFAULT_TOKENS.min(limit));
        let overlap = options.overlap;
        if max_tokens == 0 || max_tokens > limit || overlap >= max_tokens {
            return Err(SearchError::ChunkSize {
                max_tokens,
                overlap,
                limit,
            });
        }
        Ok(Chunker {
            tokenizer,
            max_tokens,
            overlap,
            format: options.format,
        })
    }

    /// The same with another format.
    #[must_use]
    pub fn with_format(self, format: TextFormat) -> Self {
        Chunker { format, ..self }
    }

    /// Tokens of a piece at most.
    #[must_use]
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The pieces of a text in their order. All of it lies in one of them, but for white space at their ends. A single character
    /// of more tokens than a piece holds is a piece of its own.
    ///
    /// # Errors
    /// [`Error::Text`] for a text that the vocabulary cannot express.
    pub fn chunks<'t>(&self, text: &'t str) -> Result<Vec<Chunk<'t>>, Error> {
        let config = ChunkConfig::new(self.max_tokens)
            .with_sizer(Sizer(self.tokenizer))
            .with_overlap(self.overlap);
        let config = config.map_err(|_: ChunkConfigError| SearchError::ChunkSize {
            max_tokens: self.max_tokens,
            overlap: self.overlap,
            limit: self.max_tokens,
        })?;
        let chunk = |found: Result<(usize, &'t str), TextError>| -> Result<Chunk<'t>, Error> {
            let (start, text) = found?;
            Ok(Chunk {
                bytes: start..start + text.len(),
                text,
            })
        };
        match self.format {
            TextFormat::Plain => {
                let splitter = TextSplitter::new(config);
                splitter.try_chunk_indices(text).map(chunk).collect()
            }
            TextFormat::Markdown => {
                let splitter = MarkdownSplitter::new(config);
                splitter.try_chunk_indices(text).map(chunk).collect()
            }
        }
    }
}

/// Measures in tokens.
struct Sizer<'a>(&'a Tokenizer);

impl TryChunkSizer for Sizer<'_> {
    type Error = TextError;
    fn try_size(&self, chunk: &str) -> Result<usize, TextError> {
        Ok(self.0.encode(chunk, false)?.len())
    }
}
