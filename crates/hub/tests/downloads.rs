//! Downloads: resumption, faults of servers, cancellation, full disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::fs;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use dunlin_hub::{Hub, HubError, ModelRef, Progress};
use support::{FakeHub, Page, Random, config, files_below, noise, quiet, sha256};

fn at(url: String) -> ModelRef {
    url.parse().unwrap()
}

#[test]
fn a_broken_download_is_taken_up_behind_its_last_byte() {
    let mut random = Random(7);
    for round in 0..10 {
        let server = FakeHub::start();
        let body = noise(400_000, round);
        let mut page = Page::of(&body);
        page.cuts = (0..6).map(|_| 1 + random.below(70_000)).collect();
        server.put("/m.gguf", page);
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::new(config(home.path(), &server)).unwrap();

        let pulled = hub.pull(&at(server.url("/m.gguf")), &mut quiet).unwrap();

        assert_eq!(sha256(&fs::read(&pulled.path).unwrap()), sha256(&body));
        let downloads = server.downloads();
        assert_eq!(downloads.len(), 7);
        let mut expected_start = 0;
        for served in &downloads {
            assert_eq!(
                served.first_byte, expected_start,
                "no byte twice, none left out: {downloads:?}"
            );
            expected_start += served.sent;
        }
        assert_eq!(expected_start, body.len());
        assert!(files_below(&home.path().join("partial")).is_empty());
    }
}

#[test]
fn a_cancel_leaves_a_part_that_the_next_pull_goes_on_with() {
    let server = FakeHub::start();
    let body = noise(2_000_000, 1);
    let mut page = Page::of(&body);
    page.pace = Duration::from_millis(1);
    server.put("/m.gguf", page);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let model = at(server.url("/m.gguf"));

    let mut stop_late = |progress| match progress {
        Progress::Downloading { done, .. } if done > 100_000 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(matches!(
        hub.pull(&model, &mut stop_late),
        Err(HubError::Cancelled)
    ));

    assert!(
        files_below(&home.path().join("models")).is_empty(),
        "nothing half-made is visible"
    );
    let partial = hub.cache().partial_size();
    assert!(partial > 100_000);
    let pulled = hub.pull(&model, &mut quiet).unwrap();
    assert_eq!(sha256(&fs::read(pulled.path).unwrap()), sha256(&body));
    assert!(server.downloads()[1].first_byte > 100_000);
    assert!(
        pulled.notes[0].contains("taken up again"),
        "{:?}",
        pulled.notes
    );
}

#[test]
fn a_file_that_changed_meanwhile_starts_anew() {
    let server = FakeHub::start();
    let mut page = Page::of(&noise(200_000, 1));
    page.cuts = [50_000; 4].into();
    page.failures = [].into();
    server.put("/m.gguf", page);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let model = at(server.url("/m.gguf"));
    let mut stop = |progress| match progress {
        Progress::Downloading { done, .. } if done > 0 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(matches!(
        hub.pull(&model, &mut stop),
        Err(HubError::Cancelled)
    ));

    let other = noise(150_000, 2);
    server.put("/m.gguf", Page::of(&other));
    let pulled = hub.pull(&model, &mut quiet).unwrap();

    assert_eq!(sha256(&fs::read(pulled.path).unwrap()), sha256(&other));
    assert!(
        pulled.notes.iter().any(|note| note.contains("starts anew")),
        "{:?}",
        pulled.notes
    );
}

#[test]
fn a_server_without_ranges_still_gives_the_right_file() {
    let server = FakeHub::start();
    let body = noise(100_000, 1);
    let mut page = Page::of(&body);
    page.ignores_ranges = true;
    page.cuts = [30_000].into();
    server.put("/m.gguf", page);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let pulled = hub.pull(&at(server.url("/m.gguf")), &mut quiet).unwrap();
    assert_eq!(fs::read(pulled.path).unwrap(), body);
    assert!(
        pulled.notes.iter().any(|note| note.contains("starts anew")),
        "{:?}",
        pulled.notes
    );
}

#[test]
fn passing_errors_are_tried_again_and_lasting_ones_are_not() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();

    let mut page = Page::of(b"GGUF bytes");
    page.failures = [503, 500].into();
    server.put("/passing.gguf", page);
    hub.pull(&at(server.url("/passing.gguf")), &mut quiet)
        .unwrap();
    assert_eq!(server.log().len(), 3);

    server.put("/lasting.gguf", Page::status(503));
    let error = hub
        .pull(&at(server.url("/lasting.gguf")), &mut quiet)
        .unwrap_err();
    assert!(
        matches!(error, HubError::Status { status: 503, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("503"), "{error}");
    assert_eq!(server.log().len(), 3 + 4, "bounded attempts");
}

#[test]
fn a_silent_connection_is_given_up_and_taken_up_again() {
    let server = FakeHub::start();
    let body = noise(100_000, 3);
    let mut page = Page::of(&body);
    page.stalls_at = Some(40_000);
    server.put("/m.gguf", page);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let start = Instant::now();
    let pulled = hub.pull(&at(server.url("/m.gguf")), &mut quiet).unwrap();
    assert_eq!(fs::read(pulled.path).unwrap(), body);
    let starts: Vec<usize> = server
        .downloads()
        .iter()
        .map(|served| served.first_byte)
        .collect();
    assert_eq!(starts, [0, 40_000, 80_000]);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_missing_file_is_a_clear_error() {
    let server = FakeHub::start();
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub
        .pull(&at(server.url("/none.gguf")), &mut quiet)
        .unwrap_err();
    assert!(matches!(error, HubError::NotFound { .. }), "{error}");
    assert!(
        files_below(home.path())
            .iter()
            .all(|name| !name.contains("none.gguf/"))
    );
    assert!(hub.cache().list().unwrap().is_empty());
}

#[test]
fn what_the_disk_cannot_hold_is_not_started() {
    let server = FakeHub::start();
    server.put("/m.gguf", Page::of(&noise(1_000_000, 1)));
    let home = tempfile::tempdir().unwrap();
    let mut settings = config(home.path(), &server);
    settings.free_space = |_| Ok(10_000);
    let hub = Hub::new(settings).unwrap();
    let error = hub
        .pull(&at(server.url("/m.gguf")), &mut quiet)
        .unwrap_err();
    assert!(
        matches!(
            error,
            HubError::NoSpace {
                needed: Some(1_000_000),
                free: 10_000,
                ..
            }
        ),
        "{error}"
    );
    assert!(hub.cache().list().unwrap().is_empty());
}

/// Needs the right to mount; without it the test says so and passes.
#[test]
#[cfg(target_os = "linux")]
fn a_disk_that_fills_up_is_a_clear_error_and_nothing_half_made_is_visible() {
    let server = FakeHub::start();
    let body = noise(3_000_000, 1);
    server.put("/m.gguf", Page::of(&body));
    let home = tempfile::tempdir().unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
        .arg(home.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("skipped: no right to mount a small disk");
        return;
    }
    let mut settings = config(home.path(), &server);
    // The check before the start is told a lie, so that the disk fills up during the download.
    settings.free_space = |_| Ok(u64::MAX);
    let hub = Hub::new(settings).unwrap();
    let error = hub
        .pull(&at(server.url("/m.gguf")), &mut quiet)
        .unwrap_err();
    let visible = files_below(&home.path().join("models"));
    let freed = hub.cache().clear().unwrap().freed;
    let _ = std::process::Command::new("umount")
        .arg(home.path())
        .status();
    assert!(matches!(error, HubError::NoSpace { .. }), "{error}");
    assert!(visible.is_empty(), "{visible:?}");
    assert!(freed > 1_000_000, "the part can be removed");
}

#[test]
fn a_file_of_the_wrong_length_is_refused() {
    let server = FakeHub::start();
    let card: dunlin_hub::ModelCard = support_card(&server.url("/m.gguf"), Some(10), None);
    server.put("/m.gguf", Page::of(b"twelve bytes"));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull_card(&card, &mut quiet).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::SizeMismatch {
                expected: 10,
                found: 12,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn wrong_bytes_are_removed_and_both_hashes_are_said() {
    let server = FakeHub::start();
    let promised = sha256(b"right bytes");
    let card = support_card(&server.url("/m.gguf"), Some(11), Some(&promised));
    server.put("/m.gguf", Page::of(b"wrong bytes"));
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(config(home.path(), &server)).unwrap();
    let error = hub.pull_card(&card, &mut quiet).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&promised) && text.contains(&sha256(b"wrong bytes")),
        "{text}"
    );
    assert!(hub.cache().list().unwrap().is_empty());
    assert_eq!(hub.cache().partial_size(), 0);

    server.put("/m.gguf", Page::of(b"right bytes"));
    assert_eq!(
        fs::read(hub.pull_card(&card, &mut quiet).unwrap().path).unwrap(),
        b"right bytes"
    );
}

fn support_card(url: &str, size: Option<u64>, sha256: Option<&str>) -> dunlin_hub::ModelCard {
    serde_json::from_value(serde_json::json!({
        "id": "test:tiny", "name": "Tiny",
        "files": [{"name": "m.gguf", "size": size, "sha256": sha256}],
        "source": [{"kind": "url", "url": url}],
    }))
    .unwrap()
}
