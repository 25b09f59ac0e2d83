//! The command that searches a folder.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../dunlin/tests/common/bert.rs"]
mod bert;
mod common;

use std::fs;
use std::path::PathBuf;

use common::{Dunlin, Ran, keys};
use serde_json::json;

/// A cache, a tiny model and a folder of texts.
struct Setting {
    dunlin: Dunlin,
    model: String,
    folder: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let dunlin = Dunlin::new();
        let model = dunlin.folder.path().join("embedder");
        bert::write_embedder(&model);
        let folder = dunlin.folder.path().join("texts");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cat.txt"), "shares.\n\na cat sleeps.\n").unwrap();
        fs::write(folder.join("dog.md"), "# Dog\n\na dog runs.\n").unwrap();
        fs::write(folder.join("picture.png"), b"\x89PNG\0").unwrap();
        Setting {
            dunlin,
            model: model.to_str().unwrap().to_owned(),
            folder,
        }
    }

    fn search(&self, args: &[&str]) -> Ran {
        let folder = self.folder.to_str().unwrap();
        let whole = [&["search", folder], args, &["--model", &self.model]].concat();
        self.dunlin.run(&whole)
    }
}

#[test]
fn the_cache_counts_indexes_and_removes_them_by_themselves() {
    let setting = Setting::new();
    setting.search(&["a cat sleeps."]).ok();
    let cache = || setting.dunlin.json(&["cache", "--json"]);
    let before = cache();
    assert_eq!(before["indexes"], 1);
    let bytes = before["index_bytes"].as_u64().unwrap();
    assert!(bytes > 100, "{before}");
    assert_eq!(
        setting
            .dunlin
            .json(&["cache", "clear", "--indexes", "--json"]),
        json!({"freed": bytes, "kept": []})
    );
    let after = cache();
    assert_eq!(
        (&after["indexes"], &after["index_bytes"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(after["bytes"], before["bytes"]);
    let again = setting.search(&["a cat sleeps."]).ok();
    assert!(again.stderr.contains("2 new"), "{}", again.stderr);
}

#[test]
fn a_folder_is_indexed_once_and_searched_by_meaning_words_and_both() {
    let setting = Setting::new();
    let first = setting
        .search(&["a cat sleeps.", "--chunk-tokens", "5", "--json"])
        .ok();
    assert!(first.stderr.contains("1 binary"), "{}", first.stderr);
    assert!(first.stderr.contains("2 new"), "{}", first.stderr);
    let answer = first.json();
    assert_eq!(keys(&answer), ["hits", "changes"]);
    let hit = &answer["hits"][0];
    assert_eq!(
        keys(hit),
        [
            "path",
            "first_line",
            "last_line",
            "start",
            "end",
            "score",
            "cosine",
            "bm25",
            "text"
        ]
    );
    assert_eq!(
        (&hit["path"], &hit["text"]),
        (&json!("cat.txt"), &json!("a cat sleeps."))
    );
    assert_eq!(
        (&hit["first_line"], &hit["start"], &hit["end"]),
        (&json!(3), &json!(9), &json!(22))
    );
    assert!(hit["score"].as_f64().unwrap() > 0.999 && hit["bm25"].is_null());

    let again = setting
        .search(&["runs", "--keyword", "--chunk-tokens", "5"])
        .ok();
    let answer = again.json();
    assert_eq!(answer["changes"]["embedded"], 0);
    assert_eq!(answer["changes"]["unchanged"], 2);
    assert_eq!(answer["changes"]["skipped"], json!({"binary": 1}));
    assert_eq!(answer["hits"].as_array().unwrap().len(), 1);
    assert_eq!(answer["hits"][0]["path"], "dog.md");
    let both = setting
        .search(&["cat", "--hybrid", "-k", "1", "--chunk-tokens", "5"])
        .ok();
    let hits = &both.json()["hits"];
    assert_eq!(hits.as_array().unwrap().len(), 1);
    assert_eq!(hits[0]["path"], "cat.txt");
    let kept = setting.dunlin.folder.path().join("home/index");
    assert_eq!(fs::read_dir(kept).unwrap().count(), 1);
}

#[test]
fn conditions_and_filters_restrict_the_pieces() {
    let setting = Setting::new();
    let paths = |args: &[&str]| {
        let hits = setting.search(args).ok().json()["hits"].clone();
        let hits = hits.as_array().unwrap().clone();
        let mut paths: Vec<_> = hits
            .iter()
            .map(|hit| hit["path"].as_str().unwrap().to_owned())
            .collect();
        paths.sort();
        paths
    };
    assert_eq!(paths(&["cat"]), ["cat.txt", "dog.md"]);
    assert_eq!(paths(&["cat", "--where", "path=dog.md"]), ["dog.md"]);
    assert_eq!(
        paths(&["cat", "--filter", r#"{"path":{"$ne":"dog.md"}}"#]),
        ["cat.txt"]
    );
    let none = ["cat", "--where", "path=dog.md", "--where", "first_line>9"];
    assert!(paths(&none).is_empty());
    setting.search(&["cat", "--where", "=x"]).code(2);
    setting.search(&["cat", "--filter", "{"]).code(2);
    setting
        .search(&["cat", "--filter", r#"{"a":{"$no":1}}"#])
        .code(2);
}

#[test]
fn what_cannot_be_searched_says_why() {
    let setting = Setting::new();
    let index = setting.dunlin.write("x.index", "something else");
    let said = setting.search(&["cat", "--index", &index]).code(1).stderr;
    assert!(said.contains("no index"), "{said}");
    assert_eq!(
        fs::read_to_string(&index).unwrap(),
        "something else",
        "left alone"
    );
    setting.search(&["cat", "--chunk-tokens", "500"]).code(2);
    setting.search(&["cat", "--hybrid", "--keyword"]).code(2);
    let missing = [
        "search",
        "./no/such/folder",
        "cat",
        "--model",
        &setting.model,
    ];
    setting.dunlin.run(&missing).code(3);
    let own = setting.dunlin.folder.path().join("own.index");
    let own = own.to_str().unwrap();
    setting.search(&["cat", "--index", own]).ok();
    let other = setting.dunlin.folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let args = [
        "search",
        other.to_str().unwrap(),
        "cat",
        "--index",
        own,
        "--model",
        &setting.model,
    ];
    let said = setting.dunlin.run(&args).code(2).stderr;
    assert!(said.contains("index of"), "{said}");
}

#[test]
fn embed_knows_roles_lengths_and_policies() {
    let setting = Setting::new();
    let embed = |args: &[&str]| {
        setting
            .dunlin
            .run(&[&["embed", &setting.model], args].concat())
    };
    let short = embed(&["cat", "--dimensions", "8"]).ok().json();
    assert_eq!(short["embeddings"][0].as_array().unwrap().len(), 8);
    embed(&["cat", "--dimensions", "99"]).code(2);
    let long = "cat ".repeat(60);
    let mean = embed(&[&long, "--too-long", "mean"]).ok();
    assert!(mean.stderr.contains("62 tokens"), "{}", mean.stderr);
    let cut = embed(&[&long, "--too-long", "truncate"]).ok();
    assert!(cut.stderr.contains("cut at its end"), "{}", cut.stderr);
    let same = embed(&["cat", "--as", "query"]).ok().json();
    assert_eq!(
        same,
        embed(&["cat"]).ok().json(),
        "this model has no words before queries"
    );
}
