//! The fast path on every quantized type: one tiny model, quantized by llama.cpp, against transformers on the decoded weights.
//!
//! Types with a kernel quantize their activations here and there; the bound is llama.cpp's own divergence from the exact
//! answer. The other types are decoded on the way and multiplied with exact activations, so that only rounding is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{GoldenPrompt, argmax, json, shared};
use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, Logits};
use dunlin_format::Gguf;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const TYPES: [&str; 14] = [
    "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M",
    "Q6_K", "IQ4_NL", "IQ4_XS",
];

/// Decoded on the way.
const GENERAL: [&str; 4] = ["IQ3_S", "TQ1_0", "TQ2_0", "MXFP4"];

fn load(shared: &Path, name: &str, tier: Tier) -> Engine {
    let file = format!("conformance/quant/model-{name}.gguf");
    let config = EngineConfig {
        threads: 2,
        tier,
        context_length: 512,
        kv_types: KvElement::F32.into(),
        yarn_factor: None,
    };
    let gguf = Arc::new(Gguf::open(&shared.join(file)).unwrap());
    Engine::load(gguf, config, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// All logits of a text, given in pieces of the sizes in `cuts`, over and over.
fn logits(engine: &mut Engine, ids: &[u32], cuts: &[usize]) -> Vec<Vec<f32>> {
    let sequence = engine.create_sequence();
    let mut rows = Vec::new();
    let mut rest = ids;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (tokens, after) = rest.split_at(rest.len().min(*cut));
        rest = after;
        let chunk = Chunk {
            sequence,
            tokens,
            logits: Logits::All,
        };
        engine
            .step(&[chunk], |scores| rows.push(scores.logits.to_vec()))
            .unwrap();
    }
    engine.remove_sequence(sequence).unwrap();
    rows
}

/// Kullback-Leibler divergence of the softmax of `found` from that of `golden`, in nats.
fn divergence(golden: &[f32], found: &[f32]) -> f64 {
    let log_softmax = |logits: &[f32]| {
        let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
        Vec::from_iter(logits.iter().map(|x| f64::from(*x) - largest - sum.ln()))
    };
    let (golden, found) = (log_softmax(golden), log_softmax(found));
    golden
        .iter()
        .zip(&found)
        .map(|(p, q)| p.exp() * (p - q))
        .sum()
}

#[test]
fn types_are_nearer_to_the_exact_answer_than_in_llama_cpp_and_greedy_tokens_are_equal() {
    let Some(shared) = shared() else { return };
    let golden = json(&shared.join("conformance/quant/golden.json"));
    // The largest of a few positions is a noisy number for one type; over all types the noise evens out.
    let (mut total, mut total_bound) = (0.0, 0.0);
    for name in TYPES {
        let golden = &golden["models"][name];
        let bound = golden["llama_cpp"]["max_kl"].as_f64().unwrap();
        for tier in Tier::available() {
            let mut engine = load(&shared, name, tier);
            let mut worst = 0.0f64;
            for prompt in golden["prompts"].as_array().unwrap() {
                let prompt = GoldenPrompt::read(prompt);
                let ids = [&prompt.ids[..], &prompt.greedy].concat();
                let rows = logits(&mut engine, &ids, &[256]);
                for (position, golden) in prompt.positions.iter().zip(&prompt.logits) {
                    worst = worst.max(divergence(golden, &rows[*position]));
                }
                for (step, want) in prompt.greedy.iter().enumerate() {
                    let found = argmax(&rows[prompt.ids.len() - 1 + step]);
                    assert_eq!(found, *want, "{name} on {}, step {step}", tier.name());
                }
            }
            println!(
                "{name} on {}: {worst:.1e}, llama.cpp {bound:.1e}",
                tier.name()
            );
            total += worst;
            total_bound += bound;
        }
    }
    println!("all types: {total:.1e}, llama.cpp {total_bound:.1e}");
    assert!(total <= total_bound, "{total}, llama.cpp {total_bound}");
}

#[test]
fn types_without_a_kernel_give_the_exact_answer() {
    let Some(shared) = shared() else { return };
    let golden = json(&shared.join("conformance/quant/golden.json"));
    for name in GENERAL {
        for tier in Tier::available() {
            let mut engine = load(&shared, name, tier);
            let mut worst = 0.0f32;
            for prompt in golden["models"][name]["prompts"].as_array().unwrap() {
                let prompt = GoldenPrompt::read(prompt);
                let ids = [&prompt.ids[..], &prompt.greedy].concat();
                let rows = logits(&mut engine, &ids, &[256]);
                for (position, golden) in prompt.positions.iter().zip(&prompt.logits) {
                    let largest = golden.iter().fold(0.0f32, |a, x| a.max(x.abs()));
                    for (found, golden) in rows[*position].iter().zip(golden) {
                        worst = worst.max((found - golden).abs() / largest);
                    }
                }
                for (step, want) in prompt.greedy.iter().enumerate() {
                    let found = argmax(&rows[prompt.ids.len() - 1 + step]);
                    assert_eq!(found, *want, "{name} on {}, step {step}", tier.name());
                }
            }
            println!("{name} on {}: {worst:.1e} of the largest", tier.name());
            assert!(worst <= 1e-5, "{name} on {}: {worst:.1e}", tier.name());
        }
    }
}

#[test]
fn every_file_of_the_suite_is_compared() {
    let Some(shared) = shared() else { return };
    let golden = json(&shared.join("conformance/quant/golden.json"));
    for name in golden["models"].as_object().unwrap().keys() {
        let compared = TYPES.contains(&&**name) || GENERAL.contains(&&**name);
        assert!(compared, "{name}");
    }
}

#[test]
fn scores_are_the_same_to_the_last_bit_however_a_text_is_cut() {
    let Some(shared) = shared() else { return };
    let ids = Vec::from_iter((0..150).map(|i| i * 37 % 480));
    for name in ["Q4_K_M", "Q5_0", "F16", "IQ3_S"] {
        for tier in Tier::available() {
            let mut engine = load(&shared, name, tier);
            let whole = logits(&mut engine, &ids, &[256]);
            for cuts in [&[1][..], &[3, 50, 2], &[5, 1, 33]] {
                assert!(
                    whole == logits(&mut engine, &ids, cuts),
                    "{name} on {} by {cuts:?}",
                    tier.name()
                );
            }
        }
    }
}
