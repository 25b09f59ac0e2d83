//! Tokens that stand for a text as a whole are cut out of a text before anything else is done.

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use crate::{
    TextError, TokenId,
    vocabulary::{TokenKind, Vocabulary},
};

/// A part of a text: a token, or text between tokens (never empty).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    Token(TokenId),
    Text(&'t str),
}

/// Finds the user-defined tokens of a text, and on request the control tokens.
#[derive(Default)]
pub(crate) struct Special {
    user_defined: OnceLock<Option<Finder>>,
    /// Built when first asked for: Gemma has 6,000 of them.
    with_control: OnceLock<Option<Finder>>,
    /// The token that takes the white space before it.
    strips_left: Option<TokenId>,
}

impl Special {
    /// `strips_left`: the mask of encoders with BPE or Unigram, which GGUF says nothing about.
    pub(crate) fn new(strips_left: Option<TokenId>) -> Self {
        Self {
            strips_left,
            ..Self::default()
        }
    }

    /// Cuts `text`. Where several tokens match, the leftmost counts, and of those the longest, as
    /// in Hugging Face's and SentencePiece's matchers. Only with `parse_special` do control tokens
    /// and the unknown token match.
    pub(crate) fn split<'t>(
        &self,
        vocabulary: &Vocabulary,
        text: &'t str,
        parse_special: bool,
    ) -> Result<Vec<Part<'t>>, TextError> {
        let (cell, kinds): (_, &[TokenKind]) = if parse_special {
            let kinds = &[
                TokenKind::UserDefined,
                TokenKind::Control,
                TokenKind::Unknown,
            ];
            (&self.with_control, kinds)
        } else {
            (&self.user_defined, &[TokenKind::UserDefined])
        };
        let finder = match cell.get() {
            Some(finder) => finder,
            None => {
                let built = Finder::new(vocabulary, kinds, self.strips_left)?;
                cell.get_or_init(|| built)
            }
        };
        let mut parts = Vec::new();
        match finder {
            Some(finder) => finder.split(text, &mut parts),
            None => push_text(&mut parts, text),
        }
        Ok(parts)
    }
}

struct Finder {
    automaton: AhoCorasick,
    ids: Vec<TokenId>,
    /// Whether a token also takes the white space after it.
    strips_right: Vec<bool>,
    /// The token that takes the white space before it.
    strips_left: Option<TokenId>,
}

impl Finder {
    fn new(
        vocabulary: &Vocabulary,
        kinds: &[TokenKind],
        strips_left: Option<TokenId>,
    ) -> Result<Option<Self>, TextError> {
        let strips = Strips::of(vocabulary);
        let (mut texts, mut ids, mut strips_right) = (Vec::new(), Vec::new(), Vec::new());
        for (id, text, kind) in vocabulary.iter() {
            if kinds.contains(&kind) && !text.is_empty() {
                texts.push(text);
                ids.push(id);
                strips_right.push(strips.right(text, kind));
            }
        }
        if texts.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(texts)
            .map_err(|error| TextError::Vocabulary {
                reason: error.to_string(),
            })?;
        Ok(Some(Self {
            automaton,
            ids,
            strips_right,
            strips_left,
        }))
    }

    fn split<'t>(&self, text: &'t str, parts: &mut Vec<Part<'t>>) {
        let mut end = 0;
        for found in self.automaton.find_iter(text) {
            // Inside the white space that the token before took.
            if found.start() < end {
                continue;
            }
            let pattern = found.pattern().as_usize();
            let id = self.ids[pattern];
            let before = &text[end..found.start()];
            push_text(
                parts,
                match self.strips_left == Some(id) {
                    true => before.trim_end(),
                    false => before,
                },
            );
            parts.push(Part::Token(id));
            end = found.end();
            if self.strips_right[pattern] {
                let rest = &text[end..];
                end += rest.len() - rest.trim_start().len();
            }
        }
        push_text(parts, &text[end..]);
    }
}

fn push_text<'t>(parts: &mut Vec<Part<'t>>, text: &'t str) {
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

/// Which tokens take the white space after them. GGUF does not say; of the supported vocabularies
/// only Phi-3's has such tokens, and it is known by its placeholders.
struct Strips {
    is_phi3: bool,
}

impl Strips {
    fn of(vocabulary: &Vocabulary) -> Self {
        let is_control = |text| {
            let kind = vocabulary.id(text).and_then(|id| vocabulary.kind(id));
            kind == Some(TokenKind::Control)
        };
        let marks = [
            "<|assistant|>",
            "<|placeholder1|>",
            "<|placeholder6|>",
            "<|end|>",
        ];
        Self {
            is_phi3: byte_fallback(vocabulary) && marks.into_iter().all(is_control),
        }
    }

    fn right(&self, text: &str, kind: TokenKind) -> bool {
        let exempt = ["<unk>", "<s>", "<|endoftext|>"].contains(&text);
        self.is_phi3 && !exempt && kind != TokenKind::Unknown
    }
}

fn byte_fallback(vocabulary: &Vocabulary) -> bool {
    vocabulary.of_kind(TokenKind::Byte).next().is_some()
}
