//! Asks the text files of a folder: `cargo run --release --example search -- [FOLDER] [QUESTION]`.
//!
//! The index is kept in the folder for temporary files, so that a second question embeds only what has changed.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::PathBuf;

use dunlin::Embedder;
use dunlin::search::{ChunkOptions, FolderIndex, SearchMode, SearchOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "docs".to_owned());
    let question = arguments
        .next()
        .unwrap_or_else(|| "How was the speed measured?".to_owned());
    let embedder = Embedder::load_from_model_id("all-minilm:l6-v2")?;

    let folder = PathBuf::from(folder);
    let file = std::env::temp_dir().join(FolderIndex::file_name(&folder, &embedder)?);
    let mut index = FolderIndex::open(&folder, &file, &embedder, ChunkOptions::new())?;
    let changes = index.update(&embedder, &mut |_| ControlFlow::Continue(()))?;
    index.save(&file)?;

    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} files indexed, {} unchanged, {} left out",
        changes.added + changes.changed,
        changes.unchanged,
        changes.skipped.len()
    )?;
    let options = SearchOptions::new()
        .with_mode(SearchMode::Hybrid)
        .with_top_k(3);
    for hit in index.index().search(&embedder, &question, &options)? {
        let text: String = hit.text.chars().take(160).collect();
        let (path, line) = (&hit.metadata["path"], &hit.metadata["first_line"]);
        writeln!(out, "\n{path} line {line} ({:.4})\n{text}", hit.score)?;
    }
    Ok(())
}
