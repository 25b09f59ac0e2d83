//! `dunlin convert`: a Hugging Face model folder to a GGUF file.

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use dunlin::{ConvertOptions, LoadEvent, LoadOptions, OutputType};
use serde_json::json;

use crate::args::Global;
use crate::exit::Usage;
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin convert ./Qwen3-0.6B --out qwen3.gguf
  dunlin convert hf:Qwen/Qwen3-0.6B --out qwen3.gguf --type q8_0
  dunlin convert all-minilm:l6-v2 --out minilm.gguf --type f16 --json
  dunlin convert ./Qwen3-0.6B --out small.gguf --type q4_k

The folder holds config.json, safetensors in one file or several, and the tokenizer's files; modules of \
sentence-transformers are read, too. Keys, tensor names and layouts of the file are llama.cpp's, so that other programs \
load it. The weights stream: memory holds a few MB of them. The file appears when it is complete, and one of the same name \
is replaced. `dunlin run` and the other commands take such folders directly, too; they import them into the cache.

With --json: {\"model\",\"path\",\"bytes\",\"tensors\",\"parameters\",\"type\",\"notes\"}.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConvertArgs {
    /// A folder, hf:owner/repo[@revision], or a name of the catalog whose model is a folder
    #[arg(value_name = "FOLDER|REPO")]
    model: String,
    /// The GGUF file to write
    #[arg(long, short, value_name = "FILE.gguf")]
    out: PathBuf,
    /// Type of the matrices, embeddings and head included: source (as they are), f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, or
    /// q2_k to q6_k; vectors stay F32
    #[arg(long = "type", value_name = "TYPE", default_value = "source")]
    dtype: OutputType,
    /// The model's name in the file [default: that of the folder or repository]
    #[arg(long)]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &ConvertArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let model = super::reference(&args.model)?;
    if args.out.is_dir() {
        let out = args.out.display();
        return Err(Usage(format!("--out {out} is a folder; name the file to write")).into());
    }
    let settings = ConvertOptions {
        dtype: args.dtype,
        name: args.name.clone(),
    };
    let mut view = ProgressView::new(terminal);
    let mut options = LoadOptions::new()
        .with_offline(global.offline)
        .with_progress(|event| match event {
            LoadEvent::Hub(progress) => view.fetch(progress),
            LoadEvent::Importing { done, total } => view.convert(done, total),
            _ => ControlFlow::Continue(()),
        });
    let report = dunlin::convert(&model, &settings, &args.out, &mut options)
        .with_context(|| format!("{model} cannot be converted"))?;
    drop(options);
    drop(view);
    for note in &report.notes {
        terminal.note(note);
    }
    if args.json {
        return output::json(&json!({
            "model": model.to_string(),
            "path": args.out,
            "bytes": report.bytes,
            "tensors": report.tensors,
            "parameters": report.parameters,
            "type": report.dtype.name(),
            "notes": report.notes,
        }));
    }
    terminal.note(format_args!(
        "{} weights in {} tensors, most of them {}: {}",
        output::count(report.parameters),
        report.tensors,
        report.dtype.name(),
        output::bytes(report.bytes),
    ));
    output::line(&args.out.display().to_string())
}
