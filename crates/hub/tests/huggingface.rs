//! Hugging Face repositories, the shared cache, tokens, and the way from one source to the next.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_hub::{Hub, HubError, ModelCard, ModelRef, Progress};
use support::{COMMIT, FakeHub, Page, config, files_below, noise, quiet, sha256};

fn named(text: &str) -> ModelRef {
    text.parse().unwrap()
}

fn snapshot(home: &Path, repo: &str) -> std::path::PathBuf {
    home.join("huggingface")
        .join(format!("models--{}", repo.replace('/', "--")))
        .join("snapshots")
        .join(COMMIT)
}

#[test]
fn a_repository_file_lands_in_the_layout_of_the_python_hub() {
    let (hub_server, store) = (FakeHub::start(), FakeHub::start());
    let body = noise(50_000, 1);
    hub_server.put_listing("o/r", &["README.md", "r-Q8_0.gguf", "r-Q4_K_M.gguf"]);
    hub_server.put_large(&store, "o/r", "r-Q4_K_M.gguf", Page::of(&body));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &hub_server)).unwrap();

    let pulled = hub.pull(&named("hf:o/r"), &mut quiet).unwrap();

    assert!(!pulled.from_cache);
    assert_eq!(fs::read(&pulled.path).unwrap(), body);
    assert_eq!(
        pulled.path,
        snapshot(home.path(), "o/r").join("r-Q4_K_M.gguf")
    );
    let repo = home.path().join("huggingface/models--o--r");
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(
        fs::read(repo.join("blobs").join(sha256(&body))).unwrap(),
        body
    );
    assert_eq!(files_below(&repo.join("blobs")).len(), 1, "no part is left");
    #[cfg(unix)]
    assert_eq!(
        fs::read_link(&pulled.path).unwrap(),
        Path::new("../../blobs").join(sha256(&body)),
        "a relative link, so that the cache can be moved"
    );

    let again = hub.pull(&named("hf:o/r"), &mut quiet).unwrap();
    assert!(again.from_cache);
    assert_eq!(store.downloads().len(), 1);
}

#[test]
fn a_file_that_the_python_hub_has_fetched_is_used_without_asking_anybody() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let body = noise(10_000, 1);
    let repo = home.path().join("huggingface/models--o--r");
    let folder = snapshot(home.path(), "o/r");
    for path in [folder.clone(), repo.join("blobs"), repo.join("refs")] {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    let blob = repo.join("blobs").join(sha256(&body));
    fs::write(&blob, &body).unwrap();
    fs::hard_link(&blob, folder.join("r-Q4_0.gguf")).unwrap();
    let mut settings = config(home.path(), &server);
    settings.offline = true;
    let hub = Hub::new(settings).unwrap();

    let pulled = hub.pull(&named("hf:o/r:Q4_0"), &mut quiet).unwrap();

    assert_eq!(fs::read(&pulled.path).unwrap(), body);
    assert!(pulled.from_cache && server.log().is_empty());
    let removed = hub.cache().remove(&named("hf:o/r:Q4_0")).unwrap();
    assert_eq!(
        removed.kept,
        std::slice::from_ref(&pulled.path),
        "what another program fetched stays"
    );
    assert!(pulled.path.exists());
}

#[test]
fn a_split_file_is_fetched_with_all_its_parts() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    let names = [
        "Q4_0/m-00001-of-00003.gguf",
        "Q4_0/m-00002-of-00003.gguf",
        "Q4_0/m-00003-of-00003.gguf",
    ];
    server.put_listing("o/r", &names);
    for (part, name) in names.iter().enumerate() {
        server.put_large(&store, "o/r", name, Page::of(&noise(1000, part as u64)));
    }
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let pulled = hub.pull(&named("hf:o/r"), &mut quiet).unwrap();
    assert!(pulled.path.ends_with(names[0]));
    for (part, name) in names.iter().enumerate() {
        let path = snapshot(home.path(), "o/r").join(name);
        assert_eq!(fs::read(path).unwrap(), noise(1000, part as u64));
    }
    assert_eq!(hub.cache().list().unwrap()[0].size, 3000);
    assert_eq!(
        hub.cache().remove(&named("hf:o/r")).unwrap().freed / 1000,
        3,
        "what we fetched goes"
    );
    assert!(files_below(&home.path().join("huggingface/models--o--r/blobs")).is_empty());
}

#[test]
fn the_token_goes_to_its_host_and_no_further() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    server.put_listing("o/r", &["m.gguf"]);
    server.put_large(&store, "o/r", "m.gguf", Page::of(b"model"));
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(home.path(), &server);
    settings.hf_token = Some("hf_secret".to_owned());
    Hub::new(settings)
        .unwrap()
        .pull(&named("hf:o/r"), &mut quiet)
        .unwrap();
    assert!(
        server
            .log()
            .iter()
            .all(|served| served.authorization.as_deref() == Some("Bearer hf_secret"))
    );
    assert_eq!(store.log().len(), 1);
    assert!(
        store
            .log()
            .iter()
            .all(|served| served.authorization.is_none())
    );
}

#[test]
fn a_gated_repository_says_what_to_do() {
    let server = FakeHub::start();
    let page = Page::status(401).with("X-Error-Code", "GatedRepo");
    server.put("/o/r/resolve/main/m.gguf", page.clone());
    server.put("/api/models/o/r/revision/main", page);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let text = hub
        .pull(&named("hf:o/r"), &mut quiet)
        .unwrap_err()
        .to_string();
    assert!(text.contains("401") && text.contains("GatedRepo"), "{text}");
    assert!(
        text.contains("HF_TOKEN") && text.contains("accept its licence"),
        "{text}"
    );
    assert!(text.contains("/o/r"), "{text}");
    assert!(hub.cache().list().unwrap().is_empty());
}

#[test]
fn a_missing_repository_or_quantization_is_a_clear_error() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull(&named("hf:o/none"), &mut quiet).unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    server.put_listing("o/r", &["m-Q4_0.gguf"]);
    let text = hub
        .pull(&named("hf:o/r:Q8_0"), &mut quiet)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("Q8_0") && text.contains("m-Q4_0.gguf"),
        "{text}"
    );
}

#[test]
fn wrong_bytes_from_the_store_are_refused_and_removed() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    let right = noise(1000, 1);
    server.put_listing("o/r", &["m.gguf"]);
    server.put_large(&store, "o/r", "m.gguf", Page::of(&right));
    store.put(
        &format!("/store/{}", sha256(&right)),
        Page::of(&noise(1000, 2)),
    );
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull(&named("hf:o/r"), &mut quiet).unwrap_err();
    assert!(matches!(error, HubError::HashMismatch { .. }), "{error}");
    assert!(files_below(&home.path().join("huggingface/models--o--r")).is_empty());
    assert!(hub.cache().list().unwrap().is_empty());
}

#[test]
fn offline_nothing_leaves_the_machine() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(home.path(), &server);
    settings.offline = true;
    settings.pip_command = vec![
        home.path()
            .join("pip-that-must-not-run")
            .display()
            .to_string(),
    ];
    let hub = Hub::new(settings).unwrap();
    for text in ["smollm2:135m", "hf:o/r", &server.url("/m.gguf")] {
        let error = hub.pull(&named(text), &mut quiet).unwrap_err();
        assert!(matches!(error, HubError::Offline { .. }), "{text}: {error}");
    }
    assert!(server.log().is_empty());
}

fn card_with_two_sources(second: &str, body: &[u8]) -> ModelCard {
    serde_json::from_value(serde_json::json!({
        "id": "test:two", "name": "Two",
        "files": [{"name": "m.gguf", "size": body.len(), "sha256": sha256(body)}],
        "source": [{"kind": "hf", "repo": "o/r"}, {"kind": "url", "url": second}],
    }))
    .unwrap()
}

#[test]
fn a_source_that_does_not_answer_costs_five_seconds_at_most_and_is_said() {
    // Connections are taken by the system's queue and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = FakeHub::start();
    server.put("/m.gguf", Page::of(b"model"));
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(home.path(), &server);
    settings.hf_endpoint = format!("http://{}", silent.local_addr().unwrap());
    settings.timing = dunlin_hub::Timing::default();
    let hub = Hub::new(settings).unwrap();
    let mut messages = Vec::new();
    let start = Instant::now();

    let pulled = hub
        .pull_card(
            &card_with_two_sources(&server.url("/m.gguf"), b"model"),
            &mut |progress| {
                messages.push(progress);
                ControlFlow::Continue(())
            },
        )
        .unwrap();

    let seconds = start.elapsed().as_secs_f32();
    assert!((4.5..5.5).contains(&seconds), "{seconds}");
    assert_eq!(fs::read(pulled.path).unwrap(), b"model");
    let skipped = messages.iter().find_map(|message| match message {
        Progress::Skipped { source, reason } => Some(format!("{source}: {reason}")),
        _ => None,
    });
    let skipped = skipped.expect("the skipped source is said");
    assert!(
        skipped.contains("Hugging Face o/r") && skipped.contains("within 5 seconds"),
        "{skipped}"
    );
    assert_eq!(pulled.notes.len(), 1);
}

#[test]
fn a_source_that_answers_and_then_hides_its_bytes_costs_no_more() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = FakeHub::start();
    let head = Page::redirect(&format!("http://{}/x", silent.local_addr().unwrap()))
        .with("X-Linked-Etag", &format!("\"{}\"", sha256(b"model")))
        .with("X-Linked-Size", "5")
        .with("X-Repo-Commit", COMMIT);
    server.put("/o/r/resolve/main/m.gguf", head);
    server.put("/m.gguf", Page::of(b"model"));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let start = Instant::now();
    hub.pull_card(
        &card_with_two_sources(&server.url("/m.gguf"), b"model"),
        &mut quiet,
    )
    .unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(2500),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_cancel_is_heard_while_nobody_answers() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(home.path(), &server);
    settings.hf_endpoint = format!("http://{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let mut stop = |_| {
        if start.elapsed() > Duration::from_millis(300) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let error = Hub::new(settings)
        .unwrap()
        .pull(&named("hf:o/r"), &mut stop)
        .unwrap_err();
    assert!(matches!(error, HubError::Cancelled), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn when_all_sources_fail_every_reason_is_said() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub
        .pull_card(
            &card_with_two_sources(&server.url("/none"), b"model"),
            &mut quiet,
        )
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("Hugging Face o/r") && text.contains("/none"),
        "{text}"
    );
    assert_eq!(text.matches("404").count(), 2, "{text}");
}

#[test]
fn a_repository_with_another_file_than_the_catalog_means_is_found_out_before_the_download() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    server.put_large(&store, "o/r", "m.gguf", Page::of(b"other"));
    server.put("/m.gguf", Page::of(b"model"));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let pulled = hub
        .pull_card(
            &card_with_two_sources(&server.url("/m.gguf"), b"model"),
            &mut quiet,
        )
        .unwrap();
    assert!(store.log().is_empty());
    assert!(
        pulled.notes[0].contains(&sha256(b"other")),
        "{:?}",
        pulled.notes
    );
}

#[test]
fn names_and_tags_that_would_leave_the_cache_are_refused() {
    let server = FakeHub::start();
    server.put_listing("o/r", &["../../evil.gguf", "/etc/evil.gguf"]);
    server.put_listing("o/s", &["m.gguf"]);
    server.put(
        "/o/s/resolve/main/m.gguf",
        Page::default()
            .with("ETag", "\"../../evil\"")
            .with("X-Repo-Commit", COMMIT),
    );
    server.put_listing("o/t", &["m.gguf"]);
    server.put(
        "/o/t/resolve/main/m.gguf",
        Page::of(b"x").with("X-Repo-Commit", "../../evil"),
    );
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    for repo in ["o/r", "o/s", "o/t"] {
        let error = hub
            .pull(&named(&format!("hf:{repo}")), &mut quiet)
            .unwrap_err();
        assert!(
            matches!(
                error,
                HubError::NoModelFiles { .. } | HubError::BadResponse { .. }
            ),
            "{repo}: {error}"
        );
    }
    assert!(
        files_below(home.path())
            .iter()
            .all(|name| !name.contains("evil"))
    );
}

#[test]
fn small_files_without_a_hash_are_fetched_too() {
    let server = FakeHub::start();
    let card: ModelCard = serde_json::from_value(serde_json::json!({
        "id": "test:folder", "name": "Folder", "layout": "folder",
        "files": [{"name": "config.json"}, {"name": "1_Pooling/config.json"}],
        "source": [{"kind": "hf", "repo": "o/r"}],
    }))
    .unwrap();
    for (name, body) in [
        ("config.json", "{}"),
        ("1_Pooling/config.json", "{\"a\":1}"),
    ] {
        server.put(
            &format!("/o/r/resolve/main/{name}"),
            Page::of(body.as_bytes()).with("X-Repo-Commit", COMMIT),
        );
    }
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let pulled = hub.pull_card(&card, &mut quiet).unwrap();
    assert!(pulled.path.is_dir());
    assert_eq!(
        fs::read_to_string(pulled.path.join("1_Pooling/config.json")).unwrap(),
        "{\"a\":1}"
    );
}

#[test]
fn a_source_that_cannot_be_reached_at_all_costs_no_time() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let server = FakeHub::start();
    server.put("/m.gguf", Page::of(b"model"));
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(home.path(), &server);
    settings.hf_endpoint = format!("http://{closed}");
    settings.timing = dunlin_hub::Timing::default();
    let hub = Hub::new(settings).unwrap();
    let start = Instant::now();
    let card = card_with_two_sources(&server.url("/m.gguf"), b"model");
    let pulled = hub.pull_card(&card, &mut quiet).unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    assert!(
        pulled.notes[0].contains("did not answer"),
        "{:?}",
        pulled.notes
    );
}

#[test]
fn a_proxy_is_asked_except_for_this_machine_and_the_hosts_named() {
    let (proxy, server) = (FakeHub::start(), FakeHub::start());
    server.put("/m.gguf", Page::of(b"GGUF model"));
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(home.path(), &server);
    settings.proxy = Some(proxy.url(""));
    settings.hf_endpoint = "https://hub.invalid".to_owned();
    let hub = Hub::new(settings.clone()).unwrap();

    hub.pull(&named(&server.url("/m.gguf")), &mut quiet)
        .unwrap();
    assert!(proxy.log().is_empty());
    hub.pull(&named("hf:o/r"), &mut quiet).unwrap_err();
    let seen = proxy.log();
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path.as_str()),
        ("CONNECT", "hub.invalid:443")
    );

    settings.no_proxy = Some("other.invalid, hub.invalid".to_owned());
    Hub::new(settings)
        .unwrap()
        .pull(&named("hf:o/r"), &mut quiet)
        .unwrap_err();
    assert_eq!(proxy.log().len(), seen.len());
}
