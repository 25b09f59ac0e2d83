//! `dunlin perplexity`: how well a model predicts a text.

use std::fs;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use crate::args::{Global, LoadArgs};
use crate::kv::KvArgs;
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin perplexity smollm2:135m book.txt
  dunlin perplexity model.gguf book.txt --kv f32 --json

The method is llama.cpp's: windows of 512 tokens that do not overlap, of which the second half is scored. Lower is \
better; only numbers of the same text and tokenizer can be compared.

With --json, or where stdout is no terminal: {\"perplexity\":x,\"tokens\":n}; n counts the scored tokens.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PerplexityArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Text file; `-` is stdin
    file: String,
    #[command(flatten)]
    kv: KvArgs,
    /// Print JSON in a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn execute(args: &PerplexityArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let text = match args.file.as_str() {
        "-" => super::read_stdin()?,
        path => fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?,
    };
    let lm = super::load(&args.model, &args.load, args.kv.types(), global, terminal)?;
    let mut view = ProgressView::new(terminal);
    let result = lm.perplexity_with(&text, &mut |done, total| {
        view.measure(done as u64, total as u64)
    })?;
    drop(view);
    if args.json || !terminal.stdout {
        return output::json(&json!({"perplexity": result.perplexity, "tokens": result.tokens}));
    }
    output::line(&format!(
        "perplexity {:.4} over {} tokens in {} windows",
        result.perplexity, result.tokens, result.windows
    ))
}
