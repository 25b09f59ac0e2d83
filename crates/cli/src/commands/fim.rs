//! `dunlin fim`: code filled in at a gap.

use std::mem::ManuallyDrop;
use std::path::Path;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use dunlin::{
    CancelToken, CodeCompleter, CodeCompletion, CodeEnd, CodeFinish, CodeOptions, CodeRequest,
    FinishReason, GenerateOptions, InfillDropped, InfillOverflow,
};
use serde_json::json;

use super::{run, sampling};
use crate::args::{Global, LoadArgs, at_least_one};
use crate::exit::{Finished, Usage};
use crate::kv::KvArgs;
use crate::terminal::Terminal;
use crate::{interrupt, output};

const EXAMPLES: &str = "\
Examples:
  dunlin fim qwen2.5-coder:0.5b --prefix \"fn add(a: i32, b: i32) -> i32 { \" --suffix \" }\"
  dunlin fim qwen2.5-coder:0.5b src/main.rs --at 12:5
  dunlin fim qwen2.5-coder:0.5b src/main.rs --at 12:5 --end block --repo shop --file src/cart.rs
  dunlin fim qwen2.5-coder:0.5b - --at 40 --path app.py --cut --json < app.py

The gap stands between --prefix and --suffix, or at a place of a file. Only what belongs into it is written to stdout. Of a \
request that is longer than the context nothing is left out unless --cut says so, and then it is said what.

With --json: {\"text\",\"finish_reason\",\"dropped\":{\"files\",\"prefix_tokens\",\"suffix_tokens\"},\"usage\":{\"prompt_tokens\", \
\"completion_tokens\",\"cached_prompt_tokens\",\"prompt_tokens_per_second\",\"completion_tokens_per_second\"}}; finish_reason is stop, \
length or cancelled.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FimArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// The file with the gap; `-` reads stdin
    #[arg(value_name = "FILE", requires = "at", conflicts_with_all = ["prefix", "suffix"], required_unless_present = "prefix")]
    source: Option<String>,
    /// Where in the file: line and column, both counted from 1; without a column at the end of the line
    #[arg(long, value_name = "LINE[:COLUMN]", value_parser = place, requires = "source")]
    at: Option<(usize, Option<usize>)>,
    /// What stands before the gap
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// What stands after it
    #[arg(long, value_name = "TEXT", requires = "prefix")]
    suffix: Option<String>,
    /// Path of the file in its repository, as the model is told [default: FILE]
    #[arg(long)]
    path: Option<String>,
    /// Name of the repository, as the model is told
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
    /// Another file of the repository to read first; may be given several times, the most important last
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,
    /// Where the completion ends, if the model does not end it before
    #[arg(long, value_enum, default_value_t = End::Model)]
    end: End,
    /// End after this many lines
    #[arg(long, value_name = "N", value_parser = at_least_one, conflicts_with = "end")]
    lines: Option<usize>,
    /// Do not end where the completion begins to repeat what stands after the gap
    #[arg(long)]
    past_suffix: bool,
    /// Leave out what is far from the gap where not all fits the context
    #[arg(long)]
    cut: bool,
    /// Most tokens of the completion
    #[arg(long, short = 'n', value_name = "N", default_value_t = 256, value_parser = at_least_one)]
    max_tokens: usize,
    /// 0: always the likeliest token
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    temperature: f32,
    /// Same seed, request and threads: same completion [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    /// Say tokens and speed on stderr
    #[arg(long, short)]
    verbose: bool,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    kv: KvArgs,
}

/// Where a completion ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum End {
    /// Where the model ends it
    Model,
    /// Before a blank line
    BlankLine,
    /// With the block in which the cursor stands
    Block,
}

pub(crate) fn execute(args: &FimArgs, global: Global, terminal: &Terminal) -> Result<()> {
    // What cannot be read is said before a model is loaded.
    let request = request(args)?;
    let mut generate = GenerateOptions::greedy()
        .with_max_tokens(args.max_tokens)
        .with_temperature(args.temperature);
    generate.seed = args.seed;
    generate.sampler.validate().map_err(sampling::in_words)?;
    // The program ends after this: its memory need not be given back piece by piece before.
    let lm = super::load(&args.model, &args.load, args.kv.types(), global, terminal)?;
    let completer = ManuallyDrop::new(CodeCompleter::new(lm)?);

    let cancel = CancelToken::new();
    let switch = cancel.clone();
    let _work = interrupt::begin(move || switch.cancel());
    let options = CodeOptions::new()
        .with_generate(generate.with_cancel(cancel))
        .with_stop_at_suffix(!args.past_suffix)
        .with_end(match (args.lines, args.end) {
            (Some(lines), _) => CodeEnd::Lines(lines),
            (None, End::Model) => CodeEnd::Model,
            (None, End::BlankLine) => CodeEnd::BlankLine,
            (None, End::Block) => CodeEnd::Block,
        })
        .with_overflow(match args.cut {
            true => InfillOverflow::KeepNearest,
            false => InfillOverflow::Error,
        });
    let mut shown = Ok(());
    let completion = completer.complete_with(&request, &options, |piece| {
        if !args.json && shown.is_ok() {
            shown = terminal.answer(piece);
        }
    })?;
    shown?;
    say_dropped(&completion.dropped, terminal);
    if args.json {
        print_json(&completion)?;
    } else if !completion.text.ends_with('\n') && terminal.stdout {
        terminal.answer("\n")?;
    }
    if args.verbose {
        run::say_usage(&completion.usage, terminal);
    }
    match completion.finish {
        CodeFinish::Generation(FinishReason::Cancelled) => {
            Err(Finished(interrupt::EXIT_CODE).into())
        }
        _ => Ok(()),
    }
}

/// The gap and what is known around it.
fn request(args: &FimArgs) -> Result<CodeRequest> {
    let mut request = match (&args.prefix, &args.source, args.at) {
        (Some(prefix), _, _) => CodeRequest::new(prefix, args.suffix.clone().unwrap_or_default()),
        (None, Some(source), Some(at)) => {
            let text = match source.as_str() {
                "-" => super::read_stdin()?,
                path => read(path)?,
            };
            let (prefix, suffix) = text.split_at(offset(&text, at)?);
            CodeRequest::new(prefix, suffix)
        }
        _ => {
            return Err(
                Usage("there is no gap: give --prefix, or FILE and --at".to_owned()).into(),
            );
        }
    };
    request.repository.clone_from(&args.repo);
    request.path = args
        .path
        .clone()
        .or_else(|| args.source.clone().filter(|source| source != "-"));
    for path in &args.file {
        request = request.with_file(path, read(path)?);
    }
    Ok(request)
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(Path::new(path))
        .with_context(|| format!("{path} cannot be read as UTF-8 text"))
}

/// The byte at which a place of a text stands.
fn offset(text: &str, (line, column): (usize, Option<usize>)) -> Result<usize, Usage> {
    let mut start = 0;
    let mut lines = text.split_inclusive('\n').chain(match text {
        // A cursor can stand behind the last line end.
        text if text.is_empty() || text.ends_with('\n') => Some(""),
        _ => None,
    });
    let count = lines.clone().count();
    let Some(found) = lines.by_ref().enumerate().find_map(|(index, content)| {
        let this = (index + 1 == line).then_some(content);
        start += if this.is_none() { content.len() } else { 0 };
        this
    }) else {
        return Err(Usage(format!(
            "--at names line {line}, and there are {count}"
        )));
    };
    let found = found.trim_end_matches(['\n', '\r']);
    let Some(column) = column else {
        return Ok(start + found.len());
    };
    let mut ends = found.char_indices().map(|(at, _)| at).chain([found.len()]);
    match ends.nth(column - 1) {
        Some(at) => Ok(start + at),
        None => Err(Usage(format!(
            "--at names column {column}, and line {line} has {} characters",
            found.chars().count()
        ))),
    }
}

/// Line and column.
fn place(text: &str) -> Result<(usize, Option<usize>), String> {
    Ok(match text.split_once(':') {
        Some((line, column)) => (at_least_one(line)?, Some(at_least_one(column)?)),
        None => (at_least_one(text)?, None),
    })
}

fn say_dropped(dropped: &InfillDropped, terminal: &Terminal) {
    if dropped.is_empty() {
        return;
    }
    let mut parts = Vec::new();
    if !dropped.files.is_empty() {
        parts.push(dropped.files.join(", "));
    }
    if dropped.prefix_tokens > 0 {
        parts.push(format!(
            "the first {} tokens before the gap",
            dropped.prefix_tokens
        ));
    }
    if dropped.suffix_tokens > 0 {
        parts.push(format!(
            "the last {} tokens after it",
            dropped.suffix_tokens
        ));
    }
    terminal.note(format_args!(
        "(left out, because the context is full: {}; --context sets another length)",
        parts.join("; ")
    ));
}

fn print_json(completion: &CodeCompletion) -> Result<()> {
    let (dropped, usage) = (&completion.dropped, &completion.usage);
    output::json(&json!({
        "text": completion.text,
        "finish_reason": completion.finish.as_str(),
        "dropped": {
            "files": dropped.files,
            "prefix_tokens": dropped.prefix_tokens,
            "suffix_tokens": dropped.suffix_tokens,
        },
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "cached_prompt_tokens": usage.cached_prompt_tokens,
            "prompt_tokens_per_second": usage.prompt_tokens_per_second(),
            "completion_tokens_per_second": usage.completion_tokens_per_second(),
        },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_by_line_and_character() {
        let text = "ab\nüx\r\n\nlast";
        for (at, wanted) in [
            ("1", 2),
            ("1:1", 0),
            ("1:3", 2),
            ("2:2", 5),
            ("2", 6),
            ("3", 8),
            ("3:1", 8),
            ("4:5", 13),
        ] {
            assert_eq!(offset(text, place(at).unwrap()).unwrap(), wanted, "{at}");
        }
        for at in ["5", "1:4", "3:2"] {
            assert!(offset(text, place(at).unwrap()).is_err(), "{at}");
        }
        assert_eq!(offset("a\n", (2, None)).unwrap(), 2);
        assert_eq!(offset("", (1, Some(1))).unwrap(), 0);
        assert!(place("0").is_err() && place("1:x").is_err() && place("").is_err());
    }
}
