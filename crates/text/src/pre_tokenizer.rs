//! How byte-level tokenizers cut text into words before they merge.

mod families;

use regex::Regex;

pub(crate) use families::{
    DIGIT, DIGITS, Family, GPT2, LastSpace, PUNCTUATION, Split, all, find, supported,
};

use crate::TextError;

/// Cuts text into words.
pub(crate) struct Splitter {
    splits: Vec<(Regex, LastSpace)>,
}

impl Splitter {
    pub(crate) fn new(family: &Family) -> Result<Self, TextError> {
        let compile = |split: &Split| match Regex::new(split.pattern) {
            Ok(regex) => Ok((regex, split.last_space)),
            Err(error) => Err(TextError::Split {
                reason: error.to_string(),
            }),
        };
        let splits = family
            .splits
            .iter()
            .map(compile)
            .collect::<Result<_, _>>()?;
        Ok(Self { splits })
    }

    /// The words of `text` in order; together they are `text`.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut pieces = vec![text];
        for (regex, last_space) in &self.splits {
            let mut finer = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                cut(regex, *last_space, piece, &mut finer);
            }
            pieces = finer;
        }
        pieces
    }
}

fn cut<'t>(regex: &Regex, last_space: LastSpace, text: &'t str, pieces: &mut Vec<&'t str>) {
    let mut done = 0;
    while let Some(found) = regex.find_at(text, done) {
        // No expression of the table matches nothing; if one did, this would not come to an end.
        if found.is_empty() {
            break;
        }
        push(pieces, &text[done..found.start()]);
        let mut word = found.as_str();
        if found.end() < text.len() && is_run_of_spaces(last_space, word) {
            let last = word.chars().next_back().map_or(0, char::len_utf8);
            if last < word.len() {
                word = &word[..word.len() - last];
            }
        }
        pieces.push(word);
        done = found.start() + word.len();
    }
    push(pieces, &text[done..]);
}

/// Whether the match is one of the last alternative, `\s+`.
fn is_run_of_spaces(last_space: LastSpace, word: &str) -> bool {
    match last_space {
        LastSpace::Stays => false,
        LastSpace::GoesOnInLine if word.ends_with(['\r', '\n']) => false,
        LastSpace::GoesOn | LastSpace::GoesOnInLine => word.chars().all(char::is_whitespace),
    }
}

fn push<'t>(pieces: &mut Vec<&'t str>, piece: &'t str) {
    if !piece.is_empty() {
        pieces.push(piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str, text: &str) -> Vec<String> {
        let splitter = Splitter::new(find(name).unwrap()).unwrap();
        splitter
            .split(text)
            .into_iter()
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_family_compiles_and_loses_nothing() {
        let text = "It's 1234 o'clock\u{a0}— ÄÖ\r\n\n\tif x:\n    y  ١٢٣ 日本 \u{1F680}'LL ok  ";
        for family in all() {
            for name in family.names {
                assert_eq!(split(name, text).concat(), text, "{name}");
                assert!(supported().contains(name));
            }
        }
    }

    #[test]
    fn families_differ_in_digits_and_contractions() {
        assert_eq!(split("gpt-2", "a 1234"), ["a", " 1234"]);
        assert_eq!(split("smollm", "a 1234"), ["a", " ", "1", "2", "3", "4"]);
        assert_eq!(split("qwen2", "a12'S b"), ["a", "1", "2", "'S", " b"]);
        assert_eq!(split("llama-bpe", "a 1234"), ["a", " ", "123", "4"]);
        assert_eq!(split("gpt-4o", "fooBar it's"), ["foo", "Bar", " it's"]);
        assert_eq!(
            split("tekken", "fooBar it's 12"),
            ["foo", "Bar", " it", "'s", " ", "1", "2"]
        );
        assert_eq!(split("default", "a, 1234"), ["a", ",", " ", "123", "4"]);
    }

    // Expected: Python's `regex` module with the original expressions.
    #[test]
    fn the_last_space_of_a_run_goes_to_the_next_word() {
        assert_eq!(split("gpt-2", "a   b  "), ["a", "  ", " b", "  "]);
        assert_eq!(split("gpt-2", "a \n\n b\n"), ["a", " \n\n", " b", "\n"]);
        assert_eq!(split("gpt-2", "\t\tx"), ["\t", "\t", "x"]);
        assert_eq!(split("qwen2", "\t\tx"), ["\t", "\tx"]);
        assert_eq!(split("qwen2", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(
            split("qwen2", "a\n   \u{3000}1"),
            ["a", "\n", "   ", "\u{3000}", "1"]
        );
        assert_eq!(split("llama-bpe", "  \n"), ["  \n"]);
    }

    #[test]
    fn long_runs_take_linear_time() {
        for run in [" ", "A", "a", "日", "\n", "1", "!", "\u{301}"] {
            let text = run.repeat(200_000 / run.len());
            for family in all() {
                let words = split(family.names[0], &text);
                assert_eq!(words.iter().map(String::len).sum::<usize>(), text.len());
            }
        }
    }

    #[test]
    fn an_unknown_name_is_named_in_the_error() {
        let error = find("martian").err().unwrap().to_string();
        assert!(
            error.contains("`martian`") && error.contains("`llama-bpe`"),
            "{error}"
        );
    }
}
