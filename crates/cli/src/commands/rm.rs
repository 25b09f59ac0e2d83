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
  dunlin rm ./Qwen3-0.6B                   the import of a folder of yours; the folder stays

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
        .map(|model| super::reference(model))
        .collect::<Result<_>>()?;
    let is_file = |model: &&ModelRef| matches!(model, ModelRef::Path(path) if path.is_file());
    if let Some(file) = models.iter().find(is_file) {
        return Err(Usage(format!(
            "{file} is a file of yours, and `dunlin rm` removes only what `dunlin pull` fetched and what was imported"
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
            let path = path.display();
            match model {
                ModelRef::Path(_) => {
                    terminal.note(format_args!("kept {path}: only its import is gone"))
                }
                _ => terminal.note(format_args!("kept {path}: something else uses it, too")),
            }
        }
    }
    Ok(())
}
