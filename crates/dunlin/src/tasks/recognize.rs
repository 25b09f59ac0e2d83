//! Named entities: who, where, what organisation, when.

use super::spans::{SpanSearch, check_kinds};
use super::{TaskUsage, TextSpan, ask};
use crate::{Error, GenerateOptions, Lm};

/// What the model is told before the kinds and the text.
const INSTRUCTION: &str = "List the names in the text, one a line: the kind, a colon, and the name exactly as it stands in the text. \
The kinds are";
/// What is looked for by default.
const KINDS: [&str; 4] = ["person", "organization", "place", "date"];

/// Finds names in texts of any length.
///
/// The model can only name what stands in the text, so that every entity has its places. Whether it finds all of them, and calls
/// them rightly, is a matter of the model.
pub struct EntityRecognizer {
    lm: Lm,
    kinds: Vec<String>,
    piece_tokens: Option<usize>,
    options: GenerateOptions,
}

impl EntityRecognizer {
    /// For persons, organizations, places and dates.
    #[must_use]
    pub fn new(lm: &Lm) -> Self {
        EntityRecognizer {
            lm: lm.clone(),
            kinds: KINDS.map(str::to_owned).to_vec(),
            piece_tokens: None,
            options: ask::faithful(),
        }
    }

    /// For these kinds instead.
    ///
    /// # Errors
    /// [`TaskError::Label`](super::TaskError::Label) for a kind that is empty, there twice, or has a colon or line end;
    /// [`TaskError::Setting`](super::TaskError::Setting) where there is none.
    pub fn with_kinds(
        mut self,
        kinds: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, Error> {
        self.kinds = kinds.into_iter().map(Into::into).collect();
        check_kinds(&self.kinds)?;
        Ok(self)
    }

    /// Works in pieces of at most this many tokens [default: 256, or what the context has room for].
    #[must_use]
    pub fn with_piece_tokens(mut self, tokens: usize) -> Self {
        self.piece_tokens = Some(tokens);
        self
    }

    super::ask::with_answer_options!();

    /// The names in a text.
    ///
    /// # Errors
    /// [`TaskError`](super::TaskError) for an empty text, a context that is too short, pieces that do not fit it;
    /// [`Error::Cancelled`]; as [`Lm::generate`].
    pub fn recognize(&self, text: &str) -> Result<Entities, Error> {
        let instruction = format!("{INSTRUCTION} {}.", self.kinds.join(", "));
        let search = SpanSearch {
            lm: &self.lm,
            instruction: &instruction,
            kinds: &self.kinds,
            piece_tokens: self.piece_tokens,
            options: &self.options,
            task: "find names in",
        };
        let found = search.run(text)?;
        Ok(Entities {
            entities: found.spans,
            pieces: found.pieces,
            full_pieces: found.full_pieces,
            usage: found.usage,
        })
    }
}

/// The names in a text.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entities {
    /// In the order in which they were first found.
    pub entities: Vec<TextSpan>,
    /// Pieces that the text was worked on in.
    pub pieces: usize,
    /// Pieces whose list reached its greatest length (32 lines), so that there may be more names in them: smaller pieces show.
    pub full_pieces: usize,
    /// What it took.
    pub usage: TaskUsage,
}
