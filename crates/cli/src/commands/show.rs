//! `dunlin show`: what is known of a model, without fetching it or reading its weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use dunlin::{Error, HubError, Memory, ModelCard, ModelInfo, ModelRef};
use serde_json::json;

use crate::args::{Global, at_least_one};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  dunlin show smollm2:135m
  dunlin show ./model.gguf --context 8192
  dunlin show smollm2:135m --json

Nothing is downloaded: of a model that is not on this machine only the catalog's card is shown.

With --json: {\"model\",\"path\",\"card\",\"file\"}; path and file are null where the model is not here. In file,
memory holds bytes: {\"weights\",\"kv_cache\",\"kv_cache_per_token\",\"buffers\",\"context_length\",\"total\"}.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Reckon the memory for a context of this many tokens
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    context: Option<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &ShowArgs, global: Global) -> Result<()> {
    let model: ModelRef = args.model.parse()?;
    let path = super::hub(global)?.resolve(&model)?;
    let card = match &model {
        ModelRef::Catalog(id) => dunlin::find(id),
        _ => None,
    };
    if let (None, None) = (card, &path) {
        return Err(match &model {
            ModelRef::Path(path) => missing(path),
            _ => HubError::NotCached {
                model: model.to_string(),
            }
            .into(),
        });
    }
    let folder = path.as_ref().filter(|path| path.is_dir());
    if let (None, Some(path)) = (card, folder) {
        return Err(Error::Folder { path: path.clone() }.into());
    }
    // A folder of safetensors has no GGUF header to show.
    let file = path.as_ref().filter(|path| !path.is_dir());
    let mut info = file
        .map(|path| {
            ModelInfo::open(path).with_context(|| format!("{} cannot be read", path.display()))
        })
        .transpose()?;
    if let (Some(info), Some(context)) = (&mut info, args.context) {
        info.memory = info.memory_for(context);
    }
    if args.json {
        return print_json(&model, path.as_ref(), card, info.as_ref());
    }
    let mut rows = Vec::new();
    match card {
        Some(card) => rows.extend(card_rows(card)),
        None => rows.push(row("model", &model)),
    }
    match &path {
        Some(path) => rows.push(row("path", path.display())),
        None => rows.push(row(
            "path",
            format!("not on this machine; `dunlin pull {model}` gets it"),
        )),
    }
    if let Some(info) = &info {
        rows.extend(info_rows(info));
    }
    output::table(&rows)
}

fn missing(path: &Path) -> anyhow::Error {
    let error = std::fs::metadata(path)
        .err()
        .unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
    anyhow::Error::from(error).context(format!("cannot open {}", path.display()))
}

fn print_json(
    model: &ModelRef,
    path: Option<&PathBuf>,
    card: Option<&ModelCard>,
    info: Option<&ModelInfo>,
) -> Result<()> {
    let mut file = serde_json::to_value(info)?;
    if let (Some(memory), Some(total)) = (
        file.pointer_mut("/memory"),
        info.and_then(|info| info.memory),
    ) && let Some(memory) = memory.as_object_mut()
    {
        memory.insert("total".to_owned(), total.total().into());
    }
    output::json(&json!({"model": model.to_string(), "path": path, "card": card, "file": file}))
}

fn card_rows(card: &ModelCard) -> Vec<[String; 2]> {
    let mut rows = vec![row("model", &card.id), row("name", &card.name)];
    let known = |rows: &mut Vec<_>, name, value: Option<String>| {
        rows.extend(value.map(|value| row(name, value)))
    };
    known(&mut rows, "description", card.description.clone());
    known(&mut rows, "family", card.family.clone());
    known(&mut rows, "parameters", card.parameters.clone());
    known(&mut rows, "quantization", card.quantization.clone());
    known(&mut rows, "size", card.file_size().map(output::bytes));
    known(
        &mut rows,
        "context",
        card.context_length
            .map(|tokens| format!("{} tokens", output::count(tokens))),
    );
    let capabilities: Vec<String> = card.capabilities.iter().map(ToString::to_string).collect();
    rows.push(row("can", capabilities.join(", ")));
    known(
        &mut rows,
        "licence",
        card.licence
            .as_ref()
            .map(|licence| format!("{} ({})", licence.id, licence.url)),
    );
    let notice = card
        .licence
        .as_ref()
        .and_then(|licence| licence.notice.as_ref());
    known(
        &mut rows,
        "notice",
        notice.map(|notice| notice.split_whitespace().collect::<Vec<_>>().join(" ")),
    );
    if !card.aliases.is_empty() {
        rows.push(row("also called", card.aliases.join(", ")));
    }
    rows.extend(card.sources.iter().map(|source| row("source", source)));
    rows
}

fn info_rows(info: &ModelInfo) -> Vec<[String; 2]> {
    let unknown = || "not said".to_owned();
    let number =
        |value: Option<usize>| value.map_or_else(unknown, |value| output::count(value as u64));
    let mut rows = vec![
        row("", ""),
        row(
            "file",
            format!(
                "GGUF version {}, {}",
                info.gguf_version,
                output::bytes(info.file_bytes)
            ),
        ),
        row(
            "architecture",
            info.architecture.clone().unwrap_or_else(unknown),
        ),
        row("weights", output::count(info.parameters)),
        row("layers", number(info.layer_count)),
        row("hidden size", number(info.hidden_size)),
        row("trained context", number(info.context_length)),
        row("vocabulary", number(info.vocab_size)),
        row(
            "chat template",
            if info.has_chat_template {
                "yes"
            } else {
                "no (a base model; use --raw)"
            },
        ),
    ];
    if info.parts > 1 {
        rows.push(row("parts", info.parts));
    }
    for used in &info.tensor_types {
        let share = 100.0 * used.bytes as f64 / info.file_bytes.max(1) as f64;
        let text = format!(
            "{}: {} tensors, {} ({share:.1} %)",
            used.name,
            used.tensors,
            output::bytes(used.bytes)
        );
        rows.push(row("tensors", text));
    }
    if let Some(memory) = info.memory {
        rows.extend(memory_rows(memory));
    }
    if let Some(reason) = &info.unsupported {
        rows.push(row("cannot run", reason));
    }
    rows
}

fn memory_rows(memory: Memory) -> Vec<[String; 2]> {
    let context = output::count(memory.context_length as u64);
    vec![
        row(
            "memory",
            format!(
                "{} with a context of {context} tokens",
                output::bytes(memory.total())
            ),
        ),
        row("", format!("weights {}", output::bytes(memory.weights))),
        row(
            "",
            format!("KV cache {} in F16", output::bytes(memory.kv_cache)),
        ),
        row(
            "",
            format!("work buffers {}", output::bytes(memory.buffers)),
        ),
    ]
}

fn row(name: &str, value: impl std::fmt::Display) -> [String; 2] {
    [name.to_owned(), value.to_string()]
}
