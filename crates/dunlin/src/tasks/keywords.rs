//! Keywords.

use super::spans::SpanSearch;
use super::{TaskError, TaskUsage, TextSpan, ask};
use crate::{Error, GenerateOptions, Lm};

/// What the model is told before the text.
const INSTRUCTION: &str = "List the most important keywords of the text, one a line, each exactly as it stands in the text, \
like this:\nkeyword: the keyword";
/// What each line begins with.
const KIND: &str = "keyword";
/// Keywords where the caller does not say how many.
const DEFAULT_COUNT: usize = 10;

/// Finds the keywords of texts of any length: words and groups of up to eight words that stand in the text.
pub struct KeywordExtractor {
    lm: Lm,
    count: usize,
    piece_tokens: Option<usize>,
    options: GenerateOptions,
}

impl KeywordExtractor {
    /// For at most ten keywords.
    #[must_use]
    pub fn new(lm: &Lm) -> Self {
        KeywordExtractor {
            lm: lm.clone(),
            count: DEFAULT_COUNT,
            piece_tokens: None,
            options: ask::faithful(),
        }
    }

    /// For at most this many.
    #[must_use]
    pub fn with_count(mut self, count: usize) -> Self {
        self.count = count;
        self
    }

    /// Works in pieces of at most this many tokens [default: 256, or what the context has room for].
    #[must_use]
    pub fn with_piece_tokens(mut self, tokens: usize) -> Self {
        self.piece_tokens = Some(tokens);
        self
    }

    super::ask::with_answer_options!();

    /// The keywords of a text: those that the model names in it, the most frequent in the text first, and as the model named them
    /// where they are as frequent.
    ///
    /// # Errors
    /// [`TaskError::Setting`] where none is asked for; [`TaskError`] for an empty text, a context that is too short, pieces that do not
    /// fit it; [`Error::Cancelled`]; as [`Lm::generate`].
    pub fn extract(&self, text: &str) -> Result<Keywords, Error> {
        if self.count == 0 {
            return Err(TaskError::Setting {
                setting: "the number of keywords",
                found: "0".to_owned(),
                allowed: "1 or more".to_owned(),
            }
            .into());
        }
        let search = SpanSearch {
            lm: &self.lm,
            instruction: INSTRUCTION,
            kinds: &[KIND.to_owned()],
            piece_tokens: self.piece_tokens,
            options: &self.options,
            task: "find keywords in",
        };
        let found = search.run(text)?;
        let mut keywords = found.spans;
        keywords.sort_by_key(|keyword| std::cmp::Reverse(keyword.places.len()));
        let named = keywords.len();
        keywords.truncate(self.count);
        Ok(Keywords {
            keywords,
            named,
            pieces: found.pieces,
            usage: found.usage,
        })
    }
}

/// The keywords of a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Keywords {
    /// The keywords, the most frequent first.
    pub keywords: Vec<TextSpan>,
    /// How many the model named in all pieces, of which these are the first.
    pub named: usize,
    /// Pieces that the text was worked on in.
    pub pieces: usize,
    /// What it took.
    pub usage: TaskUsage,
}
