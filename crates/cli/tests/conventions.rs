//! What holds for every command: help, exit codes, closed pipes, Ctrl-C.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::process::Stdio;

use common::{Dunlin, fixture};

const COMMANDS: [&str; 22] = [
    "run",
    "fim",
    "devices",
    "embed",
    "rerank",
    "summarize",
    "classify",
    "extract",
    "translate",
    "convert",
    "pull",
    "list",
    "show",
    "rm",
    "catalog",
    "validate",
    "cache",
    "tokenize",
    "template",
    "logits",
    "perplexity",
    "bench",
];

#[test]
fn help_has_examples_and_exit_codes() {
    let dunlin = Dunlin::new();
    let help = dunlin.run(&["--help"]).ok().stdout;
    for wanted in COMMANDS
        .iter()
        .chain(&["Examples:", "Exit codes:", "130", "DUNLIN_HOME"])
    {
        assert!(help.contains(wanted), "{wanted} is missing in {help}");
    }
    for command in COMMANDS {
        let help = dunlin.run(&[command, "--help"]).ok().stdout;
        assert!(
            help.contains("Examples:") && help.contains(&format!("dunlin {command}")),
            "{help}"
        );
    }
}

#[test]
fn a_wrong_command_line_is_code_2() {
    let dunlin = Dunlin::new();
    for args in [
        &[][..],
        &["fly"],
        &["run"],
        &["run", "m", "--threads", "0"],
        &["validate", "a", "b"],
    ] {
        let ran = dunlin.run(args).code(2);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    for args in [
        &["catalog"][..],
        &["catalog", "--json"],
        &["run", &model, "--raw", "--max-tokens", "50", "Hi"],
    ] {
        let mut command = dunlin.command(args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), stderr.as_str()),
            (Some(0), ""),
            "{args:?}"
        );
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_under_stdout_is_said() {
    let dunlin = Dunlin::new();
    let model = fixture("tiny.gguf");
    for args in [
        &["catalog"][..],
        &["catalog", "--json"],
        &["cache", "path"],
        &["logits", &model, "--ids", "1"],
        &["run", &model, "--raw", "--max-tokens", "2", "Hi"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let mut command = dunlin.command(args);
        let output = command.stdout(full.unwrap()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("written to stdout"), "{args:?}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_is_code_130() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Command;

    let dunlin = Dunlin::new();
    let mut command = dunlin.command(&["tokenize", &fixture("tiny.gguf"), "--batch", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "{{\"text\":\"a\"}}").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    // It has answered and waits for the next line.
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
