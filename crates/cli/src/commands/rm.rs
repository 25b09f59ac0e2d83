//! `dunlin rm`: models out of the cache.

use anyhow::Result;
use clap::Args;
use dunlin::ModelRef;

use crate::args::Global;
use crate::exit::Usage;
use crate::output;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin rm gemma3:270m
  dunlin rm hf:Qwen/Qwen3-0.6B-GGUF:Q8_0 qwen2.5-coder:0.5b

`dunlin list` shows the names, `dunlin cache clear` removes everything.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RmArgs {
    /// Models, named as `dunlin list` shows them
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
}

pub(crate) fn execute(args: &RmArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let models: Vec<ModelRef> = args
        .models
        .iter()
        .map(|model| model.parse())
        .collect::<Result<_, _>>()?;
    if let Some(ModelRef::Path(path)) = models
        .iter()
        .find(|model| matches!(model, ModelRef::Path(_)))
    {
        let path = path.display();
        return Err(Usage(format!(
            "{path} is a file of yours, and `dunlin rm` removes only what `dunlin pull` fetched"
        ))
        .into());
    }
    let cache = super::hub(global)?.cache();
    for model in &models {
        let removed = cache.remove(model)?;
        terminal.note(format_args!(
            "removed {model}: {} free again",
            output::bytes(removed.freed)
        ));
        for path in &removed.kept {
            terminal.note(format_args!(
                "kept {}: something else uses it, too",
                path.display()
            ));
        }
    }
    Ok(())
}
