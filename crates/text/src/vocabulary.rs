//! The tokens of a model: their texts, their kinds and the way from a text to its id.

use std::hash::BuildHasher;

use dunlin_format::{FormatError, Metadata, StringArray};
use foldhash::quality::RandomState;

use crate::{
    TextError, TokenId, end_of_generation,
    index::{Index, MAX_PLACES},
};

/// What a token is for (`tokenizer.ggml.token_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A piece of text.
    Normal,
    /// Stands for text that the vocabulary does not know.
    Unknown,
    /// Steers the model (begin of text, end of turn); never made from user text.
    Control,
    /// A text that is always one token, whatever stands around it.
    UserDefined,
    /// A place in the vocabulary that no text leads to.
    Unused,
    /// One byte, written `<0x0A>`: the way out for text that no other token covers.
    Byte,
}

impl TokenKind {
    /// The numbers of GGUF (those of SentencePiece).
    pub(crate) fn from_gguf(number: i32) -> Self {
        match number {
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            // 0 is "undefined", which converters write for ordinary tokens.
            _ => Self::Normal,
        }
    }

    /// The number of GGUF.
    pub(crate) fn to_gguf(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }

    /// Whether merging pieces of text may lead to such a token.
    pub(crate) fn is_text(self) -> bool {
        matches!(self, Self::Normal | Self::UserDefined | Self::Unused)
    }
}

pub(crate) struct Vocabulary {
    texts: StringArray,
    kinds: Vec<TokenKind>,
    /// Ids by text. Keyed with a random seed: both vocabulary and text are untrusted, and texts
    /// chosen to collide must not make this slow.
    ids: Index,
    hasher: RandomState,
    longest: usize,
}

impl Vocabulary {
    pub(crate) fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let texts = metadata.require_strings("tokenizer.ggml.tokens")?.clone();
        if texts.is_empty() || texts.len() > MAX_PLACES {
            let reason = format!(
                "it has {} tokens; 1 to {MAX_PLACES} can be told apart",
                texts.len()
            );
            return Err(TextError::Vocabulary { reason });
        }
        let mut kinds = vec![TokenKind::Normal; texts.len()];
        let key = "tokenizer.ggml.token_type";
        if let Some(types) = metadata.i32s(key)? {
            check_length(key, types.len(), texts.len())?;
            kinds = types
                .iter()
                .map(|&number| TokenKind::from_gguf(number))
                .collect();
        }
        let hasher = RandomState::default();
        let mut longest = 0;
        let ids = Index::of(texts.iter().map(|text| {
            longest = longest.max(text.len());
            hasher.hash_one(text)
        }));
        let mut vocabulary = Self {
            texts,
            kinds,
            ids,
            hasher,
            longest,
        };
        vocabulary.protect_turn_ends();
        Ok(vocabulary)
    }

    /// Old conversions mark the ends of turns as ordinary or user-defined tokens. User text could
    /// then close its own turn, so the ones that nothing else is written like are control tokens.
    fn protect_turn_ends(&mut self) {
        for text in end_of_generation::UNMISTAKABLE {
            if let Some(id) = self.id(text)
                && self.kinds[id as usize] != TokenKind::Byte
            {
                self.kinds[id as usize] = TokenKind::Control;
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// Bytes of the longest token.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    pub(crate) fn text(&self, id: TokenId) -> Option<&str> {
        self.texts.get(id as usize)
    }

    pub(crate) fn kind(&self, id: TokenId) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    pub(crate) fn is_control(&self, id: TokenId) -> bool {
        self.kind(id) == Some(TokenKind::Control)
    }

    /// The token with that text; of several the first.
    pub(crate) fn id(&self, text: &str) -> Option<TokenId> {
        self.ids(text).next()
    }

    /// The tokens with that text, ascending.
    pub(crate) fn ids(&self, text: &str) -> impl Iterator<Item = TokenId> {
        let places = self.ids.places(self.hasher.hash_one(text));
        places.filter(move |&id| self.texts.get(id as usize) == Some(text))
    }

    /// The token with that text where merging may lead to it.
    pub(crate) fn text_id(&self, text: &str) -> Option<(TokenId, TokenKind)> {
        if text.len() > self.longest {
            return None;
        }
        let id = self.id(text)?;
        let kind = self.kind(id)?;
        kind.is_text().then_some((id, kind))
    }

    /// The tokens of a kind, in order.
    pub(crate) fn of_kind(&self, kind: TokenKind) -> impl Iterator<Item = (TokenId, &str)> {
        self.iter()
            .filter(move |&(_, _, other)| other == kind)
            .map(|(id, text, _)| (id, text))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TokenId, &str, TokenKind)> {
        (0..)
            .zip(self.texts.iter())
            .zip(&self.kinds)
            .map(|((id, text), &kind)| (id, text, kind))
    }

    /// A token id from the metadata. One beyond the vocabulary counts as absent: such files exist,
    /// and work.
    pub(crate) fn id_at(
        &self,
        metadata: &Metadata,
        key: &str,
    ) -> Result<Option<TokenId>, FormatError> {
        Ok(metadata.u32(key)?.filter(|&id| (id as usize) < self.len()))
    }

    /// The score of each token, for the vocabularies that have them.
    ///
    /// # Errors
    /// They are missing, or not as many as tokens.
    pub(crate) fn scores(&self, metadata: &Metadata) -> Result<Vec<f32>, TextError> {
        let key = "tokenizer.ggml.scores";
        let scores = metadata.require_f32s(key)?.to_vec();
        check_length(key, scores.len(), self.len())?;
        Ok(scores)
    }
}

fn check_length(key: &'static str, length: usize, tokens: usize) -> Result<(), FormatError> {
    if length == tokens {
        Ok(())
    } else {
        Err(FormatError::VocabularyLength {
            key,
            length,
            tokens,
        })
    }
}

/// The byte of a token written `<0x0A>`.
pub(crate) fn byte_of(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2)
        .then(|| u8::from_str_radix(hex, 16).ok())
        .flatten()
}
