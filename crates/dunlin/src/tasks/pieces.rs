//! Texts of any length in pieces that a task can take.

use crate::search::{Chunk, ChunkOptions, Chunker};
use crate::tasks::TaskError;
use crate::{Error, GenerateOptions, Lm, Prompt};

/// Tokens that a text may have more or fewer between the words of a prompt than on its own.
const BORDERS: usize = 8;

/// Tokens that a piece can have: what the context holds beside the task's words (`empty` is its prompt without a text) and an
/// answer of `answer_tokens`, plus `growth` further tokens of answer for each of the piece.
///
/// # Errors
/// [`TaskError::ContextTooShort`]; what the prompt itself says.
pub(super) fn limit(
    lm: &Lm,
    empty: &Prompt,
    answer_tokens: usize,
    growth: usize,
) -> Result<usize, Error> {
    let words = lm.encode_prompt(empty, &GenerateOptions::new())?.len();
    let context_length = lm.context_length();
    let needed = words + answer_tokens + BORDERS;
    let limit = context_length.saturating_sub(needed) / (1 + growth);
    match limit {
        0 => Err(TaskError::ContextTooShort {
            context_length,
            needed,
        }
        .into()),
        limit => Ok(limit),
    }
}

/// The pieces of a text, of at most `tokens` each, or of `default` where that is less than the limit.
///
/// # Errors
/// [`SearchError::ChunkSize`](crate::search::SearchError::ChunkSize) for pieces of more than `limit` tokens;
/// [`TaskError::EmptyText`].
pub(super) fn of<'t>(
    lm: &Lm,
    text: &'t str,
    tokens: Option<usize>,
    default: usize,
    limit: usize,
    task: &'static str,
) -> Result<Vec<Chunk<'t>>, Error> {
    let tokens = tokens.unwrap_or(default.min(limit));
    let options = ChunkOptions::new().with_max_tokens(tokens);
    let pieces = Chunker::new(lm.tokenizer(), limit, options)?.chunks(text)?;
    match pieces.is_empty() {
        true => Err(TaskError::EmptyText { task }.into()),
        false => Ok(pieces),
    }
}
