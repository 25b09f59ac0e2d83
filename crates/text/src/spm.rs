//! SentencePiece-style BPE: spaces are written `▁`, and the text is merged as a whole, not word by
//! word; what is no token in the end becomes bytes. What is merged first says a score for each token
//! (`llama`; SentencePiece, `bpe_model.cc`) or a list of merges (`gemma4`; Hugging Face's `BPE` with
//! `byte_fallback`).

use dunlin_format::Metadata;

use crate::{
    TextError, TokenId,
    merge::{Merge, Order},
    pair_ranks::PairRanks,
    vocabulary::{self, TokenKind, Vocabulary},
};

/// SentencePiece's stand-in for the space, U+2581.
pub(crate) const SPACE: char = '\u{2581}';

pub(crate) struct Spm {
    order: Order,
    /// The token of each byte.
    bytes: Box<[Option<TokenId>; 256]>,
    unknown: Option<TokenId>,
    /// Whether text that starts a text, or follows a special token, gets a space in front.
    pub(crate) add_space_prefix: bool,
}

impl Spm {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TextError> {
        let scores = vocabulary.scores(metadata)?;
        Self::new(metadata, vocabulary, Order::Scores(scores), true)
    }

    /// The merges of a file instead of scores.
    pub(crate) fn with_merges(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TextError> {
        let ranks = PairRanks::from_gguf(metadata)?;
        Self::new(metadata, vocabulary, Order::Ranks(ranks), false)
    }

    fn new(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        order: Order,
        prefixes: bool,
    ) -> Result<Self, TextError> {
        let mut bytes = Box::new([None; 256]);
        for (id, text) in vocabulary.of_kind(TokenKind::Byte) {
            let byte = vocabulary::byte_of(text).ok_or_else(|| TextError::Vocabulary {
                reason: format!("the byte token {id} has the text `{text}`, not one like <0x0A>"),
            })?;
            bytes[usize::from(byte)].get_or_insert(id);
        }
        let unknown = match vocabulary.id_at(metadata, "tokenizer.ggml.unknown_token_id")? {
            Some(id) => Some(id),
            None => vocabulary
                .of_kind(TokenKind::Unknown)
                .next()
                .map(|(id, _)| id),
        };
        let add_space_prefix = metadata
            .bool("tokenizer.ggml.add_space_prefix")?
            .unwrap_or(prefixes);
        Ok(Self {
            order,
            bytes,
            unknown,
            add_space_prefix,
        })
    }

    /// Appends the tokens of `text`; `starts` says that nothing or a special token stands before.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        starts: bool,
        out: &mut Vec<TokenId>,
    ) -> Result<(), TextError> {
        let mut escaped = String::with_capacity(text.len() + 16);
        if starts && self.add_space_prefix {
            escaped.push(SPACE);
        }
        escaped.extend(text.chars().map(|c| if c == ' ' { SPACE } else { c }));
        let mut merge = Merge::new(vocabulary, &self.order, &escaped);
        merge.run();
        for (start, end) in merge.pieces() {
            self.push_piece(vocabulary, &merge, (start, end), out)?;
        }
        Ok(())
    }

    /// A piece is a token, or two pieces where it is an unused token, or bytes.
    fn push_piece(
        &self,
        vocabulary: &Vocabulary,
        merge: &Merge<'_>,
        piece: (usize, usize),
        out: &mut Vec<TokenId>,
    ) -> Result<(), TextError> {
        let mut waiting = vec![piece];
        while let Some((start, end)) = waiting.pop() {
            let text = merge.text(start, end);
            match vocabulary.text_id(text) {
                Some((_, TokenKind::Unused)) if merge.middle(start, end).is_some() => {
                    let middle = merge.middle(start, end).unwrap_or(end);
                    waiting.push((middle, end));
                    waiting.push((start, middle));
                }
                Some((id, kind)) if kind != TokenKind::Unused => out.push(id),
                _ => self.push_bytes(text, out)?,
            }
        }
        Ok(())
    }

    fn push_bytes(&self, text: &str, out: &mut Vec<TokenId>) -> Result<(), TextError> {
        let bytes: Option<Vec<TokenId>> = text
            .bytes()
            .map(|byte| self.bytes[usize::from(byte)])
            .collect();
        match (bytes, self.unknown) {
            (Some(bytes), _) => out.extend(bytes),
            (None, Some(unknown)) => out.push(unknown),
            (None, None) => {
                let missing = text
                    .bytes()
                    .find(|&byte| self.bytes[usize::from(byte)].is_none());
                return Err(TextError::MissingByte {
                    byte: missing.unwrap_or_default(),
                });
            }
        }
        Ok(())
    }
}
