//! The figures of a benchmark as a table, as JSON and as CSV.

use std::io::Write;

use anyhow::Result;
use dunlin::{Bench, BenchKind, BenchResult, BenchTest, Spread};
use serde_json::{Map, Value, json};

use super::BenchArgs;
use crate::output;
use crate::terminal::printable;

/// One test and what it found.
pub(super) struct Row {
    test: String,
    work: Option<BenchTest>,
    tokens_per_second: Option<Spread>,
    seconds: Option<Spread>,
    bytes: Option<u64>,
}

impl Row {
    pub(super) fn of(result: BenchResult) -> Self {
        Row {
            test: result.test.to_string(),
            work: Some(result.test),
            tokens_per_second: Some(result.tokens_per_second),
            seconds: Some(result.seconds),
            bytes: None,
        }
    }

    pub(super) fn seconds(test: &str, seconds: Spread) -> Self {
        Row {
            seconds: Some(seconds),
            ..Self::bytes(test, None)
        }
    }

    pub(super) fn bytes(test: &str, bytes: Option<u64>) -> Self {
        Row {
            test: test.to_owned(),
            work: None,
            tokens_per_second: None,
            seconds: None,
            bytes,
        }
    }

    pub(super) fn test(&self) -> &str {
        &self.test
    }

    pub(super) fn is_noisy(&self) -> bool {
        self.seconds.as_ref().is_some_and(Spread::is_noisy)
    }

    /// Median, least, most and unit.
    fn cells(&self) -> [String; 4] {
        let of = |spread: &Spread, decimals: usize, unit: &str| {
            let cell = |value: f64| format!("{value:.decimals$}");
            let (least, most) = (cell(spread.min), cell(spread.max));
            [cell(spread.median), least, most, unit.to_owned()]
        };
        let single =
            |text: String, unit: &str| [text, String::new(), String::new(), unit.to_owned()];
        match (&self.tokens_per_second, &self.seconds, self.bytes) {
            (Some(speed), _, _) => of(speed, 1, "tokens/s"),
            (None, Some(seconds), _) => of(seconds, 3, "s"),
            (None, None, Some(bytes)) => single(format!("{:.1}", bytes as f64 / 1e6), "MB"),
            (None, None, None) => single("not known".to_owned(), ""),
        }
    }
}

/// What all rows of a benchmark share.
pub(super) struct Report {
    model: String,
    name: Option<String>,
    architecture: Option<String>,
    file_type: &'static str,
    file_bytes: u64,
    parameters: u64,
    weight_bytes: u64,
    kv_bytes: u64,
    processor: Option<String>,
    threads: usize,
    tier: &'static str,
    kv: String,
    runs: usize,
}

impl Report {
    pub(super) fn of(args: &BenchArgs, bench: &Bench) -> Self {
        let (info, memory) = (bench.info(), bench.memory());
        Report {
            model: args.model.clone(),
            name: info.name.clone(),
            architecture: info.architecture.clone(),
            file_type: bench.file_type(),
            file_bytes: info.file_bytes,
            parameters: info.parameters,
            weight_bytes: memory.weights,
            kv_bytes: memory.kv_cache,
            processor: dunlin::processor_name(),
            threads: bench.threads(),
            tier: bench.tier().name(),
            kv: args.kv.types().to_string().to_lowercase(),
            runs: bench.runs(),
        }
    }

    /// Two lines that name model and machine, and an aligned Markdown table.
    ///
    /// # Errors
    /// stdout cannot be written to.
    pub(super) fn markdown(&self, rows: &[Row]) -> Result<()> {
        let head = ["test", "median", "min", "max", "unit"].map(str::to_owned);
        let lines = rows.iter().map(|row| {
            let [median, min, max, unit] = row.cells();
            [row.test.clone(), median, min, max, unit]
        });
        let lines: Vec<[String; 5]> = [head].into_iter().chain(lines).collect();
        let mut widths = [0; 5];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let [test, median, min, max, unit] = widths;
        output::to_stdout(|out| {
            for line in self.heading() {
                writeln!(out, "{}\n", printable(&line))?;
            }
            for (index, [a, b, c, d, e]) in lines.iter().enumerate() {
                writeln!(
                    out,
                    "| {a:test$} | {b:>median$} | {c:>min$} | {d:>max$} | {e:unit$} |"
                )?;
                if index == 0 {
                    let rule = |width: usize| "-".repeat(width);
                    let right = |width: usize| format!("{}:", rule(width + 1));
                    let (b, c, d) = (right(median), right(min), right(max));
                    writeln!(out, "|{}|{b}|{c}|{d}|{}|", rule(test + 2), rule(unit + 2))?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    fn heading(&self) -> [String; 2] {
        let name = self.name.as_ref().unwrap_or(&self.model);
        let architecture = self.architecture.as_deref().unwrap_or("unknown");
        let processor = self.processor.as_deref().unwrap_or(std::env::consts::ARCH);
        [
            format!(
                "{name}: {architecture} {}, {}, {} weights",
                self.file_type,
                output::bytes(self.file_bytes),
                output::count(self.parameters)
            ),
            format!(
                "{processor}: {}, kernels {}, KV cache {}; medians of {}, dunlin {}",
                counted(self.threads, "thread"),
                self.tier,
                self.kv,
                counted(self.runs, "run"),
                env!("CARGO_PKG_VERSION")
            ),
        ]
    }

    /// A list of objects, all with the same keys.
    ///
    /// # Errors
    /// stdout cannot be written to.
    pub(super) fn json(&self, rows: &[Row]) -> Result<()> {
        let list: Vec<Value> = rows.iter().map(|row| self.object(row)).collect();
        output::json(&list)
    }

    fn object(&self, row: &Row) -> Value {
        let spread = |spread: &Option<Spread>| match spread {
            Some(spread) => json!({
                "median": spread.median,
                "min": spread.min,
                "max": spread.max,
                "samples": spread.samples,
            }),
            None => Value::Null,
        };
        let tokens = |kind| {
            let work = row.work?;
            Some(if work.kind == kind { work.tokens } else { 0 })
        };
        json!({
            "test": row.test,
            "tokens_per_second": spread(&row.tokens_per_second),
            "seconds": spread(&row.seconds),
            "bytes": row.bytes,
            "noisy": row.is_noisy(),
            "prompt_tokens": tokens(BenchKind::Prompt),
            "generated_tokens": tokens(BenchKind::Generation),
            "depth": row.work.map(|work| work.depth),
            "batch": row.work.map(|work| work.sequences),
            "runs": row.seconds.as_ref().map(|seconds| seconds.samples.len()),
            "model": self.model,
            "name": self.name,
            "architecture": self.architecture,
            "type": self.file_type,
            "file_bytes": self.file_bytes,
            "parameters": self.parameters,
            "weight_bytes": self.weight_bytes,
            "kv_bytes": self.kv_bytes,
            "processor": self.processor,
            "threads": self.threads,
            "tier": self.tier,
            "kv": self.kv,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    /// The objects of [`Report::json`] as lines, inner keys joined by `_` and samples left out.
    ///
    /// # Errors
    /// stdout cannot be written to.
    pub(super) fn csv(&self, rows: &[Row]) -> Result<()> {
        output::to_stdout(|out| {
            for (index, row) in rows.iter().enumerate() {
                let cells = flat(&self.object(row));
                if index == 0 {
                    let names: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
                    writeln!(out, "{}", names.join(","))?;
                }
                let values: Vec<&str> = cells.iter().map(|(_, value)| value.as_str()).collect();
                writeln!(out, "{}", values.join(","))?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

fn counted(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Names and values of a CSV line.
fn flat(object: &Value) -> Vec<(String, String)> {
    const SPREADS: [&str; 2] = ["tokens_per_second", "seconds"];
    let empty = Map::new();
    let mut cells = Vec::new();
    for (name, value) in object.as_object().unwrap_or(&empty) {
        if !SPREADS.contains(&name.as_str()) {
            cells.push((name.clone(), cell(value)));
            continue;
        }
        for part in ["median", "min", "max"] {
            cells.push((format!("{name}_{part}"), cell(&value[part])));
        }
    }
    cells
}

/// A value as RFC 4180 has it: texts in quotes, absent ones empty.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => format!("\"{}\"", text.replace('"', "\"\"")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_cells_keep_commas_quotes_and_gaps() {
        let object = json!({"test": "a \"b\", c", "seconds": {"median": 1.5, "min": 1.0, "max": 2.0}, "bytes": null});
        let cells = flat(&object);
        let names: Vec<&str> = cells.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<&str> = cells.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(
            names,
            [
                "test",
                "seconds_median",
                "seconds_min",
                "seconds_max",
                "bytes"
            ]
        );
        assert_eq!(values, ["\"a \"\"b\"\", c\"", "1.5", "1.0", "2.0", ""]);
    }
}
