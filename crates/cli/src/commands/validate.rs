//! `dunlin validate`: what is wrong with a model file, without reading its weights.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use dunlin::{Error, Lm, Report};
use serde_json::{Value, json};

use crate::exit::{self, Finished};
use crate::output;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin validate model.gguf
  dunlin validate model-00001-of-00003.gguf      checks all three parts
  dunlin validate model.gguf --json

Exit code 0 for a sound file, 5 for a damaged one, 3 where there is none.

With --json: {\"path\",\"ok\",\"problems\",\"warnings\",\"version\",\"architecture\",\"parts\",\"tensors\",\"parameters\",\"file_bytes\", \
\"tensor_bytes\",\"tensor_types\":[{\"type\",\"tensors\",\"bytes\"}]}; of a file that cannot be opened at all only the first three.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ValidateArgs {
    /// A GGUF file; of a split model, any part
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &ValidateArgs, terminal: &Terminal) -> Result<()> {
    let report = match Lm::validate_format(&args.file) {
        Ok(report) => report,
        Err(error) => return unreadable(error, args),
    };
    if args.json {
        output::json(&as_json(&args.file, &report))?;
    } else {
        print(&args.file, &report, terminal)?;
    }
    match report.is_ok() {
        true => Ok(()),
        false => Err(Finished(exit::MODEL_FILE).into()),
    }
}

fn unreadable(error: Error, args: &ValidateArgs) -> Result<()> {
    let error = anyhow::Error::from(error);
    let code = exit::code(&error);
    if args.json && code == exit::MODEL_FILE {
        output::json(&json!({"path": args.file, "ok": false, "problems": [error.to_string()]}))?;
        return Err(Finished(code).into());
    }
    Err(error.context(format!("{} is not a sound model file", args.file.display())))
}

fn print(path: &Path, report: &Report, terminal: &Terminal) -> Result<()> {
    let architecture = report.architecture.as_deref().unwrap_or("no architecture");
    let verdict = if report.is_ok() { "sound" } else { "damaged" };
    output::line(&format!("{}: {verdict}", path.display()))?;
    output::line(&format!(
        "GGUF version {}, {architecture}, {} parameters in {} tensors, {}{}",
        report.version,
        output::count(report.elements),
        report.tensor_count,
        output::bytes(report.file_bytes),
        if report.parts > 1 {
            format!(" in {} parts", report.parts)
        } else {
            String::new()
        },
    ))?;
    for used in &report.dtypes {
        output::line(&format!(
            "  {:<8} {:>5} tensors  {}",
            used.dtype.name(),
            used.tensors,
            output::bytes(used.bytes)
        ))?;
    }
    for problem in &report.problems {
        output::line(&format!(
            "problem: {}",
            terminal.shown(&problem.to_string())
        ))?;
    }
    for warning in &report.warnings {
        output::line(&format!("warning: {}", terminal.shown(warning)))?;
    }
    Ok(())
}

fn as_json(path: &Path, report: &Report) -> Value {
    let types = report.dtypes.iter();
    let types: Vec<Value> = types
        .map(
            |used| json!({"type": used.dtype.name(), "tensors": used.tensors, "bytes": used.bytes}),
        )
        .collect();
    json!({
        "path": path,
        "ok": report.is_ok(),
        "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "warnings": report.warnings,
        "version": report.version,
        "architecture": report.architecture,
        "parts": report.parts,
        "tensors": report.tensor_count,
        "parameters": report.elements,
        "file_bytes": report.file_bytes,
        "tensor_bytes": report.tensor_bytes,
        "tensor_types": types,
    })
}
