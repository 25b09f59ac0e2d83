//! `dunlin bench`: how fast a model is on this machine.

mod report;

use std::env;
use std::process;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use dunlin::{Bench, BenchOptions, DeviceConfiguration, Tier};

use super::types::TypeArgs;
use crate::args::{self, Global, at_least_one};
use crate::kv::KvArgs;
use crate::progress::ProgressView;
use crate::terminal::Terminal;
use report::{Report, Row};

const EXAMPLES: &str = "\
Examples:
  dunlin bench smollm2:135m
  dunlin bench model.gguf -p 512 -n 128 -b 1 -r 10
  dunlin bench model.gguf -d 0,4096              also after 4096 tokens of context
  dunlin bench model.gguf -n 0 -p 4096           time to the first token of a long prompt
  dunlin bench model.gguf -t 1 --tier portable -o json

Tests are named as llama-bench names them: pp512 is a prompt of 512 tokens, tg128 a generation of 128, tg128 x 8 the same \
for 8 sequences side by side (tokens per second over all of them), @ d4096 either one after 4096 tokens. Cold start is the \
time of `dunlin run MODEL -n 1` from its start to its end, the model's file being in memory; load is the part of it from \
opening the file to a model that is ready; peak resident is the most memory that this benchmark held. Figures are medians; \
a run that is not counted goes before. Machines change from minute to minute: tests are run in turns, so their ratios can be \
trusted more than the figures. To compare with another program run both in turns. The context of all depths is kept all the \
time; where memory is short, give one depth at a time.

With -o json: a list of {\"test\",\"tokens_per_second\":{\"median\",\"min\",\"max\",\"samples\"},\"seconds\":{..},\"bytes\",\"noisy\",\
\"prompt_tokens\",\"generated_tokens\",\"depth\",\"batch\",\"runs\",\"model\",\"name\",\"type\",\"file_bytes\",\"parameters\",\
\"weight_bytes\",\"kv_bytes\",\"processor\",\"threads\",\"tier\",\"kv\",\"version\"}; what a test does not measure is null. \
With -o csv the same, flat.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// Name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    model: String,
    /// Tokens of the prompts; 0: none
    #[arg(
        long = "n-prompt",
        short = 'p',
        value_name = "N,..",
        value_delimiter = ',',
        default_value = "512"
    )]
    prompts: Vec<usize>,
    /// Tokens of the generations; 0: none
    #[arg(
        long = "n-gen",
        short = 'n',
        value_name = "N,..",
        value_delimiter = ',',
        default_value = "128"
    )]
    generations: Vec<usize>,
    /// Tokens of context before each of them
    #[arg(
        long = "n-depth",
        short = 'd',
        value_name = "N,..",
        value_delimiter = ',',
        default_value = "0"
    )]
    depths: Vec<usize>,
    /// Sequences that generate side by side
    #[arg(long = "batch", short = 'b', value_name = "N,..", value_delimiter = ',', default_value = "1,2,4,8", value_parser = at_least_one)]
    sequences: Vec<usize>,
    /// Timed runs of each test
    #[arg(long, short = 'r', value_name = "N", default_value_t = 5, value_parser = at_least_one)]
    runs: usize,
    /// Threads that compute [default: the physical cores]
    #[arg(long, short = 't', value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,
    /// Kernels to compute with (portable, avx2, ...) [default: the best of this processor]
    #[arg(long, value_name = "NAME", value_parser = args::tier)]
    tier: Option<Tier>,
    #[command(flatten)]
    kv: KvArgs,
    #[command(flatten)]
    types: TypeArgs,
    /// Do not time the start of the program
    #[arg(long)]
    no_cold_start: bool,
    /// How the figures are printed
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT", default_value_t = Format::Md)]
    output: Format,
}

/// How the figures are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A Markdown table
    Md,
    /// A list of objects
    Json,
    /// A line a test, under one with the names
    Csv,
}

pub(crate) fn execute(args: &BenchArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let model = super::reference(&args.model)?;
    let tests = BenchOptions::new()
        .with_prompts(args.prompts.clone())
        .with_generations(args.generations.clone())
        .with_depths(args.depths.clone())
        .with_sequences(args.sequences.clone())
        .with_runs(args.runs);
    let mut device = DeviceConfiguration::cpu();
    device.threads = args.threads;
    device.tier = args.tier;
    let mut view = ProgressView::new(terminal);
    let load = super::options(global, &mut view)
        .with_device(device)
        .with_kv_types(args.kv.types())
        .with_tensor_types(args.types.tensor_types());
    let mut bench =
        Bench::load(&model, load, &tests).with_context(|| format!("{model} cannot be loaded"))?;
    let results = bench.run(&mut |done, total| view.measure(done as u64, total as u64))?;
    // Before other processes take the memory of this one's share of the machine.
    let peak = dunlin::peak_resident_bytes();
    let report = Report::of(args, &bench);
    let load = bench.load_time().as_secs_f64();
    let is_base = !bench.info().has_chat_template;
    let (threads, tier) = (bench.threads(), bench.tier());
    // Two copies of the weights may be one too many for the machine.
    drop(bench);

    let mut rows: Vec<Row> = results.into_iter().map(Row::of).collect();
    if !args.no_cold_start {
        let program = env::current_exe().context("this program's file cannot be found")?;
        let command = || {
            let mut command = process::Command::new(&program);
            command.args(["--offline", "--quiet", "run", &args.model, "-n", "1"]);
            command.args(["--threads", &threads.to_string(), "--tier", tier.name()]);
            command.args(args.kv.arguments());
            command.args(args.types.to_arguments());
            if is_base {
                command.arg("--raw");
            }
            command.arg("Hello");
            command
        };
        let seconds = dunlin::cold_start(args.runs, command, &mut |done, total| {
            view.measure(done as u64, total as u64)
        })?;
        rows.push(Row::seconds("cold start", seconds));
    }
    drop(view);
    rows.push(Row::seconds("load", dunlin::Spread::of(vec![load])));
    rows.push(Row::bytes("peak resident", peak));
    warn_of_noise(&rows, terminal);
    match args.output {
        Format::Md => report.markdown(&rows),
        Format::Json => report.json(&rows),
        Format::Csv => report.csv(&rows),
    }
}

fn warn_of_noise(rows: &[Row], terminal: &Terminal) {
    let noisy: Vec<&str> = rows
        .iter()
        .filter(|row| row.is_noisy())
        .map(Row::test)
        .collect();
    if !noisy.is_empty() {
        terminal.note(format_args!(
            "warning: the machine is noisy: the runs of {} lie more than {:.0} % apart; end other programs, or measure again \
             with more runs (-r)",
            noisy.join(", "),
            dunlin::NOISY * 100.0
        ));
    }
}
