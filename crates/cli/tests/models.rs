//! The commands about models and files: catalog, show, list, pull, rm, cache, validate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Dunlin, fixture, keys};
use serde_json::json;

#[test]
fn the_catalog_is_searched_and_filtered() {
    let dunlin = Dunlin::new();
    let ids = |args: &[&str]| -> Vec<String> {
        let cards = dunlin.json(&[&["catalog", "--json"], args].concat());
        cards
            .as_array()
            .unwrap()
            .iter()
            .map(|card| card["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(ids(&[]).len() >= 14);
    assert!(ids(&["gemma"]).contains(&"gemma3:270m".to_owned()));
    assert!(ids(&["--capability", "code"]).contains(&"qwen2.5-coder:0.5b".to_owned()));
    assert!(!ids(&["--capability", "embeddings"]).contains(&"smollm2:135m".to_owned()));
    assert!(
        ids(&["--family", "QWEN3"])
            .iter()
            .all(|id| id.contains("qwen3"))
    );
    let table = dunlin.run(&["catalog", "smollm2"]).ok();
    assert!(
        table.stdout.contains("smollm2:135m") && table.stdout.contains("Apache-2.0"),
        "{}",
        table.stdout
    );
    dunlin.run(&["catalog", "xyzzy"]).code(1);
    assert_eq!(dunlin.json(&["catalog", "xyzzy", "--json"]), json!([]));
}

#[test]
fn show_describes_a_file() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let shown = dunlin.json(&["show", &model, "--json"]);
    assert_eq!(keys(&shown), ["model", "path", "card", "file", "folder"]);
    assert_eq!(shown["file"]["architecture"], "llama");
    assert_eq!(shown["file"]["tensor_types"][0]["name"], "F16");
    let memory = &shown["file"]["memory"];
    // 2 layers, keys and values of 2 heads of 16 numbers, 2 bytes each.
    assert_eq!(memory["kv_cache_per_token"], 2 * 2 * 2 * 16 * 2);
    assert!(memory["total"].as_u64().unwrap() > memory["weights"].as_u64().unwrap());
    let text = dunlin.run(&["show", &model]).ok().stdout;
    for wanted in ["llama", "F16", "memory", "chat template"] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
    dunlin.run(&["show", "./no-such-file.gguf"]).code(3);
}

#[test]
fn show_reckons_with_the_types_of_the_cache() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    // Keys and values of 16 numbers have one scale of two bytes; values of 4 bits are whole groups of 32.
    for (kv, name, keys, values) in [
        ("f32", "F32", 64, 64),
        ("q8_0", "Q8_0", 18, 18),
        ("q4_0", "Q4_0", 10, 18),
        ("q8_0/q4_0", "Q8_0/Q4_0", 18, 18),
        ("F16/Q4_0", "F16/Q4_0", 32, 18),
    ] {
        let shown = dunlin.json(&["show", &model, "--json", "--kv", kv]);
        let memory = &shown["file"]["memory"];
        assert_eq!(memory["kv_type"], name);
        assert_eq!(memory["kv_cache_per_token"], 2 * 2 * (keys + values));
    }
    let windows = ["show", &model, "--kv", "f16", "--kv-window", "q4_0"];
    let text = dunlin.run(&windows).ok().stdout;
    assert!(text.contains("F16, windows Q4_0"), "{text}");
    let refused = dunlin.run(&["show", &model, "--kv", "q5_0"]).code(2);
    assert!(refused.stderr.contains("q4_0, q8_0, f16, f32"));
}

#[test]
fn show_knows_the_card_of_a_model_that_is_not_here() {
    let dunlin = Dunlin::new();
    let shown = dunlin.json(&["show", "smollm2", "--json"]);
    assert_eq!(shown["card"]["id"], "smollm2:135m");
    assert!(shown["path"].is_null() && shown["file"].is_null());
    let text = dunlin.run(&["show", "smollm2:135m"]).ok().stdout;
    assert!(text.contains("dunlin pull smollm2:135m"), "{text}");
    dunlin.run(&["show", "hf:owner/repo"]).code(3);
}

#[test]
fn show_says_what_a_path_lacks() {
    let dunlin = Dunlin::new();
    let folder = dunlin.folder.path().to_str().unwrap().to_owned();
    let ran = dunlin.run(&["show", &folder]).code(5);
    assert!(ran.stderr.contains("is a folder"), "{}", ran.stderr);
    let ran = dunlin.run(&["show", "./no/such.gguf"]).code(3);
    assert!(ran.stderr.contains("(os error"), "{}", ran.stderr);
}

#[test]
fn an_empty_cache_is_said_and_no_error() {
    let dunlin = Dunlin::new();
    let list = dunlin.run(&["list"]).ok();
    assert_eq!(list.stdout, "");
    assert!(list.stderr.contains("dunlin pull"), "{}", list.stderr);
    assert_eq!(dunlin.json(&["list", "--json"]), json!([]));
    assert_eq!(
        dunlin.json(&["cache", "size", "--json"]),
        json!({"bytes": 0, "unfinished_bytes": 0})
    );
    let home = dunlin.folder.path().join("home");
    assert_eq!(
        dunlin.run(&["cache", "path"]).ok().stdout,
        format!("{}\n", home.display())
    );
    assert_eq!(dunlin.json(&["cache", "verify", "--json"]), json!([]));
    assert_eq!(
        dunlin.json(&["cache", "clear", "--json"]),
        json!({"freed": 0, "kept": []})
    );
}

#[test]
fn pull_offline_is_a_failed_download() {
    let dunlin = Dunlin::new();
    dunlin.run(&["pull", "smollm2:135m"]).code(4);
    let ran = dunlin.run(&["pull", "owner/repo"]).code(2);
    assert!(ran.stderr.contains("hf:owner/repo"), "{}", ran.stderr);
    let model = fixture("tiny.gguf");
    assert_eq!(
        dunlin.run(&["pull", &model]).ok().stdout,
        format!("{model}\n")
    );
}

#[test]
fn rm_removes_from_the_cache_only() {
    let dunlin = Dunlin::new();
    dunlin.run(&["rm", "smollm2:135m"]).code(3);
    let file = dunlin.write("mine.gguf", "precious");
    let ran = dunlin.run(&["rm", &file]).code(2);
    assert!(ran.stderr.contains("a file of yours"), "{}", ran.stderr);
    assert!(std::path::Path::new(&file).exists());
}

#[test]
fn validate_tells_sound_from_damaged() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let report = dunlin.json(&["validate", &model, "--json"]);
    assert_eq!(
        (&report["ok"], &report["problems"]),
        (&json!(true), &json!([]))
    );
    assert_eq!(report["architecture"], "llama");
    assert!(
        dunlin
            .run(&["validate", &model])
            .ok()
            .stdout
            .contains("sound")
    );

    let damaged = dunlin.write("damaged.gguf", "GGUF\u{3}\0\0\0");
    let ran = dunlin.run(&["validate", &damaged]).code(5);
    assert!(ran.stderr.contains("byte"), "{}", ran.stderr);
    let report = dunlin.run(&["validate", &damaged, "--json"]).code(5).json();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"].as_array().unwrap().len(), 1);
    dunlin.run(&["validate", "no-such-file.gguf"]).code(3);
}
