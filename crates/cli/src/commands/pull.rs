//! `dunlin pull`: a model into the cache.

use anyhow::Result;
use clap::Args;
use dunlin::Layout;
use serde_json::json;

use crate::args::Global;
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin pull smollm2:135m
  dunlin pull hf:Qwen/Qwen3-0.6B-GGUF:Q8_0
  dunlin pull hf:sentence-transformers/all-MiniLM-L6-v2      safetensors, imported at the first use
  dunlin pull https://example.com/model.gguf
  dunlin pull --json gemma3:270m

The path of the model's file or folder goes to stdout. Of a Hugging Face repository the GGUF file is fetched, or where it \
has none (or :safetensors is written behind it) the folder of safetensors. A pull that was interrupted continues where it stopped. Two pulls of \
the same model share one download.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PullArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Print {"model","path","source","from_cache","notes"}
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &PullArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let model = super::reference(&args.model)?;
    let hub = super::hub(global)?;
    let mut view = ProgressView::new(terminal);
    let pulled = hub.pull(&model, &mut |progress| view.fetch(progress))?;
    drop(view);
    if args.json {
        return output::json(&json!({
            "model": model.to_string(),
            "path": pulled.path,
            "source": pulled.source,
            "from_cache": pulled.from_cache,
            "notes": pulled.notes,
        }));
    }
    if pulled.from_cache {
        terminal.note(format_args!("{model} is on this machine already"));
    } else {
        terminal.note(format_args!("{model} is here, from {}", pulled.source));
    }
    if pulled.layout == Layout::Folder {
        terminal
            .note("a folder of safetensors: it is imported as a GGUF file when it is first used");
    }
    output::line(&pulled.path.display().to_string())
}
