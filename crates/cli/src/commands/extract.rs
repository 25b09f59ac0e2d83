//! `dunlin extract`: data, names, personal data and keywords out of texts.

use anyhow::Result;
use clap::Args;
use dunlin::tasks::{EntityRecognizer, Extractor, KeywordExtractor, PersonalDataFinder, TextSpan};
use dunlin::{CancelToken, KvTypes, Lm};
use serde_json::{Value, json};

use super::texts::{self, Text, TextArgs};
use crate::args::{Global, LoadArgs, at_least_one};
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin extract qwen2.5-coder:0.5b --example '{\"name\":\"Anna\",\"age\":31}' letter.txt
  dunlin extract qwen2.5-coder:0.5b --schema invoice.schema.json invoice*.txt
  dunlin extract qwen2.5-coder:0.5b --entities person,place < article.txt
  dunlin extract qwen2.5-coder:0.5b --mask letter.txt > masked.txt
  dunlin extract qwen2.5-coder:0.5b --keywords 5 article.txt

By --schema or --example the data of each file is printed as a line of JSON, which validates against the schema. Names, keywords and \
persons are words of the text itself; they are printed one a line, kind and words. E-mail addresses, numbers and the like are found by their \
form, without the model. A model may miss some.

With --json: {\"texts\":[{\"file\",\"value\",\"usage\"}..]}, in place of value \"entities\", \"keywords\" (each {\"kind\",\"text\",\"places\":[[start,end]..]}, in \
bytes), or \"personal_data\" with \"masked\".";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ExtractArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    #[command(flatten)]
    what: WhatArgs,
    #[command(flatten)]
    texts: TextArgs,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

/// What is looked for.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhatArgs {
    /// Data of this JSON Schema
    #[arg(long, value_name = "JSON|FILE")]
    schema: Option<String>,
    /// Data like this example
    #[arg(long, value_name = "JSON|FILE")]
    example: Option<String>,
    /// Names of these kinds [default: person,organization,place,date]
    #[arg(long, value_name = "KINDS", value_delimiter = ',', num_args = 0..=1)]
    entities: Option<Vec<String>>,
    /// E-mail addresses, phone and card numbers, persons and the like
    #[arg(long)]
    personal_data: bool,
    /// The text with its personal data replaced by their kinds
    #[arg(long)]
    mask: bool,
    /// At most this many keywords [default: 10]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "10", value_parser = at_least_one)]
    keywords: Option<usize>,
}

pub(crate) fn execute(args: &ExtractArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let what = &args.what;
    let schema = what
        .schema
        .as_deref()
        .map(|text| texts::json_or_file("--schema", text));
    let example = what
        .example
        .as_deref()
        .map(|text| texts::json_or_file("--example", text));
    let (schema, example) = (schema.transpose()?, example.transpose()?);
    let texts = args.texts.read()?;
    let lm = super::load(
        &args.model,
        &args.load,
        KvTypes::default(),
        global,
        terminal,
    )?;
    lm.check_writes()?;
    let extractor = match (schema, example) {
        (Some(schema), _) => Some(Extractor::for_schema(&lm, schema)?),
        (_, Some(example)) => Some(Extractor::for_example(&lm, &example)?),
        _ => None,
    };
    let mut view = ProgressView::new(terminal);
    let (cancel, _work) = texts::cancel_at_interrupt();
    let extractor = extractor.map(|extractor| extractor.with_cancel(cancel.clone()));
    let mut found = Vec::with_capacity(texts.len());
    for (done, text) in texts.iter().enumerate() {
        let _ = view.compute(done, texts.len());
        found.push(match &extractor {
            Some(extractor) => data(extractor, text)?,
            None => spans(what, &lm, text, &cancel)?,
        });
    }
    drop(view);
    if args.json {
        let texts: Vec<Value> = found.into_iter().map(|found| found.json).collect();
        return output::json(&json!({ "texts": texts }));
    }
    for found in &found {
        for note in &found.notes {
            terminal.note(note);
        }
        for line in &found.lines {
            output::line(&terminal.shown(line))?;
        }
    }
    Ok(())
}

/// What was found in a text, for people and for scripts.
struct Found {
    lines: Vec<String>,
    notes: Vec<String>,
    json: Value,
}

fn data(extractor: &Extractor, text: &Text) -> Result<Found> {
    let found = extractor.extract(&text.text)?;
    Ok(Found {
        lines: vec![found.value.to_string()],
        notes: Vec::new(),
        json: json!({
            "file": text.name,
            "value": found.value,
            "usage": texts::usage_as_json(&found.usage),
        }),
    })
}

fn spans(what: &WhatArgs, lm: &Lm, text: &Text, cancel: &CancelToken) -> Result<Found> {
    if let Some(kinds) = &what.entities {
        let mut recognizer = EntityRecognizer::new(lm).with_cancel(cancel.clone());
        if !kinds.is_empty() {
            recognizer = recognizer.with_kinds(kinds.iter().map(|kind| kind.trim()))?;
        }
        let found = recognizer.recognize(&text.text)?;
        return Ok(Found {
            lines: found.entities.iter().map(line).collect(),
            notes: full_pieces(text, found.full_pieces),
            json: json!({
                "file": text.name,
                "entities": found.entities.iter().map(span_as_json).collect::<Vec<_>>(),
                "full_pieces": found.full_pieces,
                "usage": texts::usage_as_json(&found.usage),
            }),
        });
    }
    if let Some(count) = what.keywords {
        let extractor = KeywordExtractor::new(lm)
            .with_count(count)
            .with_cancel(cancel.clone());
        let found = extractor.extract(&text.text)?;
        return Ok(Found {
            lines: found
                .keywords
                .iter()
                .map(|span| span.text.clone())
                .collect(),
            notes: Vec::new(),
            json: json!({
                "file": text.name,
                "keywords": found.keywords.iter().map(span_as_json).collect::<Vec<_>>(),
                "named": found.named,
                "usage": texts::usage_as_json(&found.usage),
            }),
        });
    }
    let finder = PersonalDataFinder::new(lm).with_cancel(cancel.clone());
    let masked = finder.mask(&text.text)?;
    let data: Vec<Value> = masked
        .found
        .iter()
        .map(|data| {
            let place = [data.place.start, data.place.end];
            json!({"kind": data.kind, "text": data.text, "places": [place]})
        })
        .collect();
    let list = masked
        .found
        .iter()
        .map(|data| format!("{}: {}", data.kind, data.text));
    Ok(Found {
        lines: match what.mask {
            true => vec![masked.text.trim_end_matches('\n').to_owned()],
            false => list.collect(),
        },
        notes: full_pieces(text, masked.full_pieces),
        json: json!({
            "file": text.name,
            "personal_data": data,
            "masked": masked.text,
            "full_pieces": masked.full_pieces,
            "usage": texts::usage_as_json(&masked.usage),
        }),
    })
}

fn line(span: &TextSpan) -> String {
    let words: Vec<&str> = span.text.split_whitespace().collect();
    format!("{}: {}", span.kind, words.join(" "))
}

fn full_pieces(text: &Text, count: usize) -> Vec<String> {
    let note = format!(
        "{}: the lists of {count} pieces reached their greatest length; there may be more in them",
        text.name
    );
    match count {
        0 => Vec::new(),
        _ => vec![note],
    }
}

fn span_as_json(span: &TextSpan) -> Value {
    let places: Vec<[usize; 2]> = span
        .places
        .iter()
        .map(|place| [place.start, place.end])
        .collect();
    json!({"kind": span.kind, "text": span.text, "places": places})
}
