//! The memory that a header promises against what the process takes.
//!
//! Runs only where `DUNLIN_MODELS` names the folder with the model files, on Linux; it is alone in its process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]
#![cfg(target_os = "linux")]

mod common;

use std::path::PathBuf;

use common::options;
use dunlin::{GenerateOptions, Lm, ModelInfo, ModelRef, Prompt, resident_bytes};

/// The most by which promise and measurement may differ, of the measurement.
const BOUND: f64 = 0.05;
/// Tokens of the prompt, and of the answer.
const PROMPT: u32 = 600;
const ANSWER: usize = 32;

#[test]
fn the_process_takes_what_the_header_promises() {
    let Some(models) = std::env::var_os("DUNLIN_MODELS").map(PathBuf::from) else {
        println!("skipped: DUNLIN_MODELS names no folder with model files");
        return;
    };
    let path = models.join("qwen2.5-coder-0.5b.gguf");
    let context = PROMPT as usize + ANSWER + 8;
    let promised = ModelInfo::open(&path).unwrap().memory_for(context).unwrap();

    let load = options().with_context_length(context);
    let lm = Lm::load(ModelRef::Path(path), load).unwrap();
    let prompt = Prompt::Tokens((0..PROMPT).map(|at| 1000 + at * 7 % 9000).collect());
    let mut answer = GenerateOptions::greedy().with_max_tokens(ANSWER);
    answer.ignore_end_of_text = true;
    lm.generate(&prompt, &answer).unwrap().complete().unwrap();

    let resident = resident_bytes().unwrap();
    let difference = promised.total().abs_diff(resident) as f64 / resident as f64;
    println!(
        "promised {}, resident {resident}: {difference:.3}",
        promised.total()
    );
    assert!(difference <= BOUND, "{promised:?} against {resident}");
}
