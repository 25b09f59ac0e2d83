//! The fast path against Hugging Face transformers (float32, eager attention) on tiny random models, on every tier.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Golden, GoldenPrompt, argmax, relative_difference, shared};
use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, KvTypes, Logits, SequenceId};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// The decoders; what else a model needs to compute what it did for the golden answers stands beside its name.
const MODELS: [&str; 16] = [
    "llama",
    "smollm2",
    "mistral",
    "mistral_swa",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "gemma3_linear",
    "phi4_mini",
    "smollm3",
    "granite",
    "olmo2",
    "qwen3_5",
    "gemma4",
    "lfm2",
];

fn load(shared: &Path, name: &'static str, tier: Tier) -> (Engine, Vec<GoldenPrompt>) {
    load_with(shared, name, tier, KvElement::F32.into())
}

fn load_with(
    shared: &Path,
    name: &'static str,
    tier: Tier,
    kv_types: KvTypes,
) -> (Engine, Vec<GoldenPrompt>) {
    let golden = Golden::read(shared, name);
    let config = EngineConfig {
        threads: 2,
        tier,
        context_length: 512,
        kv_types,
        yarn_factor: None,
    };
    let engine = Engine::load(Arc::new(golden.gguf), config, &mut |_, _| {
        ControlFlow::Continue(())
    });
    (engine.unwrap(), golden.prompts)
}

/// All logits of a text, given in pieces of at most `piece` tokens.
fn logits(engine: &mut Engine, ids: &[u32], piece: usize) -> Vec<Vec<f32>> {
    let sequence = engine.create_sequence();
    engine.expect_tokens(sequence, ids.len()).unwrap();
    let mut rows = Vec::new();
    for tokens in ids.chunks(piece) {
        let chunk = Chunk {
            sequence,
            tokens,
            logits: Logits::All,
        };
        engine
            .step(&[chunk], |scores| {
                assert_eq!(scores.position, rows.len());
                rows.push(scores.logits.to_vec());
            })
            .unwrap();
    }
    engine.remove_sequence(sequence).unwrap();
    rows
}

#[test]
fn logits_are_those_of_transformers_however_the_prompt_is_cut() {
    let Some(shared) = shared() else { return };
    for name in MODELS {
        for tier in Tier::available() {
            let (mut engine, prompts) = load(&shared, name, tier);
            for prompt in &prompts {
                // The portable tier is slow in test builds, and the cuts are the same code on every tier.
                let pieces: &[usize] = if tier == Tier::PORTABLE {
                    &[256]
                } else {
                    &[256, 7, 1]
                };
                for &piece in pieces {
                    let rows = logits(&mut engine, &prompt.ids, piece);
                    let found: Vec<_> = prompt.positions.iter().map(|p| rows[*p].clone()).collect();
                    let difference = relative_difference(&found, &prompt.logits);
                    println!(
                        "{name} on {}, {} tokens by {piece}: {difference:.1e}",
                        tier.name(),
                        prompt.ids.len()
                    );
                    assert!(difference < 2e-3, "{name} by {piece}: {difference}");
                }
            }
        }
    }
}

/// What a cache of smaller numbers changes in the logits, root mean square of their own: half precision keeps 11 bits, the
/// 8-bit codes 7 and a sign of the largest of 32 numbers, 4-bit codes 3 and a sign. A text comes out the same however it is cut,
/// to the last bit.
#[test]
fn a_smaller_cache_moves_the_logits_by_no_more_than_its_precision() {
    let Some(shared) = shared() else { return };
    let types: [(KvTypes, f64); 5] = [
        (KvElement::F16.into(), 3e-3),
        (KvElement::Q8_0.into(), 6e-2),
        (KvElement::Q4_0.into(), 16.0 * 6e-2),
        (
            KvTypes::from(KvElement::Q8_0).with_values(KvElement::Q4_0),
            16.0 * 6e-2,
        ),
        (
            KvTypes::from(KvElement::F16).with_window(KvElement::Q8_0),
            6e-2,
        ),
    ];
    for name in MODELS {
        let (mut exact, prompts) = load(&shared, name, Tier::detect());
        let want: Vec<_> = prompts
            .iter()
            .map(|prompt| logits(&mut exact, &prompt.ids, 256))
            .collect();
        for (types, bound) in types {
            let (mut engine, _) = load_with(&shared, name, Tier::detect(), types);
            for (prompt, want) in prompts.iter().zip(&want) {
                let rows = logits(&mut engine, &prompt.ids, 256);
                let difference = root_mean_square_difference(&rows, want);
                println!("{name} with {types}: {difference:.1e}");
                assert!(difference < bound, "{name} {types}: {difference}");
                assert_eq!(rows, logits(&mut engine, &prompt.ids, 9), "{name}");
            }
        }
    }
}

/// The number types of layers with a window are for those layers: where a model has none they change nothing, and where all have one
/// nothing else does.
#[test]
fn number_types_go_to_the_kind_of_layer_that_they_are_for() {
    let Some(shared) = shared() else { return };
    let exact = KvTypes::from(KvElement::F32);
    for (name, windows) in [
        ("llama", "none"),
        ("mistral_swa", "all"),
        ("gemma3", "some"),
    ] {
        let rows = |types: KvTypes| {
            let (mut engine, prompts) = load_with(&shared, name, Tier::detect(), types);
            logits(&mut engine, &prompts[0].ids, 256)
        };
        let (f32s, small) = (rows(exact), rows(KvElement::Q4_0.into()));
        assert_ne!(f32s, small, "{name}");
        let small_windows = rows(exact.with_window(KvElement::Q4_0));
        let large_windows = rows(KvTypes::from(KvElement::Q4_0).with_window(KvElement::F32));
        match windows {
            "none" => assert_eq!((small_windows, large_windows), (f32s, small), "{name}"),
            "all" => assert_eq!((large_windows, small_windows), (f32s, small), "{name}"),
            _ => {
                for mixed in [small_windows, large_windows] {
                    assert!(mixed != f32s && mixed != small, "{name}");
                }
            }
        }
    }
}

/// The root mean square of the differences of two sets of logits, as a part of that of the second.
fn root_mean_square_difference(found: &[Vec<f32>], want: &[Vec<f32>]) -> f64 {
    let (found, want) = (found.concat(), want.concat());
    assert_eq!(found.len(), want.len());
    let squares = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|x| f64::from(x) * f64::from(x)).sum()
    };
    let differences = squares(&mut found.iter().zip(&want).map(|(a, b)| a - b));
    (differences / squares(&mut want.iter().copied())).sqrt()
}

#[test]
fn sixteen_greedy_tokens_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    for name in MODELS {
        let (mut engine, prompts) = load(&shared, name, Tier::detect());
        for prompt in &prompts {
            let sequence = engine.create_sequence();
            engine.expect_tokens(sequence, prompt.ids.len()).unwrap();
            let mut token = 0;
            let mut feed = |engine: &mut Engine, tokens: &[u32]| {
                let chunk = Chunk {
                    sequence,
                    tokens,
                    logits: Logits::Last,
                };
                engine
                    .step(&[chunk], |scores| token = argmax(scores.logits))
                    .unwrap();
                token
            };
            let pieces = prompt.ids.chunks(engine.max_batch());
            let mut next = pieces.map(|piece| feed(&mut engine, piece)).last().unwrap();
            let mut found = Vec::new();
            for _ in &prompt.greedy {
                found.push(next);
                next = feed(&mut engine, &[next]);
            }
            assert_eq!(found, prompt.greedy, "{name}");
            engine.remove_sequence(sequence).unwrap();
        }
    }
}

#[test]
fn sequences_in_one_step_do_not_touch_each_other() {
    let Some(shared) = shared() else { return };
    let (mut engine, prompts) = load(&shared, "gemma3", Tier::detect());
    let texts = [
        &prompts[0].ids[..],
        &prompts[1].ids[..50],
        &prompts[1].ids[3..40],
    ];
    let alone: Vec<_> = texts
        .iter()
        .map(|ids| logits(&mut engine, ids, 256).pop().unwrap())
        .collect();
    let sequences: Vec<_> = texts.iter().map(|_| engine.create_sequence()).collect();
    let batch: Vec<_> = texts
        .iter()
        .zip(&sequences)
        .map(|(tokens, sequence)| Chunk {
            sequence: *sequence,
            tokens,
            logits: Logits::Last,
        })
        .collect();
    let mut together = Vec::new();
    engine
        .step(&batch, |scores| together.push(scores.logits.to_vec()))
        .unwrap();
    assert!(relative_difference(&together, &alone) < 1e-5);
}

#[test]
fn a_truncated_sequence_continues_as_if_it_had_never_been_longer() {
    let Some(shared) = shared() else { return };
    let (mut engine, prompts) = load(&shared, "llama", Tier::detect());
    let ids = &prompts[1].ids;
    let want = logits(&mut engine, &ids[..60], 60).pop().unwrap();
    let sequence = engine.create_sequence();
    let step = |engine: &mut Engine, tokens: &[u32]| {
        let mut row = Vec::new();
        let chunk = Chunk {
            sequence,
            tokens,
            logits: Logits::Last,
        };
        engine
            .step(&[chunk], |scores| row = scores.logits.to_vec())
            .unwrap();
        row
    };
    step(&mut engine, &ids[..50]);
    step(&mut engine, &ids[100..180]);
    engine.truncate_sequence(sequence, 50).unwrap();
    let found = step(&mut engine, &ids[50..60]);
    assert!(relative_difference(&[found], &[want]) < 1e-5);
}

#[test]
fn a_step_that_cannot_be_taken_changes_nothing() {
    let Some(shared) = shared() else { return };
    let (mut engine, prompts) = load(&shared, "llama", Tier::detect());
    let ids = &prompts[1].ids;
    let (a, b) = (engine.create_sequence(), engine.create_sequence());
    let chunk = |sequence, tokens| Chunk {
        sequence,
        tokens,
        logits: Logits::None,
    };
    for _ in 0..2 {
        engine.step(&[chunk(a, &ids[..200])], |_| {}).unwrap();
    }
    assert!(
        engine
            .step(&[chunk(b, &ids[..50]), chunk(a, &ids[..150])], |_| {})
            .is_err()
    );
    assert!(
        engine
            .step(&[chunk(b, &ids[..5]), chunk(b, &ids[..5])], |_| {})
            .is_err()
    );
    assert!(engine.step(&[chunk(b, &[u32::MAX])], |_| {}).is_err());
    assert!(engine.step(&[chunk(b, &[])], |_| {}).is_err());
    assert_eq!(engine.sequence_length(a).unwrap(), 400);
    assert_eq!(engine.sequence_length(b).unwrap(), 0);
    engine.remove_sequence(a).unwrap();
    assert!(engine.sequence_length(a).is_err());
    engine.step(&[chunk(b, &ids[..200])], |_| {}).unwrap();
}

/// Appends tokens and returns the scores behind the last.
fn feed(engine: &mut Engine, sequence: SequenceId, tokens: &[u32]) -> Vec<f32> {
    let mut row = Vec::new();
    for tokens in tokens.chunks(engine.max_batch()) {
        let chunk = Chunk {
            sequence,
            tokens,
            logits: Logits::Last,
        };
        engine
            .step(&[chunk], |scores| row = scores.logits.to_vec())
            .unwrap();
    }
    row
}

#[test]
fn a_recurrent_sequence_goes_back_to_the_end_of_an_earlier_piece() {
    let Some(shared) = shared() else { return };
    for name in ["qwen3_5", "lfm2"] {
        let (mut engine, prompts) = load(&shared, name, Tier::detect());
        let ids = &prompts[1].ids;
        let want = logits(&mut engine, &ids[..60], 60).pop().unwrap();
        let sequence = engine.create_sequence();
        feed(&mut engine, sequence, &ids[..50]);
        feed(&mut engine, sequence, &ids[100..130]);
        feed(&mut engine, sequence, &ids[7..8]);
        assert_eq!(engine.truncate_sequence(sequence, 90).unwrap(), 81);
        assert_eq!(engine.truncate_sequence(sequence, 79).unwrap(), 50);
        assert_eq!(engine.sequence_length(sequence).unwrap(), 50);
        let found = feed(&mut engine, sequence, &ids[50..60]);
        assert!(
            relative_difference(&[found], std::slice::from_ref(&want)) < 1e-5,
            "{name}"
        );

        assert_eq!(engine.truncate_sequence(sequence, 20).unwrap(), 0);
        let found = feed(&mut engine, sequence, &ids[..60]);
        assert!(relative_difference(&[found], &[want]) < 1e-5, "{name}");
    }
}

#[test]
fn rope_factors_follow_the_length_of_the_sequence_however_it_grows() {
    let Some(shared) = shared() else { return };
    let (mut engine, prompts) = load(&shared, "phi4_mini", Tier::detect());
    let long = prompts
        .iter()
        .max_by_key(|prompt| prompt.ids.len())
        .unwrap();
    let short = prompts
        .iter()
        .find(|prompt| prompt.ids.len() == 200)
        .unwrap();
    let last = |prompt: &GoldenPrompt| prompt.logits.last().unwrap().clone();
    assert!(long.ids.len() > 256, "past the original context");

    let sequence = engine.create_sequence();
    let mut row = Vec::new();
    for piece in long.ids.chunks(100) {
        row = feed(&mut engine, sequence, piece);
    }
    assert!(relative_difference(&[row], &[last(long)]) < 1e-4);

    // A shorter text that begins alike.
    let same = long.ids.iter().zip(&short.ids).take_while(|(a, b)| a == b);
    let same = same.count();
    engine.truncate_sequence(sequence, same).unwrap();
    let row = feed(&mut engine, sequence, &short.ids[same..]);
    assert!(relative_difference(&[row], &[last(short)]) < 1e-4);
}
