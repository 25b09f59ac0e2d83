//! What the commands for tasks share: texts of files or stdin, and work that Ctrl-C ends.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use dunlin::CancelToken;
use dunlin::tasks::TaskUsage;
use serde_json::{Value, json};

use crate::exit::Usage;
use crate::interrupt::{self, Interruptible};

/// Where the texts come from.
#[derive(Debug, Args)]
pub(super) struct TextArgs {
    /// UTF-8 text files; `-` or none: stdin
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A text, and what it is called.
pub(super) struct Text {
    /// Its file; `-` for stdin.
    pub(super) name: String,
    pub(super) text: String,
}

impl TextArgs {
    /// Reads all texts, before a model is loaded for them.
    ///
    /// # Errors
    /// A file that is not there or no UTF-8 text; a text that is empty.
    pub(super) fn read(&self) -> Result<Vec<Text>> {
        let stdin = [PathBuf::from("-")];
        let files = match self.files.is_empty() {
            true => &stdin[..],
            false => &self.files,
        };
        let read = |file: &PathBuf| {
            let name = file.display().to_string();
            let text = match name.as_str() {
                "-" => super::read_stdin()?,
                _ => std::fs::read_to_string(file)
                    .with_context(|| format!("{name} cannot be read as UTF-8 text"))?,
            };
            match text.trim().is_empty() {
                true if name == "-" => {
                    Err(Usage("there is no text: stdin is empty".to_owned()).into())
                }
                true => Err(Usage(format!("there is no text in {name}: it is empty")).into()),
                false => Ok(Text { name, text }),
            }
        };
        files.iter().map(read).collect()
    }
}

/// A token that the first Ctrl-C cancels, as long as the second value lives: within an answer, too.
pub(super) fn cancel_at_interrupt() -> (CancelToken, Interruptible) {
    let cancel = CancelToken::new();
    let switch = cancel.clone();
    (cancel, interrupt::begin(move || switch.cancel()))
}

/// JSON that stands in an argument, or in the file that it names.
///
/// # Errors
/// Text that is neither.
pub(crate) fn json_or_file(flag: &str, text: &str) -> Result<Value> {
    let content = match text.trim_start().starts_with(['{', '[']) {
        true => text.to_owned(),
        false => std::fs::read_to_string(text)
            .with_context(|| format!("{flag}: {text} cannot be read"))?,
    };
    serde_json::from_str(&content)
        .map_err(|error| Usage(format!("{flag} is no JSON: {error}")).into())
}

pub(super) fn usage_as_json(usage: &TaskUsage) -> Value {
    json!({
        "requests": usage.requests,
        "prompt_tokens": usage.prompt_tokens,
        "cached_prompt_tokens": usage.cached_prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "seconds": usage.seconds,
    })
}
