//! Several pulls of one model, killed pulls, and the care of the cache.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use dunlin_hub::{Hub, HubError, ModelRef, Progress};
use support::{FakeHub, Page, Random, config, files_below, noise, quiet, sha256};

const HOME: &str = "DUNLIN_HUB_TEST_HOME";
const MODEL: &str = "DUNLIN_HUB_TEST_MODEL";

/// Not a test of its own: the body of the processes that the tests below start.
#[test]
#[ignore = "not a test: the child process that the tests of this file start and kill; without them it has nothing to pull"]
fn pull_in_a_process_of_its_own() {
    let (Ok(home), Ok(model)) = (std::env::var(HOME), std::env::var(MODEL)) else {
        return;
    };
    let (endpoint, model) = model.split_once(' ').unwrap();
    let mut settings = dunlin_hub::HubConfig::new(home);
    settings.hf_endpoint = endpoint.to_owned();
    Hub::new(settings)
        .unwrap()
        .pull(&model.parse().unwrap(), &mut quiet)
        .unwrap();
}

fn start_process(home: &Path, endpoint: &str, model: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "pull_in_a_process_of_its_own",
            "--ignored",
            "--nocapture",
        ])
        .env(HOME, home)
        .env(MODEL, format!("{endpoint} {model}"))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Bytes of the part file below a folder.
fn part_size(folder: &Path) -> usize {
    let parts = files_below(folder)
        .into_iter()
        .filter(|name| name.ends_with(".part") || name.ends_with(".incomplete"));
    parts
        .map(|name| fs::metadata(folder.join(name)).unwrap().len() as usize)
        .sum()
}

#[test]
fn a_pull_that_is_killed_again_and_again_downloads_nothing_twice() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    let body = noise(6_000_000, 1);
    let digest = sha256(&body);
    let mut page = Page::of(&body);
    page.pace = Duration::from_micros(300);
    server.put_listing("o/r", &["m.gguf"]);
    server.put_large(&store, "o/r", "m.gguf", page.clone());
    server.put("/m.gguf", page);
    for (model, bytes_from) in [
        ("hf:o/r".to_owned(), &store),
        (server.url("/m.gguf"), &server),
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut random = Random(11);
        let mut starts = vec![0];
        let downloads = || -> Vec<usize> {
            let log = bytes_from.downloads();
            let bytes = log
                .iter()
                .filter(|served| served.path.starts_with("/store/") || served.path == "/m.gguf");
            bytes.map(|served| served.first_byte).collect()
        };
        for _ in 0..10 {
            let before = downloads().len();
            let mut process = start_process(home.path(), &server.url(""), &model);
            // A moment at random, counted from the first byte.
            while downloads().len() == before {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_micros(random.below(60_000) as u64));
            process.kill().unwrap();
            process.wait().unwrap();
            assert!(
                files_below(&home.path().join("models")).is_empty(),
                "nothing half-made is visible"
            );
            starts.push(part_size(home.path()));
        }
        assert!(
            start_process(home.path(), &server.url(""), &model)
                .wait()
                .unwrap()
                .success()
        );
        assert_eq!(
            downloads(),
            starts,
            "every request begins at the byte behind the last one on disk"
        );
        let hub = Hub::new(config(home.path(), &server)).unwrap();
        let path = hub
            .resolve(&model.parse().unwrap())
            .unwrap()
            .expect("it is here");
        assert_eq!(sha256(&fs::read(path).unwrap()), digest);
        assert_eq!(part_size(home.path()), 0);
    }
}

#[test]
fn two_processes_share_one_download() {
    let server = FakeHub::start();
    let mut page = Page::of(&noise(500_000, 1));
    page.pace = Duration::from_millis(2);
    server.put("/m.gguf", page);
    let home = tempfile::tempdir().unwrap();
    let mut processes: Vec<Child> = (0..3)
        .map(|_| start_process(home.path(), &server.url(""), &server.url("/m.gguf")))
        .collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    assert_eq!(server.downloads().len(), 1);
}

#[test]
fn two_threads_share_one_download_and_the_second_says_that_it_waits() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    let mut page = Page::of(&noise(500_000, 1));
    page.pace = Duration::from_millis(2);
    server.put_listing("o/r", &["m-Q4_0.gguf"]);
    server.put_large(&store, "o/r", "m-Q4_0.gguf", page);
    let home = tempfile::tempdir().unwrap();
    // Two names of one file, so that the lock of the shared cache is what keeps them apart.
    let waits: usize = thread::scope(|scope| {
        let pulls = ["hf:o/r", "hf:o/r", "hf:o/r:Q4_0"].map(|model| {
            let (home, server) = (home.path(), &server);
            scope.spawn(move || {
                let mut waits = 0;
                let mut count = |progress| {
                    waits += usize::from(progress == Progress::Waiting);
                    ControlFlow::Continue(())
                };
                Hub::new(config(home, server))
                    .unwrap()
                    .pull(&model.parse().unwrap(), &mut count)
                    .unwrap();
                waits
            })
        });
        pulls.into_iter().map(|pull| pull.join().unwrap()).sum()
    });
    assert_eq!(store.downloads().len(), 1);
    assert_eq!(waits, 2);
}

fn hub_with_two_models(home: &Path) -> (Hub, Vec<ModelRef>) {
    let server = FakeHub::start();
    server.put("/a.gguf", Page::of(&noise(10_000, 1)));
    server.put("/b.gguf", Page::of(&noise(20_000, 2)));
    let hub = Hub::new(config(home, &server)).unwrap();
    let models: Vec<ModelRef> = ["/a.gguf", "/b.gguf"]
        .iter()
        .map(|path| server.url(path).parse().unwrap())
        .collect();
    for model in &models {
        hub.pull(model, &mut quiet).unwrap();
    }
    (hub, models)
}

#[test]
fn the_cache_lists_and_removes() {
    let home = tempfile::tempdir().unwrap();
    let (hub, models) = hub_with_two_models(home.path());
    let cache = hub.cache();
    let list = cache.list().unwrap();
    assert_eq!(
        list.iter().map(|model| model.size).collect::<Vec<_>>(),
        [10_000, 20_000]
    );
    assert_eq!(list[0].sha256, sha256(&noise(10_000, 1)));
    assert!(
        list.iter()
            .all(|model| model.problem.is_none() && model.fetched_at > 0)
    );
    assert!(cache.size().unwrap() > 30_000);

    assert!(cache.remove(&models[0]).unwrap().freed >= 10_000);
    assert!(matches!(
        cache.remove(&models[0]),
        Err(HubError::NotCached { .. })
    ));
    assert_eq!(cache.list().unwrap().len(), 1);
    cache.clear().unwrap();
    assert_eq!(cache.size().unwrap(), 0);
}

#[test]
fn verify_finds_a_changed_byte() {
    let home = tempfile::tempdir().unwrap();
    let (hub, models) = hub_with_two_models(home.path());
    let path = hub.resolve(&models[1]).unwrap().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[12_345] ^= 1;
    fs::write(&path, bytes).unwrap();
    let verdicts = hub.cache().verify(&mut quiet).unwrap();
    assert!(verdicts[0].problems.is_empty());
    assert!(verdicts[1].problems[0].contains("sha256"), "{verdicts:?}");
}

#[test]
fn a_changed_file_is_fetched_again_and_a_touched_one_is_not() {
    let home = tempfile::tempdir().unwrap();
    let (hub, models) = hub_with_two_models(home.path());
    let path = hub.resolve(&models[0]).unwrap().unwrap();
    let right = fs::read(&path).unwrap();
    fs::write(&path, &right).unwrap();
    let touched = hub.pull(&models[0], &mut quiet).unwrap();
    assert!(touched.from_cache && touched.notes.is_empty());
    fs::write(&path, b"changed").unwrap();
    let mended = hub.pull(&models[0], &mut quiet).unwrap();
    assert!(
        !mended.from_cache && mended.notes[0].contains("fetching it again"),
        "{:?}",
        mended.notes
    );
    assert_eq!(fs::read(&path).unwrap(), right);
}

#[test]
fn a_damaged_manifest_is_listed_and_mended() {
    let home = tempfile::tempdir().unwrap();
    let (hub, models) = hub_with_two_models(home.path());
    let folder = hub
        .resolve(&models[0])
        .unwrap()
        .unwrap()
        .parent()
        .unwrap()
        .to_path_buf();
    for broken in [
        "",
        "{}",
        "{\"version\":99}",
        "[1,2",
        r#"{"version":1,"id":"x","source":"","fetched_at":0,"layout":"file","files":[{"name":"../../x","size":1,"sha256":"00","modified_ns":0,"owned":true}]}"#,
    ] {
        fs::write(folder.join("manifest.json"), broken).unwrap();
        let list = hub.cache().list().unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(
            list.iter().filter(|model| model.problem.is_some()).count(),
            1,
            "{broken}"
        );
        assert!(hub.resolve(&models[0]).is_err());
        let pulled = hub.pull(&models[0], &mut quiet).unwrap();
        assert!(
            !pulled.from_cache && pulled.notes[0].contains("damaged"),
            "{:?}",
            pulled.notes
        );
    }
}

#[test]
fn a_model_that_is_being_pulled_is_not_removed() {
    let server = FakeHub::start();
    let mut page = Page::of(&noise(200_000, 1));
    page.pace = Duration::from_millis(1);
    server.put("/m.gguf", page);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let model: ModelRef = server.url("/m.gguf").parse().unwrap();
    let cache = hub.cache();
    let mut tried = None;
    hub.pull(&model, &mut |progress| {
        if tried.is_none() && matches!(progress, Progress::Downloading { done, .. } if done > 0) {
            tried = Some(cache.remove(&model));
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(matches!(tried, Some(Err(HubError::Busy { .. }))));
}

#[test]
fn an_unfinished_download_can_be_removed() {
    let (server, store) = (FakeHub::start(), FakeHub::start());
    let mut page = Page::of(&noise(400_000, 1));
    page.pace = Duration::from_millis(1);
    server.put_listing("o/r", &["m.gguf"]);
    server.put_large(&store, "o/r", "m.gguf", page);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let mut stop = |progress| match progress {
        Progress::Downloading { done, .. } if done > 50_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(hub.pull(&"hf:o/r".parse().unwrap(), &mut stop).is_err());
    assert!(
        hub.cache().partial_size() > 50_000,
        "the part in the shared cache counts"
    );
    let removed = hub.cache().remove(&"hf:o/r".parse().unwrap()).unwrap();
    assert!(removed.freed > 50_000);
    assert_eq!(part_size(home.path()), 0);
}

#[test]
fn a_local_path_is_given_back_with_a_card_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &FakeHub::start())).unwrap();
    let file = home.path().join("mine.gguf");
    fs::write(&file, b"GGUF").unwrap();
    let pulled = hub.pull(&ModelRef::Path(file.clone()), &mut quiet).unwrap();
    assert_eq!(pulled.path, file);
    let card = pulled.card.unwrap();
    assert_eq!((card.name.as_str(), card.file_size()), ("mine", Some(4)));
    let error = hub
        .pull(&ModelRef::Path(home.path().join("none.gguf")), &mut quiet)
        .unwrap_err();
    assert!(error.to_string().contains("none.gguf"), "{error}");
}
