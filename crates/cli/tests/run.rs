//! `dunlin run`, on a tiny random model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Dunlin, conformance, fixture, keys};

fn answer(dunlin: &Dunlin, args: &[&str]) -> common::Ran {
    let model = fixture("tiny.gguf");
    let mut all = vec![
        "run",
        model.as_str(),
        "--temperature",
        "0",
        "--max-tokens",
        "8",
    ];
    all.extend(args);
    dunlin.run(&all)
}

#[test]
fn json_has_the_promised_shape() {
    let answer = answer(&Dunlin::new(), &["--json", "Hello"]).ok().json();
    assert_eq!(keys(&answer), ["text", "finish_reason", "usage"]);
    assert_eq!(
        keys(&answer["usage"]),
        [
            "prompt_tokens",
            "completion_tokens",
            "prompt_tokens_per_second",
            "completion_tokens_per_second",
            "cached_prompt_tokens",
            "drafted_tokens",
            "accepted_tokens",
            "forced_tokens"
        ]
    );
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    assert_eq!(answer["finish_reason"], "length");
}

#[test]
fn stdout_carries_the_answer_and_a_line_end_only() {
    let dunlin = Dunlin::new();
    let json = answer(&dunlin, &["--json", "Hello"]).ok().json();
    let plain = answer(&dunlin, &["--verbose", "Hello"]).ok();
    assert_eq!(
        plain.stdout,
        format!("{}\n", json["text"].as_str().unwrap())
    );
    assert!(plain.stderr.contains("--max-tokens"), "{}", plain.stderr);
    assert!(plain.stderr.contains("tokens/s"), "{}", plain.stderr);
}

#[test]
fn weights_left_in_the_file_give_the_same_answer() {
    let dunlin = Dunlin::new();
    let packed = answer(&dunlin, &["Hello"]).ok();
    let mapped = answer(&dunlin, &["--mmap-weights", "Hello"]).ok();
    assert_eq!(mapped.stdout, packed.stdout);
    let show = |args: &[&str]| {
        let model = fixture("tiny.gguf");
        let all = [&["show", model.as_str(), "--json"], args].concat();
        dunlin.run(&all).ok().json()["file"]["memory"].clone()
    };
    let (packed, mapped) = (show(&[]), show(&["--mmap-weights"]));
    assert_eq!(packed["mapped_weights"], 0);
    assert!(mapped["total"].as_u64() < packed["total"].as_u64());
    assert!(mapped["mapped_weights"].as_u64() > Some(0));
}

#[test]
fn quiet_says_nothing_on_stderr() {
    assert_eq!(
        answer(&Dunlin::new(), &["--quiet", "Hello"]).ok().stderr,
        ""
    );
}

#[test]
fn the_prompt_may_come_from_stdin_and_loses_its_line_end() {
    let dunlin = Dunlin::new();
    let wanted = answer(&dunlin, &["Hello"]).ok().stdout;
    let model = fixture("tiny.gguf");
    let args = ["run", &model, "--temperature", "0", "--max-tokens", "8"];
    assert_eq!(dunlin.run_with(&args, "Hello\n").ok().stdout, wanted);
    assert_eq!(
        dunlin
            .run_with(&[&args[..], &["-"]].concat(), "Hello\r\n")
            .ok()
            .stdout,
        wanted
    );
}

#[test]
fn raw_and_ids_feed_the_text_itself() {
    let dunlin = Dunlin::new();
    let raw = answer(&dunlin, &["--json", "--raw", "the"]).ok().json();
    // "th" + "e" is one merge of the fixture, and its 259th token.
    assert_eq!(raw["usage"]["prompt_tokens"], 1);
    let ids = answer(&dunlin, &["--json", "--ids", "258"]).ok().json();
    assert_eq!(ids["text"], raw["text"]);
    let chat = answer(&dunlin, &["--json", "the"]).ok().json();
    assert!(chat["usage"]["prompt_tokens"].as_u64().unwrap() > 10);
}

#[test]
fn user_text_reaches_control_tokens_only_when_told_so() {
    let dunlin = Dunlin::new();
    let tokens =
        |args: &[&str]| answer(&dunlin, args).ok().json()["usage"]["prompt_tokens"].clone();
    assert_eq!(
        tokens(&["--json", "--raw", "--parse-special", "<|im_start|>"]),
        1
    );
    assert!(
        tokens(&["--json", "--raw", "<|im_start|>"])
            .as_u64()
            .unwrap()
            > 5
    );
}

#[test]
fn a_seed_repeats_the_answer() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let run = |seed: &str| {
        let args = [
            "run",
            &model,
            "--raw",
            "--max-tokens",
            "24",
            "--temperature",
            "5",
            "--seed",
            seed,
            "Hi",
        ];
        dunlin.run(&args).ok().stdout
    };
    assert_eq!(run("7"), run("7"));
    assert_ne!(run("7"), run("8"));
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let dunlin = Dunlin::new();
    let whole = answer(&dunlin, &["--json", "Hello"]).ok().json();
    let whole = whole["text"].as_str().unwrap();
    let stop: String = whole.chars().skip(3).take(2).collect();
    let cut = answer(&dunlin, &["--json", "--stop", &stop, "Hello"])
        .ok()
        .json();
    assert_eq!(cut["finish_reason"], "stop");
    assert_eq!(
        cut["text"].as_str().unwrap(),
        whole.split(&stop).next().unwrap()
    );
}

#[test]
fn a_prompt_that_does_not_fit_is_an_error_with_both_numbers() {
    let ran = answer(
        &Dunlin::new(),
        &[
            "--context",
            "16",
            "--raw",
            "a long text that has more than sixteen tokens",
        ],
    )
    .code(1);
    assert!(ran.stderr.starts_with("error: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("16"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_setting_outside_its_range_is_named_before_a_model_is_loaded() {
    let dunlin = Dunlin::new();
    for (option, value) in [
        ("--top-p", "-1"),
        ("--min-p", "2"),
        ("--temperature", "NaN"),
        ("--repeat-penalty", "0"),
        ("--stop", ""),
    ] {
        let args = ["run", "./no/such.gguf", option, value, "Hello"];
        let ran = dunlin.run(&args).code(2);
        let wanted = format!("error: {option} is ");
        assert!(ran.stderr.contains(&wanted), "{}", ran.stderr);
    }
}

#[test]
fn a_chat_needs_a_terminal() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    // Nothing on stdin is an empty question, which a template takes.
    dunlin.run(&["run", &model, "--max-tokens", "1"]).ok();
    dunlin
        .run(&["run", &model, "--raw", "--system", "x", "Hi"])
        .code(2);
    dunlin.run(&["run", &model, "--ids", "1,x"]).code(1);
}

#[test]
fn a_base_model_leads_to_raw() {
    let Some(folder) = conformance() else { return };
    let model = folder.join("llama/model.gguf");
    let model = model.to_str().unwrap();
    let dunlin = Dunlin::new();
    let ran = dunlin.run(&["run", model, "Hello"]).code(1);
    assert!(ran.stderr.contains("--raw"), "{}", ran.stderr);
    dunlin
        .run(&["run", model, "--raw", "--max-tokens", "4", "Hello"])
        .ok();
}

#[test]
fn models_that_cannot_be_had_have_their_own_exit_codes() {
    let dunlin = Dunlin::new();
    let unknown = dunlin.run(&["run", "smolm2:135m", "Hi"]).code(3);
    assert!(
        unknown.stderr.contains("smollm2:135m"),
        "{}",
        unknown.stderr
    );
    dunlin.run(&["run", "./no-such-file.gguf", "Hi"]).code(3);
    let offline = dunlin.run(&["run", "smollm2:135m", "Hi"]).code(4);
    assert!(offline.stderr.contains("offline"), "{}", offline.stderr);
    let damaged = dunlin.write("damaged.gguf", "GGUF and nothing more");
    dunlin.run(&["run", &damaged, "Hi"]).code(5);
    dunlin
        .run(&["run", &fixture("tiny-base.gguf"), "Hi"])
        .code(5);
}

#[test]
fn guessing_changes_no_answer_and_says_how_often_it_was_right() {
    let dunlin = Dunlin::new();
    let text = "one two three one two three one two three one two";
    let ask = |more: &[&str]| {
        let args = [&["--json", "--raw", "--max-tokens", "40"], more, &[text]].concat();
        let model = fixture("tiny.gguf");
        let all = [&["run", model.as_str(), "--temperature", "0"], &args[..]].concat();
        dunlin.run(&all).ok().json()
    };
    let plain = ask(&["--speculate", "off"]);
    assert_eq!(plain["usage"]["drafted_tokens"], 0);
    let draft = fixture("tiny.gguf");
    for how in [
        &[][..],
        &["--speculate", "auto"],
        &["--speculate", "lookup"],
        &["--draft", draft.as_str()],
    ] {
        let found = ask(how);
        assert_eq!(found["text"], plain["text"], "{how:?}");
        let count = |what: &str| found["usage"][what].as_u64().unwrap();
        assert!(count("accepted_tokens") <= count("drafted_tokens"));
    }
}

#[test]
fn a_draft_model_excludes_other_ways_to_guess() {
    let draft = fixture("tiny.gguf");
    let refused = answer(
        &Dunlin::new(),
        &["--draft", &draft, "--speculate", "off", "Hello"],
    );
    assert!(refused.code(2).stderr.contains("--draft"));
}

#[test]
fn logprobs_stand_in_the_json_where_they_are_asked_for() {
    let dunlin = Dunlin::new();
    let answer = answer(&dunlin, &["--json", "--logprobs", "2", "Hello"])
        .ok()
        .json();
    let logprobs = answer["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), 8);
    for entry in logprobs {
        assert_eq!(keys(entry), ["token", "text", "bytes", "logprob", "top"]);
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0);
        assert_eq!(entry["top"].as_array().unwrap().len(), 2);
        // The likeliest token was taken.
        assert_eq!(entry["top"][0]["token"], entry["token"]);
    }
    let model = fixture("tiny.gguf");
    dunlin
        .run(&["run", &model, "--logprobs", "2", "Hi"])
        .code(2);
}

#[test]
fn the_best_of_several_answers_and_of_beams_is_shown() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    for search in ["--beams", "--best-of"] {
        let args = ["run", &model, "--max-tokens", "6", search, "3", "Hello"];
        let json = dunlin.run(&[&args[..], &["--json"]].concat()).ok().json();
        assert_eq!(keys(&json), ["text", "finish_reason", "usage", "answers"]);
        let answers = json["answers"].as_array().unwrap();
        assert_eq!(answers.len(), 3);
        assert_eq!(answers[0]["text"], json["text"]);
        let score = |index: usize| answers[index]["score"].as_f64().unwrap();
        assert!(score(0) >= score(1) && score(1) >= score(2), "{json}");
        if search == "--beams" {
            let plain = dunlin.run(&args).ok();
            assert_eq!(
                plain.stdout,
                format!("{}\n", json["text"].as_str().unwrap())
            );
        }
    }
    let args = ["run", &model, "--beams", "2", "--temperature", "1", "Hello"];
    dunlin.run(&args).code(2);
}

#[test]
fn further_sampling_settings_are_checked_before_a_model_is_loaded() {
    let dunlin = Dunlin::new();
    for (option, value) in [
        ("--typical-p", "1.5"),
        ("--xtc-probability", "-0.5"),
        ("--dry-base", "0.5"),
        ("--samplers", "top_q"),
        ("--samplers", "top_k;top_k"),
    ] {
        let args = ["run", "./no/such.gguf", option, value, "Hello"];
        let ran = dunlin.run(&args).code(2);
        let wanted = format!("error: {option} is ");
        assert!(ran.stderr.contains(&wanted), "{}", ran.stderr);
    }
    let args = ["run", "./no/such.gguf", "--mirostat-tau", "3", "Hello"];
    let ran = dunlin.run(&args).code(2);
    assert!(ran.stderr.contains("--mirostat"), "{}", ran.stderr);
}

#[test]
fn what_the_model_recommends_is_shown_and_used_unless_a_flag_says_otherwise() {
    let dunlin = Dunlin::new();
    let folder = fixture("../../../convert/tests/fixtures/tiny-llama");
    let out = dunlin.folder.path().join("recommends.gguf");
    let model = out.to_str().unwrap();
    dunlin.run(&["convert", &folder, "--out", model]).ok();
    // As its generation_config.json says.
    let shown = dunlin.run(&["show", model]).ok().stdout;
    let wanted = "temperature 0.25, top-k 20, top-p 0.5";
    assert!(shown.contains(wanted), "{shown}");
    let json = dunlin.json(&["show", model, "--json"]);
    assert_eq!(json["file"]["sampling"]["temperature"], 0.25);

    let run = |flags: &[&str]| {
        let always = [
            "run",
            model,
            "--raw",
            "--seed",
            "3",
            "--max-tokens",
            "24",
            "Hello",
        ];
        dunlin.run(&[&always[..], flags].concat()).ok().stdout
    };
    let recommended = run(&[]);
    let the_same = ["--temperature", "0.25", "--top-k", "20", "--top-p", "0.5"];
    assert_eq!(run(&the_same), recommended);
    assert_eq!(
        run(&[&["--no-model-defaults"][..], &the_same].concat()),
        recommended
    );
    // Drawn from all tokens with a high temperature, 24 tokens are others.
    let other = run(&[
        "--temperature",
        "5",
        "--top-k",
        "0",
        "--top-p",
        "1",
        "--min-p",
        "0",
    ]);
    assert_ne!(other, recommended);
}

#[test]
fn an_answer_has_the_form_that_was_asked_for() {
    let dunlin = Dunlin::new();
    let choice = answer(&dunlin, &["--choices", "yes,no", "Hello"]).ok();
    assert!(["yes\n", "no\n"].contains(&choice.stdout.as_str()));
    let year = answer(&dunlin, &["--regex", "[0-9]{4}", "Hello"]).ok();
    assert_eq!(year.stdout.trim_end().len(), 4);
    assert!(year.stdout.trim_end().parse::<u32>().is_ok());
    let schema = r#"{"type": "object", "properties": {"a": {"type": "boolean"}},
        "required": ["a"], "additionalProperties": false}"#;
    let file = dunlin.write("schema.json", schema);
    for schema in [schema, &file] {
        let args = [
            "--json",
            "--max-tokens",
            "40",
            "--json-schema",
            schema,
            "Hello",
        ];
        let model = fixture("tiny.gguf");
        let answer = dunlin
            .run(&[&["run", model.as_str(), "--temperature", "0"], &args[..]].concat())
            .ok()
            .json();
        let value: serde_json::Value =
            serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
        assert!(value["a"].is_boolean());
        assert!(answer["usage"]["forced_tokens"].as_u64() > Some(0));
    }
    let gbnf = dunlin.write("g.gbnf", "root ::= \"a\"{3}\n");
    let lark = dunlin.write("g.lark", "start: \"aaa\"\n");
    for grammar in [gbnf, lark] {
        let answer = answer(&dunlin, &["--grammar", &grammar, "Hello"]).ok();
        assert_eq!(answer.stdout, "aaa\n");
    }
}

#[test]
fn a_form_that_cannot_be_kept_is_an_error_with_its_place() {
    let dunlin = Dunlin::new();
    let refused = answer(
        &dunlin,
        &["--json-schema", r#"{"items": {"not": {}}}"#, "Hello"],
    );
    assert!(refused.code(2).stderr.contains("#/items/not"));
    let gbnf = dunlin.write("g.gbnf", "root ::= \"a\n");
    let refused = answer(&dunlin, &["--grammar", &gbnf, "Hello"]).code(2);
    assert!(
        refused.stderr.contains("line 1, column 10"),
        "{}",
        refused.stderr
    );
    answer(&dunlin, &["--grammar", "g.txt", "Hello"]).code(2);
    answer(&dunlin, &["--regex", "a", "--choices", "b", "Hello"]).code(2);
    answer(&dunlin, &["--json-schema", "./none.json", "Hello"]).code(3);
}
