//! `dunlin search`: the text files of a folder, by meaning and by words.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use dunlin::search::{
    ChunkOptions, Filter, FolderChanges, FolderEvent, FolderIndex, Hit, SearchMode, SearchOptions,
    SkippedReason,
};
use dunlin::{Cache, EmbedOptions, Embedder, Error, KvTypes};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::{Global, LoadArgs, at_least_one};
use crate::exit::Usage;
use crate::output;
use crate::progress::ProgressView;
use crate::terminal::Terminal;

/// Characters of a snippet.
const SNIPPET: usize = 240;

const EXAMPLES: &str = "\
Examples:
  dunlin search docs \"how do I undo the last commit?\"
  dunlin search docs \"rebase --onto\" --hybrid --top-k 5
  dunlin search docs \"fsck\" --keyword --json
  dunlin search notes \"train tickets\" --where path=travel.md --index notes.index
  dunlin search notes \"train tickets\" --filter '{\"first_line\":{\"$lt\":100}}'

The first search reads and embeds the folder's text files, in pieces; later ones embed only files that have changed. A file \
that is as long and as old as before is not read again; one that was only touched is not embedded again. The index is kept \
in the cache folder (index/ in `dunlin cache path`), or at --index. One that is interrupted goes on where it stopped.

Files must be UTF-8 text; those that end in .md or .markdown are cut as Markdown. Left out are hidden files and folders \
(.name), links, and folders named node_modules, target, build, dist, __pycache__, venv or vendor; also, and counted on \
stderr, files that are binary, not UTF-8 or larger than 16 MiB. .gitignore is not read.

Scores: the cosine by meaning; BM25 by --keyword; by --hybrid both, joined by their ranks (reciprocal rank fusion, k = 60).

With --json, or where stdout is no terminal: {\"hits\":[{\"path\",\"first_line\",\"last_line\",\"start\",\"end\",\"score\",\
\"cosine\",\"bm25\",\"text\"}..],\"changes\":{..}}, best first; start and end are bytes of the file, the text is the whole piece.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SearchArgs {
    /// Folder whose text files are searched
    folder: PathBuf,
    /// What is looked for
    query: String,
    /// Embedding model: name of the catalog, hf:owner/repo[:quant-or-file][@revision], address or path
    #[arg(long, default_value = "all-minilm:l6-v2", value_name = "MODEL")]
    model: String,
    /// Pieces to show at most
    #[arg(long, short = 'k', value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    top_k: usize,
    /// By meaning and by words
    #[arg(long, conflicts_with = "keyword")]
    hybrid: bool,
    /// By words alone
    #[arg(long)]
    keyword: bool,
    /// Only pieces whose path, start, end, first_line or last_line is as said: KEY=VALUE, also != >= > <= <; may be given
    /// several times, and all must hold
    #[arg(long = "where", value_name = "CONDITION")]
    conditions: Vec<String>,
    /// The same as JSON, with $and, $or, $not, $in, $gt, $gte, $lt, $lte, $ne, $exists
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// File of the index [default: one for each folder and model in the cache folder]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
    /// Tokens of a piece at most [default: 200, or what the model takes]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    chunk_tokens: Option<usize>,
    /// Tokens that a piece shares with the next one
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    chunk_overlap: usize,
    /// Print JSON in a terminal, too
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    load: LoadArgs,
}

pub(crate) fn execute(args: &SearchArgs, global: Global, terminal: &Terminal) -> Result<()> {
    let options = options(args)?;
    let folder = &args.folder;
    std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let lm = super::load(
        &args.model,
        &args.load,
        KvTypes::default(),
        global,
        terminal,
    )?;
    let embedder = Embedder::new(lm, EmbedOptions::new())
        .with_context(|| format!("{} cannot be used for embeddings", args.model))?;
    let mut chunks = ChunkOptions::new().with_overlap(args.chunk_overlap);
    chunks.max_tokens = args.chunk_tokens;
    let file = match &args.index {
        Some(file) => file.clone(),
        None => index_file(folder, &embedder, global)?,
    };
    let mut index = FolderIndex::open(folder, &file, &embedder, chunks)?;
    let changes = update(&mut index, &embedder, &file, terminal)?;
    let hits = index.index().search(&embedder, &args.query, &options)?;
    if args.json || !terminal.stdout {
        return output::json(&Answer::of(&hits, &changes));
    }
    for hit in &hits {
        let place = Place::of(hit.metadata);
        let heading = format!(
            "{}:{}-{}  {:.4}",
            place.path, place.first_line, place.last_line, hit.score
        );
        output::line(&terminal.shown(&heading))?;
        output::line(&format!("    {}\n", terminal.shown(&snippet(hit.text))))?;
    }
    if hits.is_empty() {
        terminal.note("nothing was found");
    }
    Ok(())
}

fn options(args: &SearchArgs) -> Result<SearchOptions> {
    let mode = match (args.hybrid, args.keyword) {
        (true, _) => SearchMode::Hybrid,
        (_, true) => SearchMode::Keyword,
        _ => SearchMode::Semantic,
    };
    let mut filters = Vec::new();
    for condition in &args.conditions {
        let filter = Filter::from_condition(condition);
        filters.push(filter.map_err(|error| Usage(error.to_string()))?);
    }
    if let Some(text) = &args.filter {
        let value: Value = serde_json::from_str(text)
            .map_err(|error| Usage(format!("--filter is no JSON: {error}")))?;
        let filter = Filter::from_json(&value);
        filters.push(filter.map_err(|error| Usage(error.to_string()))?);
    }
    let options = SearchOptions::new().with_top_k(args.top_k).with_mode(mode);
    Ok(match filters.is_empty() {
        true => options,
        false => options.with_filter(Filter::And(filters)),
    })
}

/// Where indexes lie that are not named.
pub(super) fn index_folder(cache: &Cache) -> PathBuf {
    cache.home().join("index")
}

/// One file for each folder and model, below the cache folder.
fn index_file(folder: &Path, embedder: &Embedder, global: Global) -> Result<PathBuf> {
    let home = index_folder(&super::hub(global)?.cache());
    std::fs::create_dir_all(&home).with_context(|| format!("{} cannot be made", home.display()))?;
    Ok(home.join(FolderIndex::file_name(folder, embedder)?))
}

/// Brings the index up to date and saves it, also what was done of it when it is interrupted.
fn update(
    index: &mut FolderIndex,
    embedder: &Embedder,
    file: &Path,
    terminal: &Terminal,
) -> Result<FolderChanges> {
    let mut view = ProgressView::new(terminal);
    let updated = index.update(embedder, &mut |event| match event {
        FolderEvent::Files { done, total } => view.index(done, total),
        _ => std::ops::ControlFlow::Continue(()),
    });
    drop(view);
    if index.is_unsaved() && matches!(updated, Ok(_) | Err(Error::Cancelled)) {
        index.save(file)?;
    }
    let changes = updated?;
    say(&changes, terminal);
    Ok(changes)
}

fn say(changes: &FolderChanges, terminal: &Terminal) {
    if changes.added + changes.changed + changes.removed > 0 {
        terminal.note(format_args!(
            "indexed {} new and {} changed files in {} pieces; {} are unchanged, {} gone",
            changes.added, changes.changed, changes.embedded, changes.unchanged, changes.removed
        ));
    }
    let counts = skipped(changes);
    if !counts.is_empty() {
        let words: Vec<String> = counts
            .iter()
            .map(|(reason, count)| format!("{count} {}", reason.as_str()))
            .collect();
        terminal.note(format_args!("left out files: {}", words.join(", ")));
    }
}

/// How many files were left out for which reason.
fn skipped(changes: &FolderChanges) -> Vec<(SkippedReason, usize)> {
    let mut counts: Vec<(SkippedReason, usize)> = Vec::new();
    for file in &changes.skipped {
        match counts.iter_mut().find(|(reason, _)| *reason == file.reason) {
            Some((_, count)) => *count += 1,
            None => counts.push((file.reason, 1)),
        }
    }
    counts
}

/// The beginning of a piece in one line.
fn snippet(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SNIPPET) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    hits: Vec<Found<'a>>,
    changes: Changes,
}

#[derive(Serialize)]
struct Found<'a> {
    #[serde(flatten)]
    place: Place<'a>,
    score: f64,
    cosine: Option<f64>,
    bm25: Option<f64>,
    text: &'a str,
}

/// Where a piece stands.
#[derive(Serialize)]
struct Place<'a> {
    path: &'a str,
    first_line: u64,
    last_line: u64,
    start: u64,
    end: u64,
}

#[derive(Serialize)]
struct Changes {
    added: usize,
    changed: usize,
    removed: usize,
    unchanged: usize,
    embedded: usize,
    skipped: Map<String, Value>,
}

impl<'a> Answer<'a> {
    fn of(hits: &[Hit<'a>], changes: &FolderChanges) -> Self {
        let found = |hit: &Hit<'a>| Found {
            place: Place::of(hit.metadata),
            score: hit.score,
            cosine: hit.cosine,
            bm25: hit.bm25,
            text: hit.text,
        };
        let skipped = skipped(changes).into_iter();
        Answer {
            hits: hits.iter().map(found).collect(),
            changes: Changes {
                added: changes.added,
                changed: changes.changed,
                removed: changes.removed,
                unchanged: changes.unchanged,
                embedded: changes.embedded,
                skipped: skipped
                    .map(|(reason, count)| (reason.as_str().to_owned(), count.into()))
                    .collect(),
            },
        }
    }
}

impl<'a> Place<'a> {
    fn of(metadata: &'a Map<String, Value>) -> Self {
        let number = |key: &str| metadata.get(key).and_then(Value::as_u64).unwrap_or(0);
        Place {
            path: metadata.get("path").and_then(Value::as_str).unwrap_or(""),
            first_line: number("first_line"),
            last_line: number("last_line"),
            start: number("start"),
            end: number("end"),
        }
    }
}
