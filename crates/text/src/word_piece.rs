//! WordPiece, the tokenizer of BERT: text is cleaned and put in lower case, cut at white space and
//! punctuation, and each word is taken apart from the left, the longest token first.
//!
//! GGUF writes the first piece of a word with `▁` in front and the others bare, where BERT's own
//! vocabulary writes them bare and with `##`.

use dunlin_format::Metadata;
use tokenizers::{NormalizedString, Normalizer, normalizers::BertNormalizer};
use unicode_categories::UnicodeCategories;

use crate::{
    TextError, TokenId,
    spm::SPACE,
    vocabulary::{TokenKind, Vocabulary},
};

/// Longer words are unknown as a whole (`max_input_chars_per_word` of every BERT).
const MAX_WORD_CHARS: usize = 100;

pub(crate) struct WordPiece {
    normalizer: BertNormalizer,
    lowercase: bool,
    unknown: TokenId,
    longest: usize,
}

impl WordPiece {
    pub(crate) fn from_gguf(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
    ) -> Result<Self, TextError> {
        let option = |name: &str| metadata.bool(&format!("tokenizer.ggml.normalizer.{name}"));
        let lowercase = option("lowercase")?.unwrap_or(true);
        // Without a word about accents they go where capitals go.
        let strip_accents = option("strip_accents")?;
        let unknown = vocabulary.id_at(metadata, "tokenizer.ggml.unknown_token_id")?;
        let unknown = unknown.or_else(|| vocabulary.id("[UNK]"));
        let unknown = unknown.ok_or_else(|| TextError::Vocabulary {
            reason: "it has no token for unknown words".to_owned(),
        })?;
        let words = vocabulary.of_kind(TokenKind::Normal);
        Ok(Self {
            normalizer: BertNormalizer::new(true, true, strip_accents, lowercase),
            lowercase,
            unknown,
            longest: words.map(|(_, text)| text.len()).max().unwrap_or(0),
        })
    }

    /// Appends the tokens of `text`.
    pub(crate) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        out: &mut Vec<TokenId>,
    ) -> Result<(), TextError> {
        let mut marked = String::new();
        for word in words(&self.clean(text)?) {
            marked.clear();
            marked.push(SPACE);
            marked.push_str(word);
            self.encode_word(vocabulary, &marked, out);
        }
        Ok(())
    }

    /// The text as BERT's normalizer leaves it. ASCII needs none of its tables.
    fn clean(&self, text: &str) -> Result<String, TextError> {
        if text.is_ascii() {
            let kept = text.chars().filter_map(|c| match c {
                '\t' | '\n' | '\r' => Some(' '),
                _ if c.is_control() => None,
                _ if self.lowercase => Some(c.to_ascii_lowercase()),
                _ => Some(c),
            });
            return Ok(kept.collect());
        }
        let mut normalized = NormalizedString::from(text);
        self.normalizer
            .normalize(&mut normalized)
            .map_err(|error| TextError::Split {
                reason: error.to_string(),
            })?;
        Ok(normalized.get().to_owned())
    }

    /// A word with [`SPACE`] in front: its pieces, or the unknown token where one is missing.
    fn encode_word(&self, vocabulary: &Vocabulary, word: &str, out: &mut Vec<TokenId>) {
        let before = out.len();
        if word.chars().count() > MAX_WORD_CHARS + 1 {
            out.push(self.unknown);
            return;
        }
        let mut rest = word;
        // A first piece of nothing but the mark would say nothing.
        let mut shortest = SPACE.len_utf8() + 1;
        while !rest.is_empty() {
            let Some((id, length)) = self.longest_piece(vocabulary, rest, shortest) else {
                out.truncate(before);
                out.push(self.unknown);
                return;
            };
            out.push(id);
            rest = &rest[length..];
            shortest = 1;
        }
    }

    fn longest_piece(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        shortest: usize,
    ) -> Option<(TokenId, usize)> {
        let lengths = shortest..=text.len().min(self.longest);
        let mut lengths = lengths
            .rev()
            .filter(|&length| text.is_char_boundary(length));
        lengths.find_map(|length| match vocabulary.text_id(&text[..length])? {
            (id, TokenKind::Normal) => Some((id, length)),
            _ => None,
        })
    }
}

/// The words of a text: white space separates them, and every punctuation mark is one.
fn words(text: &str) -> impl Iterator<Item = &str> {
    // The version of Unicode that Hugging Face's pre-tokenizer knows.
    let is_mark = |c: char| match c.is_ascii() {
        true => c.is_ascii_punctuation(),
        false => UnicodeCategories::is_punctuation(c),
    };
    let parts = text.split(char::is_whitespace);
    let words = parts.flat_map(move |part| part.split_inclusive(is_mark));
    words
        .flat_map(move |word| match word.chars().next_back() {
            Some(last) if is_mark(last) => {
                let (word, mark) = word.split_at(word.len() - last.len_utf8());
                [word, mark]
            }
            _ => [word, ""],
        })
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{WordPiece, words};
    use tokenizers::{NormalizedString, Normalizer, normalizers::BertNormalizer};

    #[test]
    fn punctuation_marks_are_words() {
        let cut = |text| words(text).collect::<Vec<_>>();
        assert_eq!(cut("a,b  c."), ["a", ",", "b", "c", "."]);
        assert_eq!(cut("...x¿"), [".", ".", ".", "x", "¿"]);
        assert_eq!(cut(" \n"), [""; 0]);
    }

    #[test]
    fn ascii_is_cleaned_as_the_normalizer_cleans_it() {
        let every: String = (0..128u8).map(char::from).collect();
        for lowercase in [true, false] {
            for strip_accents in [None, Some(true), Some(false)] {
                let normalizer = BertNormalizer::new(true, true, strip_accents, lowercase);
                for text in [every.as_str(), "", "A\u{b}b\r\n C\u{7f}", " \t x"] {
                    let mut want = NormalizedString::from(text);
                    normalizer.normalize(&mut want).unwrap();
                    let pieces = WordPiece {
                        normalizer,
                        lowercase,
                        unknown: 0,
                        longest: 0,
                    };
                    assert_eq!(pieces.clean(text).unwrap(), want.get(), "{text:?}");
                }
            }
        }
    }
}
