//! The tokens of a vocabulary under construction: texts, kinds and scores by id.

use dunlin_format::{Metadata, StringArray, Value};
use serde_json::Value as Json;

use super::{TokenizerFiles, tokenizer_json::TokenizerJson};
use crate::{TextError, TokenId, vocabulary::TokenKind};

/// More tokens than any vocabulary has (Gemma: 262,144), so that an id cannot ask for much memory.
pub(super) const MAX_TOKENS: usize = 1 << 21;

/// What added tokens and holes get as score.
pub(super) const ADDED_SCORE: f32 = -1000.0;

/// One token; a place without text is a hole.
#[derive(Clone)]
struct Entry {
    text: Option<String>,
    kind: TokenKind,
    score: f32,
}

#[derive(Default)]
pub(super) struct Tokens {
    entries: Vec<Entry>,
    /// The score of holes.
    hole_score: f32,
}

impl Tokens {
    /// A vocabulary of `size` holes.
    pub(super) fn with_holes(size: usize, hole_score: f32) -> Result<Self, TextError> {
        let mut tokens = Self {
            entries: Vec::new(),
            hole_score,
        };
        if size > 0 {
            tokens.make_room(size - 1)?;
        }
        Ok(tokens)
    }

    /// The tokens of a `tokenizer.json` with the added ones, at least as many as `config.json` says.
    pub(super) fn from_json(
        files: &TokenizerFiles,
        json: &TokenizerJson,
    ) -> Result<Self, TextError> {
        let mut tokens = Self::with_holes(files.vocab_size().unwrap_or(0), ADDED_SCORE)?;
        let vocab = &json.model.vocab;
        for (text, &id) in vocab.texts.iter().zip(&vocab.ids) {
            tokens.set(id, text, TokenKind::Normal, ADDED_SCORE)?;
        }
        let named = named_special_tokens(files);
        for added in added_tokens(files, json) {
            let kind = added.kind(&named);
            let text = match kind {
                // GGUF writes the spaces of these as they are.
                TokenKind::UserDefined => added.text.replace('\u{2581}', " "),
                _ => added.text,
            };
            tokens.set(added.id, &text, kind, ADDED_SCORE)?;
        }
        Ok(tokens)
    }

    pub(super) fn set(
        &mut self,
        id: TokenId,
        text: &str,
        kind: TokenKind,
        score: f32,
    ) -> Result<(), TextError> {
        let index = id as usize;
        self.make_room(index)?;
        self.entries[index] = Entry {
            text: Some(text.to_owned()),
            kind,
            score,
        };
        Ok(())
    }

    fn make_room(&mut self, index: usize) -> Result<(), TextError> {
        if index >= MAX_TOKENS {
            let reason = format!("it has a token {index}, and {MAX_TOKENS} tokens are the most");
            return Err(TextError::Vocabulary { reason });
        }
        if index >= self.entries.len() {
            let hole = Entry {
                text: None,
                kind: TokenKind::Unused,
                score: self.hole_score,
            };
            self.entries.resize(index + 1, hole);
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Changes each token by its id, text and kind.
    pub(super) fn edit(
        &mut self,
        mut edit: impl FnMut(TokenId, &mut String, &mut TokenKind, &mut f32),
    ) {
        for (id, entry) in (0..).zip(&mut self.entries) {
            if let Some(text) = &mut entry.text {
                edit(id, text, &mut entry.kind, &mut entry.score);
            }
        }
    }

    /// Writes texts and kinds, and the scores where the model has some.
    pub(super) fn write(&self, with_scores: bool, metadata: &mut Metadata) {
        let mut texts = StringArray::default();
        for (index, entry) in self.entries.iter().enumerate() {
            match &entry.text {
                Some(text) => texts.push(text),
                None => texts.push(&format!("[PAD{index}]")),
            }
        }
        metadata.insert("tokenizer.ggml.tokens", Value::from(texts));
        if with_scores {
            let scores: Vec<f32> = self.entries.iter().map(|entry| entry.score).collect();
            metadata.insert("tokenizer.ggml.scores", Value::from(scores));
        }
        let kinds = self.entries.iter().map(|entry| entry.kind.to_gguf());
        metadata.insert(
            "tokenizer.ggml.token_type",
            Value::from(kinds.collect::<Vec<i32>>()),
        );
    }
}

/// A token that was added to a trained vocabulary.
pub(super) struct Added {
    pub(super) id: TokenId,
    pub(super) text: String,
    special: bool,
}

impl Added {
    pub(super) fn kind(&self, named: &[String]) -> TokenKind {
        if self.special || named.contains(&self.text) || looks_special(&self.text) {
            TokenKind::Control
        } else {
            TokenKind::UserDefined
        }
    }
}

/// The added tokens of `tokenizer.json`, then those of `added_tokens_decoder` in
/// `tokenizer_config.json` that it does not have.
pub(super) fn added_tokens(files: &TokenizerFiles, json: &TokenizerJson) -> Vec<Added> {
    let mut added: Vec<Added> = json
        .added_tokens
        .iter()
        .map(|token| Added {
            id: token.id,
            text: token.content.clone(),
            special: token.special,
        })
        .collect();
    let known = added.len();
    for token in added_tokens_decoder(files) {
        if !added[..known].iter().any(|other| other.id == token.id) {
            added.push(token);
        }
    }
    added
}

/// `added_tokens_decoder` of `tokenizer_config.json`.
pub(super) fn added_tokens_decoder(files: &TokenizerFiles) -> Vec<Added> {
    let entries = files.tokenizer_setting("added_tokens_decoder");
    let entries = entries.and_then(Json::as_object).into_iter().flatten();
    entries
        .filter_map(|(id, token)| {
            Some(Added {
                id: id.parse().ok()?,
                text: token.get("content")?.as_str()?.to_owned(),
                special: token.get("special").and_then(Json::as_bool) == Some(true),
            })
        })
        .collect()
}

/// The texts that the configuration names as special tokens.
pub(super) fn named_special_tokens(files: &TokenizerFiles) -> Vec<String> {
    const NAMES: [&str; 7] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
    let sources = [&files.tokenizer_config, &files.special_tokens_map];
    let mut texts = Vec::new();
    for source in sources.into_iter().flatten() {
        for name in NAMES {
            texts.extend(source.get(format!("{name}_token")).and_then(content));
        }
        for name in ["additional_special_tokens", "extra_special_tokens"] {
            match source.get(name) {
                Some(Json::Array(list)) => texts.extend(list.iter().filter_map(content)),
                Some(Json::Object(map)) => texts.extend(map.values().filter_map(content)),
                _ => {}
            }
        }
    }
    texts
}

/// A token written as text or as an object with its `content`.
pub(super) fn content(token: &Json) -> Option<String> {
    let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
    Some(text.to_owned())
}

/// Tokens that steer the model although their files do not call them special (Gemma, DeepSeek,
/// Command R).
pub(super) fn looks_special(text: &str) -> bool {
    let between = |start: &str, end: &str| text.starts_with(start) && text.ends_with(end);
    ["<pad>", "<mask>", "<2mass>", "[@BOS@]"].contains(&text)
        || between("<|", "|>")
        || between("<｜", "｜>")
        || between("<unused", ">")
}
