//! Model folders: imported once, loaded like files, converted; embeddings and scores of what they hold.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "common/bert.rs"]
mod bert;
mod common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bert::{CAT, CLS, DOG, LONGEST_TEXT, POSITIONS, SEP, SLEEPS};
use common::{fixture, options, tiny};
use dunlin::{
    ConvertError, ConvertOptions, EmbedOptions, Embedder, EngineError, Error, GenerateOptions, Hub,
    HubConfig, Lm, LoadEvent, LoadOptions, ModelInfo, ModelRef, OutputType, Pooling, Prefixes,
    Prompt, RerankOptions, Reranker, TextRole, TokenizerFile, TooLong, imported_file,
};
use tempfile::TempDir;

/// A folder with a tiny BERT, and a cache beside it.
struct Setting {
    temporary: TempDir,
}

impl Setting {
    fn of(write: fn(&Path)) -> Self {
        let setting = Setting {
            temporary: tempfile::tempdir().unwrap(),
        };
        write(&setting.folder());
        setting
    }

    fn folder(&self) -> PathBuf {
        self.temporary.path().join("model")
    }

    fn model(&self) -> ModelRef {
        ModelRef::Path(self.folder())
    }

    fn hub(&self) -> HubConfig {
        HubConfig::new(self.temporary.path().join("home"))
    }

    fn options<'a>(&self) -> LoadOptions<'a> {
        options().with_hub(self.hub())
    }

    fn embedder(&self, settings: EmbedOptions) -> Embedder {
        Embedder::load(self.model(), self.options(), settings).unwrap()
    }

    fn reranker(&self, settings: RerankOptions) -> Reranker {
        Reranker::load(self.model(), self.options(), settings).unwrap()
    }
}

#[test]
fn a_folder_is_imported_once_and_says_so() {
    let setting = Setting::of(bert::write_embedder);
    let count = |imports: &mut usize| {
        let options = setting.options().with_progress(|event| {
            *imports += usize::from(matches!(event, LoadEvent::Importing { .. }));
            ControlFlow::Continue(())
        });
        Lm::load(setting.model(), options).unwrap()
    };
    let (mut first, mut second) = (0, 0);
    let lm = count(&mut first);
    assert!(first > 0, "an import is told");
    assert!(
        lm.notes().iter().any(|note| note.contains("imported")),
        "{:?}",
        lm.notes()
    );
    assert!(lm.path().starts_with(setting.temporary.path().join("home")));
    assert_eq!(lm.spec().architecture, "bert");
    let again = count(&mut second);
    assert_eq!((second, again.path()), (0, lm.path()), "made once");

    let hub = Hub::new(setting.hub()).unwrap();
    let found = imported_file(&hub, &setting.model(), &setting.folder()).unwrap();
    assert_eq!(found.as_deref(), Some(lm.path()));
    TokenizerFile::open(&setting.model(), &mut setting.options()).unwrap();
    hub.cache().remove(&setting.model()).unwrap();
    let found = imported_file(&hub, &setting.model(), &setting.folder()).unwrap();
    assert_eq!(found, None);
}

#[test]
fn an_import_can_be_cancelled_and_leaves_nothing() {
    let setting = Setting::of(bert::write_embedder);
    let options = setting.options().with_progress(|event| match event {
        LoadEvent::Importing { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let cancelled = Lm::load(setting.model(), options).map(|_| ());
    assert!(matches!(cancelled, Err(Error::Cancelled)), "{cancelled:?}");
    let cache = Hub::new(setting.hub()).unwrap().cache();
    assert_eq!(cache.size().unwrap(), 0);
}

#[test]
fn a_folder_that_is_no_model_says_what_it_lacks() {
    let setting = Setting::of(|folder| fs::create_dir_all(folder).unwrap());
    let refusal = || {
        Lm::load(setting.model(), setting.options())
            .map(|_| ())
            .unwrap_err()
    };
    let error = refusal();
    assert!(matches!(error, Error::Folder { .. }), "{error:?}");
    assert!(error.to_string().contains("config.json"), "{error}");

    fs::copy(fixture("tiny.gguf"), setting.folder().join("a.gguf")).unwrap();
    let lm = Lm::load(setting.model(), setting.options()).unwrap();
    assert!(
        lm.path().ends_with("a.gguf"),
        "the one file of a folder is meant"
    );
    fs::copy(fixture("tiny.gguf"), setting.folder().join("b.gguf")).unwrap();
    assert!(refusal().to_string().contains("a.gguf, b.gguf"));

    fs::write(setting.folder().join("model.safetensors"), "").unwrap();
    fs::write(
        setting.folder().join("config.json"),
        r#"{"architectures":["RwkvModel"]}"#,
    )
    .unwrap();
    let error = refusal();
    let is_unknown = matches!(
        &error,
        Error::Convert(ConvertError::UnknownArchitecture { .. })
    );
    assert!(is_unknown, "{error:?}");
    assert!(error.to_string().contains("RwkvModel") && error.to_string().contains("Llama"));
}

#[test]
fn a_folder_is_converted_to_a_file_of_the_type_asked_for() {
    let setting = Setting::of(bert::write_embedder);
    let out = setting.temporary.path().join("out.gguf");
    let settings = ConvertOptions {
        dtype: OutputType::F16,
        name: Some("tiny".to_owned()),
    };
    let report =
        dunlin::convert(&setting.model(), &settings, &out, &mut setting.options()).unwrap();
    assert_eq!(report.bytes, fs::metadata(&out).unwrap().len());
    let info = ModelInfo::open(&out).unwrap();
    assert_eq!(info.name.as_deref(), Some("tiny"));
    assert_eq!(
        (info.pooling, info.embedding_length),
        (Some("mean"), Some(32))
    );
    assert!(info.tensor_types.iter().any(|used| used.name == "F16"));
    let attention = info.attention.unwrap();
    assert!(attention.is_bidirectional && attention.global_layers == 1);

    let file = ModelRef::Path(out.clone());
    let error = dunlin::convert(&file, &settings, &out, &mut setting.options()).unwrap_err();
    assert!(matches!(error, Error::NotAFolder { .. }), "{error:?}");
}

#[test]
fn vectors_have_length_1_unless_asked_otherwise() {
    let setting = Setting::of(bert::write_embedder);
    let embedder = setting.embedder(EmbedOptions::default());
    assert_eq!(
        (embedder.dimensions(), embedder.pooling()),
        (32, Pooling::Mean)
    );
    let vectors = embedder
        .embed(&["a cat sleeps.", "", "a dog runs."])
        .unwrap();
    assert_eq!(vectors.len(), 3);
    for vector in &vectors {
        let square: f32 = vector.iter().map(|x| x * x).sum();
        assert!((square - 1.0).abs() < 1e-5 && vector.len() == 32);
    }
    let as_given = setting.embedder(EmbedOptions::default().with_normalize(false));
    let long = as_given.embed(&["a cat sleeps."]).unwrap().remove(0);
    let length = long.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!((length - 1.0).abs() > 1e-3);
    for (unit, raw) in vectors[0].iter().zip(&long) {
        assert!((unit * length - raw).abs() < 1e-5);
    }
}

#[test]
fn a_text_is_embedded_as_its_ids_with_special_tokens() {
    let setting = Setting::of(bert::write_embedder);
    let embedder = setting.embedder(EmbedOptions::default());
    let ids = [CLS, CAT, SLEEPS, SEP];
    assert_eq!(embedder.encode_text("cat sleeps").unwrap(), ids);
    assert_eq!(
        embedder.embed(&["cat sleeps"]).unwrap()[0],
        embedder.embed_ids(&ids).unwrap()
    );
    assert!(matches!(embedder.embed_ids(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(
        embedder.embed_ids(&[CLS, 999]),
        Err(Error::Engine(EngineError::TokenOutOfRange {
            token: 999,
            ..
        }))
    ));
}

#[test]
fn a_text_that_is_too_long_is_refused_with_numbers_or_cut_by_wish() {
    let setting = Setting::of(bert::write_embedder);
    let embedder = setting.embedder(EmbedOptions::default());
    let long = "cat ".repeat(POSITIONS);
    let error = embedder.embed(&["cat", &long]).unwrap_err();
    let (expected, limit) = (POSITIONS + 2, LONGEST_TEXT);
    assert!(
        matches!(error, Error::TextTooLong { index: 1, tokens, limit: l } if (tokens, l) == (expected, limit)),
        "{error:?}"
    );
    let cutting = setting.embedder(EmbedOptions::default().with_too_long(TooLong::Truncate));
    let ids = cutting.encode_text(&long).unwrap();
    assert_eq!((ids.len(), ids[0], ids[limit - 1]), (limit, CLS, SEP));
    assert_eq!(cutting.embed(&[&long]).unwrap()[0].len(), 32);
    let whole = vec![CAT; POSITIONS];
    assert_eq!(
        embedder.embed_ids(&whole).unwrap().len(),
        32,
        "ids are the caller's affair"
    );
}

#[test]
fn a_text_in_pieces_has_the_weighted_mean_of_their_vectors() {
    let setting = Setting::of(bert::write_embedder);
    let in_pieces = EmbedOptions::default().with_too_long(TooLong::ChunkAndMean);
    let embedder = setting.embedder(in_pieces);
    // 28 tokens beside 2 special ones, of 20: two pieces of 14.
    let text = format!("{}{}", "cat ".repeat(14), "dog sleeps ".repeat(7));
    let go_on = &mut |_, _| ControlFlow::Continue(());
    let found = embedder.embed_as(TextRole::Plain, &["cat", &text], go_on);
    let found = found.unwrap();
    let told = [
        found.too_long[0].index,
        found.too_long[0].tokens,
        found.too_long[0].limit,
    ];
    assert_eq!((found.too_long.len(), told), (1, [1, 30, LONGEST_TEXT]));
    let pieces = ["cat ".repeat(14), "dog sleeps ".repeat(7)];
    let pieces = embedder.embed(&pieces).unwrap();
    let mean: Vec<f32> = pieces[0]
        .iter()
        .zip(&pieces[1])
        .map(|(a, b)| (a + b) / 2.0)
        .collect();
    let length = mean.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(length < 0.999, "the pieces differ");
    for (found, mean) in found.vectors[1].iter().zip(&mean) {
        assert!((found - mean / length).abs() < 1e-5);
    }
    let cutting = setting.embedder(EmbedOptions::default().with_too_long(TooLong::Truncate));
    let cut = cutting.embed_as(TextRole::Plain, &[&text], go_on).unwrap();
    assert_eq!((cut.too_long.len(), cut.too_long[0].tokens), (1, 30));
    assert_ne!(cut.vectors[0], found.vectors[1]);
    assert!(matches!(
        embedder.encode_text(&text),
        Err(Error::TextTooLong { .. })
    ));
}

#[test]
fn a_cut_vector_is_the_beginning_scaled_again() {
    let setting = Setting::of(bert::write_embedder);
    let whole = setting
        .embedder(EmbedOptions::default())
        .embed(&["a cat"])
        .unwrap();
    let embedder = setting.embedder(EmbedOptions::default().with_dimensions(8));
    assert_eq!(embedder.dimensions(), 8);
    let cut = embedder.embed(&["a cat"]).unwrap();
    let length = whole[0][..8].iter().map(|x| x * x).sum::<f32>().sqrt();
    assert_eq!(cut[0].len(), 8);
    for (cut, whole) in cut[0].iter().zip(&whole[0]) {
        assert!((cut - whole / length).abs() < 1e-5);
    }
    for requested in [0, 33] {
        let lm = embedder.lm().clone();
        let options = EmbedOptions::default().with_dimensions(requested);
        let error = Embedder::new(lm, options).map(|_| ()).unwrap_err();
        assert!(
            matches!(error, Error::Dimensions { requested: r, limit: 32 } if r == requested),
            "{error:?}"
        );
    }
}

#[test]
fn queries_and_documents_have_their_words_before_them() {
    let setting = Setting::of(bert::write_embedder);
    let plain = setting.embedder(EmbedOptions::default());
    assert_eq!(plain.prefixes(), &Prefixes::none());
    assert_eq!(
        plain.embed_query("cat").unwrap(),
        plain.embed(&["cat"]).unwrap()[0]
    );
    let prefixes = Prefixes::new("dog ", "a ");
    let embedder = setting.embedder(EmbedOptions::default().with_prefixes(prefixes));
    let wanted = plain.embed(&["dog cat", "a cat", "cat"]).unwrap();
    assert_eq!(embedder.embed_query("cat").unwrap(), wanted[0]);
    assert_eq!(embedder.embed_documents(&["cat"]).unwrap()[0], wanted[1]);
    assert_eq!(embedder.embed(&["cat"]).unwrap()[0], wanted[2]);
}

#[test]
fn many_texts_give_in_their_order_what_each_gives_alone() {
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    let texts: Vec<String> = (0..200).map(|n| "cat dog ".repeat(n % 9)).collect();
    let setting = Setting::of(bert::write_embedder);
    let embedder = setting.embedder(EmbedOptions::default());
    let together = embedder.embed(&texts).unwrap();
    for (text, vector) in texts.iter().zip(&together) {
        assert!(near(&embedder.embed(&[text]).unwrap()[0], vector), "{text}");
    }
    let setting = Setting::of(bert::write_reranker);
    let reranker = setting.reranker(RerankOptions::default());
    let together = reranker.rerank("cat", &texts).unwrap();
    for (text, score) in texts.iter().zip(&together) {
        assert!(near(&reranker.rerank("cat", &[text]).unwrap(), &[*score]));
    }
}

#[test]
fn progress_is_told_and_can_end_the_work() {
    let setting = Setting::of(bert::write_embedder);
    let embedder = setting.embedder(EmbedOptions::default());
    let mut told = Vec::new();
    let mut all = |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    };
    embedder.embed_with(&["cat", "dog"], &mut all).unwrap();
    let long = "cat ".repeat(POSITIONS);
    assert_eq!(told.last(), Some(&(2, 2)));
    let before = told.len();
    let mut all = |done, total| {
        told.push((done, total));
        ControlFlow::Continue(())
    };
    let refused = embedder.embed_with(&["cat", &long], &mut all);
    assert!(matches!(refused, Err(Error::TextTooLong { index: 1, .. })));
    assert_eq!(told.len(), before, "lengths are checked first");
    let ended = embedder.embed_with(&["cat", "dog"], &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(ended, Err(Error::Cancelled)));

    let setting = Setting::of(bert::write_reranker);
    let reranker = setting.reranker(RerankOptions::default());
    let ended = reranker.rerank_with("cat", &["dog", "cat"], &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(ended, Err(Error::Cancelled)));
}

#[test]
fn the_pooling_can_be_chosen() {
    let setting = Setting::of(bert::write_embedder);
    let by = |pooling| {
        setting
            .embedder(EmbedOptions::default().with_pooling(pooling))
            .embed(&["a cat sleeps."])
            .unwrap()
    };
    assert_ne!(by(Pooling::Cls), by(Pooling::Mean));
    assert_ne!(by(Pooling::Last), by(Pooling::Cls));
}

#[test]
fn a_model_does_what_it_was_made_for_and_says_what_that_is() {
    let setting = Setting::of(bert::write_embedder);
    let encoder = setting.embedder(EmbedOptions::default()).lm().clone();
    let options = GenerateOptions::greedy();
    for error in [
        encoder.generate(&Prompt::from("a"), &options).map(|_| ()),
        encoder.logits(&[1], &[0]).map(|_| ()),
        encoder.perplexity("a").map(|_| ()),
    ] {
        let error = error.unwrap_err();
        assert!(matches!(error, Error::CannotGenerate { .. }), "{error:?}");
        assert!(error.to_string().contains("dunlin embed"), "{error}");
    }
    let error = Reranker::new(encoder, RerankOptions::default()).map(|_| ());
    assert!(matches!(
        error,
        Err(Error::Engine(EngineError::NoClassifier))
    ));

    let error = Embedder::new(tiny(), EmbedOptions::default()).map(|_| ());
    let error = error.unwrap_err();
    assert!(matches!(error, Error::NoPooling { .. }), "{error:?}");
    assert!(error.to_string().contains("pooling"), "{error}");
    let decoder = EmbedOptions::default().with_pooling(Pooling::Last);
    let decoder = Embedder::new(tiny(), decoder).unwrap();
    assert_eq!(
        decoder.embed(&["the winter"]).unwrap()[0].len(),
        decoder.dimensions()
    );
}

#[test]
fn embedding_with_a_decoder_leaves_its_generation_as_it_was() {
    let lm = tiny();
    let before = common::greedy(&lm, "The", 20);
    let options = EmbedOptions::default().with_pooling(Pooling::Mean);
    Embedder::new(lm.clone(), options)
        .unwrap()
        .embed(&["x"])
        .unwrap();
    assert_eq!(common::greedy(&lm, "The", 20), before);
}

#[test]
fn a_reranker_reads_query_and_document_together() {
    let setting = Setting::of(bert::write_reranker);
    let reranker = setting.reranker(RerankOptions::default());
    let scores = reranker.rerank("cat", &["a cat sleeps.", "dog"]).unwrap();
    assert!(scores.len() == 2 && scores[0] != scores[1]);
    let whole = [CLS, CAT, SEP, DOG, SEP];
    let types = [0, 0, 0, 1, 1];
    let by_ids = reranker.rank_ids(&whole, &types).unwrap();
    assert_eq!(by_ids, scores[1]);
    assert_eq!(reranker.rank_pair(&[CAT], &[DOG]).unwrap(), scores[1]);
    assert_ne!(
        reranker.rank_ids(&whole, &[]).unwrap(),
        by_ids,
        "types count"
    );
    assert!(matches!(
        reranker.rank_ids(&whole, &[0, 0, 0, 9, 9]),
        Err(Error::Engine(EngineError::TokenTypeOutOfRange {
            token_type: 9,
            ..
        }))
    ));
    let error = Embedder::new(reranker.lm().clone(), EmbedOptions::default()).map(|_| ());
    assert!(matches!(
        error,
        Err(Error::Engine(EngineError::RankIsNoEmbedding))
    ));
}

#[test]
fn a_document_that_is_too_long_beside_its_query_is_refused_or_cut() {
    let setting = Setting::of(bert::write_reranker);
    let long = "dog ".repeat(POSITIONS);
    let refusing = setting.reranker(RerankOptions::default());
    let error = refusing.rerank("cat", &["dog", &long]).unwrap_err();
    assert!(
        matches!(error, Error::TextTooLong { index: 1, .. }),
        "{error:?}"
    );
    let cutting = setting.reranker(RerankOptions::default().with_truncate(true));
    let fitting = "dog ".repeat(POSITIONS - 4);
    assert_eq!(
        cutting.rerank("cat", &[&long]).unwrap(),
        refusing.rerank("cat", &[&fitting]).unwrap()
    );
}

#[test]
fn a_repository_that_the_python_hub_has_fetched_is_imported_under_its_name() {
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    let setting = Setting::of(bert::write_embedder);
    let hub = setting.hub();
    let repository = hub.hf_cache.join("models--owner--tiny-bert");
    let snapshots = repository.join("snapshots");
    fs::create_dir_all(&snapshots).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    fs::rename(setting.folder(), snapshots.join(COMMIT)).unwrap();
    let model: ModelRef = "hf:owner/tiny-bert".parse().unwrap();

    let lm = Lm::load(model.clone(), setting.options()).unwrap();
    assert_eq!(lm.info().name.as_deref(), Some("tiny-bert"));
    let out = setting.temporary.path().join("out.gguf");
    let settings = ConvertOptions::default();
    dunlin::convert(&model, &settings, &out, &mut setting.options()).unwrap();
    let bytes = |path: &Path| fs::read(path).unwrap();
    assert!(bytes(&out) == bytes(lm.path()), "the same file either way");

    let import = lm.path().to_path_buf();
    let cache = Hub::new(hub).unwrap().cache();
    let removed = cache.remove(&model).unwrap();
    assert!(!import.exists());
    assert!(
        !removed.kept.is_empty(),
        "what another program fetched stays"
    );
    assert!(snapshots.join(COMMIT).join("config.json").exists());
}
