//! The program with a cache of its own, the fixtures of the SDK, and the optional shared conformance data.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::print_stderr, reason = "what is skipped must be said")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Runs of the program that share one empty cache folder, and that nothing of this machine's settings reaches.
pub(crate) struct Dunlin {
    pub(crate) folder: TempDir,
}

impl Dunlin {
    pub(crate) fn new() -> Self {
        Dunlin {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dunlin"));
        command
            .args(args)
            .stdin(Stdio::null())
            .env("DUNLIN_OFFLINE", "1");
        command.env("DUNLIN_HOME", self.folder.path().join("home"));
        command.env("HF_HOME", self.folder.path().join("hf"));
        for name in ["HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_TOKEN_PATH"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs to the end, with nothing on stdin.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs to the end with this on stdin.
    pub(crate) fn run_with(&self, args: &[&str], stdin: &str) -> Ran {
        let mut command = self.command(args);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that fails early reads nothing.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Runs with success and reads stdout as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        self.run(args).ok().json()
    }

    /// A file in the temporary folder.
    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.code(0)
    }

    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A fixture of the SDK: `tiny.gguf` chats, `tiny-base.gguf` is a vocabulary alone.
pub(crate) fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../dunlin/tests/fixtures")
        .join(name);
    path.to_str().unwrap().to_owned()
}

/// The conformance folder: that of `DUNLIN_SHARED`, else `shared` beside the workspace. `None`, said on stderr, where
/// there is none.
pub(crate) fn conformance() -> Option<PathBuf> {
    let shared = std::env::var_os("DUNLIN_SHARED").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"),
        PathBuf::from,
    );
    let folder = shared.join("conformance");
    if folder.is_dir() {
        return Some(folder);
    }
    eprintln!("skipped: no shared conformance data (set DUNLIN_SHARED to their folder)");
    None
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The keys of an object, in their order.
#[track_caller]
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}
