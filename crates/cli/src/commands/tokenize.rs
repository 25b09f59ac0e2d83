//! `dunlin tokenize`: text to token ids and back.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use anyhow::{Context, Result};
use clap::Args;
use dunlin::{TextError, TokenId, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::terminal::Terminal;
use crate::{lists, output};

const EXAMPLES: &str = "\
Examples:
  dunlin tokenize smollm2:135m \"Hello world\"
  dunlin tokenize smollm2:135m --ids 19556,905
  echo -n \"from stdin\" | dunlin tokenize smollm2:135m
  dunlin tokenize model.gguf --add-special --parse-special \"<|im_start|>user\"
  dunlin tokenize model.gguf --batch texts.jsonl

Prints {\"ids\":[..],\"pieces\":[..]}; with --ids also \"text\", the ids turned back (control tokens shown, spaces before \
punctuation cleaned up where the model's family does so). Every line of a batch, {\"text\":..,\"add_special\":.., \
\"parse_special\":..} or {\"ids\":[..]}, gives one such line. Only the file's metadata are read, so files with a \
vocabulary and no weights work.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TokenizeArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Text to encode; stdin, byte for byte, where it is not given
    text: Option<String>,
    /// Token ids to turn back into text (1,2,3 or a file)
    #[arg(long, value_name = "LIST|FILE", conflicts_with = "text")]
    ids: Option<String>,
    /// File with one JSON object a line; `-` is stdin
    #[arg(long, value_name = "FILE.jsonl", conflicts_with_all = ["text", "ids"])]
    batch: Option<String>,
    /// Add BOS and EOS as the model wants them
    #[arg(long)]
    add_special: bool,
    /// Read texts of control tokens as these tokens
    #[arg(long)]
    parse_special: bool,
    /// Print JSON, which is what happens anyway
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Tokens {
    ids: Vec<TokenId>,
    pieces: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Debug, Deserialize)]
struct BatchLine {
    text: Option<String>,
    ids: Option<Vec<TokenId>>,
    add_special: Option<bool>,
    parse_special: Option<bool>,
}

pub(crate) fn execute(args: &TokenizeArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let ids = args.ids.as_deref().map(lists::parse_or_read).transpose()?;
    let file = super::open_text(&args.model, global, terminal)?;
    let tokenizer = file.tokenizer();
    if let Some(path) = &args.batch {
        return batch(tokenizer, args, path);
    }
    let tokens = match (ids, &args.text) {
        (Some(ids), _) => decode(tokenizer, ids)?,
        (None, Some(text)) => encode(tokenizer, text, args.add_special, args.parse_special)?,
        (None, None) => encode(
            tokenizer,
            &super::read_stdin()?,
            args.add_special,
            args.parse_special,
        )?,
    };
    output::json(&tokens)
}

fn batch(tokenizer: &Tokenizer, args: &TokenizeArgs, path: &str) -> Result<()> {
    let reader: Box<dyn BufRead> = match path {
        "-" => Box::new(io::stdin().lock()),
        _ => Box::new(BufReader::new(
            File::open(path).with_context(|| format!("cannot open {path}"))?,
        )),
    };
    for (index, line) in reader.lines().enumerate() {
        let at = || format!("{path}, line {}", index + 1);
        let line = line.with_context(at)?;
        if line.trim().is_empty() {
            continue;
        }
        let line: BatchLine = serde_json::from_str(&line).with_context(at)?;
        let add_special = line.add_special.unwrap_or(args.add_special);
        let parse_special = line.parse_special.unwrap_or(args.parse_special);
        let tokens = match (line.text, line.ids) {
            (Some(text), _) => encode(tokenizer, &text, add_special, parse_special),
            (None, Some(ids)) => decode(tokenizer, ids),
            (None, None) => anyhow::bail!("{}: neither \"text\" nor \"ids\"", at()),
        };
        output::json(&tokens.with_context(at)?)?;
    }
    Ok(())
}

fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    add_special: bool,
    parse_special: bool,
) -> Result<Tokens> {
    let mut ids = tokenizer.encode(text, parse_special)?;
    if add_special {
        ids = tokenizer.add_special(ids);
    }
    let pieces = pieces(tokenizer, &ids)?;
    Ok(Tokens {
        ids,
        pieces,
        text: None,
    })
}

fn decode(tokenizer: &Tokenizer, ids: Vec<TokenId>) -> Result<Tokens> {
    let pieces = pieces(tokenizer, &ids)?;
    let text = Some(tokenizer.decode_clean(&ids, true));
    Ok(Tokens { ids, pieces, text })
}

fn pieces(tokenizer: &Tokenizer, ids: &[TokenId]) -> Result<Vec<String>, TextError> {
    let vocab_size = tokenizer.vocab_size();
    ids.iter()
        .map(|&id| {
            tokenizer
                .piece(id)
                .ok_or(TextError::UnknownToken { id, vocab_size })
        })
        .collect()
}
