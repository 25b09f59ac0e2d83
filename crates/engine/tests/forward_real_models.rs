//! The fast path on the real models, against llama.cpp on the same weights decoded to F32.
//!
//! The bounds are llama.cpp's own distance from that exact answer when it quantizes activations as users run it.
//! Runs only where `DUNLIN_MODELS` names the folder with the model files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{argmax, integers, json, shared};
use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, Logits};
use dunlin_format::Gguf;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

/// The model file, the reference, and llama.cpp's mean difference of the ten largest log-probabilities.
const MODELS: [(&str, &str, f64); 3] = [
    (
        "smollm2-135m.gguf",
        "smollm2-135m-instruct-q4_1-exact-f32",
        0.102,
    ),
    ("gemma3-270m.gguf", "gemma3-270m-q4_k_m-exact-f32", 0.102),
    (
        "qwen2.5-coder-0.5b.gguf",
        "qwen2.5-coder-0.5b-instruct-q4_k_m-exact-f32",
        0.069,
    ),
];

/// A greedy step whose two best log-probabilities are nearer than this may turn by rounding.
const CLEAR_MARGIN: f64 = 0.3;

#[test]
fn next_tokens_and_greedy_continuations_are_those_of_the_exact_weights() {
    let (Some(shared), Some(models)) = (shared(), std::env::var_os("DUNLIN_MODELS")) else {
        println!("skipped: DUNLIN_MODELS names no folder with model files");
        return;
    };
    let mut means = Vec::new();
    for (file, reference, bound) in MODELS {
        let gguf = Gguf::open(&PathBuf::from(&models).join(file)).unwrap();
        let config = EngineConfig {
            threads: 2,
            tier: Tier::detect(),
            context_length: 1024,
            kv_types: KvElement::F16.into(),
            yarn_factor: None,
        };
        let mut engine = Engine::load(
            Arc::new(gguf),
            config,
            &mut |_, _| ControlFlow::Continue(()),
        )
        .unwrap();
        let reference = json(&shared.join("reference").join(format!("{reference}.json")));
        let mut differences = Vec::new();
        for prompt in reference["prompts"].as_array().unwrap() {
            let ids = integers(&prompt["prompt_ids"]);
            let greedy = integers(&prompt["greedy_ids"]);
            let margins = prompt["greedy_margins"].as_array().unwrap();
            let clear = margins
                .iter()
                .take_while(|margin| margin.as_f64().unwrap() >= CLEAR_MARGIN)
                .count()
                .min(greedy.len());

            let sequence = engine.create_sequence();
            let mut logits = step(&mut engine, sequence, &ids);
            let top = prompt["next_top10"].as_array().unwrap();
            let best = top[0]["id"].as_u64().unwrap() as u32;
            assert_eq!(argmax(&logits), best, "{file}: {}", prompt["prompt"]);
            for entry in top {
                let id = entry["id"].as_u64().unwrap() as usize;
                let want = entry["logprob"].as_f64().unwrap();
                differences.push((log_probability(&logits, id) - want).abs());
            }
            for (index, want) in greedy[..clear].iter().enumerate() {
                assert_eq!(argmax(&logits), *want, "{file}, greedy step {index}");
                logits = step(&mut engine, sequence, &[*want]);
            }
            engine.remove_sequence(sequence).unwrap();
        }
        let mean = differences.iter().sum::<f64>() / differences.len() as f64;
        println!("{file}: mean difference {mean:.4}, llama.cpp's {bound}");
        means.push((file, mean, bound));
    }
    for (file, mean, bound) in means {
        assert!(mean <= bound, "{file}: {mean}, llama.cpp's {bound}");
    }
}

fn step(engine: &mut Engine, sequence: dunlin_engine::SequenceId, tokens: &[u32]) -> Vec<f32> {
    let mut out = Vec::new();
    for tokens in tokens.chunks(engine.max_batch()) {
        let chunk = Chunk {
            sequence,
            tokens,
            logits: Logits::Last,
        };
        engine
            .step(&[chunk], |scores| out = scores.logits.to_vec())
            .unwrap();
    }
    out
}

fn log_probability(logits: &[f32], id: usize) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits
        .iter()
        .map(|logit| (f64::from(*logit) - largest).exp())
        .sum();
    f64::from(logits[id]) - largest - sum.ln()
}
