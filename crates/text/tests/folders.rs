//! Small Hugging Face folders of every kind against the reference implementations
//! (`data/make_folders.py`), and what must hold for files from strangers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::LazyLock;

use dunlin_format::Metadata;
use dunlin_text::{ChatTemplate, TextError, Tokenizer, TokenizerFiles, tokenizer_metadata};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

static FOLDERS: LazyLock<Json> =
    LazyLock::new(|| serde_json::from_str(include_str!("data/folders.json")).unwrap());

fn folders() -> impl Iterator<Item = (&'static str, &'static Json)> {
    let folders = FOLDERS.as_object().unwrap().iter();
    folders.map(|(name, folder)| (name.as_str(), folder))
}

fn files(folder: &Json) -> TokenizerFiles {
    let file = |name: &str| folder["files"].get(name).cloned();
    TokenizerFiles {
        tokenizer_json: file("tokenizer.json").map(|json| json.to_string().into_bytes()),
        sentencepiece: file("sentencepiece").map(|hex| bytes(hex.as_str().unwrap())),
        vocab_txt: file("vocab.txt").map(|text| text.as_str().unwrap().as_bytes().to_vec()),
        tokenizer_config: file("tokenizer_config.json"),
        config: file("config.json").unwrap(),
        ..TokenizerFiles::default()
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    digits
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

fn tokenizer(folder: &Json) -> Tokenizer {
    let architecture = folder["architecture"].as_str().unwrap();
    Tokenizer::from_files(&files(folder), architecture).unwrap()
}

fn ids(value: &Json) -> Vec<u32> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

fn check_cases(name: &str, tokenizer: &Tokenizer, folder: &Json) {
    for case in folder["cases"].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let encoded = tokenizer.encode(text, false).unwrap();
        assert_eq!(encoded, ids(&case["ids"]), "{name} {text:?}");
    }
    for pair in folder["pairs"].as_array().unwrap() {
        let text = |index: usize| pair["texts"][index].as_str().unwrap();
        let encoded = tokenizer.encode_pair(text(0), text(1)).unwrap();
        assert_eq!(
            encoded,
            (ids(&pair["ids"]), ids(&pair["types"])),
            "{name} {pair}"
        );
    }
}

#[test]
fn folders_encode_as_the_reference_implementations_do() {
    for (name, folder) in folders() {
        check_cases(name, &tokenizer(folder), folder);
    }
}

#[test]
fn vocab_txt_says_the_same_as_tokenizer_json() {
    for name in ["word-piece", "word-piece-cased"] {
        let folder = &FOLDERS[name];
        let mut files = files(folder);
        files.tokenizer_json = None;
        let tokenizer = Tokenizer::from_files(&files, "bert").unwrap();
        check_cases(name, &tokenizer, folder);
        files.tokenizer_config = Some(json!({"do_lower_case": name == "word-piece"}));
        let unnamed = Tokenizer::from_files(&files, "bert").unwrap();
        check_cases(name, &unnamed, folder);
    }
}

#[test]
fn a_generating_model_has_no_form_for_pairs() {
    for name in ["gemma4", "llama-json"] {
        let error = tokenizer(&FOLDERS[name]).encode_pair("a", "b").unwrap_err();
        assert!(matches!(error, TextError::NoPairForm), "{name}: {error}");
    }
}

#[test]
fn special_tokens_in_text_are_text_unless_asked_for() {
    for (name, token, is_in_text) in [
        ("word-piece", "[SEP]", false),
        ("xlm-roberta", "</s>", false),
        ("gemma4", "<|turn>", false),
    ] {
        let tokenizer = tokenizer(&FOLDERS[name]);
        let id = tokenizer.token_id(token).unwrap();
        let text = format!("a {token} b");
        let has = |parse| tokenizer.encode(&text, parse).unwrap().contains(&id);
        assert_eq!((has(false), has(true)), (is_in_text, true), "{name}");
    }
}

#[test]
fn the_mask_takes_the_space_before_it() {
    let tokenizer = tokenizer(&FOLDERS["unigram-json"]);
    let ids = |text| tokenizer.encode(text, true).unwrap();
    assert_eq!(ids("the <mask>"), ids("the<mask>"));
}

#[test]
fn long_runs_take_linear_time() {
    for (name, folder) in folders() {
        let tokenizer = tokenizer(folder);
        for run in [" ", "a", "\n", "!", "日", "e\u{301}", "a "] {
            let text = run.repeat(200_000 / run.len());
            let ids = tokenizer.encode(&text, false).unwrap();
            assert!(ids.len() <= text.len() + 1, "{name} {run:?}");
        }
    }
}

#[test]
fn a_folder_without_a_tokenizer_says_what_is_missing() {
    let error = tokenizer_metadata(&TokenizerFiles::default(), "llama").unwrap_err();
    assert!(matches!(error, TextError::NoTokenizer));
    assert!(error.to_string().contains("tokenizer.json"));
}

#[test]
fn damaged_files_are_named() {
    let no_json = TokenizerFiles {
        tokenizer_json: Some(b"{".to_vec()),
        ..TokenizerFiles::default()
    };
    let no_model = TokenizerFiles {
        sentencepiece: Some(vec![0xFF; 9]),
        ..TokenizerFiles::default()
    };
    let no_text = TokenizerFiles {
        vocab_txt: Some(vec![0xFF; 9]),
        ..TokenizerFiles::default()
    };
    for (files, name) in [
        (no_json, "tokenizer.json"),
        (no_model, "tokenizer.model"),
        (no_text, "vocab.txt"),
    ] {
        let error = tokenizer_metadata(&files, "llama").unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn what_gguf_cannot_say_is_refused() {
    let mut folder = FOLDERS["word-piece"].clone();
    folder["files"]["tokenizer.json"]["normalizer"]["handle_chinese_chars"] = json!(false);
    let mut other_split = FOLDERS["word-piece"].clone();
    other_split["files"]["tokenizer.json"]["pre_tokenizer"]["type"] = json!("Whitespace");
    let mut huge = FOLDERS["word-piece"].clone();
    huge["files"]["config.json"]["vocab_size"] = json!(1_u64 << 40);
    for folder in [folder, other_split, huge] {
        let result = tokenizer_metadata(&files(&folder), "bert");
        assert!(result.is_err());
    }
}

fn with_templates(configured: Json, separate: Option<&str>) -> Metadata {
    let mut files = files(&FOLDERS["llama-json"]);
    files.tokenizer_config.as_mut().unwrap()["chat_template"] = configured;
    files.chat_template = separate.map(str::to_owned);
    tokenizer_metadata(&files, "llama").unwrap()
}

#[test]
fn chat_templates_come_from_either_file() {
    let template = |metadata: &Metadata| {
        let template = metadata.str("tokenizer.chat_template").unwrap();
        template.map(str::to_owned)
    };
    assert_eq!(template(&with_templates(Json::Null, None)), None);
    let one = with_templates(json!("one"), Some("other"));
    assert_eq!(template(&one).as_deref(), Some("one"));
    let other = with_templates(Json::Null, Some("other"));
    assert_eq!(template(&other).as_deref(), Some("other"));
}

#[test]
fn named_chat_templates_keep_their_names() {
    let metadata = with_templates(
        json!([
            {"name": "default", "template": "plain"},
            {"name": "tool_use", "template": "tools"},
            {"name": "a b", "template": "other"},
            {"name": "broken"},
        ]),
        None,
    );
    let text = |key| metadata.str(key).unwrap();
    assert_eq!(text("tokenizer.chat_template"), Some("plain"));
    assert_eq!(text("tokenizer.chat_template.tool_use"), Some("tools"));
    assert_eq!(text("tokenizer.chat_template.a_b"), Some("other"));
    let names = metadata
        .strings("tokenizer.chat_templates")
        .unwrap()
        .unwrap();
    assert_eq!(names.iter().collect::<Vec<_>>(), ["tool_use", "a_b"]);
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    let template = ChatTemplate::from_gguf(&metadata, &tokenizer).unwrap();
    assert_eq!(template.source(), "plain");
}

#[test]
fn further_ends_of_generation_are_kept() {
    let mut folder = FOLDERS["gemma4"].clone();
    let json = &mut folder["files"]["tokenizer.json"];
    json["added_tokens"][4]["content"] = json!("<close>");
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    vocab.shift_remove("<|turn>");
    vocab.insert("<close>".to_owned(), json!(4));
    let mut files = files(&folder);
    files.generation_config = Some(json!({"eos_token_id": [1, 4, 5]}));
    let tokenizer = Tokenizer::from_files(&files, "gemma4").unwrap();
    assert_eq!(tokenizer.end_of_generation(), [1, 4, 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn damaged_model_files_never_panic(at in 0_usize..4000, byte in any::<u8>(), cut in 0_usize..4000) {
        for name in ["xlm-roberta", "t5"] {
            let mut files = files(&FOLDERS[name]);
            let model = files.sentencepiece.as_mut().unwrap();
            let length = model.len();
            model[at % length] = byte;
            model.truncate(cut % (2 * length));
            if let Ok(tokenizer) = Tokenizer::from_files(&files, "bert") {
                let _ = tokenizer.encode("ﬁne ＡＢＣ e\u{301} the fox", false);
            }
        }
    }

    #[test]
    fn any_text_is_encoded(text in ".{0,60}") {
        for (name, folder) in folders() {
            let tokenizer = &TOKENIZERS[name];
            let ids = tokenizer.encode(&text, false).unwrap();
            prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            if folder["architecture"] == "gemma4" && !text.contains('\u{2581}') {
                prop_assert_eq!(tokenizer.decode(&ids, false), text.clone());
            }
        }
    }
}

static TOKENIZERS: LazyLock<std::collections::HashMap<&str, Tokenizer>> = LazyLock::new(|| {
    folders()
        .map(|(name, folder)| (name, tokenizer(folder)))
        .collect()
});
