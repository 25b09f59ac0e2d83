//! A summary of a text file of any length: `cargo run --release --example summarize -- [FILE] [MODEL]`.

use std::io::Write as _;
use std::ops::ControlFlow;

use dunlin::Lm;
use dunlin::tasks::Summarizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments
        .next()
        .unwrap_or_else(|| "docs/tasks.md".to_owned());
    let model = arguments
        .next()
        .unwrap_or_else(|| "qwen2.5-coder:0.5b".to_owned());
    let text = std::fs::read_to_string(&file)?;
    let lm = Lm::load_from_model_id(&model)?;
    let mut errors = std::io::stderr();
    let summary = Summarizer::new(&lm)
        .with_words(60)
        .with_piece_tokens(800)
        .summarize_with(&text, &mut |progress| {
            // Progress that cannot be shown is no reason not to go on.
            let _ = writeln!(
                errors,
                "level {}: {} of {} pieces",
                progress.level, progress.done, progress.total
            );
            ControlFlow::Continue(())
        })?;
    let mut out = std::io::stdout();
    writeln!(out, "{}\n", summary.text)?;
    let coverage = summary.coverage;
    writeln!(
        out,
        "from {} pieces with {} of {} bytes, in {} levels; {} answers were ended at their greatest length",
        coverage.pieces,
        coverage.covered_bytes,
        coverage.bytes,
        coverage.levels,
        coverage.unfinished
    )?;
    writeln!(
        out,
        "{} requests, {} + {} tokens, {:.1} seconds",
        summary.usage.requests,
        summary.usage.prompt_tokens,
        summary.usage.completion_tokens,
        summary.usage.seconds
    )?;
    Ok(())
}
