//! The engineer's windows: tokenize, template, logits, perplexity.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use common::{Dunlin, conformance, fixture, keys, read_json};
use serde_json::{Value, json};

#[test]
fn tokenize_gives_ids_with_pieces_and_back() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny-base.gguf");
    let tokens = dunlin.json(&["tokenize", &model, "the"]);
    assert_eq!(tokens, json!({"ids": [258], "pieces": ["the"]}));
    let back = dunlin.json(&["tokenize", &model, "--ids", "258,258"]);
    assert_eq!(
        back,
        json!({"ids": [258, 258], "pieces": ["the", "the"], "text": "thethe"})
    );
    assert_eq!(
        dunlin.json(&["tokenize", &model, ""]),
        json!({"ids": [], "pieces": []})
    );
    let ran = dunlin.run(&["tokenize", &model, "--ids", "100000"]).code(1);
    assert!(ran.stderr.contains("100000"), "{}", ran.stderr);
}

#[test]
fn tokenize_reads_stdin_byte_for_byte() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny-base.gguf");
    let with = dunlin.run_with(&["tokenize", &model], "the\n").ok().json();
    assert_eq!(with["ids"].as_array().unwrap().len(), 2);
    assert_eq!(with["pieces"][1], "\n");
}

#[test]
fn control_tokens_need_parse_special() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let plain = dunlin.json(&["tokenize", &model, "<|im_end|>"]);
    assert!(plain["ids"].as_array().unwrap().len() > 1);
    let special = dunlin.json(&["tokenize", &model, "--parse-special", "<|im_end|>"]);
    assert_eq!(special["pieces"], json!(["<|im_end|>"]));
}

#[test]
fn every_line_of_a_batch_gives_one_line_at_once() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let mut command = dunlin.command(&["tokenize", &model, "--batch", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ask = |line: Value| -> Value {
        writeln!(stdin, "{line}").unwrap();
        // Answered while the input is still open.
        serde_json::from_str(&stdout.next().unwrap().unwrap()).unwrap()
    };
    assert_eq!(
        ask(json!({"text": "the"})),
        json!({"ids": [258], "pieces": ["the"]})
    );
    let special = ask(json!({"text": "<|im_end|>", "add_special": false, "parse_special": true}));
    assert_eq!(special["pieces"], json!(["<|im_end|>"]));
    assert_eq!(ask(json!({"ids": [258]}))["text"], "the");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_bad_line_of_a_batch_is_named() {
    let dunlin = Dunlin::new();
    let file = dunlin.write("texts.jsonl", "{\"text\":\"a\"}\nnot json\n");
    let ran = dunlin
        .run(&["tokenize", &fixture("tiny.gguf"), "--batch", &file])
        .code(1);
    assert!(ran.stderr.contains("line 2"), "{}", ran.stderr);
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn a_batch_of_tokenizer_cases_gives_the_expected_ids() {
    let Some(folder) = conformance() else { return };
    let golden = read_json(&folder.join("llama/golden.json"));
    let cases = golden["tokenizer_cases"].as_array().unwrap();
    let lines: String = cases
        .iter()
        .map(|case| format!("{}\n", json!({"text": case["text"]})))
        .collect();
    let dunlin = Dunlin::new();
    let file = dunlin.write("texts.jsonl", &lines);
    let model = folder.join("llama/model.gguf");
    let ran = dunlin
        .run(&["tokenize", model.to_str().unwrap(), "--batch", &file])
        .ok();
    let found: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(found.len(), cases.len());
    for (case, found) in cases.iter().zip(&found) {
        assert_eq!(case["ids"], found["ids"], "{}", case["text"]);
    }
}

const MESSAGES: &str = r#"[{"role":"user","content":"Hi"}]"#;

#[test]
fn template_is_byte_for_byte() {
    let dunlin = Dunlin::new();
    let messages = dunlin.write("messages.json", MESSAGES);
    let model = fixture("tiny.gguf");
    let wanted = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(
        dunlin.run(&["template", &model, &messages]).ok().stdout,
        wanted
    );
    assert_eq!(
        dunlin
            .run_with(&["template", &model, "-"], MESSAGES)
            .ok()
            .stdout,
        wanted
    );
    let closed = dunlin
        .run(&["template", &model, &messages, "--no-generation-prompt"])
        .ok()
        .stdout;
    assert_eq!(closed, "<|im_start|>user\nHi<|im_end|>\n");
}

#[test]
fn a_template_file_stands_instead_of_a_model() {
    let dunlin = Dunlin::new();
    let messages = dunlin.write("messages.json", MESSAGES);
    let source = "{{ bos_token }}{{ messages[0].content }}{{ mood }}{{ tools | length }}{{ strftime_now('%Y') }}{{ eos_token }}";
    let template = dunlin.write("t.jinja", source);
    let tools = dunlin.write("tools.json", "[{},{}]");
    let set = [
        "--set",
        "mood=\"!\"",
        "--now",
        "2031-01-15T09:30:00",
        "--tools",
        &tools,
    ];
    let args = [
        "template", "--file", &template, "--bos", "<s>", "--eos", "</s>", &messages,
    ];
    assert_eq!(
        dunlin.run(&[&args[..], &set].concat()).ok().stdout,
        "<s>Hi!22031</s>"
    );
}

#[test]
fn a_template_that_cannot_be_used_is_said() {
    let dunlin = Dunlin::new();
    let messages = dunlin.write("messages.json", MESSAGES);
    let base = dunlin
        .run(&["template", &fixture("tiny-base.gguf"), &messages])
        .code(1);
    assert!(base.stderr.contains("no chat template"), "{}", base.stderr);
    dunlin.run(&["template", &fixture("tiny.gguf")]).code(2);
    dunlin
        .run(&["template", &fixture("tiny.gguf"), &messages, "--set", "a=b"])
        .code(2);
    dunlin
        .run(&[
            "template",
            &fixture("tiny.gguf"),
            &messages,
            "--now",
            "yesterday",
        ])
        .code(1);
    let no_list = dunlin.write("one.json", r#"{"role":"user"}"#);
    dunlin
        .run(&["template", &fixture("tiny.gguf"), &no_list])
        .code(1);
    let args = ["template", &fixture("tiny.gguf"), &messages, "--tools"];
    let ran = dunlin.run(&[&args[..], &[&no_list]].concat()).code(1);
    assert!(ran.stderr.contains("no list of tools"), "{}", ran.stderr);
    dunlin
        .run(&["template", &fixture("tiny.gguf"), "no-such-file.json"])
        .code(3);
}

#[test]
fn template_cases_render_as_transformers_renders_them() {
    let Some(folder) = conformance() else { return };
    let folder = folder.join("templates");
    for name in ["qwen3", "llama-3.2", "smollm2"] {
        let file = read_json(&folder.join(format!("{name}.json")));
        let template = folder.join(file["template"].as_str().unwrap());
        let dunlin = Dunlin::new();
        for case in file["cases"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|case| case["expected"].is_string())
        {
            let messages = case
                .get("messages_as_rendered")
                .unwrap_or(&case["messages"]);
            let messages = dunlin.write("messages.json", &messages.to_string());
            let text = |key: &str| file[key].as_str().unwrap_or_default().to_owned();
            let mut args = vec!["template".to_owned(), messages, "--file".to_owned()];
            args.push(template.to_str().unwrap().to_owned());
            args.extend(
                ["bos", "eos"]
                    .map(|which| format!("--{which}={}", text(&format!("{which}_token")))),
            );
            args.push(format!("--now={}", text("now")));
            if !case["tools"].is_null() {
                args.push(format!(
                    "--tools={}",
                    dunlin.write("tools.json", &case["tools"].to_string())
                ));
            }
            if case["add_generation_prompt"] == json!(false) {
                args.push("--no-generation-prompt".to_owned());
            }
            for (key, value) in case["kwargs"].as_object().into_iter().flatten() {
                args.push(format!("--set={key}={value}"));
            }
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let rendered = dunlin.run(&args).ok().stdout;
            assert_eq!(
                rendered,
                case["expected"].as_str().unwrap(),
                "{name}: {}",
                case["name"]
            );
        }
    }
}

#[test]
fn logits_has_the_promised_shape() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let all = dunlin.json(&["logits", &model, "--ids", "1,2,3", "--json"]);
    assert_eq!(keys(&all), ["vocab_size", "positions", "logits"]);
    assert_eq!(all["positions"], json!([0, 1, 2]));
    let rows = all["logits"].as_array().unwrap();
    assert!(
        rows.iter()
            .all(|row| row.as_array().unwrap().len() as u64 == all["vocab_size"].as_u64().unwrap())
    );
    let file = dunlin.write("ids.txt", "1 2 3\n");
    let some = dunlin.json(&[
        "logits",
        &model,
        "--ids",
        &file,
        "--positions",
        "2,0",
        "--json",
    ]);
    assert_eq!(some["positions"], json!([2, 0]));
    assert_eq!(some["logits"], json!([rows[2], rows[0]]));
}

#[test]
fn logits_refuses_what_does_not_exist() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    dunlin
        .run(&["logits", &model, "--ids", "1,2", "--positions", "2"])
        .code(1);
    dunlin.run(&["logits", &model, "--ids", "100000"]).code(1);
    dunlin.run(&["logits", &model, "--ids", ""]).code(2);
    dunlin.run(&["logits", &model]).code(2);
}

#[test]
fn logits_are_those_of_the_reference() {
    let Some(folder) = conformance() else { return };
    let golden = read_json(&folder.join("llama/golden.json"));
    let model = folder.join("llama/model.gguf");
    let dunlin = Dunlin::new();
    let numbers = |value: &Value| -> Vec<f64> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_f64().unwrap())
            .collect()
    };
    for prompt in golden["prompts"].as_array().unwrap() {
        let (ids, positions) = (prompt["ids"].to_string(), prompt["positions"].to_string());
        let args = [
            "logits",
            model.to_str().unwrap(),
            "--ids",
            &ids,
            "--positions",
            &positions,
            "--json",
        ];
        let found = dunlin.json(&args);
        assert_eq!(found["vocab_size"], golden["vocab_size"]);
        let rows = prompt["logits"].as_array().unwrap();
        assert_eq!(rows.len(), found["logits"].as_array().unwrap().len());
        for (expected, found) in rows.iter().zip(found["logits"].as_array().unwrap()) {
            let (expected, found) = (numbers(expected), numbers(found));
            let largest = expected
                .iter()
                .fold(0.0, |largest: f64, value| largest.max(value.abs()));
            let off = expected
                .iter()
                .zip(&found)
                .fold(0.0, |off: f64, (a, b)| off.max((a - b).abs()));
            assert!(off < 2e-3 * largest, "off by {off} of {largest}");
        }
    }
}

#[test]
fn perplexity_has_the_promised_shape() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    let text = dunlin.write("text.txt", &"abcdefgh ".repeat(130));
    let result = dunlin.json(&["perplexity", &model, &text, "--json"]);
    assert_eq!(keys(&result), ["perplexity", "tokens"]);
    // Two windows, of each of which 255 tokens are scored.
    assert_eq!(result["tokens"], 510);
    assert!(result["perplexity"].as_f64().unwrap() > 1.0);
    let short = dunlin.write("short.txt", "too short");
    let ran = dunlin.run(&["perplexity", &model, &short]).code(1);
    assert!(ran.stderr.contains("512"), "{}", ran.stderr);
    dunlin
        .run(&["perplexity", &model, "no-such-file.txt"])
        .code(3);
}
