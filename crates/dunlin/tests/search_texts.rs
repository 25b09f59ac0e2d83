//! Texts in an index: embedded by a model, cut into pieces, followed in a folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/bert.rs"]
mod bert;
mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use common::options;
use dunlin::search::{
    ChunkOptions, Chunker, Document, Filter, FolderChanges, FolderEvent, FolderIndex, SearchError,
    SearchOptions, SemanticIndex, SkippedReason, TextFormat,
};
use dunlin::{EmbedOptions, Embedder, Error, HubConfig, ModelRef, Pooling};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A tiny BERT and a folder of texts.
struct Setting {
    temporary: TempDir,
}

impl Setting {
    fn new() -> Self {
        let setting = Setting {
            temporary: tempfile::tempdir().unwrap(),
        };
        bert::write_embedder(&setting.path("model"));
        fs::create_dir(setting.path("texts")).unwrap();
        setting
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path("texts").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn embedder(&self, settings: EmbedOptions) -> Embedder {
        let load = options().with_hub(HubConfig::new(self.path("home")));
        Embedder::load(ModelRef::Path(self.path("model")), load, settings).unwrap()
    }

    fn open(&self, embedder: &Embedder) -> FolderIndex {
        let pieces = ChunkOptions::new().with_max_tokens(4);
        let file = self.path("x.index");
        FolderIndex::open(&self.path("texts"), &file, embedder, pieces).unwrap()
    }
}

fn update(index: &mut FolderIndex, embedder: &Embedder) -> FolderChanges {
    let go_on = &mut |_| ControlFlow::Continue(());
    index.update(embedder, go_on).unwrap()
}

fn counts(changes: &FolderChanges) -> [usize; 4] {
    [
        changes.added,
        changes.changed,
        changes.removed,
        changes.unchanged,
    ]
}

#[test]
fn texts_are_embedded_as_documents_and_found_by_query() {
    let setting = Setting::new();
    let embedder = setting.embedder(EmbedOptions::new());
    let mut index = SemanticIndex::for_embedder(&embedder).unwrap();
    let document = |id: &str, text: &str| Document::new(id, text);
    let texts = vec![document("1", "a cat sleeps."), document("2", "dogs run")];
    index.add(&embedder, texts).unwrap();
    let hits = index.search(&embedder, "a cat sleeps.", &SearchOptions::new());
    let hits = hits.unwrap();
    assert_eq!(hits[0].id, "1");
    assert!((hits[0].score - 1.0).abs() < 1e-5, "the same text");
    index
        .update(&embedder, document("2", "a dog runs."))
        .unwrap();
    let hit = index.search(&embedder, "a dog runs.", &SearchOptions::new());
    assert_eq!(hit.unwrap()[0].id, "2");
    let twice = vec![document("3", "cat"), document("3", "dog")];
    let error = index.add(&embedder, twice).unwrap_err();
    assert!(matches!(
        error,
        Error::Search(SearchError::DuplicateId { .. })
    ));
    assert_eq!(index.len(), 2, "all or none");
}

#[test]
fn vectors_of_another_model_are_refused() {
    let setting = Setting::new();
    let embedder = setting.embedder(EmbedOptions::new());
    let path = setting.path("x.index");
    let index = SemanticIndex::for_embedder(&embedder).unwrap();
    index.save(&path).unwrap();
    let index = SemanticIndex::load(&path).unwrap();
    assert_eq!(index.model(), Some(embedder.identity().unwrap()));
    let options = SearchOptions::new();
    assert!(index.search(&embedder, "cat", &options).unwrap().is_empty());
    // The same weights, used in another way.
    for other in [
        EmbedOptions::new().with_pooling(Pooling::Cls),
        EmbedOptions::new().with_dimensions(16),
        EmbedOptions::new().with_prefixes(dunlin::Prefixes::new("cat ", "dog ")),
    ] {
        let other = setting.embedder(other);
        let error = index.search(&other, "cat", &options).unwrap_err();
        assert!(
            matches!(error, Error::Search(SearchError::OtherModel { .. })),
            "{error:?}"
        );
    }
    // Other weights: those of the reranker's encoder are drawn in another order.
    let lm = common::tiny();
    let other = Embedder::new(lm, EmbedOptions::new().with_pooling(Pooling::Mean)).unwrap();
    assert_ne!(
        other.identity().unwrap().sha256,
        embedder.identity().unwrap().sha256
    );
    let error = index.search(&other, "cat", &options).unwrap_err();
    assert!(matches!(
        error,
        Error::Search(SearchError::OtherModel { .. })
    ));
    let own = SemanticIndex::for_vectors(32).unwrap();
    let error = own.search(&embedder, "cat", &options).unwrap_err();
    assert!(matches!(error, Error::Search(SearchError::NoModel)));
}

#[test]
fn pieces_are_short_enough_and_cover_the_text() {
    let setting = Setting::new();
    let embedder = setting.embedder(EmbedOptions::new());
    // Sentences of 4 tokens: three in a piece, and one of them in the next piece again.
    let text = "A cat sleeps. A dog runs. ".repeat(20);
    let options = ChunkOptions::new().with_max_tokens(12);
    for overlap in [0, 5] {
        let chunker = Chunker::for_embedder(&embedder, options.with_overlap(overlap)).unwrap();
        let chunks = chunker.chunks(&text).unwrap();
        let mut covered = 0;
        for chunk in &chunks {
            assert_eq!(chunk.text, &text[chunk.bytes.clone()]);
            let tokens = embedder.lm().tokenizer().encode(chunk.text, false).unwrap();
            assert!((1..=12).contains(&tokens.len()));
            let between = text.get(covered..chunk.bytes.start).unwrap_or("");
            assert!(between.trim().is_empty(), "{between:?} is in no piece");
            covered = covered.max(chunk.bytes.end);
        }
        assert!(text[covered..].trim().is_empty());
        let shared = chunks.is_sorted_by(|a, b| a.bytes.end <= b.bytes.start);
        assert_eq!(shared, overlap == 0, "pieces overlap where they should");
        embedder.embed_documents(&[chunks[0].text]).unwrap();
    }
    for (tokens, overlap) in [(0, 0), (4, 4), (19, 0)] {
        let options = ChunkOptions::new()
            .with_max_tokens(tokens)
            .with_overlap(overlap);
        let error = Chunker::for_embedder(&embedder, options).err().unwrap();
        // Two of the 20 tokens are special ones.
        assert!(
            matches!(
                error,
                Error::Search(SearchError::ChunkSize { limit: 18, .. })
            ),
            "{error:?}"
        );
    }
}

#[test]
fn markdown_is_cut_at_its_headings() {
    let setting = Setting::new();
    let embedder = setting.embedder(EmbedOptions::new());
    let text = "# Cat\n\na cat sleeps.\n\n# Dog\n\na dog runs.\n";
    let options = ChunkOptions::new()
        .with_max_tokens(8)
        .with_format(TextFormat::Markdown);
    let chunker = Chunker::for_embedder(&embedder, options).unwrap();
    let chunks = chunker.chunks(text).unwrap();
    let texts: Vec<&str> = chunks.iter().map(|chunk| chunk.text).collect();
    assert_eq!(texts, ["# Cat\n\na cat sleeps.", "# Dog\n\na dog runs."]);
}

#[test]
fn a_folder_is_followed_file_by_file() {
    let setting = Setting::new();
    let embedder = setting.embedder(EmbedOptions::new());
    setting.write("cat.txt", "a cat sleeps.\n\na cat runs.\n");
    setting.write("sub/dog.md", "# Dog\n\na dog runs.\n");
    setting.write("empty.txt", "");
    setting.write("picture.png", b"\x89PNG\0\0");
    setting.write("latin.txt", b"caf\xe9");
    setting.write(".hidden/cat.txt", "cat");
    setting.write("target/cat.txt", "cat");
    let mut index = setting.open(&embedder);
    let first = update(&mut index, &embedder);
    assert_eq!(counts(&first), [3, 0, 0, 0]);
    let skipped: Vec<_> = first
        .skipped
        .iter()
        .map(|file| (&*file.path, file.reason))
        .collect();
    assert_eq!(
        skipped,
        [
            ("latin.txt", SkippedReason::NotUtf8),
            ("picture.png", SkippedReason::Binary)
        ]
    );
    let hits = index.index().search_words("sleeps", &SearchOptions::new());
    let metadata = Value::Object(hits[0].metadata.clone());
    assert_eq!(
        metadata,
        json!({"path": "cat.txt", "start": 0, "end": 13, "first_line": 1, "last_line": 1})
    );
    let line = Filter::from_condition("first_line=3").unwrap();
    let line = SearchOptions::new().with_filter(line);
    assert_eq!(
        index.index().search_words("runs", &line).len(),
        2,
        "cat.txt and dog.md"
    );
    index.save(&setting.path("x.index")).unwrap();
    assert!(!index.is_unsaved());

    let mut index = setting.open(&embedder);
    let again = update(&mut index, &embedder);
    assert_eq!((counts(&again), again.embedded), ([0, 0, 0, 3], 0));
    assert_eq!(again.skipped, first.skipped);
    assert!(!index.is_unsaved());

    // Touched, changed, removed, new, and text instead of binary.
    let touched = setting.path("texts/sub/dog.md");
    let time = fs::metadata(&touched).unwrap().modified().unwrap();
    let later = time + std::time::Duration::from_secs(5);
    fs::File::options()
        .append(true)
        .open(&touched)
        .unwrap()
        .set_modified(later)
        .unwrap();
    setting.write("cat.txt", "shares.");
    fs::remove_file(setting.path("texts/empty.txt")).unwrap();
    setting.write("new.txt", "a dog sleeps.");
    setting.write("latin.txt", "a cat sleeps.");
    let changes = update(&mut index, &embedder);
    assert_eq!((counts(&changes), changes.embedded), ([2, 1, 1, 1], 3));
    assert!(index.is_unsaved());
    let found = index.index().search_words("sleeps", &SearchOptions::new());
    let mut paths: Vec<_> = found
        .iter()
        .map(|hit| hit.metadata["path"].clone())
        .collect();
    paths.sort_by_key(|path| path.to_string());
    assert_eq!(paths, ["latin.txt", "new.txt"]);

    // A fresh index of the same files holds the same.
    let mut fresh = FolderIndex::new(
        &setting.path("texts"),
        &embedder,
        ChunkOptions::new().with_max_tokens(4),
    )
    .unwrap();
    update(&mut fresh, &embedder);
    let of = |index: &FolderIndex| {
        let mut all: Vec<_> = index
            .index()
            .iter()
            .map(|(document, _)| (document.id.clone(), document.text.clone()))
            .collect();
        all.sort();
        all
    };
    assert_eq!(of(&index), of(&fresh));
}

#[test]
fn an_update_that_is_stopped_goes_on_where_it_was() {
    let setting = Setting::new();
    let embedder = setting.embedder(EmbedOptions::new());
    for n in 0..6 {
        setting.write(&format!("{n}.txt"), "a cat sleeps.\n\n".repeat(100));
    }
    let mut index = setting.open(&embedder);
    // Files are embedded two at a time.
    let stopped = index.update(&embedder, &mut |event| match event {
        FolderEvent::Files { done: 0..=1, .. } => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert!(matches!(stopped, Err(Error::Cancelled)));
    index.save(&setting.path("x.index")).unwrap();
    let mut index = setting.open(&embedder);
    let done = index.index().len();
    let changes = update(&mut index, &embedder);
    assert_eq!(changes.added + changes.unchanged, 6);
    assert_eq!(
        (changes.unchanged, done, index.index().len()),
        (2, 200, 600)
    );
}

#[test]
fn an_index_of_other_pieces_begins_anew_and_one_of_another_folder_is_refused() {
    let setting = Setting::new();
    let embedder = setting.embedder(EmbedOptions::new());
    setting.write("cat.txt", "a cat sleeps.");
    let mut index = setting.open(&embedder);
    update(&mut index, &embedder);
    let file = setting.path("x.index");
    index.save(&file).unwrap();
    let open = |folder: &Path, tokens| {
        let pieces = ChunkOptions::new().with_max_tokens(tokens);
        FolderIndex::open(folder, &file, &embedder, pieces)
    };
    let mut other = open(&setting.path("texts"), 3).unwrap();
    assert!(other.index().is_empty());
    assert_eq!(counts(&update(&mut other, &embedder)), [1, 0, 0, 0]);
    let other_folder = |name: &str| match open(&setting.path(name), 4).err().unwrap() {
        Error::Search(SearchError::OtherFolder { indexed, asked, .. }) => {
            assert!(asked.ends_with(name), "{asked:?}");
            indexed
        }
        other => panic!("{other:?}"),
    };
    assert!(other_folder("model").unwrap().ends_with("texts"));
    SemanticIndex::for_embedder(&embedder)
        .unwrap()
        .save(&file)
        .unwrap();
    assert_eq!(other_folder("texts"), None);
    let error = open(&setting.path("nowhere"), 4).err().unwrap();
    assert!(matches!(error, Error::Search(SearchError::Io { .. })));
}
