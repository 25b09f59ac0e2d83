//! Which blocks are held, found and free after any order of uses.

use super::*;
use dunlin_format::Gguf;
use proptest::prelude::*;
use std::path::Path;

const BLOCKS: usize = 8;

/// A cache of a few blocks; with `recurrent`, of a model with states.
fn cache(recurrent: bool) -> KvCache {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dunlin/tests/fixtures/tiny.gguf");
    let spec = ModelSpec::from_gguf(&Gguf::open(&tiny).unwrap()).unwrap();
    let mut cache = KvCache::new(&spec, KvTypes::default(), BLOCKS * POSITIONS_PER_BLOCK);
    cache.state_len = if recurrent { 2 } else { 0 };
    cache
}

/// What a step does to the cache. The state tells which tokens it stands for.
fn step(cache: &mut KvCache, id: SequenceId, tokens: &[u32]) -> Result<(), EngineError> {
    cache.extend(id, tokens.len())?;
    let sequence = cache.get_mut(id)?;
    sequence.tokens.extend_from_slice(tokens);
    assert_eq!(sequence.tokens.len(), sequence.length);
    if !sequence.state.is_empty() {
        sequence.state = state_after(&sequence.tokens);
    }
    if tokens.len() > 1 {
        cache.save_checkpoint(id)?;
    }
    Ok(())
}

fn state_after(tokens: &[u32]) -> Vec<f32> {
    let sum: u32 = (1..).zip(tokens).map(|(at, token)| at * token).sum();
    vec![tokens.len() as f32, sum as f32]
}

fn check(cache: &KvCache) {
    let sequences = || cache.sequences.iter().flatten();
    let held = Vec::from_iter(sequences().flat_map(|sequence| sequence.blocks.iter().copied()));
    cache.blocks.check(&held);
    for sequence in sequences() {
        let blocks = sequence.length.div_ceil(POSITIONS_PER_BLOCK);
        assert_eq!(sequence.blocks.len(), blocks);
        assert_eq!(sequence.tokens.len(), sequence.length);
        if !sequence.state.is_empty() && sequence.length > 0 {
            assert_eq!(sequence.state, state_after(&sequence.tokens));
        }
    }
}

/// One of a few texts that share beginnings of several lengths.
fn text(which: usize, length: usize) -> Vec<u32> {
    let token = |at: usize| match which {
        1 if at >= 20 => 1,
        2 if at >= 32 => 2,
        3 if at >= 80 => 3,
        _ => 10 + at as u32 % 7,
    };
    (0..length).map(token).collect()
}

#[derive(Clone, Debug)]
enum Use {
    Create { text: usize, length: usize },
    Fork { sequence: usize },
    Extend { sequence: usize, tokens: usize },
    Truncate { sequence: usize, length: usize },
    Remove { sequence: usize },
    Discard { sequence: usize },
    Forget { text: usize, length: usize },
}

fn uses() -> impl Strategy<Value = Use> {
    prop_oneof![
        (0usize..4, 1usize..200).prop_map(|(text, length)| Use::Create { text, length }),
        (0usize..4).prop_map(|sequence| Use::Fork { sequence }),
        (0usize..4, 1usize..70).prop_map(|(sequence, tokens)| Use::Extend { sequence, tokens }),
        (0usize..4, 1usize..2).prop_map(|(sequence, tokens)| Use::Extend { sequence, tokens }),
        (0usize..4, 0usize..200).prop_map(|(sequence, length)| Use::Truncate { sequence, length }),
        (0usize..4).prop_map(|sequence| Use::Remove { sequence }),
        (0usize..4).prop_map(|sequence| Use::Discard { sequence }),
        (0usize..4, 1usize..200).prop_map(|(text, length)| Use::Forget { text, length }),
    ]
}

proptest! {
    #[test]
    fn every_block_is_free_held_or_found_after_any_order_of_uses(
        uses in prop::collection::vec(uses(), 1..60),
        recurrent: bool,
    ) {
        let mut cache = cache(recurrent);
        // Each sequence with the text that it follows.
        let mut live: Vec<(SequenceId, usize)> = Vec::new();
        for next in uses {
            match next {
                Use::Create { text: which, length } => {
                    let tokens = text(which, length);
                    let (id, known) = cache.create_with_prefix(&tokens, Computation::default());
                    prop_assert!(known < length);
                    prop_assert_eq!(&cache.get(id).unwrap().tokens, &tokens[..known]);
                    live.push((id, which));
                }
                Use::Fork { sequence } => {
                    let Some((id, which)) = live.get(sequence).copied() else { continue };
                    if let Ok(fork) = cache.fork(id) {
                        let tokens = cache.get(id).unwrap().tokens.clone();
                        prop_assert_eq!(&cache.get(fork).unwrap().tokens, &tokens);
                        live.push((fork, which));
                    }
                }
                Use::Extend { sequence, tokens } => {
                    let Some((id, which)) = live.get(sequence).copied() else { continue };
                    let length = cache.get(id).unwrap().length;
                    let more = &text(which, length + tokens)[length..];
                    if step(&mut cache, id, more).is_err() {
                        prop_assert_eq!(cache.get(id).unwrap().length, length);
                        // What is held by nobody else is available to the last one, up to the whole cache.
                        for (other, _) in live.iter().filter(|(other, _)| *other != id) {
                            cache.remove(*other).unwrap();
                        }
                        live.retain(|(other, _)| *other == id);
                        check(&cache);
                        let fits = length + tokens <= BLOCKS * POSITIONS_PER_BLOCK;
                        prop_assert_eq!(step(&mut cache, id, more).is_ok(), fits);
                    }
                }
                Use::Truncate { sequence, length } => {
                    let Some((id, _)) = live.get(sequence) else { continue };
                    let left = cache.truncate(*id, length).unwrap();
                    prop_assert!(left <= length || left == cache.get(*id).unwrap().length);
                }
                Use::Remove { sequence } if sequence < live.len() => {
                    cache.remove(live.remove(sequence).0).unwrap();
                }
                Use::Discard { sequence } if sequence < live.len() => {
                    cache.discard(live.remove(sequence).0).unwrap();
                }
                Use::Forget { text: which, length } => {
                    let free = cache.free_blocks();
                    prop_assert!(cache.forget(&text(which, length)) <= length);
                    prop_assert_eq!(cache.free_blocks(), free);
                }
                _ => {}
            }
            check(&cache);
        }
        cache.clear();
        check(&cache);
        prop_assert_eq!(cache.free_blocks(), BLOCKS);
    }
}

#[test]
fn a_text_that_ended_is_found_to_the_last_token() {
    let mut cache = cache(false);
    for length in [1, 31, 32, 33, 70, 96] {
        cache.clear();
        let tokens = text(0, length + 5);
        let id = cache.create();
        step(&mut cache, id, &tokens[..length]).unwrap();
        cache.remove(id).unwrap();
        let (_, known) = cache.create_with_prefix(&tokens, Computation::default());
        assert_eq!(known, length);
        // The other rotation gives other keys.
        let long = Computation {
            long: true,
            ..Computation::default()
        };
        assert_eq!(cache.create_with_prefix(&tokens, long).1, 0);
        check(&cache);
    }
}

#[test]
fn a_running_sequence_shares_its_full_blocks() {
    let mut cache = cache(false);
    let tokens = text(0, 75);
    let first = cache.create();
    step(&mut cache, first, &tokens).unwrap();
    let (second, known) = cache.create_with_prefix(&tokens, Computation::default());
    assert_eq!(known, 64);
    let blocks = |id| cache.get(id).unwrap().blocks.clone();
    assert_eq!(blocks(first)[..2], blocks(second)[..2]);
    assert_eq!(cache.free_blocks(), BLOCKS - 3);
}

#[test]
fn the_least_recently_used_text_goes_first_and_from_its_end() {
    let mut cache = cache(false);
    for which in 1..4 {
        let (id, known) = cache.create_with_prefix(&text(which, 96), Computation::default());
        step(&mut cache, id, &text(which, 96)[known..]).unwrap();
        cache.remove(id).unwrap();
    }
    // 1 has three blocks of its own, 2 and 3 have five together: all eight are in use.
    assert_eq!((cache.free_blocks(), BLOCKS), (8, 8));
    let (id, _) = cache.create_with_prefix(&[7; 33], Computation::default());
    step(&mut cache, id, &[7; 33]).unwrap();
    cache.remove(id).unwrap();
    for (which, expected) in [(3, 96), (2, 96), (1, 32)] {
        let (id, known) = cache.create_with_prefix(&text(which, 97), Computation::default());
        assert_eq!(known, expected, "text {which}");
        cache.remove(id).unwrap();
    }
}

#[test]
fn a_text_with_states_goes_on_from_its_end_and_from_the_ends_of_its_steps() {
    let mut cache = cache(true);
    let tokens = text(0, 100);
    let id = cache.create();
    step(&mut cache, id, &tokens[..40]).unwrap();
    step(&mut cache, id, &tokens[40..60]).unwrap();
    for token in &tokens[60..64] {
        step(&mut cache, id, &[*token]).unwrap();
    }
    cache.remove(id).unwrap();
    for (length, expected) in [(100, 64), (65, 64), (64, 60), (60, 40), (40, 0)] {
        let (id, known) = cache.create_with_prefix(&tokens[..length], Computation::default());
        assert_eq!(known, expected, "{length} tokens");
        check(&cache);
        cache.discard(id).unwrap();
    }
}
