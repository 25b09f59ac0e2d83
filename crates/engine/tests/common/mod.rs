//! Where the tests find the conformance models, and how they read the golden files beside them.
#![allow(
    unreachable_pub,
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};

use dunlin_format::Gguf;
use serde_json::Value;

/// The folder with conformance and reference data: `DUNLIN_SHARED`, else `shared` beside the workspace. `None`, said
/// on the terminal, where it is absent: the test that asks has nothing to compare with and passes.
pub fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("DUNLIN_SHARED").map_or(beside, PathBuf::from);
    if folder.join("conformance").is_dir() {
        return Some(folder);
    }
    println!(
        "skipped: no conformance data in {} (set DUNLIN_SHARED)",
        folder.display()
    );
    None
}

/// Reads a JSON file.
pub fn json(path: &Path) -> Value {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A tiny model with the answers of the reference implementation.
pub struct Golden {
    pub name: &'static str,
    pub gguf: Gguf,
    pub prompts: Vec<GoldenPrompt>,
}

pub struct GoldenPrompt {
    pub ids: Vec<u32>,
    pub positions: Vec<usize>,
    /// `[positions][vocab_size]`
    pub logits: Vec<Vec<f32>>,
    /// The most likely token, sixteen times in a row.
    pub greedy: Vec<u32>,
}

impl Golden {
    pub fn read(shared: &Path, name: &'static str) -> Self {
        let folder = shared.join("conformance").join(name);
        let golden = json(&folder.join("golden.json"));
        let prompts = golden["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(GoldenPrompt::read)
            .collect();
        let gguf = Self::gguf(shared, name);
        Golden {
            name,
            gguf,
            prompts,
        }
    }
}

impl Golden {
    /// The model of a folder alone.
    pub fn gguf(shared: &Path, name: &str) -> Gguf {
        let folder = shared.join("conformance").join(name);
        Gguf::open(&folder.join("model.gguf")).unwrap()
    }
}

impl GoldenPrompt {
    pub fn read(prompt: &Value) -> Self {
        let rows = prompt["logits"].as_array().unwrap().iter();
        GoldenPrompt {
            ids: integers(&prompt["ids"]),
            positions: integers(&prompt["positions"])
                .into_iter()
                .map(|position| position as usize)
                .collect(),
            logits: rows
                .map(|row| {
                    row.as_array()
                        .unwrap()
                        .iter()
                        .map(|logit| logit.as_f64().unwrap() as f32)
                        .collect()
                })
                .collect(),
            greedy: integers(&prompt["greedy"]),
        }
    }
}

pub fn integers(value: &Value) -> Vec<u32> {
    let values = value.as_array().unwrap().iter();
    values
        .map(|value| u32::try_from(value.as_u64().unwrap()).unwrap())
        .collect()
}

/// The index of the largest logit; the lowest of equal ones.
pub fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len())
        .rev()
        .max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    u32::try_from(best.unwrap()).unwrap()
}

/// The largest difference between two sets of logits, as a part of the largest golden logit.
pub fn relative_difference(found: &[Vec<f32>], golden: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), golden.len());
    let mut difference = 0.0f32;
    let mut largest = 0.0f32;
    for (found, golden) in found.iter().zip(golden) {
        assert_eq!(found.len(), golden.len());
        for (found, golden) in found.iter().zip(golden) {
            assert!(found.is_finite());
            difference = difference.max((found - golden).abs());
            largest = largest.max(golden.abs());
        }
    }
    difference / largest
}
