//! `dunlin run --session`: a conversation over several runs of the program, on a tiny random model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs;

use common::{Dunlin, fixture};
use serde_json::Value;

fn run(dunlin: &Dunlin, model: &str, session: &str, more: &[&str]) -> common::Ran {
    let args = ["run", model, "--session", session, "--temperature", "0"];
    dunlin.run(&[&args[..], &["--max-tokens", "8"], more].concat())
}

fn computed(answer: &Value) -> u64 {
    let usage = |name: &str| answer["usage"][name].as_u64().unwrap();
    usage("prompt_tokens") - usage("cached_prompt_tokens")
}

#[test]
fn a_session_goes_on_in_the_next_run_and_computes_its_new_tokens_only() {
    let dunlin = Dunlin::new();
    let session = dunlin.folder.path().join("talk.session");
    let (model, session) = (fixture("tiny.gguf"), session.to_str().unwrap());
    let long = "Remember this: the river is deep. ".repeat(4);
    let system = "Be brief.";
    let first = run(
        &dunlin,
        &model,
        session,
        &["--json", "--system", system, &long],
    );
    let first = first.ok().json();
    assert_eq!(first["usage"]["cached_prompt_tokens"], 0);
    let second = run(&dunlin, &model, session, &["--json", "And now?"]).ok();
    assert!(second.stderr.contains("restored"), "{}", second.stderr);
    assert!(second.stderr.contains("saved"), "{}", second.stderr);
    let second = second.json();
    let prompt = |answer: &Value| answer["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt(&second) > prompt(&first) + 8);
    assert!(computed(&second) < prompt(&first), "{second}");
    // Without the session nothing is known.
    let alone = dunlin.json(&[
        "run",
        &model,
        "--json",
        "--temperature",
        "0",
        "--max-tokens",
        "8",
        "And now?",
    ]);
    assert!(prompt(&alone) < prompt(&first));
}

#[test]
fn a_session_that_cannot_be_used_is_an_error_and_stays() {
    let dunlin = Dunlin::new();
    let session = dunlin.write("talk.session", "no session");
    let refused = run(&dunlin, &fixture("tiny.gguf"), &session, &["Hello"]).code(1);
    assert!(
        refused.stderr.contains("no session file"),
        "{}",
        refused.stderr
    );
    assert_eq!(refused.stdout, "");
    assert_eq!(fs::read_to_string(&session).unwrap(), "no session");
}

#[test]
fn a_full_context_is_what_the_policy_says() {
    let dunlin = Dunlin::new();
    let session = dunlin.folder.path().join("talk.session");
    let (model, session) = (fixture("tiny.gguf"), session.to_str().unwrap());
    let long = "word ".repeat(50);
    let context = ["--context", "400"];
    run(
        &dunlin,
        &model,
        session,
        &[&context[..], &[long.as_str()]].concat(),
    )
    .ok();
    let before = fs::read(session).unwrap();
    let full = run(
        &dunlin,
        &model,
        session,
        &[&context[..], &[long.as_str()]].concat(),
    )
    .code(1);
    assert!(full.stderr.contains("context policy"), "{}", full.stderr);
    assert_eq!(fs::read(session).unwrap(), before);
    let args = [
        &context[..],
        &["--context-policy", "drop-oldest-turns", long.as_str()],
    ]
    .concat();
    let told = run(&dunlin, &model, session, &args).ok();
    assert!(told.stderr.contains("were dropped"), "{}", told.stderr);
}
