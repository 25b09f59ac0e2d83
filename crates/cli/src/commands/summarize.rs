//! `dunlin summarize`: summaries of texts of any length.

use anyhow::Result;
use clap::Args;
use dunlin::KvTypes;
use dunlin::tasks::{Summarizer, Summary};
use serde_json::{Value, json};

use super::texts::{self, Text, TextArgs};
use crate::args::{Global, LoadArgs, at_least_one};
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin summarize qwen2.5-coder:0.5b report.txt
  dunlin summarize qwen2.5-coder:0.5b chapter1.md chapter2.md --words 50
  man git | dunlin summarize smollm2:135m --piece-tokens 1000 --json

A text that is too long for one prompt is summarized in pieces, then their summaries together, and so on. What was covered is \
said on stderr.

With --json: {\"summaries\":[{\"file\",\"summary\",\"pieces\",\"bytes\",\"covered_bytes\",\"levels\",\"unfinished\",\"usage\"}..]}; \
unfinished counts answers that were ended at four tokens for each word asked for.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SummarizeArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    #[command(flatten)]
    texts: TextArgs,
    /// About how many words a summary shall have
    #[arg(long, short = 'w', value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    words: usize,
    /// Tokens of a piece at most [default: 1500, or what the context has room for]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    piece_tokens: Option<usize>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn execute(args: &SummarizeArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let texts = args.texts.read()?;
    let lm = super::load(
        &args.model,
        &args.load,
        KvTypes::default(),
        global,
        terminal,
    )?;
    lm.check_writes()?;
    let mut summaries = Vec::new();
    for text in &texts {
        let mut view = ProgressView::new(terminal);
        let (cancel, _work) = texts::cancel_at_interrupt();
        let mut summarizer = Summarizer::new(&lm)
            .with_words(args.words)
            .with_cancel(cancel);
        if let Some(tokens) = args.piece_tokens {
            summarizer = summarizer.with_piece_tokens(tokens);
        }
        let summary = summarizer.summarize_with(&text.text, &mut |progress| {
            view.compute(progress.done, progress.total)
        })?;
        drop(view);
        say(text, &summary, terminal);
        match args.json {
            true => summaries.push(as_json(text, &summary)),
            false => output::line(&terminal.shown(&summary.text))?,
        }
    }
    match args.json {
        true => output::json(&json!({ "summaries": summaries })),
        false => Ok(()),
    }
}

fn say(text: &Text, summary: &Summary, terminal: &Terminal) {
    let coverage = &summary.coverage;
    if coverage.pieces > 1 {
        terminal.note(format_args!(
            "{}: summarized in {} pieces and {} levels, {} of {} bytes read",
            text.name, coverage.pieces, coverage.levels, coverage.covered_bytes, coverage.bytes
        ));
    }
    if coverage.unfinished > 0 {
        terminal.note(format_args!(
            "{}: {} of {} answers were ended at their greatest length; --words allows longer ones",
            text.name, coverage.unfinished, summary.usage.requests
        ));
    }
}

fn as_json(text: &Text, summary: &Summary) -> Value {
    let coverage = &summary.coverage;
    json!({
        "file": text.name,
        "summary": summary.text,
        "pieces": coverage.pieces,
        "bytes": coverage.bytes,
        "covered_bytes": coverage.covered_bytes,
        "levels": coverage.levels,
        "unfinished": coverage.unfinished,
        "usage": texts::usage_as_json(&summary.usage),
    })
}
