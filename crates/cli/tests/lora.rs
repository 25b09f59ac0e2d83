//! `dunlin run --lora`, on a tiny model and adapters of random weights.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Dunlin, conformance, fixture};

fn run(dunlin: &Dunlin, model: &str, more: &[&str]) -> common::Ran {
    let mut args = vec!["run", model, "--ids", "1,50,99,3,7", "--temperature", "0"];
    args.extend(["--max-tokens", "12"]);
    args.extend(more);
    dunlin.run(&args)
}

#[test]
fn adapters_change_the_answer_as_strongly_as_asked() {
    let Some(conformance) = conformance() else {
        return;
    };
    let dunlin = Dunlin::new();
    let model = conformance.join("llama/model.gguf");
    let model = model.to_str().unwrap();
    let (folder, file) = (fixture("lora/llama/one"), fixture("lora/llama/one.gguf"));
    let answer = |more: &[&str]| run(&dunlin, model, more).ok().stdout;
    let plain = answer(&[]);
    let whole = answer(&["--lora", &folder]);
    assert_ne!(whole, plain);
    assert_eq!(answer(&["--lora", &file]), whole);
    assert_eq!(answer(&["--lora", &format!("{folder}:0")]), plain);
    let opposite = [format!("{folder}:0.5"), format!("{file}:-0.5")];
    let both = ["--lora", &opposite[0], "--lora", &opposite[1]];
    assert_eq!(answer(&both), plain);
}

#[test]
fn an_adapter_that_cannot_be_used_is_named() {
    let Some(conformance) = conformance() else {
        return;
    };
    let dunlin = Dunlin::new();
    let model = conformance.join("qwen2/model.gguf");
    let model = model.to_str().unwrap();
    let file = fixture("lora/llama/one.gguf");
    let ran = run(&dunlin, model, &["--lora", &file]).code(5);
    assert!(ran.stderr.contains("one.gguf"), "{}", ran.stderr);
    assert!(ran.stderr.contains("llama"), "{}", ran.stderr);
    let ran = run(&dunlin, model, &["--lora", "no-such-adapter"]).code(3);
    assert!(ran.stderr.contains("no-such-adapter"), "{}", ran.stderr);
    run(&dunlin, model, &["--lora", ":0.5"]).code(2);
}
