//! `dunlin list`: what is in the cache.

use anyhow::Result;
use clap::Args;
use dunlin::{CachedModel, DateTime};
use serde_json::{Value, json};

use crate::args::Global;
use crate::output;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin list
  dunlin list --json

Folders of yours that were imported are listed under their path, with the size of the import.

With --json: a list of {\"model\",\"path\",\"size\",\"import_size\",\"sha256\",\"source\",\"fetched_at\",\"license\",\"shared\",\"problem\"}; \
sizes in bytes (size with the import), fetched_at in seconds since 1970.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &ListArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let models = super::hub(global)?.cache().list()?;
    if args.json {
        let models: Vec<Value> = models.iter().map(as_json).collect();
        return output::json(&models);
    }
    if models.is_empty() {
        terminal.note("no models here; `dunlin catalog` shows names, `dunlin pull MODEL` gets one");
        return Ok(());
    }
    let header = ["MODEL", "SIZE", "FETCHED", "SOURCE"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header)
        .chain(models.iter().map(row))
        .collect();
    output::table(&rows)?;
    for model in &models {
        if let Some(problem) = &model.problem {
            terminal.say(format_args!("warning: {}: {problem}", model.id));
        }
    }
    Ok(())
}

fn row(model: &CachedModel) -> [String; 4] {
    let fetched = i64::try_from(model.fetched_at).unwrap_or(i64::MAX);
    let date = DateTime::from_unix_seconds(fetched).strftime("%Y-%m-%d");
    [
        model.id.clone(),
        output::bytes(model.size),
        date,
        model.source.clone(),
    ]
}

fn as_json(model: &CachedModel) -> Value {
    json!({
        "model": model.id,
        "path": model.path,
        "size": model.size,
        "import_size": model.import_size,
        "sha256": model.sha256,
        "source": model.source,
        "fetched_at": model.fetched_at,
        "license": model.licence,
        "shared": model.shared,
        "problem": model.problem,
    })
}
