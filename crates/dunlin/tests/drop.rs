//! Dropping the last handle of a model frees its memory and ends its threads. Linux only; alone in its process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "figures to look at")]
#![cfg(target_os = "linux")]

mod common;

use std::path::PathBuf;

use common::{fixture, greedy, options};
use dunlin::{Lm, ModelRef, resident_bytes};

/// Most by which the memory of later models may exceed that of the first ones. One that were not freed would add all of its
/// own in each round; the allocator keeps some of what was freed for what comes next.
const GROWTH: f64 = 0.5;
const ROUNDS: usize = 4;
/// So many of the small model, that it shows.
const COPIES: usize = 16;

#[test]
fn the_last_handle_frees_everything() {
    let models = std::env::var_os("DUNLIN_MODELS").map(PathBuf::from);
    let (path, copies) = match models {
        Some(models) => (models.join("smollm2-135m.gguf"), 1),
        None => {
            println!("with the small fixture: DUNLIN_MODELS names no folder with model files");
            (fixture("tiny.gguf"), COPIES)
        }
    };
    let start = resident_bytes().unwrap();
    let (mut peaks, mut left) = (Vec::new(), Vec::new());
    for _ in 0..=ROUNDS {
        let load = || Lm::load(ModelRef::Path(path.clone()), options()).unwrap();
        let models: Vec<Lm> = (0..copies).map(|_| load()).collect();
        let handles = models.clone();
        handles.iter().for_each(|lm| {
            greedy(lm, "Once upon a time", 8);
        });
        drop(models);
        // A handle is left of each.
        assert!(!greedy(&handles[0], "Once upon a time", 8).is_empty());
        peaks.push(resident_bytes().unwrap().saturating_sub(start));
        drop(handles);
        left.push(resident_bytes().unwrap().saturating_sub(start));
    }
    println!("bytes that are left after each round: {left:?}");
    println!("bytes that the models of each round take: {peaks:?}");
    let first = peaks[0];
    assert!(first > 1_000_000, "the models take {first} bytes");
    for peak in &peaks[1..] {
        let growth = peak.saturating_sub(first) as f64;
        assert!(growth < GROWTH * first as f64, "{peaks:?}");
    }
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    // The test's own, and the one that runs it.
    assert!(threads <= 2, "{threads} threads");
}
