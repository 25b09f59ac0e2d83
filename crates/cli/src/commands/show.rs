//! `dunlin show`: what is known of a model, without fetching it or reading its weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use dunlin::{
    AttentionLayout, Capability, Fit, FitOptions, Folder, HubError, MemoryEstimate, ModelCard,
    ModelInfo, ModelRef, TypePlan, is_model_folder,
};
use serde_json::json;

use super::types::{TypeArgs, types_in_words};
use crate::args::{Global, at_least_one};
use crate::kv::KvArgs;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  dunlin show smollm2:135m
  dunlin show ./model.gguf --context 8192 --kv q8_0
  dunlin show ./model.gguf --mmap-weights
  dunlin show ./model.gguf --budget 4GB         the longest context that fits
  dunlin show ./model.gguf --tensor-type attn_v=q8_0 --weight-type q4_0
  dunlin show smollm2:135m --json

Nothing is downloaded: of a model that is not on this machine only the catalog's card is shown.

With --json: {\"model\",\"path\",\"card\",\"file\",\"folder\"}, with --tensor-type or --weight-type \"types\": {\"tensors\":[{\"tensor\",\"from\", \
\"wanted\",\"to\",\"columns\",\"elements\"}]}, and with --budget \"fit\": \
{\"budget\",\"context_length\",\"mapped_weights\",\"gpu_layers\",\"memory\"}; path and file are null where the model is not here, folder where it \
is none. In file, attention is {\"pattern\":[{\"kind\",\"layers\"}],\"global_layers\",\"sliding_layers\",\"recurrent_layers\", \
\"sharing_layers\",\"window\",\"is_bidirectional\"}, tensor_types has {\"name\",\"tensors\",\"elements\",\"bytes\",\"fast_kernel\"}, and memory \
holds bytes and the number type of the cache: {\"weights\",\"mapped_weights\",\"kv_type\",\"kv_cache\",\"window_kv_cache\",\"kv_cache_per_token\",\"buffers\",\"tokenizer\",\"process\",\"context_length\",\"total\"}.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShowArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Reckon the memory for a context of this many tokens
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    context: Option<usize>,
    /// Reckon the memory for weights that are left in the file (--mmap-weights of the other commands)
    #[arg(long)]
    mmap_weights: bool,
    #[command(flatten)]
    kv: KvArgs,
    #[command(flatten)]
    types: TypeArgs,
    /// Find the longest context that fits into this much memory (8GB, 6GiB, 500MB, or bytes)
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "context")]
    budget: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &ShowArgs, global: Global) -> Result<()> {
    let model = super::reference(&args.model)?;
    let hub = super::hub(global)?;
    let path = hub.resolve(&model)?;
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
    let (file, folder) = match &path {
        Some(path) if path.is_dir() => (
            dunlin::imported_file(&hub, &model, path)?,
            // One that holds a GGUF file needs no description of its own.
            is_model_folder(path)
                .then(|| Folder::open(path))
                .transpose()?,
        ),
        other => (other.clone(), None),
    };
    let mut info = file
        .as_ref()
        .map(|path| {
            ModelInfo::open(path).with_context(|| format!("{} cannot be read", path.display()))
        })
        .transpose()?;
    let options = FitOptions::new()
        .with_kv_types(args.kv.types())
        .with_mapped_weights(args.mmap_weights)
        .with_tensor_types(args.types.tensor_types());
    let types = match (&file, options.tensor_types.is_empty()) {
        (_, true) => None,
        (Some(file), false) => Some(TypePlan::for_model(file, &options.tensor_types)?),
        (None, false) => return Err(not_here(&model, "what becomes of the types of weights")),
    };
    if let (Some(info), Some(file)) = (&mut info, &file) {
        let default = info.memory.map(|memory| memory.context_length);
        if let Some(context) = args.context.or(default) {
            info.memory = match (&types, args.mmap_weights) {
                (Some(_), _) => Some(MemoryEstimate::with_options(file, context, &options)?),
                (None, true) => info.memory_mapped_with(context, args.kv.types()),
                (None, false) => info.memory_with(context, args.kv.types()),
            };
        }
    }
    let fit = match (args.budget, &file) {
        (Some(budget), Some(file)) => Some(dunlin::fit_with(file, budget, &options)?),
        (Some(_), None) => return Err(not_here(&model, "what fits")),
        (None, _) => None,
    };
    if let (Some(info), Some(fit)) = (&mut info, &fit) {
        info.memory = Some(fit.memory);
    }
    if args.json {
        let (info, folder) = (info.as_ref(), folder.as_ref());
        return print_json(&model, path.as_ref(), card, info, folder, fit, types);
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
    if let Some(folder) = &folder {
        rows.extend(folder_rows(folder, file.as_deref()));
    }
    if let Some(info) = &info {
        rows.extend(info_rows(info));
    }
    let notes = types.iter().flat_map(types_in_words);
    rows.extend(notes.map(|note| row("types", note)));
    if let Some(fit) = fit {
        rows.push(row("fits", fit_in_words(&fit)));
    }
    output::table(&rows)
}

fn not_here(model: &ModelRef, what: &str) -> anyhow::Error {
    anyhow!(
        "{what} can be told of a model that is on this machine: get it with `dunlin pull {model}`"
    )
}

fn fit_in_words(fit: &Fit) -> String {
    let weights = match fit.mapped_weights {
        true => ", with the weights left in the file (--mmap-weights)",
        false => "",
    };
    format!(
        "a context of {} tokens into {}{weights}",
        output::count(fit.context_length as u64),
        output::bytes(fit.budget)
    )
}

/// An amount of memory.
fn size(text: &str) -> Result<u64, String> {
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => {
            return Err(format!(
                "{unit:?} is no unit; known are B, kB, MB, GB, KiB, MiB, GiB"
            ));
        }
    };
    match number.parse::<f64>() {
        Ok(number) => Ok((number * factor) as u64),
        Err(_) => Err("a number and a unit are needed, such as 8GB".to_owned()),
    }
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
    folder: Option<&Folder>,
    fit: Option<Fit>,
    types: Option<TypePlan>,
) -> Result<()> {
    let mut file = serde_json::to_value(info)?;
    if let (Some(memory), Some(total)) = (
        file.pointer_mut("/memory"),
        info.and_then(|info| info.memory),
    ) && let Some(memory) = memory.as_object_mut()
    {
        memory.insert("total".to_owned(), total.total().into());
    }
    let folder = folder.map(|folder| {
        json!({
            "architecture": folder.architecture(),
            "hugging_face_architecture": folder.hugging_face_architecture(),
            "weight_bytes": folder.weight_bytes(),
        })
    });
    let mut shown = json!({
        "model": model.to_string(),
        "path": path,
        "card": card,
        "file": file,
        "folder": folder,
    });
    if let Some(fields) = shown.as_object_mut() {
        if let Some(fit) = fit {
            fields.insert("fit".to_owned(), serde_json::to_value(fit)?);
        }
        if let Some(types) = types {
            fields.insert("types".to_owned(), serde_json::to_value(types)?);
        }
    }
    output::json(&shown)
}

fn folder_rows(folder: &Folder, import: Option<&Path>) -> Vec<[String; 2]> {
    vec![
        row(
            "folder",
            format!(
                "{} as safetensors, {} of weights",
                folder.hugging_face_architecture(),
                output::bytes(folder.weight_bytes())
            ),
        ),
        row(
            "import",
            import.map_or_else(
                || "not yet; the first use makes it, and then more can be shown".to_owned(),
                |path| path.display().to_string(),
            ),
        ),
    ]
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
    ];
    if let Some(attention) = &info.attention {
        rows.push(row("attention", attention_in_words(attention)));
    }
    rows.extend(ability_rows(info));
    if info.parts > 1 {
        rows.push(row("parts", info.parts));
    }
    if !info.sampling.is_empty() {
        let settings = info.sampling.entries().into_iter();
        let settings: Vec<String> = settings
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        rows.push(row("sampling", settings.join(", ")));
    }
    for used in &info.tensor_types {
        let share = 100.0 * used.bytes as f64 / info.file_bytes.max(1) as f64;
        let path = match used.fast_kernel {
            true => "",
            false => ", on the general path: slower",
        };
        let text = format!(
            "{}: {} tensors, {} ({share:.1} %){path}",
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

fn attention_in_words(attention: &AttentionLayout) -> String {
    let kinds = [
        (attention.global_layers, "global"),
        (attention.sliding_layers, "sliding"),
        (attention.recurrent_layers, "recurrent"),
    ];
    let counts: Vec<String> = kinds
        .iter()
        .filter(|(layers, _)| *layers > 0)
        .map(|(layers, kind)| format!("{layers} {kind}"))
        .collect();
    let only_one =
        attention.global_layers + attention.sliding_layers + attention.recurrent_layers == 1;
    let noun = if only_one { "layer" } else { "layers" };
    let mut text = format!("{} {noun}", counts.join(" and "));
    if counts.len() > 1 {
        text.push_str(&format!(", in turns of {}", attention.pattern_in_words()));
    }
    if let Some(window) = attention.window {
        text.push_str(&format!(", window {}", output::count(window.into())));
    }
    if attention.sharing_layers > 0 {
        text.push_str(&format!(
            ", {} of them reading keys and values of another",
            attention.sharing_layers
        ));
    }
    if attention.is_bidirectional {
        text.push_str(", to both sides (an encoder)");
    }
    text
}

/// What the file shows that it can do.
fn ability_rows(info: &ModelInfo) -> Vec<[String; 2]> {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let can = |capability| info.capabilities.contains(&capability);
    let generates = info
        .attention
        .as_ref()
        .is_none_or(|attention| !attention.is_bidirectional);
    let mut rows = Vec::new();
    if generates {
        let template = match info.has_chat_template {
            true => "yes",
            false => "no (a base model; use --raw)",
        };
        rows.push(row("chat template", template));
        rows.push(row("tools", yes_no(can(Capability::Tools))));
        rows.push(row("reasoning", yes_no(can(Capability::Reasoning))));
        rows.push(row("code infill", yes_no(info.can_infill)));
    }
    let embeddings = match (info.pooling, info.embedding_length) {
        (Some("rank"), _) => "no; it scores texts against a query (`dunlin rerank`)".to_owned(),
        (Some(pooling), Some(length)) => {
            let limit = info.longest_text.map_or_else(String::new, |tokens| {
                format!(", texts of at most {} tokens", output::count(tokens as u64))
            });
            format!("{length} numbers, pooling {pooling}{limit}")
        }
        _ => "not made for it (`dunlin embed --pooling` tries)".to_owned(),
    };
    rows.push(row("embeddings", embeddings));
    rows
}

/// What layers with a sliding window have of the cache, where others have some, too.
fn of_windows(memory: &MemoryEstimate) -> String {
    match memory.window_kv_cache {
        0 => String::new(),
        all if all == memory.kv_cache => String::new(),
        part => format!("; {} of it in layers with a window", output::bytes(part)),
    }
}

fn memory_rows(memory: MemoryEstimate) -> Vec<[String; 2]> {
    let context = output::count(memory.context_length as u64);
    let mut rows = vec![
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
            format!(
                "KV cache {} in {}{}",
                output::bytes(memory.kv_cache),
                memory.kv_types,
                of_windows(&memory)
            ),
        ),
        row(
            "",
            format!("work buffers {}", output::bytes(memory.buffers)),
        ),
        row(
            "",
            format!(
                "vocabulary and tokenizer {}",
                output::bytes(memory.tokenizer)
            ),
        ),
        row(
            "",
            format!("the program itself {}", output::bytes(memory.process)),
        ),
    ];
    if memory.mapped_weights > 0 {
        let text = format!(
            "beside it weights of {} in the file, in memory as far as there is room",
            output::bytes(memory.mapped_weights)
        );
        rows.push(row("", text));
    }
    rows
}

fn row(name: &str, value: impl std::fmt::Display) -> [String; 2] {
    [name.to_owned(), value.to_string()]
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn amounts_of_memory_are_read_with_their_units() {
        for (text, bytes) in [
            ("1000", 1000),
            ("8GB", 8_000_000_000),
            ("1.5 GiB", 1_610_612_736),
            ("500mb", 500_000_000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1GB", "1.2.3", "4 parsecs"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
