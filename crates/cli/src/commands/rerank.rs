//! `dunlin rerank`: how well texts answer a query.

use anyhow::{Context, Result};
use clap::Args;
use dunlin::{RerankOptions, Reranker};
use serde::Serialize;

use crate::args::{Global, LoadArgs};
use crate::exit::Usage;
use crate::kv::KvArgs;
use crate::progress::ProgressView;
use crate::terminal::Terminal;
use crate::{lists, output};

const EXAMPLES: &str = "\
Examples:
  dunlin rerank ./ms-marco-MiniLM-L6-v2 --query \"capital of Japan\" \"Tokyo is large.\" \"Kyoto has temples.\"
  dunlin rerank model.gguf --query \"capital of Japan\" --json < documents.txt      one document a line
  dunlin rerank model.gguf --ids 2054,2003 --ids 5522,2003 --ids 18349,2038 --json
  dunlin rerank model.gguf --ids 101,2054,102,5522,102 --token-types 0,0,0,1,1 --json

Ids are taken exactly as they are. One --ids is the whole sequence: query, document and special tokens together, all of type \
0 unless --token-types says otherwise. Of several the first is the query and each other one a document, without special \
tokens; they are joined as the model joins two texts ([CLS] query [SEP] document [SEP], types 0 and 1, for BERT).

Scores are what the model's head gives, before any sigmoid; higher is better. Rerankers that answer yes or no (Qwen 3) give \
the probability of yes. With --json, or where stdout is no terminal: {\"scores\":[..]}, in the order of the documents.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RerankArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// What is asked
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "ids",
        conflicts_with = "ids"
    )]
    query: Option<String>,
    /// Texts to score; every line of stdin where none is given
    #[arg(conflicts_with = "ids")]
    documents: Vec<String>,
    /// Token ids (1,2,3 or a file): one whole sequence, or the query and then each document
    #[arg(long, value_name = "LIST|FILE")]
    ids: Vec<String>,
    /// With one --ids: the type of each token (0 for the query's, 1 for the document's)
    #[arg(long, value_name = "LIST", requires = "ids")]
    token_types: Option<String>,
    /// Cut documents that are too long at their end
    #[arg(long)]
    truncate: bool,
    /// Print JSON in a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    kv: KvArgs,
}

pub(crate) fn execute(args: &RerankArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let ids = args
        .ids
        .iter()
        .map(|list| super::token_ids(list))
        .collect::<Result<Vec<_>>>()?;
    let types = match &args.token_types {
        Some(_) if ids.len() != 1 => {
            let text =
                "--token-types belongs to one --ids; of several the model's own types are taken";
            return Err(Usage(text.to_owned()).into());
        }
        Some(list) => {
            let types = lists::parse(list)?;
            if types.len() != ids[0].len() {
                let (types, ids) = (types.len(), ids[0].len());
                let text = format!(
                    "--token-types has {types} numbers for {ids} ids: one for each is needed"
                );
                return Err(Usage(text).into());
            }
            types
        }
        None => Vec::new(),
    };
    let mut documents = args.documents.clone();
    if documents.is_empty() && ids.is_empty() {
        documents = super::stdin_lines("document")?;
    }
    let lm = super::load(&args.model, &args.load, args.kv.types(), global, terminal)?;
    let reranker = Reranker::new(lm, RerankOptions::default().with_truncate(args.truncate))
        .with_context(|| format!("{} cannot be used for reranking", args.model))?;
    let (names, scores) = match (ids.as_slice(), &args.query) {
        ([], query) => {
            let query = query.as_deref().unwrap_or_default();
            let mut view = ProgressView::new(terminal);
            let scores = reranker.rerank_with(query, &documents, &mut |done, total| {
                view.compute(done, total)
            })?;
            (documents, scores)
        }
        ([whole], _) => (args.ids.clone(), vec![reranker.rank_ids(whole, &types)?]),
        ([query, others @ ..], _) => {
            let scores = others
                .iter()
                .map(|document| reranker.rank_pair(query, document))
                .collect::<Result<_, _>>()?;
            (args.ids[1..].to_vec(), scores)
        }
    };
    if args.json || !terminal.stdout {
        return output::json(&Scores { scores });
    }
    let mut best_first: Vec<(f32, &String)> = scores.into_iter().zip(&names).collect();
    best_first.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rows: Vec<[String; 2]> = best_first
        .into_iter()
        .map(|(score, name)| [format!("{score:+.4}"), super::shortened(name)])
        .collect();
    output::table(&rows)
}

/// Written as it is: the F32 numbers get no digits that they do not have.
#[derive(Serialize)]
struct Scores {
    scores: Vec<f32>,
}
