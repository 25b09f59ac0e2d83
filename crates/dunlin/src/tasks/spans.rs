//! Places in a text that a model points at: each answer is a list of pieces of the text itself, and of nothing else.

use std::ops::Range;

use serde_json::Value as Json;

use super::{TaskError, TaskUsage, ask, pieces};
use crate::{Error, GenerateOptions, Lm, OutputFormat};

/// Tokens of a piece where the caller names none: short enough that a small model has all of it in view.
const DEFAULT_PIECE_TOKENS: usize = 256;
/// Lines of an answer, and words of a line, at most.
const MOST_LINES: usize = 32;
const MOST_WORDS: usize = 8;
/// Tokens of the answer to a piece: of each line a few, and then more would be repetition.
const ANSWER_TOKENS: usize = 320;

/// Something that stands in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TextSpan {
    /// What it is: one of the kinds that were asked for.
    pub kind: String,
    /// How it stands in the text.
    pub text: String,
    /// Where it stands, in bytes; every place of the text, in their order.
    pub places: Vec<Range<usize>>,
}

/// What was found in a text.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order in which they were first named.
    pub(super) spans: Vec<TextSpan>,
    /// Pieces that the text was worked on in.
    pub(super) pieces: usize,
    /// Pieces whose list was full, so that there may be more.
    pub(super) full_pieces: usize,
    pub(super) usage: TaskUsage,
}

/// How spans are looked for.
pub(super) struct SpanSearch<'a> {
    pub(super) lm: &'a Lm,
    /// What the model is told before the text.
    pub(super) instruction: &'a str,
    /// What can be found; each line of an answer begins with one of them.
    pub(super) kinds: &'a [String],
    pub(super) piece_tokens: Option<usize>,
    pub(super) options: &'a GenerateOptions,
    /// For errors: what is done.
    pub(super) task: &'static str,
}

impl SpanSearch<'_> {
    /// Looks through a text of any length.
    ///
    /// # Errors
    /// As [`pieces::limit`] and [`pieces::of`], and what the model says.
    pub(super) fn run(&self, text: &str) -> Result<Found, Error> {
        let limit = pieces::limit(self.lm, &self.prompt(""), ANSWER_TOKENS, 0)?;
        let pieces = pieces::of(
            self.lm,
            text,
            self.piece_tokens,
            DEFAULT_PIECE_TOKENS,
            limit,
            self.task,
        )?;
        let mut found = Found {
            pieces: pieces.len(),
            ..Found::default()
        };
        for piece in &pieces {
            self.look_at(piece.text, text, &mut found)?;
        }
        Ok(found)
    }

    fn prompt(&self, piece: &str) -> crate::Prompt {
        ask::prompt(self.lm, self.instruction, &format!("Text: {piece}"), "List")
    }

    fn look_at(&self, piece: &str, text: &str, found: &mut Found) -> Result<(), Error> {
        // A line end of the piece would end the line of the answer.
        let line: String = piece
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let mut options = self.options.clone();
        options.format = OutputFormat::Lark(self.grammar(&line));
        options.max_tokens.get_or_insert(ANSWER_TOKENS);
        let prompt = self.prompt(&line);
        let answer = ask::answer(self.lm, &prompt, &options, &mut found.usage)?;
        // A line that broke off is none.
        let end = answer.text.rfind('\n').map_or(0, |at| at + 1);
        let lines: Vec<&str> = answer.text[..end].lines().collect();
        found.full_pieces += usize::from(!answer.is_complete || lines.len() == MOST_LINES);
        for line in lines {
            self.add(line, text, found);
        }
        Ok(())
    }

    /// Lines of a kind and a few words of the text, in their order there.
    fn grammar(&self, line: &str) -> String {
        let kinds: Vec<String> = self
            .kinds
            .iter()
            .map(|kind| Json::from(format!("{kind}: ")).to_string())
            .collect();
        format!(
            "start: line{{0,{MOST_LINES}}}\nline: KIND WORDS \"\\n\"\nKIND: {}\nWORDS: {}\n",
            kinds.join(" | "),
            words(line)
        )
    }

    fn add(&self, line: &str, text: &str, found: &mut Found) {
        let Some((kind, words)) = self.kinds.iter().find_map(|kind| {
            let words = line.strip_prefix(kind.as_str())?.strip_prefix(": ")?;
            Some((kind, words.trim()))
        }) else {
            return;
        };
        let is_known = |span: &TextSpan| span.kind == *kind && span.text == words;
        if words.is_empty() || found.spans.iter().any(is_known) {
            return;
        }
        let places = places(text, words);
        if !places.is_empty() {
            found.spans.push(TextSpan {
                kind: kind.clone(),
                text: words.to_owned(),
                places,
            });
        }
    }
}

/// Up to so many words of a line, as they stand there.
fn words(line: &str) -> String {
    let line = Json::from(line);
    let further = MOST_WORDS - 1;
    format!(
        "SUBSTRING & /[^ ]+( +[^ ]+){{0,{further}}}/\nSUBSTRING: %regex {{\"substring_words\": {line}}}"
    )
}

/// All places where words stand in a text, not as a part of longer words; white space of any kind counts as equal.
pub(super) fn places(text: &str, words: &str) -> Vec<Range<usize>> {
    let mut places: Vec<Range<usize>> = Vec::new();
    let Some(first) = words.chars().next() else {
        return places;
    };
    for (start, c) in text.char_indices() {
        let is_free = places.last().is_none_or(|last| last.end <= start);
        if plain(c) != plain(first) || !is_free {
            continue;
        }
        if let Some(length) = begins_with(&text[start..], words)
            && is_border(text, start)
            && is_border(text, start + length)
        {
            places.push(start..start + length);
        }
    }
    places
}

/// The bytes of the words at the text's beginning.
fn begins_with(text: &str, words: &str) -> Option<usize> {
    let mut rest = text.chars();
    let same = words
        .chars()
        .all(|word| rest.next().is_some_and(|c| plain(c) == plain(word)));
    same.then(|| text.len() - rest.as_str().len())
}

fn plain(c: char) -> char {
    if c.is_control() || c.is_whitespace() {
        ' '
    } else {
        c
    }
}

/// Whether no word goes on at this place.
fn is_border(text: &str, at: usize) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    !(is_word(text[..at].chars().next_back()) && is_word(text[at..].chars().next()))
}

/// Checks the kinds that can be found.
///
/// # Errors
/// [`TaskError::Label`] for a kind that is empty, has a line end or a colon, or is there twice; [`TaskError::Setting`] where there is
/// none.
pub(super) fn check_kinds(kinds: &[String]) -> Result<(), TaskError> {
    if kinds.is_empty() {
        return Err(TaskError::Setting {
            setting: "the number of kinds",
            found: "0".to_owned(),
            allowed: "1 or more".to_owned(),
        });
    }
    for (index, kind) in kinds.iter().enumerate() {
        let reason = match kind.as_str() {
            _ if kind.trim() != kind || kind.is_empty() || kind.contains(['\n', ':']) => {
                "must be a word or more in one line, without colons and without spaces around it"
            }
            _ if kinds[..index].contains(kind) => "is there twice: leave out one of them",
            _ => continue,
        };
        return Err(TaskError::Label {
            label: kind.clone(),
            reason: reason.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_whole_words_whatever_the_white_space() {
        let text = "Anna met Ann\nLee. Ann Lee, Annabel and Ann  Lee";
        let found: Vec<&str> = places(text, "Ann Lee")
            .into_iter()
            .map(|place| &text[place])
            .collect();
        assert_eq!(found, ["Ann\nLee", "Ann Lee"]);
        assert_eq!(places(text, "Ann"), [9..12, 18..21, 39..42]);
        let found = places("é\u{85}è", "é è");
        assert!(matches!(&found[..], [place] if *place == (0.."é\u{85}è".len())));
        assert!(places(text, "").is_empty());
    }

    #[test]
    fn kinds_that_lines_cannot_begin_with_are_refused() {
        let kinds = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        assert!(check_kinds(&kinds(&["person", "place"])).is_ok());
        for names in [&["a", "a"][..], &["a:b"], &[" a"], &["a\nb"], &[""]] {
            assert!(matches!(
                check_kinds(&kinds(names)),
                Err(TaskError::Label { .. })
            ));
        }
        assert!(matches!(check_kinds(&[]), Err(TaskError::Setting { .. })));
    }
}
