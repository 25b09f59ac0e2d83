//! Every setting of every folder at hand, replaced by what makes no sense: a file or an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use common::{FIXTURES, Work};
use dunlin_convert::OutputType;
use serde_json::{Value, json};

#[test]
fn no_setting_makes_it_panic() {
    let mut folders = vec![Path::new(FIXTURES).join("tiny-llama")];
    if let Some(shared) = shared_folder() {
        // Those whose sizes are computed in ways of their own; all of them would take minutes.
        let names = ["gemma4", "qwen3_5"];
        folders.extend(names.map(|name| shared.join("conformance").join(name)));
    }
    for folder in folders {
        spoil_each_setting(&folder);
    }
}

fn spoil_each_setting(folder: &Path) {
    let work = Work::copy_of(folder);
    let config: Value =
        serde_json::from_slice(&fs::read(work.file("config.json")).unwrap()).unwrap();
    for place in places(&config) {
        for value in values() {
            let mut spoiled = config.clone();
            *spoiled.pointer_mut(&place).unwrap() = value;
            fs::write(work.file("config.json"), spoiled.to_string()).unwrap();
            let _ = work.convert(OutputType::Q8_0);
        }
    }
}

/// What a number, a text, a list or an object may be replaced by.
fn values() -> Vec<Value> {
    let list: Vec<Value> = vec![Value::Null; 3];
    vec![
        Value::Null,
        json!(0),
        json!(-1),
        json!(1),
        json!(4_294_967_295u32),
        json!(u64::MAX),
        json!(1e-300),
        json!(1e300),
        json!("text"),
        json!(list),
        json!({"0": {}}),
    ]
}

/// Pointers to all settings, also those inside of others (but not every entry of long lists).
fn places(config: &Value) -> Vec<String> {
    let mut places = Vec::new();
    for (key, value) in config.as_object().unwrap() {
        places.push(format!("/{key}"));
        match value {
            Value::Object(_) => places.extend(
                self::places(value)
                    .into_iter()
                    .map(|inner| format!("/{key}{inner}")),
            ),
            Value::Array(list) if !list.is_empty() => places.push(format!("/{key}/0")),
            _ => {}
        }
    }
    places
}

/// The folder of shared conformance data, where there is one.
fn shared_folder() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let folder = env::var_os("DUNLIN_SHARED").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    folder.join("conformance").is_dir().then_some(folder)
}
