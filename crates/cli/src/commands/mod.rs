//! One file a command, and what several of them need: opening a model with its progress shown.

pub(crate) mod bench;
pub(crate) mod cache;
pub(crate) mod catalog;
mod chat;
pub(crate) mod classify;
pub(crate) mod convert;
pub(crate) mod devices;
pub(crate) mod embed;
pub(crate) mod extract;
pub(crate) mod fim;
pub(crate) mod list;
pub(crate) mod logits;
mod lora;
pub(crate) mod perplexity;
pub(crate) mod pull;
pub(crate) mod rerank;
pub(crate) mod rm;
pub(crate) mod run;
mod sampling;
pub(crate) mod search;
mod several;
pub(crate) mod show;
pub(crate) mod summarize;
mod talk;
pub(crate) mod template;
mod texts;
pub(crate) mod tokenize;
mod tools;
pub(crate) mod translate;
pub(crate) mod types;
pub(crate) mod validate;

use std::path::Path;

use anyhow::{Context, Result};
use dunlin::{
    DeviceConfiguration, DraftModel, Hub, HubConfig, HubError, KvTypes, Lm, LoadEvent, LoadOptions,
    ModelRef, TokenizerFile,
};

use crate::args::{Cli, Command, Global, LoadArgs};
use crate::exit::Usage;
use crate::kv;
use crate::lists;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

/// Carries out the command.
///
/// # Errors
/// What the command says; `exit` turns it into words and an exit code.
pub(crate) fn run(cli: Cli, terminal: &Terminal) -> Result<()> {
    let global = cli.global;
    match cli.command {
        Command::Run(args) => run::execute(&args, global, terminal),
        Command::Pull(args) => pull::execute(&args, global, terminal),
        Command::List(args) => list::execute(&args, global, terminal),
        Command::Show(args) => show::execute(&args, global),
        Command::Rm(args) => rm::execute(&args, global, terminal),
        Command::Catalog(args) => catalog::execute(&args, global, terminal),
        Command::Validate(args) => validate::execute(&args, terminal),
        Command::Fim(args) => fim::execute(&args, global, terminal),
        Command::Devices(args) => devices::execute(&args, terminal),
        Command::Embed(args) => embed::execute(&args, global, terminal),
        Command::Rerank(args) => rerank::execute(&args, global, terminal),
        Command::Search(args) => search::execute(&args, global, terminal),
        Command::Summarize(args) => summarize::execute(&args, global, terminal),
        Command::Classify(args) => classify::execute(&args, global, terminal),
        Command::Extract(args) => extract::execute(&args, global, terminal),
        Command::Translate(args) => translate::execute(&args, global, terminal),
        Command::Convert(args) => convert::execute(&args, global, terminal),
        Command::Cache(args) => cache::execute(&args, global, terminal),
        Command::Tokenize(args) => tokenize::execute(&args, global, terminal),
        Command::Template(args) => template::execute(&args, global, terminal),
        Command::Logits(args) => logits::execute(&args, global, terminal),
        Command::Perplexity(args) => perplexity::execute(&args, global, terminal),
        Command::Bench(args) => bench::execute(&args, global, terminal),
    }
}

/// The hub as the environment and the flags say.
fn hub(global: Global) -> Result<Hub> {
    let mut config = HubConfig::from_env()?;
    config.offline |= global.offline;
    Ok(Hub::new(config)?)
}

/// What names a model. A folder or file that is here needs no ./ in front, as long as it has not the name of a model.
pub(crate) fn reference(text: &str) -> Result<ModelRef> {
    match text.parse() {
        Ok(model) => Ok(model),
        Err(HubError::UnknownModel { .. } | HubError::InvalidReference { .. })
            if Path::new(text).exists() =>
        {
            Ok(ModelRef::Path(text.into()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Loads a model, fetching it where it is not here.
fn load(
    model: &str,
    args: &LoadArgs,
    types: KvTypes,
    global: Global,
    terminal: &Terminal,
) -> Result<Lm> {
    let model = reference(model)?;
    let mut view = ProgressView::new(terminal);
    let mut device = DeviceConfiguration::cpu();
    device.threads = args.threads;
    device.tier = args.tier;
    let mut options = options(global, &mut view)
        .with_device(device)
        .with_kv_types(types);
    options.context_length = args.context;
    options.yarn_factor = args.yarn;
    options.mapped_weights = args.mmap_weights;
    options.memory_lock = args.mlock;
    options.tensor_types = args.types.tensor_types();
    let lm =
        Lm::load(model.clone(), options).with_context(|| format!("{model} cannot be loaded"))?;
    drop(view);
    if let Some(warning) = kv::warning(lm.spec(), types) {
        terminal.note(format_args!("warning: {warning}"));
    }
    Ok(lm)
}

/// Loads a model that guesses for another one, with its context.
fn load_draft(
    model: &str,
    args: &LoadArgs,
    context_length: usize,
    global: Global,
    terminal: &Terminal,
) -> Result<DraftModel> {
    let model = reference(model)?;
    let mut view = ProgressView::new(terminal);
    let mut device = DeviceConfiguration::cpu();
    device.threads = args.threads;
    let info = Lm::open_metadata(&model, &mut options(global, &mut view))?;
    let context_length = info
        .context_length
        .map_or(context_length, |own| own.min(context_length));
    let options = options(global, &mut view)
        .with_device(device)
        .with_context_length(context_length);
    DraftModel::load(model.clone(), options)
        .with_context(|| format!("{model} cannot be loaded as draft model"))
}

/// Opens tokenizer and chat template of a model, fetching it where it is not here.
fn open_text(model: &str, global: Global, terminal: &Terminal) -> Result<TokenizerFile> {
    let model = reference(model)?;
    let mut view = ProgressView::new(terminal);
    let mut options = options(global, &mut view);
    TokenizerFile::open(&model, &mut options).with_context(|| format!("{model} cannot be opened"))
}

fn options<'a>(global: Global, view: &'a mut ProgressView) -> LoadOptions<'a> {
    LoadOptions::new()
        .with_offline(global.offline)
        .with_progress(|event| match event {
            LoadEvent::Hub(progress) => view.fetch(progress),
            LoadEvent::Importing { done, total } => view.import(done, total),
            LoadEvent::Converting(plan) => view.types(&plan),
            LoadEvent::Loading { done, total } => view.load(done, total),
            _ => std::ops::ControlFlow::Continue(()),
        })
}

/// Every line of stdin as a text.
///
/// # Errors
/// The first line that is no UTF-8; an empty stdin, which has no `what`.
fn stdin_lines(what: &str) -> Result<Vec<String>> {
    let lines = std::io::stdin().lines().enumerate();
    let texts: Vec<String> = lines
        .map(|(index, line)| {
            line.with_context(|| {
                format!("line {} of stdin cannot be read as UTF-8 text", index + 1)
            })
        })
        .collect::<Result<_>>()?;
    if texts.is_empty() {
        return Err(Usage(format!("there is no {what}: stdin is empty")).into());
    }
    Ok(texts)
}

/// A list of ids that is not empty.
fn token_ids(list: &str) -> Result<Vec<u32>> {
    let ids = lists::parse_or_read(list)?;
    if ids.is_empty() {
        return Err(Usage("--ids holds no token id".to_owned()).into());
    }
    Ok(ids)
}

/// The beginning of a text, in one line, for tables.
fn shortened(text: &str) -> String {
    const WIDTH: usize = 50;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// All of stdin as text.
fn read_stdin() -> Result<String> {
    std::io::read_to_string(std::io::stdin()).context("stdin cannot be read as UTF-8 text")
}
