//! Sequences that left an engine as bytes go on in another one as if nothing had happened, to the last bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Golden, shared};
use dunlin_compute::{KvElement, POSITIONS_PER_BLOCK, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, EngineError, KvTypes, Logits, SequenceId};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Plain, window layers, layers that share keys, LongRoPE, delta net, short convolution.
const FAMILIES: [&str; 7] = [
    "llama",
    "mistral_swa",
    "gemma3",
    "gemma4",
    "phi4_mini",
    "qwen3_5",
    "lfm2",
];
const BLOCKS: usize = 4;
/// Within a block, at its ends, and over several.
const LENGTHS: [usize; 5] = [1, 31, 32, 33, 80];

fn load(shared: &Path, name: &str, kv_types: impl Into<KvTypes>) -> Engine {
    let config = EngineConfig {
        threads: 2,
        tier: Tier::detect(),
        context_length: BLOCKS * POSITIONS_PER_BLOCK,
        kv_types: kv_types.into(),
        yarn_factor: None,
    };
    let gguf = Arc::new(Golden::gguf(shared, name));
    Engine::load(gguf, config, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// Appends tokens and returns the scores after the last.
fn step(engine: &mut Engine, id: SequenceId, tokens: &[u32]) -> Vec<f32> {
    let chunk = Chunk {
        sequence: id,
        tokens,
        logits: Logits::Last,
    };
    let mut last = Vec::new();
    engine
        .step(&[chunk], |scores| last = scores.logits.to_vec())
        .unwrap();
    last
}

fn text(length: usize, seed: usize) -> Vec<u32> {
    (0..length)
        .map(|at| ((at * 7 + seed) % 60) as u32)
        .collect()
}

/// A sequence of these tokens, and its bytes.
fn exported(engine: &mut Engine, tokens: &[u32]) -> (SequenceId, Vec<u8>) {
    let id = engine.create_sequence();
    step(engine, id, tokens);
    let mut bytes = Vec::new();
    engine.export_sequence(id, &mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, engine.export_bytes(tokens.len()));
    (id, bytes)
}

#[test]
fn an_imported_sequence_goes_on_as_the_exported_one() {
    let Some(shared) = shared() else { return };
    for name in FAMILIES {
        let mixed = KvTypes::from(KvElement::Q8_0)
            .with_values(KvElement::Q4_0)
            .with_window(KvElement::Q4_0);
        for types in [
            KvElement::F16.into(),
            KvElement::Q8_0.into(),
            KvElement::Q4_0.into(),
            mixed,
        ] {
            let (mut here, mut there) = (load(&shared, name, types), load(&shared, name, types));
            for length in LENGTHS {
                let tokens = text(length, length);
                let (id, bytes) = exported(&mut here, &tokens);
                let other = there.import_sequence(&tokens, &mut &bytes[..]).unwrap();
                assert_eq!(there.sequence_length(other).unwrap(), length);
                let wanted = step(&mut here, id, &[5, 6]);
                assert_eq!(step(&mut there, other, &[5, 6]), wanted, "{name} {length}");
                here.remove_sequence(id).unwrap();
                there.remove_sequence(other).unwrap();
            }
        }
    }
}

#[test]
fn an_imported_sequence_is_found_again_when_it_ends() {
    let Some(shared) = shared() else { return };
    for name in FAMILIES {
        let (mut here, mut there) = (
            load(&shared, name, KvElement::F16),
            load(&shared, name, KvElement::F16),
        );
        let tokens = text(70, 3);
        let (id, bytes) = exported(&mut here, &tokens);
        let other = there.import_sequence(&tokens, &mut &bytes[..]).unwrap();
        there.remove_sequence(other).unwrap();
        let longer = [&tokens[..], &[5, 6]].concat();
        let (found, known) = there.create_sequence_with_prefix(&longer);
        assert_eq!(known, tokens.len(), "{name}");
        let wanted = step(&mut here, id, &[5, 6]);
        assert_eq!(step(&mut there, found, &[5, 6]), wanted, "{name}");
    }
}

#[test]
fn what_another_text_left_in_the_last_block_is_not_exported() {
    let Some(shared) = shared() else { return };
    let (mut used, mut fresh) = (
        load(&shared, "llama", KvElement::F16),
        load(&shared, "llama", KvElement::F16),
    );
    let first = used.create_sequence();
    step(&mut used, first, &text(32 * BLOCKS, 9));
    used.clear_cache();
    let tokens = text(40, 4);
    assert_eq!(
        exported(&mut used, &tokens).1,
        exported(&mut fresh, &tokens).1
    );
}

#[test]
fn a_forgotten_sequence_gives_its_blocks_back() {
    let Some(shared) = shared() else { return };
    let mut engine = load(&shared, "llama", KvElement::F16);
    let (one, other) = (text(64, 3), [&text(32, 3)[..], &[1; 30]].concat());
    for tokens in [&one, &other] {
        let id = engine.create_sequence();
        step(&mut engine, id, tokens);
        engine.remove_sequence(id).unwrap();
    }
    // The first block is the other's, too.
    assert_eq!(engine.forget_prefix(&one), 64 - 32);
    let (id, known) = engine.create_sequence_with_prefix(&[&one[..], &[0]].concat());
    assert_eq!(known, 32);
    engine.remove_sequence(id).unwrap();
    let (id, known) = engine.create_sequence_with_prefix(&[&other[..], &[0]].concat());
    assert_eq!(known, other.len());
    // A block that a sequence holds stays.
    assert_eq!(engine.forget_prefix(&other[..32]), 0);
    engine.remove_sequence(id).unwrap();
}

#[test]
fn bytes_of_another_set_up_are_refused_and_nothing_is_left() {
    let Some(shared) = shared() else { return };
    let mut engine = load(&shared, "qwen3_5", KvElement::F16);
    let tokens = text(70, 3);
    let (id, bytes) = exported(&mut engine, &tokens);
    engine.remove_sequence(id).unwrap();
    engine.clear_cache();
    let mut q8 = load(&shared, "qwen3_5", KvElement::Q8_0);
    // As many bytes as in the engine that the bytes are of.
    let mut windows = load(
        &shared,
        "qwen3_5",
        KvTypes::from(KvElement::F16).with_window(KvElement::Q4_0),
    );
    let mut other = load(&shared, "llama", KvElement::F16);
    let refuse = |engine: &mut Engine, tokens: &[u32], bytes: &[u8]| {
        let error = engine.import_sequence(tokens, &mut &bytes[..]).unwrap_err();
        // The whole cache can still be had.
        let id = engine.create_sequence();
        step(engine, id, &text(BLOCKS * POSITIONS_PER_BLOCK, 1));
        engine.remove_sequence(id).unwrap();
        engine.clear_cache();
        error
    };
    for engine in [&mut q8, &mut windows, &mut other] {
        let error = refuse(engine, &tokens, &bytes);
        assert!(
            matches!(error, EngineError::WrongSequence { .. }),
            "{error}"
        );
    }
    let error = refuse(&mut engine, &tokens[..69], &bytes);
    assert!(
        matches!(error, EngineError::WrongSequence { .. }),
        "{error}"
    );
    for length in [0, 10, 63, 64, 100, bytes.len() - 1] {
        let error = refuse(&mut engine, &tokens, &bytes[..length]);
        assert!(matches!(error, EngineError::Transfer(_)), "{error}");
    }
    for at in 0..64 {
        let mut changed = bytes.clone();
        changed[at] ^= 0x40;
        let error = refuse(&mut engine, &tokens, &changed);
        assert!(
            matches!(error, EngineError::WrongSequence { .. }),
            "{at}: {error}"
        );
    }
    let error = refuse(&mut engine, &[u32::MAX; 70], &bytes);
    assert!(
        matches!(error, EngineError::TokenOutOfRange { .. }),
        "{error}"
    );
    // More tokens than the cache has room for.
    let long = text(BLOCKS * POSITIONS_PER_BLOCK + 1, 0);
    let mut head = bytes[..64].to_vec();
    head[56..64].copy_from_slice(&(long.len() as u64).to_le_bytes());
    let error = refuse(&mut engine, &long, &head);
    assert!(matches!(error, EngineError::CacheFull { .. }), "{error}");
}
