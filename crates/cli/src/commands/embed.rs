//! `dunlin embed`: texts to vectors.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use dunlin::{EmbedOptions, Embedder, Pooling, TextRole, TooLong};
use serde::Serialize;

use crate::args::{Global, LoadArgs};
use crate::kv::KvArgs;
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

/// Numbers of a vector that are shown in a terminal.
const SHOWN: usize = 6;

const EXAMPLES: &str = "\
Examples:
  dunlin embed all-minilm:l6-v2 \"A cat sleeps.\" \"Shares fell.\" --json
  dunlin embed all-minilm:l6-v2 < sentences.txt > vectors.json      one text a line
  dunlin embed qwen3-embedding:0.6b --as query \"Where do cats sleep?\" --dimensions 256 --json
  dunlin embed all-minilm:l6-v2 --ids 101,1996,4937,102 --json
  dunlin embed smollm2:135m --pooling mean \"A cat sleeps.\"

Vectors have length 1, so that the dot product of two is the cosine of their angle (--no-normalize leaves them as they \
are). Texts get the model's special tokens; ids are taken exactly as they are, special tokens included. A text that is too \
long is an error with the numbers, unless --too-long says otherwise; then stderr tells which texts were cut or split.

With --json, or where stdout is no terminal: {\"embeddings\":[[..],..]}, in the order of the texts, then of the ids.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct EmbedArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Texts to embed; every line of stdin where neither texts nor ids are given
    texts: Vec<String>,
    /// Token ids of one sequence (1,2,3 or a file); may be given several times
    #[arg(long, value_name = "LIST|FILE")]
    ids: Vec<String>,
    /// How the vectors of a text's tokens become one [default: as the model says]
    #[arg(long, value_enum)]
    pooling: Option<PoolingArg>,
    /// Write the words before each text that the model's makers want before queries or documents
    #[arg(long = "as", value_enum, value_name = "ROLE", default_value = "plain")]
    role: RoleArg,
    /// Keep only this many numbers of each vector, from its beginning (for models trained for it: Matryoshka)
    #[arg(long, value_name = "N", value_parser = crate::args::at_least_one)]
    dimensions: Option<usize>,
    /// What becomes of texts that are too long
    #[arg(
        long,
        value_enum,
        value_name = "POLICY",
        default_value = "error",
        conflicts_with = "truncate"
    )]
    too_long: TooLongArg,
    /// Cut texts that are too long at their end; the same as --too-long truncate
    #[arg(long)]
    truncate: bool,
    /// Leave the vectors as the model gives them
    #[arg(long)]
    no_normalize: bool,
    /// Print JSON in a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    kv: KvArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PoolingArg {
    /// Their mean
    Mean,
    /// The first token's
    Cls,
    /// The last token's
    Last,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    /// No words
    Plain,
    /// What is asked
    Query,
    /// What may answer
    Document,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TooLongArg {
    /// Refuse them with the numbers
    Error,
    /// Cut them at their end
    Truncate,
    /// Split them into pieces that fit, and take the mean of their vectors
    Mean,
}

pub(crate) fn execute(args: &EmbedArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let ids = args
        .ids
        .iter()
        .map(|list| super::token_ids(list))
        .collect::<Result<Vec<_>>>()?;
    let mut texts = args.texts.clone();
    if texts.is_empty() && ids.is_empty() {
        texts = super::stdin_lines("text")?;
    }
    let mut options = EmbedOptions::new()
        .with_too_long(match (args.truncate, args.too_long) {
            (true, _) | (_, TooLongArg::Truncate) => TooLong::Truncate,
            (_, TooLongArg::Mean) => TooLong::ChunkAndMean,
            (_, TooLongArg::Error) => TooLong::Error,
        })
        .with_normalize(!args.no_normalize);
    options.dimensions = args.dimensions;
    options.pooling = args.pooling.map(|pooling| match pooling {
        PoolingArg::Mean => Pooling::Mean,
        PoolingArg::Cls => Pooling::Cls,
        PoolingArg::Last => Pooling::Last,
    });
    let options_too_long = options.too_long;
    let lm = super::load(&args.model, &args.load, args.kv.types(), global, terminal)?;
    let embedder = Embedder::new(lm, options)
        .with_context(|| format!("{} cannot be used for embeddings", args.model))?;
    let mut view = ProgressView::new(terminal);
    let role = match args.role {
        RoleArg::Plain => TextRole::Plain,
        RoleArg::Query => TextRole::Query,
        RoleArg::Document => TextRole::Document,
    };
    let embeddings =
        embedder.embed_as(role, &texts, &mut |done, total| view.compute(done, total))?;
    drop(view);
    for text in &embeddings.too_long {
        terminal.note(format_args!(
            "text {} has {} tokens and the model takes {}: it was {}",
            text.index + 1,
            text.tokens,
            text.limit,
            match options_too_long {
                TooLong::ChunkAndMean => "embedded in pieces",
                _ => "cut at its end",
            }
        ));
    }
    let mut vectors = embeddings.vectors;
    for ids in &ids {
        vectors.push(embedder.embed_ids(ids)?);
    }
    if args.json || !terminal.stdout {
        return output::json(&Embeddings {
            embeddings: vectors,
        });
    }
    let names = texts.iter().chain(&args.ids);
    let rows: Vec<[String; 2]> = names
        .zip(&vectors)
        .map(|(name, vector)| [super::shortened(name), beginning(vector)])
        .collect();
    output::table(&rows)
}

/// Written as it is: the F32 numbers get no digits that they do not have.
#[derive(Serialize)]
struct Embeddings {
    embeddings: Vec<Vec<f32>>,
}

fn beginning(vector: &[f32]) -> String {
    let numbers: Vec<String> = vector
        .iter()
        .take(SHOWN)
        .map(|number| format!("{number:+.4}"))
        .collect();
    format!("{} ... ({} numbers)", numbers.join(" "), vector.len())
}
