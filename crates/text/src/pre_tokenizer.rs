//! How byte-level tokenizers cut text into words before they merge: a table from the names in
//! `tokenizer.ggml.pre` to the regular expressions of the models' `tokenizer.json`.

use regex::Regex;

use crate::TextError;

/// The rules of one family of byte-level tokenizers.
pub(crate) struct Family {
    /// The names under which files know it; the first is the usual one.
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces of the one before: a match is a piece, and
    /// so is what stands between two matches.
    splits: &'static [Split],
    /// Whether text is composed first (Unicode NFC).
    pub(crate) nfc: bool,
    /// Whether a word that is a token is that token, whatever merging would lead to.
    pub(crate) ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    pub(crate) add_bos: bool,
    /// Whether the family's detokenizer removes spaces before punctuation.
    pub(crate) clean_up_spaces: bool,
}

/// One cut: a regular expression without look-ahead, so that it runs in linear time.
struct Split {
    pattern: &'static str,
    /// How the original's `\s+(?!\S)|\s+` at the end is done here.
    last_space: LastSpace,
}

/// White space before a word belongs to the word in its last character: of a run matched by `\s+`
/// (the last alternative) all but one character are a piece, unless the text ends there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastSpace {
    /// The expression has no such alternative.
    Stays,
    /// It has, and it is the only one that matches white space alone.
    GoesOn,
    /// It has, but what ends in a line break was matched by `\s*[\r\n]+`.
    GoesOnInLine,
}

const GPT2: Split = Split {
    pattern: r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+",
    last_space: LastSpace::GoesOn,
};
const QWEN2: Split = Split {
    pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    last_space: LastSpace::GoesOnInLine,
};
const LLAMA3: Split = Split {
    pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
    last_space: LastSpace::GoesOnInLine,
};
const GPT4O: Split = Split {
    pattern: r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    last_space: LastSpace::GoesOnInLine,
};
const TEKKEN: Split = Split {
    pattern: r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
    last_space: LastSpace::GoesOnInLine,
};

const fn plain(pattern: &'static str) -> Split {
    Split {
        pattern,
        last_space: LastSpace::Stays,
    }
}

const PLAIN: Family = Family {
    names: &[],
    splits: &[],
    nfc: false,
    ignore_merges: false,
    add_bos: false,
    clean_up_spaces: false,
};

const FAMILIES: [Family; 7] = [
    Family {
        names: &["smollm"],
        splits: &[plain(r"\p{N}"), GPT2],
        ..PLAIN
    },
    Family {
        names: &["qwen2"],
        splits: &[QWEN2],
        nfc: true,
        ..PLAIN
    },
    Family {
        names: &["llama-bpe", "llama3", "llama-v3"],
        splits: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        clean_up_spaces: true,
        ..PLAIN
    },
    Family {
        names: &["gpt-4o"],
        splits: &[GPT4O],
        ..PLAIN
    },
    Family {
        names: &["tekken"],
        splits: &[TEKKEN],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Family {
        names: &["gpt-2"],
        splits: &[GPT2],
        clean_up_spaces: true,
        ..PLAIN
    },
    // What converters wrote for tokenizers without a name of their own, split as llama.cpp splits
    // them: there is no other definition.
    Family {
        names: &["default"],
        splits: &[
            plain(r"[\p{P}\$\+<=>\^~\|]+"),
            GPT2,
            plain(r"\p{N}+"),
            plain(r"[0-9][0-9][0-9]"),
        ],
        clean_up_spaces: true,
        ..PLAIN
    },
];

/// The names that [`find`] knows, for error messages.
pub(crate) fn supported() -> String {
    let names = FAMILIES.iter().flat_map(|family| family.names);
    names
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

pub(crate) fn find(name: &str) -> Result<&'static Family, TextError> {
    FAMILIES
        .iter()
        .find(|family| family.names.contains(&name))
        .ok_or_else(|| TextError::UnsupportedPreTokenizer {
            name: name.to_owned(),
        })
}

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
        for family in &FAMILIES {
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
            for family in &FAMILIES {
                let words = split(family.names[0], &text);
                assert_eq!(words.iter().map(String::len).sum::<usize>(), text.len());
            }
        }
    }

    #[test]
    fn an_unknown_name_is_named_in_the_error() {
        let error = find("falcon").err().unwrap().to_string();
        assert!(
            error.contains("`falcon`") && error.contains("`llama-bpe`"),
            "{error}"
        );
    }
}
