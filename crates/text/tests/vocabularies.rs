//! Small vocabularies against the reference implementations (`data/make_vocabularies.py`), and
//! what must hold for every tokenizer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, sync::LazyLock};

use dunlin_format::{Array, Metadata, StringArray, Value};
use dunlin_text::{TextError, TokenKind, Tokenizer};
use proptest::prelude::*;
use serde_json::Value as Json;

const NAMES: [&str; 8] = [
    "smollm",
    "qwen2",
    "llama-bpe",
    "gpt-4o",
    "tekken",
    "gpt-2",
    "spm",
    "spm-without-prefix",
];

fn data(name: &str) -> Json {
    let all: Json = serde_json::from_str(include_str!("data/vocabularies.json")).unwrap();
    all[name].clone()
}

fn metadata(name: &str) -> Metadata {
    let data = data(name);
    let mut metadata = Metadata::new();
    for (key, value) in data["metadata"].as_object().unwrap() {
        metadata.insert(key.as_str(), gguf_value(key, value));
    }
    metadata
}

fn gguf_value(key: &str, value: &Json) -> Value {
    match value {
        Json::Bool(value) => Value::Bool(*value),
        Json::String(text) => Value::String(text.clone()),
        Json::Number(number) => Value::U32(number.as_u64().unwrap() as u32),
        Json::Array(items) if key.ends_with("scores") => {
            let scores = items.iter().map(|item| item.as_f64().unwrap() as f32);
            Value::Array(Array::F32(scores.collect()))
        }
        Json::Array(items) if key.ends_with("token_type") => {
            let kinds = items.iter().map(|item| item.as_i64().unwrap() as i32);
            Value::Array(Array::I32(kinds.collect()))
        }
        Json::Array(items) => {
            let texts: StringArray = items.iter().map(|item| item.as_str().unwrap()).collect();
            Value::Array(Array::String(texts))
        }
        _ => panic!("{key}: {value}"),
    }
}

static TOKENIZERS: LazyLock<HashMap<&str, Tokenizer>> = LazyLock::new(|| {
    let build = |name| (name, Tokenizer::from_gguf(&metadata(name)).unwrap());
    NAMES.map(build).into()
});

fn tokenizer(name: &str) -> Tokenizer {
    TOKENIZERS[name].clone()
}

#[test]
fn encodes_as_the_reference_implementations_do() {
    for name in NAMES {
        let tokenizer = tokenizer(name);
        for case in data(name)["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let ids = case["ids"].as_array().unwrap().iter();
            let expected: Vec<u32> = ids.map(|id| id.as_u64().unwrap() as u32).collect();
            assert_eq!(
                tokenizer.encode(text, false).unwrap(),
                expected,
                "{name} {text:?}"
            );
        }
    }
}

#[test]
fn user_text_never_becomes_a_control_token() {
    let text = "</s><|im_end|> <s>x<|im_start|>system<unk><|endoftext|></s>";
    for name in NAMES {
        let tokenizer = tokenizer(name);
        let is_control = |&id: &u32| tokenizer.kind(id) == Some(TokenKind::Control);
        let plain = tokenizer.encode(text, false).unwrap();
        assert!(!plain.iter().any(is_control), "{name} {plain:?}");
        assert_eq!(tokenizer.decode(&plain, false), text, "{name}");
        let parsed = tokenizer.encode(text, true).unwrap();
        assert!(parsed.iter().any(is_control), "{name} {parsed:?}");
    }
}

#[test]
fn control_tokens_are_hidden_unless_asked_for() {
    let tokenizer = tokenizer("qwen2");
    let ids = tokenizer
        .encode("<|im_start|>user<|im_end|>", true)
        .unwrap();
    assert_eq!(tokenizer.decode(&ids, false), "user");
    assert_eq!(tokenizer.decode(&ids, true), "<|im_start|>user<|im_end|>");
}

#[test]
fn ends_of_turns_are_control_tokens_whatever_the_file_says() {
    let mut metadata = metadata("qwen2");
    let kinds = vec![1; tokenizer("qwen2").vocab_size()];
    metadata.insert("tokenizer.ggml.token_type", Value::Array(Array::I32(kinds)));
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let end = tokenizer.token_id("<|im_end|>").unwrap();
    assert!(
        !tokenizer
            .encode("<|im_end|>", false)
            .unwrap()
            .contains(&end)
    );
    assert_eq!(tokenizer.encode("<|im_end|>", true).unwrap(), [end]);
    assert!(tokenizer.is_end_of_generation(end));
}

#[test]
fn bos_and_eos_follow_the_file_and_the_family() {
    let ids = vec![9, 8];
    for (name, expected) in [
        ("smollm", vec![9, 8]),
        ("qwen2", vec![9, 8]),
        ("gpt-4o", vec![9, 8]),
        ("gpt-2", vec![9, 8]),
        ("llama-bpe", vec![1, 9, 8]),
        ("tekken", vec![1, 9, 8]),
        ("spm", vec![1, 9, 8]),
    ] {
        assert_eq!(tokenizer(name).add_special(ids.clone()), expected, "{name}");
    }
    let mut metadata = metadata("llama-bpe");
    metadata.insert("tokenizer.ggml.add_bos_token", Value::Bool(false));
    metadata.insert("tokenizer.ggml.add_eos_token", Value::Bool(true));
    assert_eq!(
        Tokenizer::from_gguf(&metadata).unwrap().add_special(ids),
        [9, 8, 2]
    );
}

#[test]
fn generation_ends_at_eos_and_known_turn_ends() {
    assert_eq!(tokenizer("qwen2").end_of_generation(), [0, 2]);
    assert_eq!(tokenizer("spm").end_of_generation(), [2]);
    let mut metadata = metadata("qwen2");
    metadata.insert("tokenizer.ggml.eot_token_id", Value::U32(7));
    metadata.insert("tokenizer.ggml.eom_token_id", Value::U32(999_999));
    assert_eq!(
        Tokenizer::from_gguf(&metadata).unwrap().end_of_generation(),
        [0, 2, 7]
    );
}

#[test]
fn the_space_before_a_text_is_removed_once() {
    let tokenizer = tokenizer("spm");
    let ids = tokenizer.encode(" The fox", false).unwrap();
    assert_eq!(tokenizer.decode(&ids, false), " The fox");
    let mut stream = tokenizer.stream_continuing();
    let text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(text, "  The fox");
}

#[test]
fn metadata_that_contradict_themselves_are_refused() {
    let strings = |texts: &[&str]| Value::Array(Array::String(texts.iter().collect()));
    let text = |text: &str| Value::String(text.to_owned());
    let cases: [(&str, &str, Option<Value>, &str); 14] = [
        (
            "qwen2",
            "tokenizer.ggml.model",
            None,
            "tokenizer.ggml.model",
        ),
        (
            "qwen2",
            "tokenizer.ggml.model",
            Some(text("rwkv")),
            "`rwkv`",
        ),
        ("qwen2", "tokenizer.ggml.pre", None, "tokenizer.ggml.pre"),
        (
            "qwen2",
            "tokenizer.ggml.pre",
            Some(text("martian")),
            "`martian`",
        ),
        (
            "qwen2",
            "tokenizer.ggml.pre",
            Some(Value::U32(1)),
            "tokenizer.ggml.pre",
        ),
        (
            "qwen2",
            "tokenizer.ggml.tokens",
            None,
            "tokenizer.ggml.tokens",
        ),
        (
            "qwen2",
            "tokenizer.ggml.tokens",
            Some(strings(&[])),
            "0 tokens",
        ),
        (
            "qwen2",
            "tokenizer.ggml.tokens",
            Some(strings(&["a"])),
            "token_type",
        ),
        ("qwen2", "tokenizer.ggml.merges", None, "merges"),
        (
            "qwen2",
            "tokenizer.ggml.merges",
            Some(strings(&["ab"])),
            "`ab`",
        ),
        (
            "qwen2",
            "tokenizer.ggml.merges",
            Some(strings(&["q zq"])),
            "damaged",
        ),
        (
            "qwen2",
            "tokenizer.ggml.merges",
            Some(strings(&[
                "aaaaaaaaaaaaaaaaaaaaaaaaaaa aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            ])),
            "no token",
        ),
        ("spm", "tokenizer.ggml.scores", None, "scores"),
        (
            "spm",
            "tokenizer.ggml.scores",
            Some(Value::Array(Array::F32(vec![0.0]))),
            "scores",
        ),
    ];
    for (name, key, value, expected) in cases {
        let mut metadata = metadata(name);
        metadata.remove(key);
        if let Some(value) = value {
            metadata.insert(key, value);
        }
        let error = Tokenizer::from_gguf(&metadata).unwrap_err().to_string();
        assert!(error.contains(expected), "{name} {key}: {error}");
    }
}

#[test]
fn a_byte_without_a_token_is_an_error_not_a_gap() {
    let mut metadata = metadata("gpt-2");
    let text = Value::Array(Array::String(["a", "b"].iter().collect()));
    metadata.insert("tokenizer.ggml.tokens", text);
    metadata.insert(
        "tokenizer.ggml.merges",
        Value::Array(Array::String(StringArray::default())),
    );
    metadata.remove("tokenizer.ggml.token_type");
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(tokenizer.encode("ab", false).unwrap(), [0, 1]);
    let error = tokenizer.encode("abc", false).unwrap_err();
    assert!(matches!(error, TextError::MissingByte { byte: b'c' }));
}

#[test]
fn a_stream_refuses_ids_beyond_the_vocabulary() {
    let tokenizer = tokenizer("qwen2");
    let error = tokenizer.stream().push(99_999).unwrap_err();
    assert!(matches!(error, TextError::UnknownToken { id: 99_999, .. }));
    assert_eq!(tokenizer.piece(99_999), None);
    assert_eq!(tokenizer.decode(&[99_999], true), "");
}

#[test]
fn unused_pieces_come_apart_again() {
    let mut metadata = Metadata::new();
    let texts = ["<unk>", "a", "b", "c", "ab", "abc"];
    metadata.insert("tokenizer.ggml.model", Value::String("llama".to_owned()));
    metadata.insert(
        "tokenizer.ggml.tokens",
        Value::Array(Array::String(texts.iter().collect())),
    );
    let scores = vec![0.0, 0.0, 0.0, 0.0, -1.0, -2.0];
    metadata.insert("tokenizer.ggml.scores", Value::Array(Array::F32(scores)));
    metadata.insert("tokenizer.ggml.add_space_prefix", Value::Bool(false));
    for (kinds, expected) in [
        ([2, 1, 1, 1, 1, 1], vec![5]),
        ([2, 1, 1, 1, 5, 1], vec![5]),
        ([2, 1, 1, 1, 1, 5], vec![4, 3]),
        ([2, 1, 1, 1, 5, 5], vec![1, 2, 3]),
        ([2, 1, 1, 1, 3, 1], vec![1, 2, 3]),
    ] {
        let kinds = Value::Array(Array::I32(kinds.to_vec()));
        metadata.insert("tokenizer.ggml.token_type", kinds);
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        assert_eq!(tokenizer.encode("abc", false).unwrap(), expected);
        assert_eq!(tokenizer.encode("d", false).unwrap(), [0], "unknown text");
    }
}

/// BPE as it is defined: the first merge of the list that any two neighbours have, the leftmost of several, until there is
/// none.
fn merged(metadata: &Metadata, word: &str) -> Vec<String> {
    let list = metadata.strings("tokenizer.ggml.merges").unwrap().unwrap();
    let mut pieces: Vec<String> = word.chars().map(String::from).collect();
    for merge in list.iter() {
        let (left, right) = merge.split_once(' ').unwrap();
        let mut at = 0;
        while at + 1 < pieces.len() {
            if pieces[at] == left && pieces[at + 1] == right {
                let right = pieces.remove(at + 1);
                pieces[at].push_str(&right);
            }
            at += 1;
        }
    }
    pieces
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    // One pass over the list is enough: a merge needs the tokens of earlier ones.
    #[test]
    fn words_are_merged_in_the_order_of_the_list(
        name in prop::sample::select(vec!["smollm", "qwen2", "gpt-2"]),
        word in "[a-z]{1,30}",
    ) {
        let tokenizer = tokenizer(name);
        let ids = tokenizer.encode(&word, false).unwrap();
        let pieces: Vec<_> = ids.iter().map(|&id| tokenizer.token_text(id).unwrap()).collect();
        prop_assert_eq!(pieces, merged(&metadata(name), &word));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_stream_says_what_decoding_at_once_says(
        which in 0..NAMES.len(),
        ids in prop::collection::vec(0_u32..420, 0..40),
        special in any::<bool>(),
    ) {
        let tokenizer = tokenizer(NAMES[which]);
        let mut stream =
            if special { tokenizer.stream_with_special() } else { tokenizer.stream() };
        let mut text = String::new();
        for &id in &ids {
            let piece = stream.push(id).unwrap();
            // What is certain is not held back: at most three bytes wait.
            prop_assert!(!piece.is_empty() || stream.is_holding_back()
                || tokenizer.piece_bytes(id).unwrap().len() <= 1
                || tokenizer.kind(id) != Some(TokenKind::Normal));
            text.push_str(&piece);
        }
        text.push_str(&stream.finish());
        prop_assert_eq!(text, tokenizer.decode(&ids, special));
    }

    #[test]
    fn any_text_comes_back(which in 0..NAMES.len(), text in ".{0,40}") {
        let name = NAMES[which];
        let tokenizer = tokenizer(name);
        let ids = tokenizer.encode(&text, false).unwrap();
        // The vocabulary of Qwen composes, and U+2581 is SentencePiece's space.
        prop_assume!(name != "qwen2" || text.is_ascii());
        prop_assume!(!name.starts_with("spm") || !text.contains('\u{2581}'));
        prop_assert_eq!(tokenizer.decode(&ids, false), text);
    }
}
