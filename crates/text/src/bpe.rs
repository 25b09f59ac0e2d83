//! Byte-level BPE as GPT-2 introduced it: text is cut into words, the bytes of a word are written
//! as printable characters, and those are merged in the order of the list of merges.

use dunlin_format::Metadata;
use tokenizers::{
    Model, NormalizedString, Normalizer,
    models::bpe::{BPE, Vocab},
    normalizers::unicode::NFC,
};

use crate::{
    TextError, TokenId,
    pre_tokenizer::{Family, Splitter},
    vocabulary::{TokenKind, Vocabulary},
};

pub(crate) struct Bpe {
    model: BPE,
    splitter: Splitter,
    nfc: bool,
    /// Bytes without a token; encoding them is an error (the merging itself would drop them).
    missing: Vec<u8>,
}

impl Bpe {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        family: &Family,
    ) -> Result<Self, TextError> {
        // Control tokens stay out: nothing that is merged may lead to one.
        let mut tokens = Vocab::with_capacity(vocabulary.len());
        for (id, text, kind) in vocabulary.iter() {
            if matches!(kind, TokenKind::Normal | TokenKind::UserDefined) && !text.is_empty() {
                tokens.entry(text.to_owned()).or_insert(id);
            }
        }
        let missing = (0..=u8::MAX)
            .filter(|&byte| !tokens.contains_key(char_of(byte).encode_utf8(&mut [0; 4]) as &str))
            .collect();
        let list = metadata.require_strings("tokenizer.ggml.merges")?;
        let mut merges = Vec::with_capacity(list.len());
        for merge in list.iter() {
            let (left, right) = halves(merge).ok_or_else(|| TextError::Vocabulary {
                reason: format!("the merge `{merge}` is not two tokens with a space between"),
            })?;
            // The builder puts every union into a buffer of the longest token's length.
            if left.len() + right.len() > vocabulary.longest() {
                let reason = format!("the merge `{merge}` leads to no token");
                return Err(TextError::Vocabulary { reason });
            }
            merges.push((left.to_owned(), right.to_owned()));
        }
        let model = BPE::builder()
            .vocab_and_merges(tokens, merges)
            .ignore_merges(family.ignore_merges)
            // The crate's cache is never given back, one for each thread and model.
            .cache_capacity(0)
            .build()
            .map_err(|error| TextError::Vocabulary {
                reason: error.to_string(),
            })?;
        Ok(Self {
            model,
            splitter: Splitter::new(family)?,
            nfc: family.nfc,
            missing,
        })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(&self, text: &str, out: &mut Vec<TokenId>) -> Result<(), TextError> {
        let composed;
        let mut text = text;
        if self.nfc && !text.is_ascii() {
            composed = compose(text)?;
            text = &composed;
        }
        if let Some(byte) = text.bytes().find(|byte| self.missing.contains(byte)) {
            return Err(TextError::MissingByte { byte });
        }
        let mut characters = String::new();
        for word in self.splitter.split(text) {
            characters.clear();
            characters.extend(word.bytes().map(char_of));
            let tokens = self
                .model
                .tokenize(&characters)
                .map_err(|error| TextError::Split {
                    reason: error.to_string(),
                })?;
            out.extend(tokens.iter().map(|token| token.id));
        }
        Ok(())
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
