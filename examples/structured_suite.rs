//! Schemas of varied shape, and the public JSON Schema test suite, answered by a model and validated by the `jsonschema` crate:
//! `cargo run --release --example structured_suite -- [MODEL] [SCHEMAS] [SUITE]`.
//!
//! SUITE is the folder of a draft of the suite (`scripts/fetch-json-schema-tests` gets it). Of its schemas the answers are validated,
//! and its own instances are followed through the grammar: none that the suite calls invalid may pass.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use dunlin::{
    FormatState, GenerateOptions, Grammar, Lm, OutputFormat, Prompt, Speculation, TextError,
};
use serde_json::Value as Json;

#[path = "../crates/dunlin/tests/common/schemas.rs"]
mod schemas;

#[derive(Debug, Default)]
struct Counts {
    valid: usize,
    cut: usize,
    refused: usize,
    /// The grammar came to a place where no token goes on.
    stopped: usize,
    faulty: usize,
    tokens: usize,
    forced: usize,
    cost: Cost,
}

/// Seconds for the tokens that were not forced.
#[derive(Debug, Default)]
struct Cost {
    sampled: usize,
    /// The likeliest token is asked about, and committed.
    asked: f64,
    /// All tokens are masked.
    masked: f64,
    slowest_mask: f64,
    /// Steps of the model, and what they took with the grammar.
    steps: usize,
    decoded: f64,
}

impl Cost {
    /// Follows an answer once more.
    fn replay(
        &mut self,
        grammar: &Grammar,
        tokens: &[u32],
        vocab_size: usize,
    ) -> Result<(), TextError> {
        let mut scores = vec![0.0; vocab_size];
        let mut constraint = grammar.constraint();
        let mut next = constraint.take_forced()?.len();
        let mut masking = grammar.constraint();
        masking.take_forced()?;
        while let Some(token) = tokens.get(next) {
            let started = Instant::now();
            constraint.allows(*token)?;
            constraint.commit(*token)?;
            next += 1 + constraint.take_forced()?.len();
            self.asked += started.elapsed().as_secs_f64();
            let started = Instant::now();
            masking.mask(&mut scores)?;
            let mask = started.elapsed().as_secs_f64();
            masking.commit(*token)?;
            masking.take_forced()?;
            self.masked += started.elapsed().as_secs_f64();
            self.slowest_mask = self.slowest_mask.max(mask);
            self.sampled += 1;
        }
        Ok(())
    }

    fn report(&self) -> String {
        let micros = |seconds: f64, count: usize| seconds * 1e6 / count.max(1) as f64;
        let step = micros(self.decoded, self.steps);
        let share = |cost: f64| 100.0 * cost / step;
        let (asked, masked) = (
            micros(self.asked, self.sampled),
            micros(self.masked, self.sampled),
        );
        format!(
            "a step takes {step:.0} us; the grammar {asked:.0} us ({:.1} %) where the likeliest token is asked about, \
             {masked:.0} us ({:.1} %) where all are masked, {:.0} us at most",
            share(asked),
            share(masked),
            self.slowest_mask * 1e6
        )
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments
        .next()
        .unwrap_or_else(|| "smollm2:135m".to_owned());
    let count: usize = arguments.next().map_or(Ok(300), |count| count.parse())?;
    let suite = arguments.next();
    let lm = Lm::load_from_model_id(&model)?;
    let mut out = std::io::stdout();
    let started = Instant::now();
    Grammar::json(lm.tokenizer())?;
    let first = started.elapsed();
    let started = Instant::now();
    Grammar::json(lm.tokenizer())?;
    writeln!(
        out,
        "{model}: vocabulary and first grammar {first:.0?}, a grammar {:.1?}",
        started.elapsed()
    )?;

    let mut counts = Counts::default();
    let mut generator = schemas::Schemas::new(2026);
    for _ in 0..count {
        answer(&lm, &generator.schema(), &mut counts, &mut out)?;
    }
    writeln!(out, "generated schemas: {counts:?}")?;
    writeln!(out, "{}", counts.cost.report())?;
    let mut faulty = counts.faulty;
    if let Some(folder) = suite {
        let (mut counts, mut instances) = (Counts::default(), Instances::default());
        for schema in suite_schemas(Path::new(&folder))? {
            answer(&lm, &schema["schema"], &mut counts, &mut out)?;
            instances.follow(&lm, &schema, &mut out)?;
        }
        writeln!(out, "test suite: {counts:?}")?;
        writeln!(out, "its instances: {instances:?}")?;
        faulty += counts.faulty + instances.invalid_passed;
    }
    match faulty {
        0 => Ok(()),
        faulty => Err(format!("{faulty} faults").into()),
    }
}

fn answer(
    lm: &Lm,
    schema: &Json,
    counts: &mut Counts,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let grammar = match Grammar::from_json_schema(lm.tokenizer(), schema) {
        Ok(grammar) => grammar,
        Err(TextError::Schema { .. }) => {
            counts.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let prompt = Prompt::Text("An example as JSON:\n".to_owned());
    let options = GenerateOptions::greedy()
        .with_format(OutputFormat::Grammar(grammar.clone()))
        .with_speculation(Speculation::Off)
        .with_max_tokens(256);
    let answer = match lm.generate(&prompt, &options)?.complete() {
        Err(dunlin::Error::Text(TextError::GrammarStopped { reason })) => {
            counts.stopped += 1;
            writeln!(out, "STOPPED: {reason}\n  {schema}")?;
            return Ok(());
        }
        answer => answer?,
    };
    counts.tokens += answer.usage.completion_tokens;
    counts.forced += answer.usage.forced_tokens;
    counts.cost.steps += answer.usage.completion_steps;
    counts.cost.decoded += answer.usage.completion_seconds;
    counts
        .cost
        .replay(&grammar, &answer.tokens, lm.tokenizer().vocab_size())?;
    if answer.format != FormatState::Complete {
        counts.cut += 1;
    } else if let Some(fault) = schemas::fault(schema, &answer.text) {
        counts.faulty += 1;
        writeln!(out, "FAULT: {fault}\n  {schema}\n  {}", answer.text)?;
    } else {
        counts.valid += 1;
    }
    Ok(())
}

/// What became of the suite's own instances.
#[derive(Debug, Default)]
struct Instances {
    valid_passed: usize,
    /// Properties in another order, or a form that is narrower than the schema.
    valid_stopped: usize,
    invalid_stopped: usize,
    invalid_passed: usize,
}

impl Instances {
    fn follow(
        &mut self,
        lm: &Lm,
        group: &Json,
        out: &mut impl Write,
    ) -> Result<(), Box<dyn Error>> {
        let Ok(grammar) = Grammar::from_json_schema(lm.tokenizer(), &group["schema"]) else {
            return Ok(());
        };
        for test in group["tests"].as_array().into_iter().flatten() {
            let text = test["data"].to_string();
            let passes = passes(lm, &grammar, &text)?;
            let count = match (test["valid"] == true, passes) {
                (true, true) => &mut self.valid_passed,
                (true, false) => &mut self.valid_stopped,
                (false, false) => &mut self.invalid_stopped,
                (false, true) => {
                    writeln!(out, "INVALID PASSED: {text}\n  {}", group["schema"])?;
                    &mut self.invalid_passed
                }
            };
            *count += 1;
        }
        Ok(())
    }
}

fn passes(lm: &Lm, grammar: &Grammar, text: &str) -> Result<bool, Box<dyn Error>> {
    let mut constraint = grammar.constraint();
    for token in lm.tokenizer().encode(text, false)? {
        match constraint.commit(token) {
            Ok(()) => {}
            Err(TextError::GrammarRefuses { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(constraint.is_complete()?)
}

fn suite_schemas(folder: &Path) -> Result<Vec<Json>, Box<dyn Error>> {
    let mut groups = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let all: Vec<Json> = serde_json::from_slice(&std::fs::read(path)?)?;
            groups.extend(all);
        }
    }
    Ok(groups)
}
