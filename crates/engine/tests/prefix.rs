//! Sequences that begin with what others have left give the scores of fresh ones, to the last bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Golden, shared};
use dunlin_compute::{KvElement, POSITIONS_PER_BLOCK, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, EngineError, Logits, SequenceId};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Plain, window layers, layers that share keys, LongRoPE, delta net, short convolution.
const FAMILIES: [&str; 8] = [
    "llama",
    "mistral_swa",
    "gemma3",
    "gemma4",
    "qwen2",
    "phi4_mini",
    "qwen3_5",
    "lfm2",
];
const BLOCKS: usize = 7;

fn load(shared: &Path, name: &str, kv_element: KvElement) -> Engine {
    let config = EngineConfig {
        threads: 2,
        tier: Tier::detect(),
        context_length: BLOCKS * POSITIONS_PER_BLOCK,
        kv_types: kv_element.into(),
        yarn_factor: None,
    };
    let gguf = Arc::new(Golden::gguf(shared, name));
    Engine::load(gguf, config, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// Appends tokens and returns the scores after the last.
fn step(engine: &mut Engine, id: SequenceId, tokens: &[u32]) -> Result<Vec<f32>, EngineError> {
    let chunk = Chunk {
        sequence: id,
        tokens,
        logits: Logits::Last,
    };
    let mut last = Vec::new();
    engine.step(&[chunk], |scores| last = scores.logits.to_vec())?;
    Ok(last)
}

/// Scores after a text that is computed at once in an empty cache.
struct Fresh {
    engine: Engine,
    known: HashMap<Vec<u32>, Vec<f32>>,
}

impl Fresh {
    fn scores(&mut self, tokens: &[u32]) -> &[f32] {
        let engine = &mut self.engine;
        self.known.entry(tokens.to_vec()).or_insert_with(|| {
            engine.clear_cache();
            let id = engine.create_sequence();
            engine.expect_tokens(id, tokens.len()).unwrap();
            step(engine, id, tokens).unwrap()
        })
    }
}

#[derive(Clone, Debug)]
enum Use {
    /// A text is begun with what is known of it, and computed to its end.
    Begin {
        text: usize,
        length: usize,
    },
    Extend {
        sequence: usize,
        tokens: usize,
    },
    Truncate {
        sequence: usize,
        length: usize,
    },
    Remove {
        sequence: usize,
    },
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let next = prop_oneof![
        3 => (0usize..4, 1usize..150).prop_map(|(text, length)| Use::Begin { text, length }),
        3 => (0usize..3, 1usize..40).prop_map(|(sequence, tokens)| Use::Extend { sequence, tokens }),
        2 => (0usize..3, 1usize..150).prop_map(|(sequence, length)| Use::Truncate { sequence, length }),
        2 => (0usize..3).prop_map(|sequence| Use::Remove { sequence }),
    ];
    prop::collection::vec(next, 1..14)
}

/// Texts that share beginnings of several lengths.
fn text(which: usize, length: usize) -> Vec<u32> {
    let token = |at: usize| match which {
        1 if at >= 20 => 100 + at as u32,
        2 if at >= 32 => 120 + at as u32,
        3 if at >= 80 => 140 + at as u32,
        _ => 60 + (at as u32 * 37) % 190,
    };
    (0..length).map(token).collect()
}

#[test]
fn any_order_of_uses_gives_the_scores_of_fresh_sequences() {
    let Some(shared) = shared() else { return };
    for name in FAMILIES {
        let mut engine = load(&shared, name, KvElement::F16);
        let mut fresh = Fresh {
            engine: load(&shared, name, KvElement::F16),
            known: HashMap::new(),
        };
        let mut reused = 0;
        let run = RefCell::new(|uses: Vec<Use>| {
            engine.clear_cache();
            let mut live: Vec<(SequenceId, usize)> = Vec::new();
            for next in uses {
                let changed = match next {
                    Use::Begin {
                        text: which,
                        length,
                    } => {
                        let tokens = text(which, length);
                        let (id, known) = engine.create_sequence_with_prefix(&tokens);
                        assert!(known < length);
                        reused += known;
                        live.push((id, which));
                        Some((live.len() - 1, length))
                    }
                    Use::Extend { sequence, tokens } => live
                        .get(sequence)
                        .map(|(id, _)| (sequence, engine.sequence_length(*id).unwrap() + tokens)),
                    Use::Truncate { sequence, length } => {
                        if let Some((id, _)) = live.get(sequence) {
                            engine.truncate_sequence(*id, length).unwrap();
                        }
                        None
                    }
                    Use::Remove { sequence } => {
                        if sequence < live.len() {
                            engine.remove_sequence(live.remove(sequence).0).unwrap();
                        }
                        None
                    }
                };
                let Some((index, length)) = changed else {
                    continue;
                };
                let (id, which) = live[index];
                let tokens = text(which, length);
                let known = engine.sequence_length(id).unwrap();
                match step(&mut engine, id, &tokens[known..]) {
                    Ok(scores) => {
                        assert!(scores == fresh.scores(&tokens), "{name}: {length} tokens");
                    }
                    Err(EngineError::CacheFull { .. }) => {
                        assert_eq!(engine.sequence_length(id).unwrap(), known);
                        engine.remove_sequence(live.remove(index).0).unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let config = Config {
            cases: 24,
            failure_persistence: None,
            ..Config::default()
        };
        TestRunner::new_with_rng(config, deterministic())
            .run(&uses(), |uses| {
                (run.borrow_mut())(uses);
                Ok(())
            })
            .unwrap();
        assert!(reused > 50, "{name}: {reused} tokens were found again");
    }
}

fn deterministic() -> proptest::test_runner::TestRng {
    let algorithm = proptest::test_runner::RngAlgorithm::ChaCha;
    proptest::test_runner::TestRng::deterministic_rng(algorithm)
}

#[test]
fn conversations_that_take_turns_find_their_own_beginnings() {
    let Some(shared) = shared() else { return };
    for name in FAMILIES {
        let mut engine = load(&shared, name, KvElement::F16);
        let mut lengths = [40, 50];
        for turn in 0..3 {
            for (which, length) in lengths.iter_mut().enumerate() {
                let tokens = text(which, *length + 10);
                let (id, known) = engine.create_sequence_with_prefix(&tokens);
                if turn > 0 {
                    assert_eq!(known, *length, "{name}");
                }
                step(&mut engine, id, &tokens[known..]).unwrap();
                *length = tokens.len();
                engine.remove_sequence(id).unwrap();
            }
        }
    }
}
