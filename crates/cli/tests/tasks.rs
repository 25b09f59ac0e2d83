//! The commands that put a model to one use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Dunlin, fixture, keys};
use serde_json::json;

const TEXT: &str = "Anna met Paul in Lyon. Write to anna@example.org.\n";

#[test]
fn summaries_say_what_they_were_made_from() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let text: String = (0..24)
        .map(|index| format!("Part {index} says that the sky is blue.\n\n"))
        .collect();
    let file = dunlin.write("text.txt", &text);
    let args = [
        "summarize",
        &model,
        &file,
        "--words",
        "4",
        "--piece-tokens",
        "160",
    ];
    let answer = dunlin.json(&[&args[..], &["--json"]].concat());
    let summary = &answer["summaries"][0];
    assert_eq!(
        keys(summary),
        [
            "file",
            "summary",
            "pieces",
            "bytes",
            "covered_bytes",
            "levels",
            "unfinished",
            "usage"
        ]
    );
    assert_eq!(summary["bytes"], text.len());
    assert!(summary["pieces"].as_u64().unwrap() > 3);
    let plain = dunlin.run(&args).ok();
    assert!(plain.stderr.contains("summarized in"), "{}", plain.stderr);
    dunlin.run_with(&["summarize", &model], " \n").code(2);
    dunlin.run(&["summarize", &model, "./none.txt"]).code(3);
}

#[test]
fn texts_and_lines_are_sorted_by_labels() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let labels = ["classify", &model, "--labels", "good,bad"];
    let answer = dunlin
        .run_with(&[&labels[..], &["--json"]].concat(), TEXT)
        .ok()
        .json();
    let text = &answer["texts"][0];
    assert_eq!(keys(text), ["file", "label", "scores", "none_of_these"]);
    let probability = |index: usize| text["scores"][index]["probability"].as_f64().unwrap();
    assert!((probability(0) + probability(1) - 1.0).abs() < 1e-9);

    let lines = [&labels[..], &["--lines", "--json", "--none-of-these", "1"]].concat();
    let answer = dunlin.run_with(&lines, "one\n\ntwo\n").ok().json();
    let texts = answer["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 2);
    assert_eq!(
        (&texts[1]["line"], &texts[1]["label"]),
        (&json!(3), &json!(null))
    );
    let table = dunlin
        .run_with(&["classify", &model, "--sentiment"], TEXT)
        .ok();
    assert!(table.stdout.starts_with("positive") || table.stdout.starts_with("negative"));

    dunlin.run_with(&["classify", &model], TEXT).code(2);
    dunlin
        .run_with(&["classify", &model, "--labels", "one"], TEXT)
        .code(2);
    dunlin
        .run_with(&["classify", &model, "--label", "one"], TEXT)
        .code(2);
    dunlin
        .run_with(&[&labels[..], &["--none-of-these", "2"]].concat(), TEXT)
        .code(2);
}

#[test]
fn data_names_and_personal_data_are_taken_out_of_texts() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let extract = |flags: &[&str]| dunlin.run_with(&[&["extract", &model], flags].concat(), TEXT);
    let data = extract(&["--example", r#"{"married": true}"#]).ok().json();
    assert_eq!(keys(&data), ["married"]);
    let found = extract(&["--entities", "person,place", "--json"])
        .ok()
        .json();
    for name in found["texts"][0]["entities"].as_array().unwrap() {
        assert_eq!(keys(name), ["kind", "text", "places"]);
        let place = &name["places"][0];
        let range = place[0].as_u64().unwrap() as usize..place[1].as_u64().unwrap() as usize;
        assert_eq!(&TEXT[range], name["text"].as_str().unwrap());
    }
    let masked = extract(&["--mask"]).ok().stdout;
    assert!(
        masked.contains("[EMAIL]") && !masked.contains("example.org"),
        "{masked}"
    );
    let listed = extract(&["--personal-data"]).ok().stdout;
    assert!(listed.contains("email: anna@example.org"), "{listed}");
    extract(&["--keywords", "2"]).ok();
    extract(&[]).code(2);
    extract(&["--mask", "--keywords"]).code(2);
    extract(&["--example", "{}"]).code(2);
    extract(&["--example", "{\"a\": "]).code(2);
    extract(&["--schema", "./none.json"]).code(3);
}

/// Random weights seldom end a text, which is an error with the piece.
#[test]
fn a_translation_is_whole_or_an_error() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let ran = dunlin.run_with(&["translate", &model, "--to", "fr", "--json"], TEXT);
    match ran.code {
        Some(0) => assert_eq!(ran.json()["translations"][0]["detected"]["code"], "eng"),
        _ => assert!(ran.code(1).stderr.contains("piece 1 of 1")),
    }
    dunlin.run_with(&["translate", &model], TEXT).code(2);
}
