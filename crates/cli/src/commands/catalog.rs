//! `dunlin catalog`: the models that have a name.

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use dunlin::{Capability, ModelCard};

use crate::args::Global;
use crate::output;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin catalog
  dunlin catalog gemma
  dunlin catalog --capability code --capability tools
  dunlin catalog --family qwen3 --json

With --json: a list of cards: {\"id\",\"aliases\",\"name\",\"family\",\"architecture\",\"parameters\",\"quantization\",\"description\", \
\"context_length\",\"capabilities\",\"license\",\"layout\",\"files\",\"source\"}. What is not known is null.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CatalogArgs {
    /// Words that a model's name, family or description must contain, all of them
    query: Vec<String>,
    /// Only models that can do this; given several times, all of it
    #[arg(long, value_name = "CAPABILITY")]
    capability: Vec<CanDo>,
    /// Only models of this family, such as qwen3
    #[arg(long)]
    family: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CanDo {
    Chat,
    Code,
    Embeddings,
    Rerank,
    Tools,
    Reasoning,
    Vision,
}

impl From<CanDo> for Capability {
    fn from(value: CanDo) -> Self {
        match value {
            CanDo::Chat => Capability::Chat,
            CanDo::Code => Capability::Code,
            CanDo::Embeddings => Capability::Embeddings,
            CanDo::Rerank => Capability::Rerank,
            CanDo::Tools => Capability::Tools,
            CanDo::Reasoning => Capability::Reasoning,
            CanDo::Vision => Capability::Vision,
        }
    }
}

pub(crate) fn execute(args: &CatalogArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let cards: Vec<&ModelCard> = dunlin::catalog()
        .iter()
        .filter(|card| matches(card, args))
        .collect();
    if args.json {
        return output::json(&cards);
    }
    if cards.is_empty() {
        return Err(anyhow!(
            "no model of the catalog fits; `dunlin catalog` shows all, and hf:owner/repo names any other"
        ));
    }
    let here: HashSet<String> = super::hub(global)?
        .cache()
        .list()?
        .into_iter()
        .map(|model| model.id)
        .collect();
    let header = [
        "MODEL",
        "PARAMETERS",
        "SIZE",
        "CONTEXT",
        "CAN",
        "LICENCE",
        "",
    ]
    .map(str::to_owned);
    let rows = cards.iter().map(|card| row(card, here.contains(&card.id)));
    output::table(&std::iter::once(header).chain(rows).collect::<Vec<_>>())?;
    terminal.note("\n`dunlin show MODEL` says more, `dunlin run MODEL` gets it and runs it");
    Ok(())
}

fn matches(card: &ModelCard, args: &CatalogArgs) -> bool {
    let text = [&card.id, &card.name]
        .into_iter()
        .chain(&card.aliases)
        .chain(&card.family)
        .chain(&card.description)
        .map(|text| text.to_lowercase())
        .collect::<Vec<_>>()
        .join("\n");
    let in_family = |family: &String| {
        card.family
            .as_ref()
            .is_some_and(|own| own.eq_ignore_ascii_case(family))
    };
    args.query
        .iter()
        .flat_map(|query| query.split_whitespace())
        .all(|word| text.contains(&word.to_lowercase()))
        && args
            .capability
            .iter()
            .all(|&capability| card.can(capability.into()))
        && args.family.as_ref().is_none_or(in_family)
}

fn row(card: &ModelCard, is_here: bool) -> [String; 7] {
    let unknown = || "?".to_owned();
    let capabilities: Vec<String> = card.capabilities.iter().map(ToString::to_string).collect();
    [
        card.id.clone(),
        card.parameters.clone().unwrap_or_else(unknown),
        card.file_size().map_or_else(unknown, output::bytes),
        card.context_length.map_or_else(unknown, output::count),
        capabilities.join(", "),
        card.licence
            .as_ref()
            .map_or_else(unknown, |licence| licence.id.clone()),
        if is_here {
            "here".to_owned()
        } else {
            String::new()
        },
    ]
}
