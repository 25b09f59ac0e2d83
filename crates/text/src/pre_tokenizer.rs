//! How byte-level tokenizers cut text into words before they merge: a table from the names in
//! `tokenizer.ggml.pre` to the regular expressions of the models' `tokenizer.json`.

use fancy_regex::{Regex, RegexBuilder};

use crate::TextError;

/// The rules of one family of byte-level tokenizers.
pub(crate) struct Family {
    /// The names under which files know it; the first is the usual one.
    names: &'static [&'static str],
    /// Applied one after the other, each to the pieces of the one before: a match is a piece, and
    /// so is what stands between two matches.
    splits: &'static [&'static str],
    /// Whether text is composed first (Unicode NFC).
    pub(crate) nfc: bool,
    /// Whether a word that is a token is that token, whatever merging would lead to.
    pub(crate) ignore_merges: bool,
    /// Whether BOS is added where the file does not say.
    pub(crate) add_bos: bool,
    /// Whether the family's detokenizer removes spaces before punctuation.
    pub(crate) clean_up_spaces: bool,
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

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
        splits: &[r"\p{N}", GPT2],
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
        splits: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
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
    splits: Vec<Regex>,
}

impl Splitter {
    pub(crate) fn new(family: &Family) -> Result<Self, TextError> {
        let compile = |pattern: &&str| {
            // The patterns never go back over more than one run of characters, so the work is in
            // proportion to the text; the limit only stops what nobody has thought of.
            RegexBuilder::new(pattern)
                .backtrack_limit(1 << 32)
                .build()
                .map_err(split_error)
        };
        let splits = family
            .splits
            .iter()
            .map(compile)
            .collect::<Result<_, _>>()?;
        Ok(Self { splits })
    }

    /// The words of `text` in order; together they are `text`.
    pub(crate) fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>, TextError> {
        let mut pieces = vec![text];
        for regex in &self.splits {
            let mut finer = Vec::with_capacity(pieces.len() * 2);
            for piece in pieces {
                let mut end = 0;
                for found in regex.find_iter(piece) {
                    let found = found.map_err(split_error)?;
                    push(&mut finer, &piece[end..found.start()]);
                    push(&mut finer, found.as_str());
                    end = found.end();
                }
                push(&mut finer, &piece[end..]);
            }
            pieces = finer;
        }
        Ok(pieces)
    }
}

fn push<'t>(pieces: &mut Vec<&'t str>, piece: &'t str) {
    if !piece.is_empty() {
        pieces.push(piece);
    }
}

fn split_error(error: impl ToString) -> TextError {
    TextError::Split {
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(name: &str, text: &str) -> Vec<String> {
        let splitter = Splitter::new(find(name).unwrap()).unwrap();
        splitter
            .split(text)
            .unwrap()
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

    #[test]
    fn long_runs_take_linear_time() {
        for run in [" ", "A", "a", "日", "\n", "1", "!", "\u{301}"] {
            let text = run.repeat(2_000_000 / run.len());
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
