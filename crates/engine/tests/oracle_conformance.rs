//! The scalar oracle against Hugging Face transformers (float32, eager attention) on tiny random models.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod common;

use common::{Golden, argmax, relative_difference, shared};
use dunlin_engine::reference::Oracle;

const MODELS: [&str; 12] = [
    "llama",
    "smollm2",
    "mistral",
    "mistral_swa",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gemma3_linear",
    "smollm3",
    "granite",
    "olmo2",
];

#[test]
fn logits_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    for name in MODELS {
        let golden = Golden::read(&shared, name);
        let oracle = Oracle::new(&golden.gguf).unwrap();
        for prompt in &golden.prompts {
            let logits = oracle.logits_at(&prompt.ids, &prompt.positions).unwrap();
            let difference = relative_difference(&logits, &prompt.logits);
            println!("{name}, {} tokens: {difference:.1e}", prompt.ids.len());
            assert!(difference < 1e-3, "{name}: {difference}");
        }
    }
}

#[test]
fn sixteen_greedy_tokens_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    for name in MODELS {
        let golden = Golden::read(&shared, name);
        let oracle = Oracle::new(&golden.gguf).unwrap();
        for prompt in &golden.prompts {
            let mut ids = prompt.ids.clone();
            for _ in &prompt.greedy {
                let logits = oracle.logits_at(&ids, &[ids.len() - 1]).unwrap();
                ids.push(argmax(&logits[0]));
            }
            assert_eq!(ids[prompt.ids.len()..], prompt.greedy, "{name}");
        }
    }
}
