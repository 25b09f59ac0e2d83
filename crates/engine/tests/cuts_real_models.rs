//! On the real models: scores do not depend on how a text was cut into steps, to the last bit. What verifies guessed tokens
//! and what finds beginnings of texts again rely on it.
//!
//! Runs only where `DUNLIN_MODELS` names the folder with the model files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, Logits, SequenceId};
use dunlin_format::Gguf;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

const MODELS: [&str; 3] = ["smollm2-135m", "gemma3-270m", "qwen2.5-coder-0.5b"];
/// Tokens before those that are compared: within the first tile of keys, and beyond every window.
const DEPTHS: [usize; 2] = [90, 1100];
const COMPARED: usize = 24;

#[test]
fn steps_of_two_to_sixteen_tokens_give_the_scores_of_single_ones() {
    let Some(models) = std::env::var_os("DUNLIN_MODELS").map(PathBuf::from) else {
        println!("skipped: DUNLIN_MODELS names no folder with model files");
        return;
    };
    for name in MODELS {
        let gguf = Arc::new(Gguf::open(&models.join(format!("{name}.gguf"))).unwrap());
        for threads in [1, 2] {
            let mut engine = load(&gguf, threads);
            for depth in DEPTHS {
                let ids = Vec::from_iter((0..depth + COMPARED).map(|i| (i * i * 37 % 9973) as u32));
                let (before, compared) = ids.split_at(depth);
                engine.clear_cache();
                let sequence = engine.create_sequence();
                scores(&mut engine, sequence, before, 256, Logits::None);
                let single = scores(&mut engine, sequence, compared, 1, Logits::All);
                for size in [2, 3, 4, 5, 7, 8, 12, 16, 24] {
                    engine.truncate_sequence(sequence, depth).unwrap();
                    let several = scores(&mut engine, sequence, compared, size, Logits::All);
                    assert!(
                        several == single,
                        "{name}: {size} tokens a step at {depth} with {threads} threads"
                    );
                }
                engine.truncate_sequence(sequence, 0).unwrap();
                scores(&mut engine, sequence, before, 77, Logits::None);
                let otherwise = scores(&mut engine, sequence, compared, 1, Logits::All);
                assert!(
                    otherwise == single,
                    "{name}: the text before in other pieces"
                );
            }
        }
    }
}

fn load(gguf: &Arc<Gguf>, threads: usize) -> Engine {
    let config = EngineConfig {
        threads,
        tier: Tier::detect(),
        context_length: 1280,
        kv_types: KvElement::F16.into(),
        yarn_factor: None,
    };
    Engine::load(Arc::clone(gguf), config, &mut |_, _| {
        ControlFlow::Continue(())
    })
    .unwrap()
}

/// Scores of a text given in steps of `size`.
fn scores(
    engine: &mut Engine,
    sequence: SequenceId,
    text: &[u32],
    size: usize,
    logits: Logits,
) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    for tokens in text.chunks(size) {
        let chunk = Chunk {
            sequence,
            tokens,
            logits,
        };
        engine
            .step(&[chunk], |scores| rows.push(scores.logits.to_vec()))
            .unwrap();
    }
    rows
}
