//! `dunlin cache`: where models and indexes lie, what they take, and whether models are whole.

use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::search::index_folder;
use crate::args::Global;
use crate::exit::{self, Finished};
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin cache                 folder and size
  dunlin cache path
  dunlin cache size --json     {\"bytes\",\"unfinished_bytes\"}
  dunlin cache verify          hash every file again; exit code 5 where one is damaged
  dunlin cache clear           remove all models
  dunlin cache clear --indexes remove the indexes of `dunlin search`; it makes them again

DUNLIN_HOME names another folder.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Print the folder
    Path,
    /// Print the bytes of all models, unfinished downloads included
    Size,
    /// Remove all models and unfinished downloads
    Clear {
        /// Remove the indexes that `dunlin search` keeps, and no model
        #[arg(long)]
        indexes: bool,
    },
    /// Hash every file again and compare with what was fetched
    Verify,
}

pub(crate) fn execute(args: &CacheArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let cache = super::hub(global)?.cache();
    let path = cache.home().display().to_string();
    match &args.action {
        None => {
            let (size, unfinished, models) =
                (cache.size()?, cache.partial_size(), cache.list()?.len());
            let indexes = indexes(&index_folder(&cache))?;
            let index_bytes: u64 = indexes.iter().map(|(_, bytes)| bytes).sum();
            if args.json {
                let value = json!({"path": path, "models": models, "bytes": size, "unfinished_bytes": unfinished,
                    "indexes": indexes.len(), "index_bytes": index_bytes});
                return output::json(&value);
            }
            output::line(&path)?;
            let size = output::bytes(size);
            output::line(&format!(
                "{models} models, {size}, of it unfinished downloads: {}",
                output::bytes(unfinished)
            ))?;
            output::line(&format!(
                "{} indexes of `dunlin search`, {}",
                indexes.len(),
                output::bytes(index_bytes)
            ))
        }
        Some(Action::Path) if args.json => output::json(&json!({ "path": path })),
        Some(Action::Path) => output::line(&path),
        Some(Action::Size) => {
            let (size, unfinished) = (cache.size()?, cache.partial_size());
            match args.json {
                true => output::json(&json!({"bytes": size, "unfinished_bytes": unfinished})),
                false => output::line(&output::bytes(size)),
            }
        }
        Some(Action::Clear { indexes: true }) => {
            let mut freed = 0;
            for (file, bytes) in indexes(&index_folder(&cache))? {
                let file = file.path();
                fs::remove_file(&file)
                    .with_context(|| format!("{} cannot be removed", file.display()))?;
                freed += bytes;
            }
            if args.json {
                return output::json(&json!({"freed": freed, "kept": []}));
            }
            terminal.note(format_args!(
                "removed all indexes: {} free again",
                output::bytes(freed)
            ));
            Ok(())
        }
        Some(Action::Clear { indexes: false }) => {
            let removed = cache.clear()?;
            if args.json {
                return output::json(&json!({"freed": removed.freed, "kept": removed.kept}));
            }
            terminal.note(format_args!(
                "removed all models: {} free again",
                output::bytes(removed.freed)
            ));
            for path in &removed.kept {
                terminal.note(format_args!(
                    "kept {}: another program may use it",
                    path.display()
                ));
            }
            Ok(())
        }
        Some(Action::Verify) => {
            let mut view = ProgressView::new(terminal);
            let verdicts = cache.verify(&mut |progress| view.fetch(progress))?;
            drop(view);
            if args.json {
                let verdicts: Vec<Value> = verdicts
                    .iter()
                    .map(|verdict| {
                        json!({"model": verdict.id, "ok": verdict.problems.is_empty(), "problems": verdict.problems})
                    })
                    .collect();
                output::json(&verdicts)?;
            } else {
                for verdict in &verdicts {
                    let state = if verdict.problems.is_empty() {
                        "whole".to_owned()
                    } else {
                        verdict.problems.join("; ")
                    };
                    output::line(&format!("{}: {state}", verdict.id))?;
                }
            }
            if verdicts.iter().any(|verdict| !verdict.problems.is_empty()) {
                terminal.note("`dunlin rm MODEL` and `dunlin pull MODEL` replace a damaged one");
                return Err(Finished(exit::MODEL_FILE).into());
            }
            Ok(())
        }
    }
}

/// The files of indexes, and the bytes of each.
fn indexes(folder: &Path) -> Result<Vec<(DirEntry, u64)>> {
    let cannot = || format!("{} cannot be read", folder.display());
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(cannot)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(cannot)?;
        let metadata = entry.metadata().with_context(cannot)?;
        if metadata.is_file() {
            found.push((entry, metadata.len()));
        }
    }
    Ok(found)
}
