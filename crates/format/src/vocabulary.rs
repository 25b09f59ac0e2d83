//! The tokenizer's arrays: right types, and lengths that agree. What the tokens mean is not this
//! crate's business; that a reader can trust `token_type[id]` to exist is.

use crate::{FormatError, Metadata};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";

/// Everything that is wrong with the vocabulary in `metadata`; nothing where there is none.
///
/// The errors are [`FormatError::WrongType`], [`FormatError::OutOfRange`] (a token type),
/// [`FormatError::MissingKey`] (a tokenizer without tokens) and [`FormatError::VocabularyLength`].
pub fn check_vocabulary(metadata: &Metadata) -> Vec<FormatError> {
    let mut problems = Vec::new();
    let mut note = |error| problems.push(error);

    let model = metadata.str(MODEL).unwrap_or_else(|error| {
        note(error);
        None
    });
    let tokens = match metadata.strings(TOKENS) {
        Ok(tokens) => tokens.map(|tokens| tokens.len()),
        Err(error) => {
            note(error);
            None
        }
    };
    if tokens.is_none() && !metadata.contains(TOKENS) && model.is_some_and(|name| name != "none") {
        let key = TOKENS.to_owned();
        note(FormatError::MissingKey { key });
    }

    let scores = metadata.f32s(SCORES).map(|scores| scores.map(<[f32]>::len));
    let types = metadata
        .i32s(TOKEN_TYPE)
        .map(|types| types.map(|types| types.len()));
    for (key, length) in [(SCORES, scores), (TOKEN_TYPE, types)] {
        match (length, tokens) {
            (Ok(Some(length)), Some(tokens)) if length != tokens => {
                note(FormatError::VocabularyLength {
                    key,
                    length,
                    tokens,
                });
            }
            (Ok(_), _) => {}
            (Err(error), _) => note(error),
        }
    }
    if let Err(error) = metadata.strings(MERGES) {
        note(error);
    }
    problems
}

/// Special token ids that no token has. Such files exist and work (the id is then not used), so
/// this is worth a warning, not an error.
pub(crate) fn dangling_ids(metadata: &Metadata) -> Vec<String> {
    let Ok(Some(tokens)) = metadata.strings(TOKENS) else {
        return Vec::new();
    };
    let is_id = |key: &str| key.starts_with("tokenizer.ggml.") && key.ends_with("_token_id");
    metadata
        .iter()
        .filter(|(key, _)| is_id(key))
        .filter_map(|(key, value)| {
            let id = value.as_integer()?;
            let exists = usize::try_from(id).is_ok_and(|id| id < tokens.len());
            (!exists).then(|| format!("`{key}` is {id}, but there are {} tokens", tokens.len()))
        })
        .collect()
}
