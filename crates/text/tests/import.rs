//! Hugging Face folders: the metadata made from their tokenizer files against those that llama.cpp's
//! converter made, and the ids that come out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod common;

use std::{fs, path::Path};

use dunlin_format::{Metadata, Value};
use dunlin_text::{Tokenizer, TokenizerFiles, tokenizer_metadata};
use serde_json::Value as Json;

/// The folders of the shared set, each with the keys in which its shipped file differs.
///
/// `gemma4`: its `tokenizer.json` calls `<|turn>` and `<turn|>` special, and its configuration does not
/// name them. The converter takes such tokens for ordinary text, so that a prompt's `<|turn>` comes
/// apart into characters; in Hugging Face it is one token, and so it is here.
const FOLDERS: &[(&str, &[&str])] = &[
    ("bert", &[]),
    ("bert_reranker", &[]),
    ("gemma2", &[]),
    ("gemma3", &[]),
    ("gemma3_linear", &[]),
    ("gemma4", &["tokenizer.ggml.token_type"]),
    ("gemma_embedding", &[]),
    ("gemma_embedding_dense", &[]),
    ("granite", &[]),
    ("lfm2", &[]),
    ("llama", &[]),
    ("mistral", &[]),
    ("mistral_swa", &[]),
    ("modernbert", &[]),
    ("nomic_bert", &[]),
    ("olmo2", &[]),
    ("phi4_mini", &[]),
    ("qwen2", &[]),
    ("qwen3", &[]),
    ("qwen3_5", &[]),
    ("qwen3_embedding", &[]),
    ("smollm2", &[]),
    ("smollm3", &[]),
    ("xlmr_reranker", &[]),
];

fn files(folder: &Path) -> TokenizerFiles {
    let bytes = |name: &str| fs::read(folder.join(name)).ok();
    let json = |name: &str| bytes(name).map(|bytes| serde_json::from_slice(&bytes).unwrap());
    TokenizerFiles {
        tokenizer_json: bytes("tokenizer.json"),
        sentencepiece: bytes("tokenizer.model").or_else(|| bytes("sentencepiece.bpe.model")),
        vocab_txt: bytes("vocab.txt"),
        tokenizer_config: json("tokenizer_config.json"),
        special_tokens_map: json("special_tokens_map.json"),
        added_tokens: json("added_tokens.json"),
        chat_template: None,
        generation_config: json("generation_config.json"),
        config: json("config.json").unwrap_or(Json::Null),
    }
}

#[test]
fn metadata_are_those_of_the_converter() {
    let Some(shared) = common::shared() else {
        return;
    };
    let mut wrong = Vec::new();
    for (name, exceptions) in FOLDERS {
        let folder = shared.join("conformance").join(name);
        let gguf = common::open(&folder.join("model.gguf"));
        let made = tokenizer_metadata(&files(&folder), gguf.architecture().unwrap()).unwrap();
        for difference in differences(&made, gguf.metadata()) {
            let key = difference.split(':').next().unwrap();
            if !exceptions.contains(&key) {
                wrong.push(format!("{name}: {difference}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn differences(made: &Metadata, shipped: &Metadata) -> Vec<String> {
    let is_text = |(key, _): &(&str, &Value)| key.starts_with("tokenizer.");
    let mut differences = Vec::new();
    for (key, value) in shipped.iter().filter(is_text) {
        if made.get(key) != Some(value) {
            differences.push(format!(
                "{key}: {:?} instead of {}",
                made.get(key),
                short(value)
            ));
        }
    }
    for (key, value) in made.iter().filter(is_text) {
        if !shipped.contains(key) {
            differences.push(format!("{key}: {} instead of nothing", short(value)));
        }
    }
    differences
}

fn short(value: &Value) -> String {
    format!("{value:?}").chars().take(120).collect()
}

#[test]
fn added_tokens_that_are_special_are_control_tokens() {
    let Some(shared) = common::shared() else {
        return;
    };
    let folder = shared.join("conformance/gemma4");
    let shipped = common::open(&folder.join("model.gguf"));
    let made = tokenizer_metadata(&files(&folder), "gemma4").unwrap();
    let kinds = |metadata: &Metadata| {
        let kinds = metadata.i32s("tokenizer.ggml.token_type").unwrap();
        kinds.unwrap().into_owned()
    };
    let (made, shipped) = (kinds(&made), kinds(shipped.metadata()));
    assert_eq!(made.len(), shipped.len());
    let differing = (0..made.len()).filter(|&id| made[id] != shipped[id]);
    assert_eq!(differing.collect::<Vec<_>>(), [5, 6]);
    assert_eq!((made[5], made[6]), (3, 3));
}

#[test]
fn folders_encode_as_hugging_face_does() {
    let Some(shared) = common::shared() else {
        return;
    };
    let (mut cases, mut wrong) = (0, Vec::new());
    for (name, _) in FOLDERS {
        let folder = shared.join("conformance").join(name);
        let gguf = common::open(&folder.join("model.gguf"));
        let tokenizer =
            Tokenizer::from_files(&files(&folder), gguf.architecture().unwrap()).unwrap();
        let golden = common::json(&folder.join("golden.json"));
        for case in golden["tokenizer_cases"].as_array().unwrap() {
            cases += 1;
            let text = case["text"].as_str().unwrap();
            let (ids, expected) = (tokenizer.encode(text, false), common::ids(&case["ids"]));
            if ids.as_ref().ok() != Some(&expected) {
                wrong.push(format!("{name} {text:?}: {ids:?} instead of {expected:?}"));
            }
        }
    }
    println!(
        "{} folders, {cases} cases, {} wrong",
        FOLDERS.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
