//! `dunlin classify`: texts sorted by labels.

use anyhow::Result;
use clap::Args;
use dunlin::tasks::{Calibration, Classification, Classifier, Label};
use dunlin::{KvTypes, Lm};
use serde_json::{Value, json};

use super::texts::TextArgs;
use crate::args::{Global, LoadArgs};
use crate::exit::Usage;
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

const EXAMPLES: &str = "\
Examples:
  dunlin classify qwen2.5-coder:0.5b --labels bug,question,praise mail1.txt mail2.txt
  dunlin classify qwen2.5-coder:0.5b --sentiment --lines < reviews.txt
  dunlin classify smollm2:135m --label \"bug=something does not work\" --label \"question=how something is done\" mail.txt
  dunlin classify smollm2:135m --labels sports,politics --none-of-these 0.6 --json article.txt

A label's probability is the model's own for its name as the answer, without what the model prefers whatever the text (measured on \
texts without content). Nothing is generated.

With --json: {\"texts\":[{\"file\",\"line\",\"label\",\"scores\":[{\"label\",\"probability\",\"logprob\"}..],\"none_of_these\"}..]}; line \
only with --lines, label is null for none of these.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ClassifyArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    #[command(flatten)]
    texts: TextArgs,
    /// The labels, with commas between them
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required_unless_present_any = ["label", "sentiment"])]
    labels: Vec<String>,
    /// One label and what it means; may be given several times
    #[arg(long, value_name = "NAME=MEANING")]
    label: Vec<String>,
    /// The labels negative and positive, with a question made for them
    #[arg(long, conflicts_with_all = ["labels", "label"])]
    sentiment: bool,
    /// No label where "none of these" is likelier than all of them, or the best one's probability is below this (0 to 1)
    #[arg(long, value_name = "THRESHOLD")]
    none_of_these: Option<f64>,
    /// Leave the model's preferences among the labels in their probabilities
    #[arg(long)]
    no_calibration: bool,
    /// Each line of the files is a text of its own; empty ones are passed over
    #[arg(long)]
    lines: bool,
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

/// A text to sort.
struct Item<'a> {
    file: &'a str,
    line: Option<usize>,
    text: &'a str,
}

pub(crate) fn execute(args: &ClassifyArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let labels = labels(args)?;
    let texts = args.texts.read()?;
    let items: Vec<Item<'_>> = texts
        .iter()
        .flat_map(|text| {
            let whole = [(None, text.text.as_str())];
            let lines = text.text.lines().enumerate();
            let lines = lines.map(|(index, line)| (Some(index + 1), line));
            let parts: Vec<_> = match args.lines {
                true => lines.filter(|(_, line)| !line.trim().is_empty()).collect(),
                false => whole.to_vec(),
            };
            parts.into_iter().map(|(line, part)| Item {
                file: &text.name,
                line,
                text: part,
            })
        })
        .collect();
    let lm = super::load(
        &args.model,
        &args.load,
        KvTypes::default(),
        global,
        terminal,
    )?;
    let classifier = classifier(args, &lm, labels)?;
    let mut view = ProgressView::new(terminal);
    let mut found = Vec::with_capacity(items.len());
    for (done, item) in items.iter().enumerate() {
        if view.compute(done, items.len()).is_break() {
            return Err(dunlin::Error::Cancelled.into());
        }
        found.push(classifier.classify(item.text.trim_end())?);
    }
    drop(view);
    if args.json {
        let texts: Vec<Value> = items.iter().zip(&found).map(as_json).collect();
        return output::json(&json!({ "texts": texts }));
    }
    let rows: Vec<[String; 3]> = items.iter().zip(&found).map(as_row).collect();
    output::table(&rows)
}

/// # Errors
/// A `--label` without a meaning.
fn labels(args: &ClassifyArgs) -> Result<Vec<Label>, Usage> {
    let described = args.label.iter().map(|label| match label.split_once('=') {
        Some((name, meaning)) => Ok(Label::new(name.trim()).with_description(meaning.trim())),
        None => Err(Usage(format!(
            "--label {label:?} has no meaning: write NAME=MEANING, or use --labels"
        ))),
    });
    let plain = args.labels.iter().map(|name| Ok(Label::new(name.trim())));
    plain.chain(described).collect()
}

fn classifier(args: &ClassifyArgs, lm: &Lm, labels: Vec<Label>) -> Result<Classifier> {
    let mut classifier = match args.sentiment {
        true => Classifier::sentiment(lm)?,
        false => Classifier::new(lm, labels)?,
    };
    if let Some(threshold) = args.none_of_these {
        classifier = classifier.with_none_of_these(threshold)?;
    }
    if args.no_calibration {
        classifier = classifier.with_calibration(Calibration::Off);
    }
    Ok(classifier)
}

fn as_json((item, found): (&Item<'_>, &Classification)) -> Value {
    let scores: Vec<Value> = found
        .scores
        .iter()
        .map(|score| {
            json!({"label": score.label, "probability": score.probability, "logprob": score.logprob})
        })
        .collect();
    let mut json = json!({"file": item.file});
    if let Some(line) = item.line {
        json["line"] = line.into();
    }
    json["label"] = found.label.clone().into();
    json["scores"] = scores.into();
    json["none_of_these"] = found.none_of_these.into();
    json
}

fn as_row((item, found): (&Item<'_>, &Classification)) -> [String; 3] {
    let likeliest = found.scores.iter().map(|score| score.probability);
    let (label, probability) = match &found.label {
        Some(label) => (label.as_str(), likeliest.fold(0.0, f64::max)),
        None => ("none of these", found.none_of_these.unwrap_or_default()),
    };
    let text = match item.line {
        Some(_) => super::shortened(item.text),
        None => item.file.to_owned(),
    };
    [
        label.to_owned(),
        format!("{:.1} %", 100.0 * probability),
        text,
    ]
}
