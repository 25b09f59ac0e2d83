//! `dunlin bench`, on a tiny random model: which tests it runs and how they are told, never how fast.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Dunlin, fixture, keys};
use serde_json::Value;

const SMALL: [&str; 8] = ["-p", "12", "-n", "4", "-r", "2", "-b", "1"];

fn bench(args: &[&str]) -> common::Ran {
    let model = fixture("tiny.gguf");
    let mut all = vec!["bench", model.as_str()];
    all.extend(args);
    Dunlin::new().run(&all)
}

fn tests(rows: &Value) -> Vec<&str> {
    let rows = rows.as_array().unwrap();
    rows.iter()
        .map(|row| row["test"].as_str().unwrap())
        .collect()
}

#[test]
fn json_is_a_list_of_tests_with_the_same_keys() {
    let args = [&SMALL[..], &["-t", "1", "--kv", "q8_0/f32", "-o", "json"]].concat();
    let rows = bench(&args).ok().json();
    assert_eq!(
        tests(&rows),
        ["pp12", "tg4", "cold start", "load", "peak resident"]
    );
    for row in rows.as_array().unwrap() {
        assert_eq!(keys(row), keys(&rows[0]));
        assert_eq!(row["model"], fixture("tiny.gguf"));
        assert_eq!(row["name"], "Tiny");
        assert_eq!(row["type"], "F16");
        assert_eq!(row["threads"], 1);
        assert_eq!(row["kv"], "q8_0/f32");
    }
    for (row, samples) in [(0, 2), (1, 2), (2, 2), (3, 1)] {
        let seconds = &rows[row]["seconds"];
        assert_eq!(keys(seconds), ["median", "min", "max", "samples"]);
        assert_eq!(seconds["samples"].as_array().unwrap().len(), samples);
        assert_eq!(rows[row]["runs"], samples);
        let [min, median, max] = ["min", "median", "max"].map(|key| seconds[key].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max);
    }
    assert!(rows[2]["tokens_per_second"].is_null());
    assert!(rows[4]["seconds"].is_null());
    assert_eq!(rows[4]["bytes"].is_u64(), cfg!(target_os = "linux"));
}

#[test]
fn tokens_per_second_count_all_sequences_and_no_context() {
    let args = ["-p", "0", "-n", "5", "-d", "0,40", "-b", "1,3", "-r", "1"];
    let args = [&args[..], &["--no-cold-start", "-o", "json"]].concat();
    let rows = bench(&args).ok().json();
    assert_eq!(
        tests(&rows)[..4],
        ["tg5", "tg5 x 3", "tg5 @ d40", "tg5 x 3 @ d40"]
    );
    for (row, (depth, batch)) in [(0, 1), (0, 3), (40, 1), (40, 3)].into_iter().enumerate() {
        let row = &rows[row];
        assert_eq!(row["depth"], depth);
        assert_eq!(row["batch"], batch);
        assert_eq!(row["prompt_tokens"], 0);
        assert_eq!(row["generated_tokens"], 5);
        let speed = row["tokens_per_second"]["median"].as_f64().unwrap();
        let tokens = speed * row["seconds"]["median"].as_f64().unwrap();
        assert!((tokens - 5.0 * f64::from(batch)).abs() < 1e-6, "{tokens}");
    }
}

#[test]
fn csv_has_a_line_of_names_and_a_line_a_test() {
    let args = [&SMALL[..], &["--no-cold-start", "-o", "csv"]].concat();
    let text = bench(&args).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    let columns = lines[0].split(',').count();
    assert!(lines[0].starts_with(
        "test,tokens_per_second_median,tokens_per_second_min,tokens_per_second_max,seconds_median"
    ));
    assert!(lines[1].starts_with("\"pp12\","), "{text}");
    for line in lines {
        assert_eq!(line.split(',').count(), columns, "{line}");
    }
}

#[test]
fn the_table_names_model_machine_and_kernels() {
    let more = ["--no-cold-start", "--tier", "portable", "-t", "1"];
    let args = [&SMALL[..], &more].concat();
    let text = bench(&args).ok().stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("Tiny: llama F16, "), "{text}");
    assert!(
        lines[2].contains(": 1 thread, kernels portable, "),
        "{text}"
    );
    assert!(lines[2].contains("medians of 2 runs"), "{text}");
    let first = |line: &str| line.split('|').nth(1).map(str::trim).map(str::to_owned);
    let table: Vec<String> = lines[4..].iter().filter_map(|line| first(line)).collect();
    assert_eq!(table[0], "test");
    assert_eq!(table[2..], ["pp12", "tg4", "load", "peak resident"]);
    let widths: Vec<usize> = lines[4..].iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
}

#[test]
fn a_test_longer_than_the_context_is_refused_with_both_numbers() {
    let ran = bench(&["-p", "600", "-n", "0", "-d", "41"]).code(1);
    assert!(ran.stderr.contains("641"), "{}", ran.stderr);
    assert!(ran.stderr.contains("640"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn kernels_that_the_processor_has_not_are_refused_with_those_it_has() {
    let ran = bench(&["--tier", "abacus"]).code(2);
    assert!(ran.stderr.contains("portable"), "{}", ran.stderr);
    bench(&["-r", "0"]).code(2);
    bench(&["-b", "1,0"]).code(2);
    bench(&["-p", "1,x"]).code(2);
}

#[test]
fn an_encoder_cannot_be_measured() {
    let Some(folder) = common::conformance() else {
        return;
    };
    let model = folder.join("bert/model.gguf");
    let ran = Dunlin::new()
        .run(&["bench", model.to_str().unwrap()])
        .code(5);
    assert!(ran.stderr.contains("embed"), "{}", ran.stderr);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_measurement() {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    // Runs for hours where nobody stops it.
    let mut command = dunlin.command(&["bench", &model, "-r", "100000000", "--no-cold-start"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Long enough for its handler to stand; without it the signal would end it by the signal itself.
    std::thread::sleep(Duration::from_secs(2));
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(output.stdout, b"");
    assert_eq!(output.stderr, b"interrupted\n");
}
