//! The name of the way in which a `tokenizer.json` splits text.
//!
//! llama.cpp's converter encodes a sample text and looks its ids up in a list of known vocabularies.
//! Here the rules themselves are compared with those of the known families, so that a new vocabulary
//! with known rules is recognized, and one with other rules is not taken for a known one.

use serde_json::Value as Json;

use super::tokenizer_json::TokenizerJson;
use crate::{
    TextError,
    pre_tokenizer::{self, DIGIT, DIGITS, Family, GPT2, PUNCTUATION, Split},
};

/// The names that families of models use; elsewhere the first name of the rules is taken.
const OF_ARCHITECTURE: &[(&str, &[&str])] = &[
    ("granite", &["refact"]),
    ("olmo2", &["dbrx"]),
    ("olmo", &["olmo", "dbrx"]),
    ("dbrx", &["dbrx"]),
    ("lfm2", &["lfm2"]),
    ("modern-bert", &["modern-bert"]),
    ("smollm3", &["llama-bpe"]),
    ("starcoder2", &["starcoder"]),
    ("starcoder", &["starcoder"]),
    ("refact", &["refact"]),
    ("codeshell", &["codeshell"]),
    ("exaone", &["exaone"]),
    ("exaone4", &["exaone4"]),
    ("mpt", &["mpt"]),
    ("phi2", &["phi-2"]),
    ("falcon", &["falcon"]),
    ("falcon-h1", &["falcon-h1"]),
    ("stablelm", &["stablelm2"]),
    ("command-r", &["command-r"]),
    ("cohere2", &["command-r"]),
    ("chatglm", &["chatglm-bpe", "glm4"]),
    ("glm4", &["glm4"]),
    ("jina-bert-v2", &["jina-v2-es"]),
    ("bert", &["roberta-bpe"]),
    ("hunyuan-dense", &["hunyuan-dense"]),
    ("hunyuan-moe", &["hunyuan"]),
    ("bailingmoe", &["bailingmoe"]),
    ("bailingmoe2", &["bailingmoe2"]),
    ("llama4", &["llama4"]),
    ("minimax-m2", &["minimax-m2"]),
    ("grok", &["grok-2"]),
    ("bloom", &["bloom"]),
    ("jais", &["jais"]),
];

/// The `tokenizer.ggml.pre` of a byte-level tokenizer.
pub(super) fn name(json: &TokenizerJson, architecture: &str) -> Result<&'static str, TextError> {
    let unknown = || TextError::UnknownSplit {
        found: describe(json),
    };
    let splits = splits(&json.pre_tokenizer).ok_or_else(unknown)?;
    let nfc = composes(&json.normalizer).ok_or_else(unknown)?;
    let ignore_merges = json.model.ignore_merges == Some(true);
    let same_splits = |family: &Family| {
        let known = family.splits.iter();
        known
            .map(|split| escaped(split.pattern))
            .eq(splits.iter().map(|split| escaped(split)))
    };
    let fits = |family: &&Family| {
        family.nfc == nfc && family.ignore_merges == ignore_merges && same_splits(family)
    };
    let fitting = || pre_tokenizer::all().iter().filter(fits);
    let hints = OF_ARCHITECTURE
        .iter()
        .find(|(name, _)| *name == architecture);
    let hints = hints.map_or(&[][..], |(_, names)| names);
    let hinted = hints
        .iter()
        .find(|name| fitting().any(|family| family.names.contains(name)));
    let name = hinted.or_else(|| fitting().next()?.names.first());
    name.copied().ok_or_else(unknown)
}

/// The expressions by which text is cut, written as in the table of families. `None` for rules that
/// no family has.
fn splits(pre_tokenizer: &Json) -> Option<Vec<String>> {
    let flag = |name: &str| pre_tokenizer.get(name).and_then(Json::as_bool);
    let of = |split: Split| Some(vec![split.pattern.to_owned()]);
    match pre_tokenizer.get("type")?.as_str()? {
        "Sequence" => {
            let steps = pre_tokenizer.get("pretokenizers")?.as_array()?;
            let steps: Option<Vec<_>> = steps.iter().map(splits).collect();
            Some(steps?.concat())
        }
        // A space in front of every text is not what GGUF's byte-level tokenizers do.
        "ByteLevel" if flag("add_prefix_space") == Some(true) => None,
        "ByteLevel" if flag("use_regex") == Some(false) => Some(Vec::new()),
        "ByteLevel" => of(GPT2),
        "Digits" if flag("individual_digits") == Some(true) => of(DIGIT),
        "Digits" => of(DIGITS),
        "Punctuation" => match pre_tokenizer.get("behavior").and_then(Json::as_str) {
            Some("Contiguous") => of(PUNCTUATION),
            _ => None,
        },
        "Split" => {
            let behavior = pre_tokenizer.get("behavior")?.as_str()?;
            let keeps_matches = match behavior {
                "Isolated" => true,
                // What the expression does not match is dropped, and these match everything.
                "Removed" => flag("invert") == Some(true),
                _ => false,
            };
            let pattern = pre_tokenizer.get("pattern")?.get("Regex")?.as_str()?;
            keeps_matches.then(|| vec![canonical(pattern)])
        }
        _ => None,
    }
}

/// The expression as the table of families writes it: without the look-ahead for the last space of
/// a run, which is done by hand, and with one of several spellings of the same.
fn canonical(pattern: &str) -> String {
    const SAME: [(&str, &str); 7] = [
        (r"\s+(?!\S)|\s+", r"\s+"),
        (
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])",
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        ),
        (
            r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])",
            r"'(?i:[sdmt]|ll|ve|re)",
        ),
        // Possessive: the alternatives that follow cannot match what it gives back.
        ("?+", "?"),
        ("++", "+"),
        ("\r", r"\r"),
        ("\n", r"\n"),
    ];
    let mut pattern = pattern.to_owned();
    for (from, to) in SAME {
        if pattern.contains(from) {
            pattern = pattern.replace(from, to);
        }
    }
    pattern
}

/// The expression with every character beyond ASCII as its number: files write them both ways.
fn escaped(pattern: &str) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c.is_ascii() {
            true => escaped.push(c),
            false => escaped.push_str(&format!("\\u{{{:X}}}", u32::from(c))),
        }
    }
    escaped
}

/// Whether text is composed (NFC) before it is cut. `None` where something else is done to it.
fn composes(normalizer: &Json) -> Option<bool> {
    match normalizer.get("type").and_then(Json::as_str) {
        None => Some(false),
        Some("NFC") => Some(true),
        Some("Sequence") => {
            let steps = normalizer.get("normalizers")?.as_array()?;
            let steps: Option<Vec<bool>> = steps.iter().map(composes).collect();
            Some(steps?.contains(&true))
        }
        Some(_) => None,
    }
}

/// The rules as an error message shows them.
fn describe(json: &TokenizerJson) -> String {
    const LIMIT: usize = 600;
    let mut text = format!(
        "normalizer {}, pre_tokenizer {}, ignore_merges {}",
        json.normalizer,
        json.pre_tokenizer,
        json.model.ignore_merges == Some(true)
    );
    if let Some((at, _)) = text.char_indices().nth(LIMIT) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pre_tokenizer::{Splitter, find};

    // Expected: Hugging Face's tokenizers (`tests/data/make_folders.py`).
    #[test]
    fn known_rules_get_a_name_that_cuts_as_they_do() {
        let families: Json =
            serde_json::from_str(include_str!("../../tests/data/splits.json")).unwrap();
        for (family, data) in families.as_object().unwrap() {
            let json = data["tokenizer.json"].to_string();
            let json = TokenizerJson::parse(json.as_bytes()).unwrap();
            let name = name(&json, family).unwrap_or_else(|error| panic!("{family}: {error}"));
            let splitter = Splitter::new(find(name).unwrap()).unwrap();
            for case in data["cases"].as_array().unwrap() {
                let text = case["text"].as_str().unwrap();
                let words = splitter.split(text);
                assert_eq!(
                    Json::from(words),
                    case["words"],
                    "{family} as {name}: {text:?}"
                );
            }
        }
    }

    #[test]
    fn rules_without_a_name_are_shown_in_the_error() {
        let json = |pre_tokenizer: &str, normalizer: &str| {
            let text = format!(
                r#"{{"pre_tokenizer": {pre_tokenizer}, "normalizer": {normalizer},
                    "model": {{"type": "BPE", "vocab": {{}}, "merges": []}}}}"#
            );
            name(&TokenizerJson::parse(text.as_bytes()).unwrap(), "qwen2")
        };
        let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}"#;
        assert_eq!(json(byte_level, "null").unwrap(), "gpt-2");
        for (pre_tokenizer, normalizer) in [
            ("null", "null"),
            (r#"{"type": "Whitespace"}"#, "null"),
            (r#"{"type": "ByteLevel", "add_prefix_space": true}"#, "null"),
            (
                r#"{"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"}"#,
                "null",
            ),
            (byte_level, r#"{"type": "NFKC"}"#),
        ] {
            let error = json(pre_tokenizer, normalizer).unwrap_err().to_string();
            assert!(error.contains("`llama-bpe`"), "{error}");
            assert!(error.contains("pre_tokenizer"), "{error}");
        }
    }
}
