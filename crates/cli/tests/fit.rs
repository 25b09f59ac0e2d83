//! The commands about machines, memory that fits and gaps in code: devices, catalog --fits, show --budget, fim.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::path::PathBuf;

use common::{Dunlin, fixture, keys};
use serde_json::json;

#[test]
fn devices_lists_the_processor() {
    let dunlin = Dunlin::new();
    let devices = dunlin.json(&["devices", "--json"]);
    assert_eq!(devices.as_array().unwrap().len(), 1);
    assert_eq!(devices[0]["kind"], "cpu");
    assert!(devices[0]["cores"].as_u64().unwrap() >= 1);
    assert!(dunlin.run(&["devices"]).ok().stderr.contains("no GPU"));
}

#[test]
fn catalog_fits_rates_what_fits_the_best_first() {
    let dunlin = Dunlin::new();
    let found = dunlin.json(&["catalog", "--fits", "--task", "chat", "--json"]);
    let found = found.as_array().unwrap();
    for card in found {
        assert_eq!(
            keys(&card["rating"]),
            ["memory", "fits", "tokens_per_second", "score"]
        );
        assert_eq!(card["rating"]["fits"], true);
        assert!(
            card["capabilities"]
                .as_array()
                .unwrap()
                .contains(&json!("chat"))
        );
    }
    let comfortable = |card: &serde_json::Value| card["rating"]["score"].as_f64().unwrap() >= 0.5;
    assert!(found.is_sorted_by_key(|card| !comfortable(card)));
    let table = dunlin
        .run(&["catalog", "--fits", "--capability", "code"])
        .ok()
        .stdout;
    assert!(
        table.contains("SCORE") && !table.contains("smollm2:135m"),
        "{table}"
    );
    dunlin.run(&["catalog", "--task", "chat"]).code(2);
}

#[test]
fn show_finds_the_longest_context_that_fits() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let shown = dunlin.json(&["show", &model, "--budget", "1GB", "--json"]);
    assert_eq!(shown["fit"]["budget"], 1_000_000_000);
    assert_eq!(shown["fit"]["gpu_layers"], 0);
    assert_eq!(
        shown["fit"]["context_length"],
        shown["file"]["context_length"]
    );
    assert!(shown["fit"]["memory"]["process"].as_u64().unwrap() > 0);
    let text = dunlin.run(&["show", &model, "--budget", "1GB"]).ok().stdout;
    assert!(text.contains("fits"), "{text}");
    let small = dunlin.run(&["show", &model, "--budget", "1kB"]).code(1);
    assert!(small.stderr.contains("1000"), "{}", small.stderr);
    dunlin.run(&["show", &model, "--budget", "much"]).code(2);
}

#[test]
fn fim_wants_a_gap_and_a_model_that_fills_it() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let file = dunlin.write("a.py", "x = \n");
    for args in [
        &["fim", &model][..],
        &["fim", &model, &file],
        &["fim", &model, "--suffix", "b"],
        &["fim", &model, &file, "--at", "0"],
        &["fim", &model, &file, "--at", "9"],
        &["fim", &model, &file, "--at", "1:9"],
        &["fim", &model, &file, "--at", "1", "--prefix", "a"],
    ] {
        dunlin.run(args).code(2);
    }
    dunlin
        .run(&["fim", &model, "missing.py", "--at", "1"])
        .code(3);
    let ran = dunlin.run(&["fim", &model, &file, "--at", "1"]).code(5);
    assert!(ran.stderr.contains("middle of a text"), "{}", ran.stderr);
}

#[test]
fn fim_writes_what_belongs_into_the_gap_and_nothing_else() {
    let Some(models) = std::env::var_os("DUNLIN_MODELS").map(PathBuf::from) else {
        println!("skipped: DUNLIN_MODELS names no folder with model files");
        return;
    };
    let model = models.join("qwen2.5-coder-0.5b.gguf");
    let model = model.to_str().unwrap();
    let dunlin = Dunlin::new();
    let text = "def add(a, b):\n    return \n\nprint(add(1, 2))\n";
    let file = dunlin.write("sum.py", text);
    let ran = dunlin
        .run(&["fim", model, &file, "--at", "2:12", "--lines", "1"])
        .ok();
    assert_eq!(ran.stdout, "a + b");
    let args = ["fim", model, "-", "--at", "2:12", "--lines", "1", "--json"];
    let json = dunlin.run_with(&args, text).ok().json();
    assert_eq!(keys(&json), ["text", "finish_reason", "dropped", "usage"]);
    assert_eq!(
        (&json["text"], &json["finish_reason"]),
        (&json!("a + b"), &json!("stop"))
    );
}
