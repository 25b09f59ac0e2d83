//! The scalar oracle on the real models, against llama.cpp on the same weights decoded to F32.
//!
//! Takes minutes and gigabytes, so it runs only where `DUNLIN_MODELS` names the folder with the model files.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod common;

use std::path::{Path, PathBuf};

use common::{argmax, integers, json, shared};
use dunlin_engine::reference::Oracle;
use dunlin_format::Gguf;
use dunlin_text::Tokenizer;
use serde_json::Value;

/// The model file's name, the reference's name, and how far a log-probability may be off. llama.cpp rounds Gemma's GELU
/// to half precision, which moves its own log-probabilities by 0.005.
const MODELS: [(&str, &str, f64); 3] = [
    (
        "smollm2-135m.gguf",
        "smollm2-135m-instruct-q4_1-exact-f32",
        0.002,
    ),
    ("gemma3-270m.gguf", "gemma3-270m-q4_k_m-exact-f32", 0.01),
    (
        "qwen2.5-coder-0.5b.gguf",
        "qwen2.5-coder-0.5b-instruct-q4_k_m-exact-f32",
        0.002,
    ),
];

/// A greedy step whose two best log-probabilities are nearer than this may turn by rounding.
const CLEAR_MARGIN: f64 = 0.3;

#[test]
fn log_probabilities_and_greedy_tokens_are_those_of_llama_cpp_in_f32() {
    let (Some(shared), Some(models)) = (shared(), models()) else {
        return;
    };
    for (file, reference, tolerance) in MODELS {
        let oracle = Oracle::new(&Gguf::open(&models.join(file)).unwrap()).unwrap();
        let reference = json(&shared.join("reference").join(format!("{reference}.json")));
        for prompt in reference["prompts"].as_array().unwrap() {
            check_prompt(file, &oracle, prompt, tolerance);
        }
    }
}

/// One pass over the prompt with its greedy continuation answers for the next token and for every greedy step.
fn check_prompt(file: &str, oracle: &Oracle, prompt: &Value, tolerance: f64) {
    let prompt_ids = integers(&prompt["prompt_ids"]);
    let greedy_ids = integers(&prompt["greedy_ids"]);
    let margins = prompt["greedy_margins"].as_array().unwrap().iter();
    let clear = margins
        .take_while(|margin| margin.as_f64().unwrap() >= CLEAR_MARGIN)
        .count();
    let clear = clear.min(greedy_ids.len());

    let ids = [&prompt_ids[..], &greedy_ids[..clear]].concat();
    let positions = Vec::from_iter(prompt_ids.len() - 1..ids.len());
    let logits = oracle.logits_at(&ids, &positions).unwrap();

    let mut worst = 0.0f64;
    for entry in prompt["next_top10"].as_array().unwrap() {
        let id = entry["id"].as_u64().unwrap() as usize;
        let found = log_probability(&logits[0], id);
        worst = worst.max((found - entry["logprob"].as_f64().unwrap()).abs());
    }
    println!(
        "{file}: {:?}: largest difference {worst:.5}, {clear} greedy steps",
        prompt["prompt"]
    );
    assert!(worst < tolerance, "{file}: {worst}");
    for (step, expected) in greedy_ids[..clear].iter().enumerate() {
        assert_eq!(argmax(&logits[step]), *expected, "{file}, step {step}");
    }
}

/// llama.cpp's method: the text is tokenized once and cut into windows of 512 tokens; each is run alone, its first token
/// replaced by BOS where the model wants one, and the second half is scored.
#[test]
fn perplexity_of_four_windows_is_that_of_llama_cpp_in_f32() {
    const WINDOW: usize = 512;
    let (Some(shared), Some(models)) = (shared(), models()) else {
        return;
    };
    let text = std::fs::read_to_string(shared.join("reference/jargon-50k.txt")).unwrap();
    let expected = json(&shared.join("reference/perplexity.json"));
    for (file, reference, _) in MODELS {
        let gguf = Gguf::open(&models.join(file)).unwrap();
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        let ids = tokenizer.add_special(tokenizer.encode(&text, false).unwrap());
        let oracle = Oracle::new(&gguf).unwrap();

        let (mut sum, mut count) = (0.0, 0);
        for (index, window) in ids.chunks_exact(WINDOW).take(4).enumerate() {
            let mut window = window.to_vec();
            if tokenizer.adds_bos() {
                window[0] = tokenizer.bos().unwrap();
            }
            let positions = Vec::from_iter(WINDOW / 2..WINDOW - 1);
            let logits = oracle.logits_at(&window, &positions).unwrap();
            for (position, logits) in positions.iter().zip(&logits) {
                sum -= log_probability(logits, window[position + 1] as usize);
                count += 1;
            }
            let found = (sum / f64::from(count)).exp();
            let expected = expected["models"][reference]["running"][index]
                .as_f64()
                .unwrap();
            let difference = (found / expected - 1.0).abs();
            println!(
                "{file}, {} windows: {found:.4}, expected {expected:.4}: {:.4} %",
                index + 1,
                difference * 100.0
            );
            assert!(difference < 0.0005, "{file}");
        }
    }
}

fn log_probability(logits: &[f32], id: usize) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits
        .iter()
        .map(|logit| (f64::from(*logit) - largest).exp())
        .sum();
    f64::from(logits[id]) - largest - sum.ln()
}

fn models() -> Option<PathBuf> {
    let folder = std::env::var_os("DUNLIN_MODELS");
    if folder.is_none() {
        println!("skipped: DUNLIN_MODELS names no folder with model files");
    }
    folder.as_deref().map(|folder| Path::new(folder).to_owned())
}
