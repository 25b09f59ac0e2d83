//! Byte-level BPE as GPT-2 introduced it: text is cut into words, the bytes of a word are written
//! as printable characters, and those are merged in the order of the list of merges.
//!
//! Merges are pairs of token ids here. Qwen has 151,387 of them and they are read whenever the model is loaded, so nothing
//! is allocated for a single one.

use std::{cmp::Reverse, collections::BinaryHeap, hash::BuildHasher};

use dunlin_format::Metadata;
use foldhash::quality::RandomState;
use tokenizers::{NormalizedString, Normalizer, normalizers::unicode::NFC};

use crate::{
    TextError, TokenId,
    index::{Index, MAX_PLACES},
    pre_tokenizer::{Family, Splitter},
    vocabulary::{TokenKind, Vocabulary},
};

pub(crate) struct Bpe {
    merges: Merges,
    splitter: Splitter,
    nfc: bool,
    /// Whether a word that is a token is that token.
    ignore_merges: bool,
    /// The token of each byte. Encoding one that has none is an error.
    bytes: Box<[Option<TokenId>; 256]>,
}

impl Bpe {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        family: &Family,
    ) -> Result<Self, TextError> {
        let mut bytes = Box::new([None; 256]);
        for byte in 0..=u8::MAX {
            let mut buffer = [0; 4];
            let text = char_of(byte).encode_utf8(&mut buffer);
            bytes[usize::from(byte)] = mergeable(vocabulary, text);
        }
        Ok(Self {
            merges: Merges::from_gguf(metadata, vocabulary)?,
            splitter: Splitter::new(family)?,
            nfc: family.nfc,
            ignore_merges: family.ignore_merges,
            bytes,
        })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        out: &mut Vec<TokenId>,
    ) -> Result<(), TextError> {
        let composed;
        let mut text = text;
        if self.nfc && !text.is_ascii() {
            composed = compose(text)?;
            text = &composed;
        }
        let mut word = Word::default();
        let mut characters = String::new();
        for piece in self.splitter.split(text) {
            if self.ignore_merges {
                characters.clear();
                characters.extend(piece.bytes().map(char_of));
                if let Some(id) = mergeable(vocabulary, &characters) {
                    out.push(id);
                    continue;
                }
            }
            word.symbols.clear();
            for byte in piece.bytes() {
                match self.bytes[usize::from(byte)] {
                    Some(id) => word.push(id),
                    None => return Err(TextError::MissingByte { byte }),
                }
            }
            word.merge(&self.merges);
            out.extend(word.tokens());
        }
        Ok(())
    }
}

/// The token with that text that a merge may lead to: control tokens stay out.
fn mergeable(vocabulary: &Vocabulary, text: &str) -> Option<TokenId> {
    vocabulary
        .ids(text)
        .find(|&id| is_mergeable(vocabulary, id))
}

fn is_mergeable(vocabulary: &Vocabulary, id: TokenId) -> bool {
    matches!(
        vocabulary.kind(id),
        Some(TokenKind::Normal | TokenKind::UserDefined)
    )
}

/// The list of merges.
struct Merges {
    /// Left, right, and what they become; in the order of the file, where the first one goes first.
    list: Vec<[TokenId; 3]>,
    index: Index,
    hasher: RandomState,
}

impl Merges {
    fn from_gguf(metadata: &Metadata, vocabulary: &Vocabulary) -> Result<Self, TextError> {
        let texts = metadata.require_strings("tokenizer.ggml.merges")?;
        if texts.len() > MAX_PLACES {
            let reason = format!("it has {} merges, {MAX_PLACES} are the most", texts.len());
            return Err(TextError::Vocabulary { reason });
        }
        let damaged = |merge: &str, what: &str| TextError::Vocabulary {
            reason: format!("the merge `{merge}` {what}"),
        };
        let mut list = Vec::with_capacity(texts.len());
        let mut union = String::new();
        for merge in texts.iter() {
            let (left, right) = halves(merge)
                .ok_or_else(|| damaged(merge, "is not two tokens with a space between"))?;
            union.clear();
            union.push_str(left);
            union.push_str(right);
            let token = |text: &str, what: &str| {
                mergeable(vocabulary, text).ok_or_else(|| damaged(merge, what))
            };
            list.push([
                token(left, "begins with what is no token")?,
                token(right, "ends with what is no token")?,
                token(&union, "leads to no token")?,
            ]);
        }
        let hasher = RandomState::default();
        let hashes = list
            .iter()
            .map(|&[left, right, _]| hasher.hash_one(key(left, right)));
        let index = Index::of(hashes);
        Ok(Self {
            list,
            index,
            hasher,
        })
    }

    /// The place of a merge in the list, and the token that it leads to. Of one that is listed twice the last counts.
    fn find(&self, left: TokenId, right: TokenId) -> Option<(u32, TokenId)> {
        let places = self.index.places(self.hasher.hash_one(key(left, right)));
        places.rev().find_map(|place| {
            let [l, r, id] = self.list[place as usize];
            ((l, r) == (left, right)).then_some((place, id))
        })
    }
}

fn key(left: TokenId, right: TokenId) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

/// No symbol.
const NONE: u32 = u32::MAX;

/// A token in a chain of tokens.
#[derive(Clone, Copy)]
struct Symbol {
    id: TokenId,
    previous: u32,
    next: u32,
    /// Not yet merged into the one before.
    is_there: bool,
}

/// A word while it is merged: with a heap of candidates this takes n log n steps.
#[derive(Default)]
struct Word {
    symbols: Vec<Symbol>,
    /// Place in the list of merges, left symbol, and the token that the merge leads to: the first merge goes first, the
    /// leftmost among equals.
    candidates: BinaryHeap<Reverse<(u32, u32, TokenId)>>,
}

impl Word {
    fn push(&mut self, id: TokenId) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        self.symbols.push(Symbol {
            id,
            previous: at.wrapping_sub(1),
            next: NONE,
            is_there: true,
        });
    }

    fn merge(&mut self, merges: &Merges) {
        self.candidates.clear();
        for right in 1..self.symbols.len() as u32 {
            self.consider(merges, right - 1, right);
        }
        while let Some(Reverse((_, left, id))) = self.candidates.pop() {
            let at = left as usize;
            let Symbol { next: right, .. } = self.symbols[at];
            if !self.symbols[at].is_there || right == NONE {
                continue;
            }
            let after = self.symbols[right as usize];
            // One of the two may have grown since.
            let merge = merges.find(self.symbols[at].id, after.id);
            if merge.is_none_or(|(_, leads_to)| leads_to != id) {
                continue;
            }
            self.symbols[at].id = id;
            self.symbols[at].next = after.next;
            self.symbols[right as usize].is_there = false;
            if let Some(next) = self.symbols.get_mut(after.next as usize) {
                next.previous = left;
            }
            self.consider(merges, self.symbols[at].previous, left);
            self.consider(merges, left, after.next);
        }
    }

    fn consider(&mut self, merges: &Merges, left: u32, right: u32) {
        let (Some(a), Some(b)) = (
            self.symbols.get(left as usize),
            self.symbols.get(right as usize),
        ) else {
            return;
        };
        if let Some((place, id)) = merges.find(a.id, b.id) {
            self.candidates.push(Reverse((place, left, id)));
        }
    }

    fn tokens(&self) -> impl Iterator<Item = TokenId> {
        let there = self.symbols.iter().filter(|symbol| symbol.is_there);
        there.map(|symbol| symbol.id)
    }
}

/// The two tokens of a merge. A token never is empty, so the first character is not the gap.
pub(crate) fn halves(merge: &str) -> Option<(&str, &str)> {
    let first = merge.chars().next()?.len_utf8();
    let gap = first + merge[first..].find(' ')?;
    let (left, right) = (&merge[..gap], &merge[gap + 1..]);
    (!right.is_empty()).then_some((left, right))
}

fn compose(text: &str) -> Result<String, TextError> {
    let mut normalized = NormalizedString::from(text);
    NFC.normalize(&mut normalized)
        .map_err(|error| TextError::Split {
            reason: error.to_string(),
        })?;
    Ok(normalized.get().to_owned())
}

/// The printable character that stands for a byte: itself where it is printable Latin-1, else one
/// from U+0100 on, in order (GPT-2, `bytes_to_unicode`).
fn char_of(byte: u8) -> char {
    let code = match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u32::from(byte),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7F..=0xA0 => 0x121 + u32::from(byte) - 0x7F,
        0xAD => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => code,
        0x100..=0x120 => code - 0x100,
        0x121..=0x142 => code - 0x121 + 0x7F,
        0x143 => 0xAD,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// The bytes that a token's characters stand for. A text with any other character (a padding
/// token, say) stands for itself.
pub(crate) fn bytes_of(text: &str) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = text.chars().map(byte_of).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_characters_stand_for_each_other() {
        for byte in 0..=u8::MAX {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(
            (char_of(b' '), char_of(b'\n'), char_of(0xAD)),
            ('Ġ', 'Ċ', 'Ń')
        );
    }

    #[test]
    fn merges_are_split_at_the_gap() {
        assert_eq!(halves("Ġ t"), Some(("Ġ", "t")));
        assert_eq!(halves("  a"), Some((" ", "a")));
        assert_eq!((halves("ab"), halves("a "), halves("")), (None, None, None));
    }
}
