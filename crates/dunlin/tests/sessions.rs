//! Conversations that are saved, restored in another process, and put to sleep; and files that are none of theirs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::print_stdout,
    reason = "a skipped test says so, and a child process its answer"
)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{CHATML, conformance, fixture, options, pulled, tiny, tiny_ref, with_template};
use dunlin::{
    Conversation, Error, GenerateOptions, KvElement, KvTypes, Lm, ModelRef, Reply, SaveOptions,
    TemplateOptions,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use sha2::{Digest, Sha256};

fn greedy(lm: &Lm) -> GenerateOptions {
    let answer = (lm.context_length() / 20).min(60);
    GenerateOptions::greedy().with_max_tokens(answer)
}

fn begin(lm: &Lm) -> Conversation {
    let mut talk = Conversation::new(lm)
        .with_system("Be brief.")
        .with_options(greedy(lm));
    let mut text = String::from("Remember this list.");
    let wanted = (lm.context_length() / 2).min(2000);
    for number in 0.. {
        if lm.tokenizer().encode(&text, false).unwrap().len() >= wanted {
            break;
        }
        text.push_str(&format!(
            " Item {number} weighs {} grams.",
            number * 37 % 1000
        ));
    }
    talk.ask(text).unwrap();
    talk
}

const NEXT: &str = "Which item is the last one?";

/// Tokens of a turn that were computed.
fn computed(reply: &Reply) -> usize {
    reply.usage.prompt_tokens - reply.usage.cached_prompt_tokens
}

/// Set for a child process: the session, and the model.
const CHILD: &str = "DUNLIN_TEST_SESSION";

/// What a child process does: restores a session and answers the next turn.
#[test]
#[ignore = "not a test: the child process in which the tests of this file go on with a session; alone it has no session"]
fn the_child_process_restores_and_answers() {
    let task = std::env::var(CHILD).unwrap();
    let (session, model) = task.split_once('|').unwrap();
    let lm = match Path::new(model).exists() {
        true => Lm::load(ModelRef::Path(model.into()), options()).unwrap(),
        false => pulled(model).unwrap(),
    };
    let (talk, restored) = Conversation::restore(&lm, session).unwrap();
    let mut talk = talk.with_options(greedy(&lm));
    let reply = talk.ask(NEXT).unwrap();
    let answer = json!([restored.kv_tokens, reply.tokens, computed(&reply)]);
    println!("answer: {answer}");
}

/// Saves, ends, restores in a new process, and compares with the conversation that was not interrupted.
fn goes_on_in_a_new_process(lm: &Lm, model: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session");
    let mut talk = begin(lm);
    let saved = talk.save(&path, &SaveOptions::new()).unwrap();
    assert_eq!(saved.bytes, fs::metadata(&path).unwrap().len());
    assert!(saved.kv_tokens + 1 >= saved.tokens, "{saved:?}");
    let reply = talk.ask(NEXT).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "the_child_process_restores_and_answers",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, format!("{}|{model}", path.display()))
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    let answer = output
        .lines()
        .find_map(|line| line.split_once("answer: "))
        .unwrap_or_else(|| panic!("{output}{}", String::from_utf8_lossy(&child.stderr)))
        .1;
    let expected = json!([saved.kv_tokens, reply.tokens, computed(&reply)]);
    assert_eq!(answer.parse::<serde_json::Value>().unwrap(), expected);
    assert!(computed(&reply) < 80, "{}", computed(&reply));
}

#[test]
fn a_session_goes_on_in_a_new_process() {
    goes_on_in_a_new_process(&tiny(), fixture("tiny.gguf").to_str().unwrap());
}

#[test]
fn sessions_of_real_models_go_on_in_a_new_process() {
    for name in ["smollm2:135m", "qwen2.5-coder:0.5b"] {
        if let Some(lm) = pulled(name) {
            goes_on_in_a_new_process(&lm, name);
        }
    }
}

#[test]
fn states_of_recurrent_layers_are_part_of_a_session() {
    let Some(folder) = conformance() else { return };
    let chats = tempfile::tempdir().unwrap();
    for name in ["qwen3_5", "lfm2"] {
        let path = chats.path().join(name);
        with_template(&folder.join(name).join("model.gguf"), &path, CHATML);
        let lm = Lm::load(ModelRef::Path(path.clone()), options()).unwrap();
        goes_on_in_a_new_process(&lm, path.to_str().unwrap());
    }
}

#[test]
fn a_session_without_what_was_computed_is_small_and_says_so() {
    let (folder, lm) = (tempfile::tempdir().unwrap(), tiny());
    let (with, without) = (folder.path().join("with"), folder.path().join("without"));
    let mut talk = begin(&lm);
    let big = talk.save(&with, &SaveOptions::new()).unwrap();
    let small = talk
        .save(&without, &SaveOptions::new().with_kv(false))
        .unwrap();
    assert_eq!((small.tokens, small.kv_tokens), (big.tokens, 0));
    assert!(small.bytes < big.bytes / 2);
    let other = tiny();
    let (restored, outcome) = Conversation::restore(&other, &without).unwrap();
    assert_eq!((outcome.tokens, outcome.kv_tokens), (big.tokens, 0));
    let mut restored = restored.with_options(greedy(&other));
    let (wanted, found) = (talk.ask(NEXT).unwrap(), restored.ask(NEXT).unwrap());
    assert_eq!(found.usage.cached_prompt_tokens, 0);
    assert_eq!(found.tokens, wanted.tokens);
    assert_eq!(restored.messages(), talk.messages());
}

#[test]
fn what_decides_the_tokens_is_restored() {
    let (folder, lm) = (tempfile::tempdir().unwrap(), tiny());
    let path = folder.path().join("session");
    let template = TemplateOptions::default()
        .with_tools(json!([{"name": "weather"}]))
        .with_variable("enable_thinking", false)
        .with_now("2026-01-15T09:30:00".parse().unwrap());
    let options = greedy(&lm).with_template(template.clone());
    let mut talk = Conversation::new(&lm).with_options(options);
    talk.ask("Hello").unwrap();
    talk.save(&path, &SaveOptions::new()).unwrap();
    let (restored, _) = Conversation::restore(&lm, &path).unwrap();
    let mut restored = restored.with_options(greedy(&lm));
    assert_eq!(restored.options().template, template);
    // An answer that was cut goes on with its own tokens.
    let wanted = talk.continue_answer().unwrap().complete().unwrap();
    let found = restored.continue_answer().unwrap().complete().unwrap();
    assert_eq!(found.tokens, wanted.tokens);
}

#[test]
fn a_sleeping_conversation_gives_its_cache_back_and_wakes_with_the_next_turn() {
    let (folder, lm, other) = (tempfile::tempdir().unwrap(), tiny(), tiny());
    let path = folder.path().join("session");
    let (mut talk, mut awake) = (begin(&lm), begin(&other));
    let saved = talk.hibernate(&path).unwrap();
    assert_eq!(talk.hibernates_in(), Some(&*path));
    // Nothing of it is in the cache any more.
    let mut clone = Conversation::new(&lm).with_options(greedy(&lm));
    for message in talk.messages() {
        clone.push(message.clone());
    }
    assert_eq!(clone.ask(NEXT).unwrap().usage.cached_prompt_tokens, 0);
    lm.clear_cache();
    let (wanted, found) = (awake.ask(NEXT).unwrap(), talk.ask(NEXT).unwrap());
    assert_eq!(talk.hibernates_in(), None);
    assert_eq!(found.tokens, wanted.tokens);
    assert_eq!(computed(&found), computed(&wanted));

    talk.hibernate(&path).unwrap();
    assert!(talk.wake().unwrap() >= saved.kv_tokens);
    // A file that is gone is told once; then the conversation computes again.
    talk.hibernate(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let before = talk.messages().to_vec();
    assert!(matches!(talk.ask("x"), Err(Error::SessionFile { .. })));
    assert_eq!(talk.messages(), before);
    talk.ask("x").unwrap();
}

#[test]
fn sessions_of_other_models_and_settings_are_refused() {
    let (folder, lm) = (tempfile::tempdir().unwrap(), tiny());
    let (path, small) = (folder.path().join("session"), folder.path().join("small"));
    let talk = begin(&lm);
    talk.save(&path, &SaveOptions::new()).unwrap();
    talk.save(&small, &SaveOptions::new().with_kv(false))
        .unwrap();
    let refused = |lm: &Lm, path: &Path| match Conversation::restore(lm, path) {
        Err(Error::SessionMismatch { what, .. }) => what,
        Err(error) => panic!("{error}"),
        Ok(_) => "nothing",
    };
    let q8 = options().with_kv_element(KvElement::Q8_0);
    let q8 = Lm::load(tiny_ref(), q8).unwrap();
    assert_eq!(refused(&q8, &path), "KV type");
    assert_eq!(refused(&q8, &small), "nothing");
    let values = KvTypes::default().with_values(KvElement::Q4_0);
    let values = Lm::load(tiny_ref(), options().with_kv_types(values)).unwrap();
    assert_eq!(refused(&values, &path), "KV type");
    // The same weights, and another template.
    let other = folder.path().join("other.gguf");
    with_template(&fixture("tiny.gguf"), &other, "{{ messages[0].content }}");
    let other = Lm::load(ModelRef::Path(other), options()).unwrap();
    assert_eq!(refused(&other, &path), "model");
    assert_eq!(refused(&other, &small), "model");
    // A context that is too short for what was computed: it will be computed again, as far as it fits.
    let short = options().with_context_length(64);
    let short = Lm::load(tiny_ref(), short).unwrap();
    let (restored, outcome) = Conversation::restore(&short, &path).unwrap();
    assert_eq!(outcome.kv_tokens, 0);
    assert_eq!(restored.messages(), talk.messages());
}

#[test]
fn files_that_are_no_sessions_are_told_from_damaged_ones() {
    let (folder, lm) = (tempfile::tempdir().unwrap(), tiny());
    let path = folder.path().join("session");
    let restore = |path: &Path| Conversation::restore(&lm, path).map(|_| ()).unwrap_err();
    assert!(matches!(restore(&path), Error::SessionFile { .. }));
    assert!(matches!(
        restore(folder.path()),
        Error::SessionDamaged { .. }
    ));
    for bytes in [&b""[..], b"short", &[0; 5000], &[b'{'; 5000]] {
        fs::write(&path, bytes).unwrap();
        assert!(matches!(restore(&path), Error::SessionDamaged { .. }));
    }
    let mut bytes = b"DUNLINSE\x09\x00\x00\x00".to_vec();
    bytes.extend([0; 100]);
    fs::write(&path, bytes).unwrap();
    assert!(matches!(
        restore(&path),
        Error::SessionVersion {
            found: 9,
            supported: 1,
            ..
        }
    ));
    // A folder that is not there cannot take a file, and none is left half written.
    let talk = begin(&lm);
    let missing = folder.path().join("missing/session");
    let error = talk.save(&missing, &SaveOptions::new()).unwrap_err();
    assert!(matches!(error, Error::SessionFile { .. }));
    talk.save(&path, &SaveOptions::new()).unwrap();
    talk.save(&path, &SaveOptions::new()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// Puts a right checksum under changed bytes, as somebody would who wants them read.
fn sign(bytes: &mut [u8]) {
    if let Some(at) = bytes.len().checked_sub(32) {
        let (content, sum) = bytes.split_at_mut(at);
        sum.copy_from_slice(&Sha256::digest(content));
    }
}

#[test]
fn damaged_and_hostile_files_are_errors_that_leave_nothing() {
    let (folder, lm) = (tempfile::tempdir().unwrap(), tiny());
    let path = folder.path().join("session");
    let mut talk = Conversation::new(&lm).with_options(greedy(&lm));
    talk.ask("Hello there").unwrap();
    talk.save(&path, &SaveOptions::new()).unwrap();
    let whole = fs::read(&path).unwrap();
    let head = u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize + 16;
    lm.clear_cache();

    let place = prop_oneof![0..head + 64, 0..whole.len()];
    let change = (place, any::<u8>(), 0..whole.len());
    let strategy = (
        prop::collection::vec(change, 1..4),
        any::<bool>(),
        any::<bool>(),
    );
    let mut runner = TestRunner::new(Config::with_cases(300));
    let result = runner.run(&strategy, |(changes, is_signed, is_cut)| {
        let mut bytes = whole.clone();
        for (at, byte, length) in &changes {
            bytes[*at] ^= byte;
            if is_cut {
                bytes.truncate((*length).max(1));
                break;
            }
        }
        if is_signed {
            sign(&mut bytes);
        }
        let is_same = bytes == whole;
        fs::write(&path, &bytes).unwrap();
        match Conversation::restore(&lm, &path) {
            Err(
                Error::SessionDamaged { .. }
                | Error::SessionVersion { .. }
                | Error::SessionMismatch { .. }
                | Error::Engine(_),
            ) => prop_assert!(!is_same),
            Err(error) => prop_assert!(false, "{error}"),
            // Signed, a changed text or number is a session as any other; it may have nonsense in it and must not do harm.
            Ok((restored, _)) => {
                prop_assert!(is_same || is_signed);
                let mut restored = restored.with_options(greedy(&lm));
                let _ = restored.ask("Go on");
            }
        }
        lm.clear_cache();
        Ok(())
    });
    result.unwrap();
    // Nothing of them is left: the file as it was gives the conversation as it was.
    fs::write(&path, &whole).unwrap();
    let (restored, _) = Conversation::restore(&lm, &path).unwrap();
    let mut restored = restored.with_options(greedy(&lm));
    let fresh = tiny();
    let mut again = Conversation::new(&fresh).with_options(greedy(&fresh));
    again.ask("Hello there").unwrap();
    let wanted = again.ask("Go on").unwrap().tokens;
    assert_eq!(restored.ask("Go on").unwrap().tokens, wanted);
}

#[test]
fn the_hash_of_a_model_is_that_of_its_file() {
    let digits = Sha256::digest(fs::read(fixture("tiny.gguf")).unwrap());
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(tiny().sha256(), digits);
}

#[test]
fn the_hash_that_the_hub_knows_of_real_models_is_that_of_their_files() {
    let Some(lm) = pulled("smollm2:135m") else {
        return;
    };
    let by_path = Lm::load(ModelRef::Path(lm.path().to_owned()), options()).unwrap();
    assert_eq!(lm.sha256(), by_path.sha256());
}
