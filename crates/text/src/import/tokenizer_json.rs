//! `tokenizer.json`, the file of Hugging Face's `tokenizers`, as far as a conversion needs it.
//!
//! Vocabularies and merges go straight into compact arrays: Gemma's file has 33 MB, and a tree of
//! JSON values would take many times that.

use std::fmt;

use dunlin_format::StringArray;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value as Json;

use super::vocabulary::MAX_TOKENS;
use crate::{TextError, TokenId};

const FILE: &str = "tokenizer.json";

#[derive(Deserialize)]
pub(super) struct TokenizerJson {
    #[serde(default)]
    pub(super) added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pub(super) normalizer: Json,
    #[serde(default)]
    pub(super) pre_tokenizer: Json,
    #[serde(default)]
    pub(super) post_processor: Json,
    pub(super) model: Model,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub(super) id: TokenId,
    pub(super) content: String,
    #[serde(default)]
    pub(super) special: bool,
}

#[derive(Deserialize)]
pub(super) struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    pub(super) vocab: Vocab,
    #[serde(default)]
    pub(super) merges: Merges,
    #[serde(default)]
    pub(super) byte_fallback: Option<bool>,
    #[serde(default)]
    pub(super) ignore_merges: Option<bool>,
    #[serde(default)]
    pub(super) unk_id: Option<TokenId>,
    #[serde(default)]
    pub(super) continuing_subword_prefix: Option<String>,
    #[serde(default)]
    pub(super) end_of_word_suffix: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelKind {
    Bpe,
    WordPiece,
    Unigram,
}

impl TokenizerJson {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        serde_json::from_slice(bytes).map_err(|error| TextError::TokenizerFile {
            file: FILE.to_owned(),
            reason: error.to_string(),
        })
    }

    /// The kind of model; old files do not name it.
    pub(super) fn kind(&self) -> Result<ModelKind, TextError> {
        match self.model.kind.as_deref() {
            Some("BPE") => Ok(ModelKind::Bpe),
            Some("WordPiece") => Ok(ModelKind::WordPiece),
            Some("Unigram") => Ok(ModelKind::Unigram),
            None if !self.model.merges.pairs.is_empty() => Ok(ModelKind::Bpe),
            None if !self.model.vocab.scores.is_empty() => Ok(ModelKind::Unigram),
            None => Ok(ModelKind::WordPiece),
            Some(other) => Err(unsupported(&format!("models of type `{other}`"))),
        }
    }
}

pub(super) fn unsupported(what: &str) -> TextError {
    damaged(format!("{what} are not supported"))
}

pub(super) fn damaged(reason: String) -> TextError {
    TextError::TokenizerFile {
        file: FILE.to_owned(),
        reason,
    }
}

/// The tokens of a model in the order of the file: a map from text to id, or a list of text and
/// score whose places are the ids (Unigram).
#[derive(Default)]
pub(super) struct Vocab {
    pub(super) texts: StringArray,
    pub(super) ids: Vec<TokenId>,
    /// Empty for a map.
    pub(super) scores: Vec<f64>,
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VocabVisitor)
    }
}

struct VocabVisitor;

impl<'de> Visitor<'de> for VocabVisitor {
    type Value = Vocab;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map from tokens to ids or a list of tokens with scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
        let (mut texts, mut ids) = (StringArray::default(), Vec::new());
        while let Some((text, id)) = map.next_entry::<String, TokenId>()? {
            if ids.len() >= MAX_TOKENS {
                return Err(A::Error::custom(format!("more than {MAX_TOKENS} tokens")));
            }
            texts.push(&text);
            ids.push(id);
        }
        Ok(Vocab {
            texts,
            ids,
            scores: Vec::new(),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocab, A::Error> {
        let (mut texts, mut scores) = (StringArray::default(), Vec::new());
        while let Some((text, score)) = list.next_element::<(String, f64)>()? {
            if texts.len() >= MAX_TOKENS {
                return Err(A::Error::custom(format!("more than {MAX_TOKENS} tokens")));
            }
            texts.push(&text);
            scores.push(score);
        }
        Ok(Vocab {
            ids: (0..).take(texts.len()).collect(),
            texts,
            scores,
        })
    }
}

/// The merges of a BPE model, in GGUF's form: both halves with a space between. A space in a half
/// is written `Ġ`, as in byte-level vocabularies.
#[derive(Default)]
pub(super) struct Merges {
    pub(super) pairs: StringArray,
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MergesVisitor)
    }
}

struct MergesVisitor;

impl<'de> Visitor<'de> for MergesVisitor {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_unit<E>(self) -> Result<Merges, E> {
        Ok(Merges::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
        let mut pairs = StringArray::default();
        while let Some(Pair(pair)) = list.next_element()? {
            pairs.push(&pair);
        }
        Ok(Merges { pairs })
    }
}

/// `"a b"`, as old files write a merge, or `["a", "b"]`.
struct Pair(String);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PairVisitor).map(Pair)
    }
}

struct PairVisitor;

impl<'de> Visitor<'de> for PairVisitor {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge of two tokens")
    }

    fn visit_str<E>(self, pair: &str) -> Result<String, E> {
        Ok(pair.to_owned())
    }

    fn visit_string<E>(self, pair: String) -> Result<String, E> {
        Ok(pair)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<String, A::Error> {
        let missing = || A::Error::custom("a merge without two tokens");
        let mut pair: String = list.next_element()?.ok_or_else(missing)?;
        let right: String = list.next_element()?.ok_or_else(missing)?;
        if list.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("a merge of more than two tokens"));
        }
        if pair.contains(' ') {
            pair = pair.replace(' ', "Ġ");
        }
        pair.push(' ');
        pair.extend(right.chars().map(|c| if c == ' ' { 'Ġ' } else { c }));
        Ok(pair)
    }
}
