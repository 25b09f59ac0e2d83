//! Flags for the types of weights: the plan of `show`, the notes of loading, and what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Dunlin, fixture, keys};

const PARTIAL: [&str; 5] = [
    "--tensor-type",
    "attn_v=q8_0",
    "--weight-type",
    "q4_k",
    "--type-fallback",
];

#[test]
fn show_tells_the_plan_and_its_memory() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let show = |types: &[&str]| dunlin.json(&[&["show", &model, "--json"], types].concat());
    let (plain, shown) = (show(&[]), show(&PARTIAL));
    assert!(plain["types"].is_null());
    let tensors = shown["types"]["tensors"].as_array().unwrap();
    for tensor in tensors {
        assert_eq!(
            keys(tensor),
            ["tensor", "from", "wanted", "to", "columns", "elements"]
        );
        let is_value = tensor["tensor"].as_str().unwrap().contains("attn_v");
        let expected = if is_value { "Q8_0" } else { "Q5_0" };
        assert_eq!(tensor["to"], expected, "{tensor}");
    }
    // Two layers of seven matrices, and the head.
    assert_eq!(tensors.len(), 15);
    let weights = |shown: &serde_json::Value| shown["file"]["memory"]["weights"].as_u64().unwrap();
    assert!(weights(&shown) < weights(&plain));
    let text = dunlin
        .run(&[&["show", &model], &PARTIAL[..]].concat())
        .ok()
        .stdout;
    assert!(text.contains("Q5_0 instead of Q4_K"), "{text}");
}

#[test]
fn loading_says_what_becomes_of_the_weights_unless_it_is_to_be_quiet() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let run = [&["run", &model, "-n", "2", "--raw", "x"], &PARTIAL[..]].concat();
    let said = dunlin.run(&run).ok().stderr;
    assert!(
        said.contains("converted while loading") && said.contains("Q5_0 instead of Q4_K"),
        "{said}"
    );
    let quiet = dunlin.run(&[&["--quiet"], &run[..]].concat()).ok().stderr;
    assert_eq!(quiet, "");
}

#[test]
fn wrong_types_are_errors_of_the_command_line() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    for (flags, says) in [
        (&["--weight-type", "q4_k"][..], "--type-fallback"),
        (&["--weight-type", "q9"], "none of f32"),
        (&["--tensor-type", "attn_qkv=q8_0"], "decides nothing"),
        (&["--tensor-type", "attn_(=q8_0"], "no regular expression"),
        (&["--tensor-type", "q8_0"], "PATTERN=TYPE"),
        (
            &["--weight-type", "q8_0", "--mmap-weights"],
            "left in the file",
        ),
    ] {
        for command in ["show", "logits"] {
            let mut args = vec![command, &model];
            if command == "logits" {
                args.extend(["--ids", "1"]);
            }
            args.extend(flags);
            let said = dunlin.run(&args).code(2).stderr;
            assert!(said.contains(says), "{args:?}: {said}");
        }
    }
}
