//! `dunlin logits`: the raw scores of a model.

use std::io::{self, Write};

use anyhow::Result;
use clap::Args;
use dunlin::{DEFAULT_CONTEXT_LENGTH, EngineError, KvElements, Lm};

use crate::args::{Global, LoadArgs};
use crate::exit::Usage;
use crate::kv;
use crate::terminal::Terminal;
use crate::{lists, output};

/// Tokens shown for a position in a terminal.
const SHOWN: usize = 10;

const EXAMPLES: &str = "\
Examples:
  dunlin logits smollm2:135m --ids 1,19556,905
  dunlin logits model.gguf --ids ids.json --positions 0,5,9 --json > scores.json
  dunlin logits model.gguf --ids 1,2,3 --kv f16 --threads 1 --json

The ids are fed exactly as they are; nothing is added. With --json, or where stdout is no terminal: \
{\"vocab_size\":n,\"positions\":[..],\"logits\":[[..],..]}; position p holds the scores for the token after ids[p], in \
full F32 precision. In a terminal the ten best tokens of each position are listed.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LogitsArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Token ids (1,2,3), or a file with them; `-` is stdin
    #[arg(long, value_name = "LIST|FILE")]
    ids: String,
    /// Positions whose scores are wanted, counted from 0 [default: all]
    #[arg(long, value_name = "LIST")]
    positions: Option<String>,
    /// Number type of the KV cache
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = kv::elements)]
    kv: KvElements,
    /// Print JSON in a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn execute(args: &LogitsArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let ids = lists::parse_or_read(&args.ids)?;
    if ids.is_empty() {
        return Err(Usage("--ids holds no token id".to_owned()).into());
    }
    let positions: Vec<usize> = match &args.positions {
        Some(list) => lists::parse(list)?
            .into_iter()
            .map(|position| position as usize)
            .collect(),
        None => (0..ids.len()).collect(),
    };
    let mut load = args.load.clone();
    if ids.len() > DEFAULT_CONTEXT_LENGTH {
        load.context.get_or_insert(ids.len());
    }
    let lm = super::load(&args.model, &load, args.kv.into(), global, terminal)?;
    let rows = lm.logits(&ids, &positions)?;
    rows.iter().try_for_each(|row| require_numbers(row))?;
    if args.json || !terminal.stdout {
        return Ok(write_json(&positions, &rows)?);
    }
    for (position, row) in positions.iter().zip(&rows) {
        output::line(&format!("after position {position}:"))?;
        output::table(&best(&lm, row))?;
    }
    Ok(())
}

/// JSON has no NaN, and `null` would pass as an answer of a sound model.
///
/// # Errors
/// A score is not a number or infinite.
fn require_numbers(row: &[f32]) -> Result<(), EngineError> {
    let wrong = (0_u32..).zip(row).find(|(_, score)| !score.is_finite());
    wrong.map_or(Ok(()), |(token, &found)| {
        Err(EngineError::InvalidLogit { token, found })
    })
}

/// Written number by number: a row of a large vocabulary is some megabytes of text.
fn write_json(positions: &[usize], rows: &[Vec<f32>]) -> io::Result<()> {
    let vocab_size = rows.first().map_or(0, Vec::len);
    output::to_stdout(|out| {
        write!(out, "{{\"vocab_size\":{vocab_size},\"positions\":")?;
        serde_json::to_writer(&mut *out, positions)?;
        out.write_all(b",\"logits\":")?;
        serde_json::to_writer(&mut *out, rows)?;
        out.write_all(b"}\n")
    })
}

fn best(lm: &Lm, row: &[f32]) -> Vec<[String; 3]> {
    let mut ids: Vec<usize> = (0..row.len()).collect();
    ids.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    let piece = |id: usize| {
        u32::try_from(id)
            .ok()
            .and_then(|id| lm.tokenizer().piece(id))
            .unwrap_or_default()
    };
    let show = |&id: &usize| {
        [
            format!("  {id}"),
            format!("{:.4}", row[id]),
            format!("{:?}", piece(id)),
        ]
    };
    ids.iter().take(SHOWN).map(show).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_json_cannot_hold_are_a_damaged_model() {
        assert!(require_numbers(&[0.0, -1.5e38, f32::MIN]).is_ok());
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = anyhow::Error::from(require_numbers(&[1.0, wrong]).unwrap_err());
            assert!(error.to_string().contains("token 1"), "{error}");
            assert_eq!(crate::exit::code(&error), crate::exit::MODEL_FILE);
        }
    }
}
