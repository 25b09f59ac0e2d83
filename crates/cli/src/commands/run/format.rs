//! The form of an answer, from the command line.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;
use dunlin::OutputFormat;

use crate::commands::texts::json_or_file;
use crate::exit::Usage;

/// What form the answer has.
#[derive(Debug, Args)]
#[command(next_help_heading = "Form of the answer")]
#[group(multiple = false)]
pub(super) struct FormatArgs {
    /// JSON that validates against this schema
    #[arg(long, value_name = "FILE|JSON")]
    json_schema: Option<String>,
    /// Text that matches this regular expression as a whole
    #[arg(long, value_name = "REGEX")]
    regex: Option<String>,
    /// One of these texts, separated by commas
    #[arg(long, value_name = "A,B,...", value_delimiter = ',')]
    choices: Vec<String>,
    /// Text of this grammar: a file of Lark (.lark) or of llama.cpp's notation (.gbnf)
    #[arg(long, value_name = "FILE")]
    grammar: Option<String>,
}

impl FormatArgs {
    /// # Errors
    /// A file that cannot be read or has none of the names, a schema that is no JSON.
    pub(super) fn format(&self) -> Result<OutputFormat> {
        if let Some(schema) = &self.json_schema {
            let schema = json_or_file("--json-schema", schema)?;
            return Ok(OutputFormat::JsonSchema(schema));
        }
        if let Some(regex) = &self.regex {
            return Ok(OutputFormat::Regex(regex.clone()));
        }
        if !self.choices.is_empty() {
            return Ok(OutputFormat::Choices(self.choices.clone()));
        }
        match &self.grammar {
            Some(file) => grammar(file),
            None => Ok(OutputFormat::Text),
        }
    }
}

fn grammar(file: &str) -> Result<OutputFormat> {
    let extension = Path::new(file).extension().and_then(|name| name.to_str());
    match extension {
        Some("lark") => Ok(OutputFormat::Lark(read(file)?)),
        Some("gbnf") => Ok(OutputFormat::Gbnf(read(file)?)),
        _ => Err(Usage(format!(
            "--grammar {file} ends neither in .lark nor in .gbnf, which say how it is read"
        ))
        .into()),
    }
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))
}
