//! `dunlin catalog`: the models that have a name.

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use clap::{Args, ValueEnum};
use dunlin::{Capability, Device, ModelCard, Rating, Task};

use crate::args::Global;
use crate::output;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin catalog
  dunlin catalog gemma
  dunlin catalog --capability code --capability tools
  dunlin catalog --family qwen3 --json
  dunlin catalog --fits
  dunlin catalog --fits --task code

--fits shows the models that fit into the memory that is available, the best first: of those that write at least 10 tokens per \
second here the largest, then the others, the fastest first. MEMORY, SPEED and SCORE are reckoned from the card (SCORE is 1 from 20 \
tokens per second on); `dunlin show MODEL` knows the bytes of a model that is here.

With --json: a list of cards: {\"id\",\"aliases\",\"name\",\"family\",\"architecture\",\"parameters\",\"quantization\",\"description\", \
\"context_length\",\"capabilities\",\"license\",\"layout\",\"files\",\"source\"}. What is not known is null. \
With --fits each has \"rating\", too: {\"memory\",\"fits\",\"tokens_per_second\",\"score\"}.";

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
    /// Only models that fit into the memory that is available, the best first
    #[arg(long)]
    fits: bool,
    /// With --fits: only models for this
    #[arg(long, value_enum, requires = "fits")]
    task: Option<For>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a model is wanted for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum For {
    Chat,
    Code,
    Tools,
    Reasoning,
    Embed,
    Rerank,
}

impl From<For> for Task {
    fn from(value: For) -> Self {
        match value {
            For::Chat => Task::Chat,
            For::Code => Task::Code,
            For::Tools => Task::Tools,
            For::Reasoning => Task::Reasoning,
            For::Embed => Task::Embed,
            For::Rerank => Task::Rerank,
        }
    }
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
    let mut found = match args.fits {
        true => fitting(args.task),
        false => ModelCard::predefined()
            .iter()
            .map(|card| (card, None))
            .collect(),
    };
    found.retain(|(card, _)| matches(card, args));
    if args.json {
        return print_json(&found);
    }
    if found.is_empty() {
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
    let rows = found.iter().map(|(card, rating)| {
        let row = row(card, here.contains(&card.id));
        (row, rating.map(rating_cells))
    });
    match args.fits {
        true => {
            let header = with_rating(&HEADER.map(str::to_owned), RATING.map(str::to_owned));
            let rows = rows.map(|(row, cells)| with_rating(&row, cells.unwrap_or_default()));
            output::table(&std::iter::once(header).chain(rows).collect::<Vec<_>>())?;
        }
        false => {
            let header = HEADER.map(str::to_owned);
            let rows = rows.map(|(row, _)| row);
            output::table(&std::iter::once(header).chain(rows).collect::<Vec<_>>())?;
        }
    }
    terminal.note("\n`dunlin show MODEL` says more, `dunlin run MODEL` gets it and runs it");
    Ok(())
}

type Found = (&'static ModelCard, Option<Rating>);

/// What suits this machine, the best first.
fn fitting(task: Option<For>) -> Vec<Found> {
    let device = Device::cpu();
    let found = match task {
        Some(task) => dunlin::recommend(task.into(), &device),
        None => dunlin::fitting(&device),
    };
    found
        .into_iter()
        .map(|found| (found.card, Some(found.rating)))
        .collect()
}

fn print_json(found: &[Found]) -> Result<()> {
    let cards = found.iter().map(|(card, rating)| {
        let mut json = serde_json::to_value(card)?;
        if let (Some(fields), Some(rating)) = (json.as_object_mut(), rating) {
            fields.insert("rating".to_owned(), serde_json::to_value(rating)?);
        }
        Ok(json)
    });
    output::json(&cards.collect::<Result<Vec<_>>>()?)
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

const HEADER: [&str; 7] = [
    "MODEL",
    "PARAMETERS",
    "SIZE",
    "CONTEXT",
    "CAN",
    "LICENCE",
    "",
];
const RATING: [&str; 3] = ["MEMORY", "SPEED", "SCORE"];

fn rating_cells(rating: Rating) -> [String; 3] {
    [
        format!("~{}", output::bytes(rating.memory)),
        format!("~{:.0} tokens/s", rating.tokens_per_second),
        format!("{:.2}", rating.score),
    ]
}

/// The rating's cells between context and abilities.
fn with_rating(row: &[String; 7], rating: [String; 3]) -> [String; 10] {
    let [id, parameters, size, context, can, licence, here] = row.clone();
    let [memory, speed, score] = rating;
    [
        id, parameters, size, context, memory, speed, score, can, licence, here,
    ]
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
