//! Repositories without GGUF: the folder of safetensors that they are, and the place of its import.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use dunlin_hub::{Hub, HubError, Layout, ModelRef, Progress};
use support::{COMMIT, FakeHub, Page, config, files_below, noise, quiet, sha256};

fn named(text: &str) -> ModelRef {
    text.parse().unwrap()
}

/// A small file as Hugging Face serves it: no link, an ETag that is no sha256.
fn put_small(server: &FakeHub, repo: &str, file: &str, body: &str) {
    let page = Page::of(body.as_bytes()).with("X-Repo-Commit", COMMIT);
    server.put(&format!("/{repo}/resolve/main/{file}"), page);
}

/// A sentence-transformers repository with sharded weights, and files that nobody needs.
fn put_folder(server: &FakeHub, store: &FakeHub, repo: &str) {
    let small = [
        ("config.json", "{\"model_type\":\"bert\"}"),
        ("tokenizer.json", "{\"version\":\"1.0\"}"),
        ("modules.json", "[]"),
        (
            "1_Pooling/config.json",
            "{\"pooling_mode_mean_tokens\":true}",
        ),
        (
            "model.safetensors.index.json",
            r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#,
        ),
    ];
    for (name, body) in small {
        put_small(server, repo, name, body);
    }
    for (part, name) in SHARDS.iter().enumerate() {
        server.put_large(store, repo, name, Page::of(&noise(60_000, part as u64)));
    }
    let mut names: Vec<&str> = small.iter().map(|(name, _)| *name).collect();
    names.extend(SHARDS);
    names.extend(["pytorch_model.bin", "onnx/model.onnx", "README.txt"]);
    server.put_listing(repo, &names);
}

const SHARDS: [&str; 2] = [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
];

#[test]
fn a_repository_without_gguf_comes_as_its_folder() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    put_folder(&server, &store, "o/r");
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();

    let pulled = hub.pull(&named("hf:o/r"), &mut quiet).unwrap();

    assert_eq!(pulled.layout, Layout::Folder);
    assert_eq!(
        files_below(&pulled.path),
        [
            "1_Pooling/config.json",
            "config.json",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "modules.json",
            "tokenizer.json",
        ]
    );
    for (part, name) in SHARDS.iter().enumerate() {
        let bytes = fs::read(pulled.path.join(name)).unwrap();
        assert_eq!(sha256(&bytes), sha256(&noise(60_000, part as u64)));
    }
    let listed = &hub.cache().list().unwrap()[0];
    assert_eq!(
        listed.sha256,
        sha256(&noise(60_000, 0)),
        "the weights first"
    );
    assert_eq!(listed.layout, Layout::Folder);

    let requests = server.log().len();
    let again = hub.pull(&named("hf:o/r"), &mut quiet).unwrap();
    assert!(again.from_cache && again.layout == Layout::Folder);
    assert_eq!(server.log().len(), requests, "nobody is asked again");
}

#[test]
fn a_folder_is_taken_up_at_the_file_where_it_was_cancelled() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    put_folder(&server, &store, "o/r");
    let mut slow = Page::of(&noise(60_000, 0));
    slow.pace = std::time::Duration::from_millis(20);
    server.put_large(&store, "o/r", SHARDS[0], slow);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let mut stop_in_weights = |progress| match progress {
        Progress::Downloading { done, total } if total == Some(60_000) && done > 20_000 => {
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    };
    let cancelled = hub.pull(&named("hf:o/r"), &mut stop_in_weights);
    assert!(matches!(cancelled, Err(HubError::Cancelled)));
    assert!(hub.cache().list().unwrap().is_empty());
    let before = server.downloads().len();

    hub.pull(&named("hf:o/r"), &mut quiet).unwrap();

    let fetched_again = server.downloads().split_off(before);
    let names: Vec<&str> = fetched_again
        .iter()
        .map(|served| served.path.as_str())
        .collect();
    assert_eq!(names, ["/api/models/o/r/revision/main"], "small files stay");
    assert!(store.downloads()[1].first_byte > 20_000, "so does the part");
}

#[test]
fn a_shard_with_other_bytes_is_refused() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    put_folder(&server, &store, "o/r");
    let path = format!("/store/{}", sha256(&noise(60_000, 1)));
    store.put(&path, Page::of(&noise(60_000, 9)));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull(&named("hf:o/r"), &mut quiet).unwrap_err();
    assert!(matches!(error, HubError::HashMismatch { .. }), "{error}");
    assert!(hub.cache().list().unwrap().is_empty());
}

#[test]
fn an_index_that_leads_out_of_the_folder_is_refused() {
    let server = FakeHub::start();
    put_small(&server, "o/r", "config.json", "{}");
    let evil = r#"{"weight_map":{"a":"../../evil.safetensors"}}"#;
    put_small(&server, "o/r", "model.safetensors.index.json", evil);
    server.put_listing("o/r", &["config.json", "model.safetensors.index.json"]);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull(&named("hf:o/r"), &mut quiet).unwrap_err();
    assert!(error.to_string().contains("leave its folder"), "{error}");
}

#[test]
fn gguf_comes_first_and_the_folder_is_there_for_who_names_it() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    put_folder(&server, &store, "o/r");
    let mut names = vec!["m-Q4_0.gguf", "config.json", "model.safetensors.index.json"];
    names.extend(SHARDS);
    server.put_listing("o/r", &names);
    server.put_large(&store, "o/r", "m-Q4_0.gguf", Page::of(&noise(1000, 5)));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let usual = hub.pull(&named("hf:o/r"), &mut quiet).unwrap();
    assert!(usual.path.ends_with("m-Q4_0.gguf") && usual.layout == Layout::File);
    let folder = hub.pull(&named("hf:o/r:safetensors"), &mut quiet).unwrap();
    assert!(folder.path.join(SHARDS[0]).exists() && folder.layout == Layout::Folder);
    let error = hub.pull(&named("hf:o/r:Q8_0"), &mut quiet).unwrap_err();
    assert!(matches!(error, HubError::NoMatchingFile { .. }), "{error}");
}

#[test]
fn a_repository_with_neither_says_what_it_has_and_what_is_needed() {
    let server = FakeHub::start();
    server.put_listing("o/r", &["README.md", "config.json", "pytorch_model.bin"]);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull(&named("hf:o/r"), &mut quiet).unwrap_err();
    assert!(matches!(error, HubError::NoModelFiles { .. }), "{error}");
    let text = error.to_string();
    for wanted in ["pytorch_model.bin", "GGUF", "model.safetensors", "-GGUF"] {
        assert!(text.contains(wanted), "{wanted} is missing in {text}");
    }
}

#[test]
fn a_folder_of_the_python_hub_is_used_offline_only_where_it_is_whole() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("huggingface/models--o--r");
    let snapshot = repo.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repo.join("refs")).unwrap();
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    fs::write(snapshot.join("model.safetensors"), "weights").unwrap();
    let mut settings = config(home.path(), &server);
    settings.offline = true;
    let hub = Hub::new(settings).unwrap();
    let error = hub.pull(&named("hf:o/r"), &mut quiet).unwrap_err();
    assert!(
        matches!(error, HubError::Offline { .. }),
        "no tokenizer: {error}"
    );
    fs::write(snapshot.join("tokenizer.json"), "{}").unwrap();
    let pulled = hub.pull(&named("hf:o/r"), &mut quiet).unwrap();
    assert_eq!(pulled.path, snapshot);
    assert!(server.log().is_empty());
}

#[test]
fn a_page_instead_of_a_model_file_is_refused_at_its_first_bytes() {
    let server = FakeHub::start();
    let mut page = b"<!DOCTYPE html>".to_vec();
    page.resize(3_000_000, b' ');
    server.put("/m.gguf", Page::of(&page));
    server.put("/short.gguf", Page::of(b"GG"));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull(&named(&server.url("/m.gguf")), &mut quiet);
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("<!DOCTYPE html>") && text.contains("GGUF"),
        "{text}"
    );
    let error = hub.pull(&named(&server.url("/short.gguf")), &mut quiet);
    assert!(matches!(error, Err(HubError::NotGguf { .. })), "{error:?}");
    assert!(hub.cache().list().unwrap().is_empty());
    assert_eq!(hub.cache().partial_size(), 0, "nothing is kept of it");
}

#[test]
fn a_mirror_that_is_no_address_is_said_by_name() {
    let home = tempfile::tempdir().unwrap();
    for endpoint in [
        "garbage",
        "huggingface.co",
        "https://",
        "https://a b",
        "https://a/?x",
    ] {
        let mut settings = config(home.path(), &FakeHub::start());
        settings.hf_endpoint = endpoint.to_owned();
        let hub = Hub::new(settings).unwrap();
        let text = hub
            .pull(&named("hf:o/r"), &mut quiet)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("HF_ENDPOINT") && text.contains("https://"),
            "{text}"
        );
    }
}

/// A folder of the user, and a hub that only keeps.
fn with_folder() -> (tempfile::TempDir, PathBuf, Hub) {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("my model");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.json"), "{}").unwrap();
    let hub = Hub::new(dunlin_hub::HubConfig::new(home.path().join("home"))).unwrap();
    (home, folder, hub)
}

fn import(hub: &Hub, folder: &Path, content: &str) -> Result<PathBuf, HubError> {
    let slot = hub
        .cache()
        .import_slot(&ModelRef::Path(folder.to_path_buf()), folder, "v1")?;
    slot.fill(0, &mut quiet, |path| {
        fs::write(path, content).unwrap();
        Ok(())
    })
}

#[test]
fn an_import_is_made_once_and_anew_when_the_folder_changes() {
    let (_home, folder, hub) = with_folder();
    let first = import(&hub, &folder, "first").unwrap();
    assert_eq!(import(&hub, &folder, "not made").unwrap(), first);
    assert_eq!(fs::read_to_string(&first).unwrap(), "first");
    fs::write(folder.join("config.json"), "{ }").unwrap();
    let second = import(&hub, &folder, "second").unwrap();
    assert_eq!(fs::read_to_string(&second).unwrap(), "second");
    assert!(!first.exists(), "what nobody can use any more goes");

    let size = hub.cache().size().unwrap();
    let removed = hub.cache().remove(&ModelRef::Path(folder.clone())).unwrap();
    assert!(size >= 6);
    assert_eq!((removed.freed, removed.kept), (size, vec![folder.clone()]));
    assert!(folder.join("config.json").exists() && !second.exists());
    import(&hub, &folder, "third").unwrap();
    assert!(hub.cache().clear().unwrap().freed >= 5);
    assert_eq!(hub.cache().size().unwrap(), 0);
}

#[test]
fn the_import_of_a_folder_is_listed_and_removed_under_its_path_even_when_the_folder_is_gone() {
    let (_home, folder, hub) = with_folder();
    let file = import(&hub, &folder, "made").unwrap();
    let listed = hub.cache().list().unwrap();
    assert_eq!(listed.len(), 1);
    let real = fs::canonicalize(&folder).unwrap();
    assert_eq!(listed[0].id, real.to_str().unwrap());
    assert_eq!((&listed[0].path, &listed[0].problem), (&file, &None));
    assert_eq!(listed[0].size, hub.cache().size().unwrap());

    fs::remove_dir_all(&folder).unwrap();
    hub.cache().remove(&ModelRef::Path(real)).unwrap();
    assert!(hub.cache().list().unwrap().is_empty());
}

#[test]
fn an_import_that_fails_leaves_nothing() {
    let (_home, folder, hub) = with_folder();
    let model = ModelRef::Path(folder.clone());
    let slot = hub.cache().import_slot(&model, &folder, "v1").unwrap();
    let failed = slot.fill(0, &mut quiet, |path| {
        fs::write(path, "half").unwrap();
        Err(HubError::Cancelled)
    });
    assert!(matches!(failed, Err(HubError::Cancelled)));
    assert!(slot.found().is_none());
    assert_eq!(hub.cache().size().unwrap(), 0);
    let too_large = slot.fill(u64::MAX, &mut quiet, |_| Ok::<_, HubError>(()));
    assert!(matches!(too_large, Err(HubError::NoSpace { .. })));
}

#[test]
fn the_import_of_a_pulled_folder_goes_with_it() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    put_folder(&server, &store, "o/r");
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let model = named("hf:o/r");
    let pulled = hub.pull(&model, &mut quiet).unwrap();
    let slot = hub.cache().import_slot(&model, &pulled.path, "v1").unwrap();
    let made = slot.fill(0, &mut quiet, |path| {
        fs::write(path, "imported").unwrap();
        Ok::<_, HubError>(())
    });
    assert!(made.unwrap().exists());
    assert!(hub.pull(&model, &mut quiet).unwrap().from_cache);
    assert!(slot.found().is_some());
    let before = hub.cache().list().unwrap()[0].clone();
    assert_eq!(before.import_size, 8);
    let newer = hub.cache().import_slot(&model, &pulled.path, "v2").unwrap();
    let made = newer.fill(0, &mut quiet, |path| {
        fs::write(path, "again").unwrap();
        Ok::<_, HubError>(())
    });
    assert!(made.unwrap().exists() && slot.found().is_none());
    let after = hub.cache().list().unwrap()[0].clone();
    assert_eq!((after.size, after.import_size), (before.size - 3, 5));
    hub.cache().remove(&model).unwrap();
    assert!(newer.found().is_none());
    assert_eq!(hub.cache().size().unwrap(), 0);
}
