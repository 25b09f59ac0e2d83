//! The same text in other words, or without its mistakes.

use std::ops::Range;

use similar::{Algorithm, DiffTag, capture_diff_slices};
use unicode_segmentation::UnicodeSegmentation;

use super::ask::{schema_of_text, text_in};
use super::{TaskError, TaskUsage, ask, pieces};
use crate::{Error, GenerateOptions, Lm, OutputFormat, Prompt};

/// What the model is told before the text, for each style.
const CORRECT: &str =
    "Correct the spelling, grammar and punctuation of the text. Change nothing else.";
const SHORTER: &str = "Rewrite the text in fewer words. Keep what it says.";
const LONGER: &str = "Rewrite the text in more words. Add no facts.";
const TONE: &str = "Rewrite the text in a {tone} tone. Keep what it says.";
/// How the answer of a base model begins, and the name of the answer's only property.
const CUE: &str = "Rewritten text";
const PROPERTY: &str = "text";
/// Tokens of a piece where the caller names no number.
const DEFAULT_PIECE_TOKENS: usize = 256;
/// Tokens of an answer for each of a piece.
const GROWTH: usize = 3;
/// Tokens of any answer: the form takes some.
const LEAST_TOKENS: usize = 48;

/// How a text is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RewriteStyle {
    /// Without mistakes in spelling, grammar and punctuation.
    Correct,
    /// In fewer words.
    Shorter,
    /// In more words.
    Longer,
    /// In this tone: `friendly`, `formal`.
    Tone(String),
}

/// Rewrites texts of any length, in pieces that are cut between paragraphs, and lists what has changed.
pub struct Rewriter {
    lm: Lm,
    style: RewriteStyle,
    piece_tokens: Option<usize>,
    options: GenerateOptions,
}

impl Rewriter {
    /// In this style.
    #[must_use]
    pub fn new(lm: &Lm, style: RewriteStyle) -> Self {
        Rewriter {
            lm: lm.clone(),
            style,
            piece_tokens: None,
            options: ask::faithful(),
        }
    }

    /// With pieces of at most this many tokens [default: 256, or what the context has room for].
    #[must_use]
    pub fn with_piece_tokens(mut self, tokens: usize) -> Self {
        self.piece_tokens = Some(tokens);
        self
    }

    super::ask::with_answer_options!();

    /// The text rewritten. What stands between its pieces (line ends, empty lines) is kept as it is.
    ///
    /// # Errors
    /// [`TaskError`] for an empty text, a context that is too short, pieces that do not fit it, and an answer that did not end;
    /// [`Error::Cancelled`]; as [`Lm::generate`].
    pub fn rewrite(&self, text: &str) -> Result<Rewrite, Error> {
        let limit = pieces::limit(&self.lm, &self.prompt(""), LEAST_TOKENS, GROWTH)?;
        let default = DEFAULT_PIECE_TOKENS;
        let parts = pieces::of(&self.lm, text, self.piece_tokens, default, limit, "rewrite")?;
        let mut usage = TaskUsage::default();
        let mut rewritten = String::new();
        let mut end = 0;
        for (index, part) in parts.iter().enumerate() {
            let tokens = self.lm.tokenizer().encode(part.text, false)?.len();
            let mut options = self.options.clone();
            options.max_tokens = Some(LEAST_TOKENS + GROWTH * tokens);
            options.format = OutputFormat::JsonSchema(schema_of_text(PROPERTY));
            let answer = ask::answer(&self.lm, &self.prompt(part.text), &options, &mut usage)?;
            if !answer.is_complete {
                return Err(TaskError::PieceUnfinished {
                    piece: index + 1,
                    pieces: parts.len(),
                    tokens: answer.tokens.len(),
                    text: answer.text,
                }
                .into());
            }
            rewritten.push_str(&text[end..part.bytes.start]);
            rewritten.push_str(&text_in(&answer.text, PROPERTY));
            end = part.bytes.end;
        }
        rewritten.push_str(&text[end..]);
        Ok(Rewrite {
            changes: changes(text, &rewritten),
            text: rewritten,
            pieces: parts.len(),
            usage,
        })
    }

    fn prompt(&self, text: &str) -> Prompt {
        let instruction = match &self.style {
            RewriteStyle::Correct => CORRECT.to_owned(),
            RewriteStyle::Shorter => SHORTER.to_owned(),
            RewriteStyle::Longer => LONGER.to_owned(),
            RewriteStyle::Tone(tone) => TONE.replace("{tone}", tone),
        };
        ask::prompt(&self.lm, &instruction, text, CUE)
    }
}

/// A text, rewritten.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rewrite {
    /// The text.
    pub text: String,
    /// What is different, in the order of the text: applied to the original, it gives the text.
    pub changes: Vec<Change>,
    /// Pieces that the text was worked on in.
    pub pieces: usize,
    /// What it took.
    pub usage: TaskUsage,
}

/// A change of some words.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// Where it stands in the original, in bytes; empty where something was added.
    pub place: Range<usize>,
    /// What stood there.
    pub before: String,
    /// What stands there now.
    pub after: String,
}

/// The difference between two texts by words (and the spaces and marks between them).
fn changes(before: &str, after: &str) -> Vec<Change> {
    let [old, new] = [before, after].map(|text| {
        let words: Vec<(usize, &str)> = text.split_word_bound_indices().collect();
        words
    });
    let words = |words: &[(usize, &'_ str)]| {
        words
            .iter()
            .map(|(_, word)| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    let place = |words: &[(usize, &str)], range: Range<usize>, end: usize| {
        let at = |index: usize| words.get(index).map_or(end, |(at, _)| *at);
        at(range.start)..at(range.end)
    };
    capture_diff_slices(Algorithm::Myers, &words(&old), &words(&new))
        .into_iter()
        .filter(|change| change.tag() != DiffTag::Equal)
        .map(|change| {
            let old_place = place(&old, change.old_range(), before.len());
            let new_place = place(&new, change.new_range(), after.len());
            Change {
                before: before[old_place.clone()].to_owned(),
                after: after[new_place].to_owned(),
                place: old_place,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_words() {
        let found = changes("Their is a eror here .", "There is an error here.");
        let pairs: Vec<(&str, &str)> = found
            .iter()
            .map(|change| (change.before.as_str(), change.after.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                ("Their", "There"),
                ("a", "an"),
                ("eror", "error"),
                (" ", "")
            ]
        );
        assert_eq!(found[1].place, 9..10);
    }

    #[test]
    fn changes_applied_to_the_original_give_the_text() {
        for (before, after) in [
            ("", "new words"),
            ("old words", ""),
            ("same", "same"),
            ("é a b c d", "x é a c d e 日本"),
        ] {
            let mut text = String::new();
            let mut end = 0;
            for change in changes(before, after) {
                assert_eq!(&before[change.place.clone()], change.before);
                text.push_str(&before[end..change.place.start]);
                text.push_str(&change.after);
                end = change.place.end;
            }
            text.push_str(&before[end..]);
            assert_eq!(text, after);
        }
    }
}
