//! The commands about vectors, scores and folders: embed, rerank, convert, and folders in place of files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../dunlin/tests/common/bert.rs"]
mod bert;
mod common;

use std::path::Path;

use bert::{LONGEST_TEXT, POSITIONS};
use common::{Dunlin, conformance, fixture, keys, read_json};
use serde_json::{Value, json};

fn embedder(dunlin: &Dunlin) -> String {
    let folder = dunlin.folder.path().join("embedder");
    bert::write_embedder(&folder);
    folder.to_str().unwrap().to_owned()
}

fn reranker(dunlin: &Dunlin) -> String {
    let folder = dunlin.folder.path().join("reranker");
    bert::write_reranker(&folder);
    folder.to_str().unwrap().to_owned()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn embed_gives_one_vector_a_text_and_a_list() {
    let dunlin = Dunlin::new();
    let model = embedder(&dunlin);
    let out = dunlin.json(&[
        "embed",
        &model,
        "cat sleeps",
        "dog",
        "--ids",
        "2,6,8,3",
        "--json",
    ]);
    assert_eq!(keys(&out), ["embeddings"]);
    let vectors = out["embeddings"].as_array().unwrap();
    assert_eq!(vectors.len(), 3);
    assert_eq!(
        vectors[0], vectors[2],
        "the ids are those of the first text"
    );
    let square: f64 = numbers(&vectors[1]).iter().map(|x| x * x).sum();
    assert!((square - 1.0).abs() < 1e-5);
    let raw = dunlin.json(&["embed", &model, "dog", "--no-normalize"]);
    assert_ne!(raw["embeddings"][0], vectors[1]);
    let cls = dunlin.json(&["embed", &model, "dog", "--pooling", "cls"]);
    assert_ne!(cls["embeddings"][0], vectors[1]);
    let lines = dunlin
        .run_with(&["embed", &model], "cat sleeps\ndog\n")
        .ok();
    assert_eq!(lines.json()["embeddings"], json!([vectors[0], vectors[1]]));
}

#[test]
fn vectors_are_written_with_the_digits_of_f32() {
    let dunlin = Dunlin::new();
    let out = dunlin
        .run(&["embed", &embedder(&dunlin), "cat"])
        .ok()
        .stdout;
    let numbers = out.trim_end().trim_start_matches("{\"embeddings\":[[");
    for text in numbers.trim_end_matches("]]}").split(',') {
        let number: f32 = text.parse().unwrap();
        let shortest = serde_json::to_string(&number).unwrap();
        assert_eq!(text, shortest);
    }
}

#[test]
fn a_line_that_is_no_text_is_named() {
    use std::io::Write as _;
    let dunlin = Dunlin::new();
    let mut command = dunlin.command(&["embed", &embedder(&dunlin)]);
    let pipes = command.stdin(std::process::Stdio::piped());
    let mut child = pipes.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"cat\n\xff\xfe\ndog\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("line 2 of stdin"), "{stderr}");
}

#[test]
fn embed_refuses_what_it_cannot_do_and_says_what_would_help() {
    let dunlin = Dunlin::new();
    let model = embedder(&dunlin);
    let long = "cat ".repeat(POSITIONS);
    let ran = dunlin.run(&["embed", &model, &long]).code(1);
    let wanted = [(POSITIONS + 2).to_string(), LONGEST_TEXT.to_string()];
    assert!(
        wanted.iter().all(|number| ran.stderr.contains(number)),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("--truncate"), "{}", ran.stderr);
    dunlin.run(&["embed", &model, &long, "--truncate"]).ok();
    let ran = dunlin.run(&["embed", &fixture("tiny.gguf"), "x"]).code(2);
    assert!(ran.stderr.contains("name a pooling"), "{}", ran.stderr);
    let last = ["embed", &fixture("tiny.gguf"), "x", "--pooling", "last"];
    dunlin.run(&last).ok();
    dunlin.run(&["embed", &model, "--ids", "2,,3"]).code(1);
    dunlin.run(&["embed", &model, "--ids", ""]).code(2);
    dunlin.run(&["embed", &model]).code(2);
    dunlin.run(&["embed", &reranker(&dunlin), "x"]).code(2);
}

#[test]
fn rerank_gives_one_score_a_document() {
    let dunlin = Dunlin::new();
    let model = reranker(&dunlin);
    let out = dunlin.json(&[
        "rerank",
        &model,
        "--query",
        "cat",
        "cat sleeps",
        "dog",
        "--json",
    ]);
    assert_eq!(keys(&out), ["scores"]);
    let scores = numbers(&out["scores"]);
    assert!(scores.len() == 2 && scores[0] != scores[1]);
    let pairs = dunlin.json(&["rerank", &model, "--ids", "6", "--ids", "6,8", "--ids", "7"]);
    assert_eq!(numbers(&pairs["scores"]), scores, "joined as texts are");
    let typed = ["--ids", "2,6,3,7,3", "--token-types", "0,0,0,1,1"];
    let whole = dunlin.json(&[&["rerank", &model], &typed[..]].concat());
    assert_eq!(numbers(&whole["scores"]), scores[1..]);
    let untyped = dunlin.json(&["rerank", &model, "--ids", "2,6,3,7,3"]);
    assert_ne!(numbers(&untyped["scores"]), scores[1..]);
    let lines = dunlin.run_with(&["rerank", &model, "--query", "cat"], "cat sleeps\ndog\n");
    assert_eq!(numbers(&lines.ok().json()["scores"]), scores);
}

#[test]
fn rerank_refuses_what_does_not_fit_together() {
    let dunlin = Dunlin::new();
    let model = reranker(&dunlin);
    for args in [
        &["rerank", &model, "document"][..],
        &["rerank", &model, "--query", "q", "--ids", "1"],
        &[
            "rerank",
            &model,
            "--ids",
            "1",
            "--ids",
            "2",
            "--token-types",
            "0",
        ],
        &["rerank", &model, "--ids", "1,2", "--token-types", "0"],
    ] {
        dunlin.run(args).code(2);
    }
    let ran = dunlin
        .run(&["rerank", &embedder(&dunlin), "--query", "q", "d"])
        .code(5);
    assert!(ran.stderr.contains("cross-encoder"), "{}", ran.stderr);
    let ran = dunlin.run(&["run", &model, "hi"]).code(5);
    assert!(ran.stderr.contains("does not write"), "{}", ran.stderr);
}

#[test]
fn convert_writes_a_file_that_gives_the_same_vectors() {
    let dunlin = Dunlin::new();
    let model = embedder(&dunlin);
    let out = dunlin.folder.path().join("out.gguf");
    let out = out.to_str().unwrap();
    let report = dunlin.json(&["convert", &model, "--out", out, "--json"]);
    assert_eq!(
        keys(&report),
        [
            "model",
            "path",
            "bytes",
            "tensors",
            "parameters",
            "type",
            "notes"
        ]
    );
    assert_eq!(report["type"], "F32");
    assert_eq!(report["bytes"], std::fs::metadata(out).unwrap().len());
    assert_eq!(dunlin.run(&["validate", out]).ok().stderr, "");
    assert_eq!(
        dunlin.json(&["embed", out, "cat sleeps"]),
        dunlin.json(&["embed", &model, "cat sleeps"])
    );
    let ran = dunlin
        .run(&["convert", &model, "--out", out, "--type", "q8_0"])
        .ok();
    assert_eq!(ran.stdout, format!("{out}\n"));
    let types = &dunlin.json(&["show", out, "--json"])["file"]["tensor_types"];
    assert_eq!(types[0]["name"], "Q8_0");
    assert_eq!(types[0]["fast_kernel"], true);
}

#[test]
fn convert_refuses_what_is_no_folder_of_a_model() {
    let dunlin = Dunlin::new();
    let out = dunlin.folder.path().join("out.gguf");
    let to = ["--out", out.to_str().unwrap()];
    let convert = |model: &str, code| {
        let ran = dunlin.run(&[&["convert", model], &to[..]].concat());
        ran.code(code).stderr
    };
    let said = convert(&fixture("tiny.gguf"), 2);
    assert!(said.contains("safetensors"), "{said}");
    convert("./no/such/folder", 3);
    let empty = dunlin.folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let said = convert(empty.to_str().unwrap(), 5);
    assert!(said.contains("config.json"), "{said}");
    dunlin.run(&["convert", "x"]).code(2);
    let args = ["convert", "x", "--out", "y.gguf", "--type", "iq4_nl"];
    let ran = dunlin.run(&args).code(2);
    assert!(ran.stderr.contains("q8_0"), "{}", ran.stderr);
    let args = [
        "convert",
        &embedder(&dunlin),
        "--out",
        empty.to_str().unwrap(),
    ];
    dunlin.run(&args).code(2);
    assert!(!out.exists());
}

#[test]
fn a_folder_is_shown_before_and_after_its_import_and_its_import_removed() {
    let dunlin = Dunlin::new();
    let model = embedder(&dunlin);
    let before = dunlin.json(&["show", &model, "--json"]);
    assert_eq!(before["folder"]["architecture"], "bert");
    assert_eq!(before["folder"]["hugging_face_architecture"], "BertModel");
    assert!(before["file"].is_null());
    let ran = dunlin.run(&["embed", &model, "cat"]).ok();
    assert!(ran.stderr.contains("Importing"), "{}", ran.stderr);
    let ran = dunlin.run(&["embed", &model, "cat"]).ok();
    assert_eq!(ran.stderr, "", "made once");
    let file = &dunlin.json(&["show", &model, "--json"])["file"];
    assert_eq!(
        (&file["pooling"], &file["embedding_length"]),
        (&json!("mean"), &json!(32))
    );
    assert_eq!(file["capabilities"], json!(["embeddings"]));
    let text = dunlin.run(&["show", &model]).ok().stdout;
    for wanted in [
        "to both sides",
        "32 numbers, pooling mean, texts of at most 20 tokens",
        "safetensors",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
    let size = |dunlin: &Dunlin| dunlin.json(&["cache", "size", "--json"])["bytes"].clone();
    assert!(size(&dunlin).as_u64().unwrap() > 10_000);
    let listed = dunlin.json(&["list", "--json"]);
    let real = std::fs::canonicalize(&model).unwrap();
    assert_eq!(listed[0]["model"], real.to_str().unwrap());
    assert_eq!(listed[0]["import_size"], size(&dunlin));
    let table = dunlin.run(&["list"]).ok().stdout;
    assert!(table.contains("import of your folder"), "{table}");
    dunlin.run(&["rm", &model]).ok();
    assert_eq!(size(&dunlin), 0);
    assert!(Path::new(&model).join("model.safetensors").exists());
    dunlin.run(&["rm", &model]).code(3);

    dunlin.run(&["embed", &model, "cat"]).ok();
    std::fs::remove_dir_all(&model).unwrap();
    let ran = dunlin.run(&["rm", &model]).ok();
    assert!(!ran.stderr.contains("kept"), "{}", ran.stderr);
    assert_eq!(size(&dunlin), 0, "of a folder that is gone, too");
}

#[test]
fn show_tells_the_attention_layout() {
    let Some(folder) = conformance() else { return };
    let dunlin = Dunlin::new();
    let layout = |name: &str| {
        let model = folder.join(name).join("model.gguf");
        let model = model.to_str().unwrap();
        let text = dunlin.run(&["show", model]).ok().stdout;
        let row = text.lines().find(|line| line.starts_with("attention "));
        let json = dunlin.json(&["show", model, "--json"]);
        (row.unwrap().to_owned(), json["file"]["attention"].clone())
    };
    let config = |name: &str| read_json(&folder.join(name).join("config.json"));
    let (row, llama) = layout("llama");
    let layers = &config("llama")["num_hidden_layers"];
    assert_eq!(&llama["global_layers"], layers);
    assert!(row.contains(&format!("{layers} global layers")), "{row}");

    let (row, gemma) = layout("gemma3");
    let types = config("gemma3")["layer_types"].clone();
    let count = |kind: &str| {
        let types = types.as_array().unwrap().iter();
        types.filter(|found| *found == kind).count()
    };
    assert_eq!(gemma["sliding_layers"], count("sliding_attention"));
    assert_eq!(gemma["global_layers"], count("full_attention"));
    assert_eq!(gemma["window"], config("gemma3")["sliding_window"]);
    assert!(row.contains("window"), "{row}");

    let (row, qwen) = layout("qwen3_5");
    assert!(qwen["recurrent_layers"].as_u64().unwrap() > 0);
    assert!(row.contains("gated delta net"), "{row}");
    let (row, _) = layout("bert");
    assert!(row.contains("to both sides"), "{row}");
}
