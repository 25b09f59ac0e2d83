//! What the search for K-quants leaves of an error, against what llama.cpp's leaves (`fixtures/make_k_quants.py`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::fs;
use std::path::PathBuf;

use dunlin_format::{DType, Gguf, decode, encode};
use serde_json::Value;

const TYPES: [DType; 5] = [
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];
const BLOCK: usize = 256;
const RANDOM_BLOCKS: usize = 256;
const TENSOR_BLOCKS: usize = 512;

fn table() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/k_quants.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// SplitMix64, as numbers from 0 to 1.
fn uniform(count: usize, seed: u64) -> impl Iterator<Item = f64> {
    (1..=count as u64).map(move |index| {
        let state = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 * 2.0f64.powi(-53)
    })
}

/// Nearly normal numbers.
fn normal(seed: u64) -> Vec<f64> {
    let all = Vec::from_iter(uniform(12 * RANDOM_BLOCKS * BLOCK, seed));
    all.chunks_exact(12)
        .map(|twelve| twelve.iter().sum::<f64>() - 6.0)
        .collect()
}

fn random_rows(name: &str) -> Vec<f32> {
    let values = match name {
        "normal" => Vec::from_iter(normal(1).iter().map(|x| x * 0.02)),
        "heavy tails" => Vec::from_iter(normal(2).iter().map(|x| x.powi(3) * 0.01)),
        "shifted" => Vec::from_iter(normal(3).iter().map(|x| x * 0.02 + 0.03)),
        "positive" => Vec::from_iter(uniform(RANDOM_BLOCKS * BLOCK, 4)),
        _ => panic!("rows of the kind {name} are unknown here"),
    };
    values.into_iter().map(|x| x as f32).collect()
}

/// How much the search counts an error at each value; llama.cpp's counts alike for Q4_K and Q5_K.
fn importance(values: &[f32]) -> impl Iterator<Item = f64> {
    values.chunks_exact(32).flat_map(|group| {
        let squares: f64 = group.iter().map(|x| f64::from(*x).powi(2)).sum();
        let root = (squares / 32.0).sqrt();
        group.iter().map(move |x| root + f64::from(x.abs()))
    })
}

/// Squared error, and the same weighted.
fn errors(dtype: DType, values: &[f32]) -> [f64; 2] {
    let mut encoded = Vec::new();
    encode(dtype, values, &mut encoded).unwrap();
    let mut decoded = vec![0.0; values.len()];
    decode(dtype, &encoded, &mut decoded).unwrap();
    let squares = values
        .iter()
        .zip(&decoded)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let mut sums = [0.0; 2];
    for (square, weight) in squares.zip(importance(values)) {
        sums[0] += square;
        sums[1] += weight * square;
    }
    sums
}

fn compare(what: &str, values: &[f32], reference: &Value) -> Vec<String> {
    let mut worse = Vec::new();
    for dtype in TYPES {
        let [squared, weighted] = errors(dtype, values);
        let mut found = vec![("squared", squared)];
        if [DType::Q4_K, DType::Q5_K].contains(&dtype) {
            found.push(("weighted", weighted));
        }
        for (name, error) in found {
            let theirs = reference[dtype.name()][name].as_f64().unwrap();
            println!(
                "{what}, {dtype}: {name} {:.4} of llama.cpp's",
                error / theirs
            );
            if error > theirs {
                worse.push(format!("{what}, {dtype}: {name} {error}, not {theirs}"));
            }
        }
    }
    worse
}

#[test]
fn random_rows_lose_no_more_than_in_llama_cpp() {
    let table = table();
    let mut worse = Vec::new();
    for (name, reference) in table["random"].as_object().unwrap() {
        worse.extend(compare(name, &random_rows(name), reference));
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

#[test]
fn tensors_of_real_models_lose_no_more_than_in_llama_cpp() {
    let table = table();
    let mut worse = Vec::new();
    for (file, tensors) in table["models"].as_object().unwrap() {
        let Some(path) = cached(file) else {
            println!("skipped: {file} is not in the cache of models");
            continue;
        };
        let gguf = Gguf::open(&path).unwrap();
        for (name, reference) in tensors.as_object().unwrap() {
            let info = gguf.tensor(name).unwrap();
            let mut values = vec![0.0; info.rows() * info.cols()];
            decode(info.dtype, gguf.data(info), &mut values).unwrap();
            let blocks = Vec::from_iter(values.chunks_exact(BLOCK));
            let chosen = (0..TENSOR_BLOCKS).map(|i| blocks[i * blocks.len() / TENSOR_BLOCKS]);
            let values = Vec::from_iter(chosen.flatten().copied());
            worse.extend(compare(&format!("{file} {name}"), &values, reference));
        }
    }
    assert!(worse.is_empty(), "{worse:#?}");
}

/// A file of the cache of models.
fn cached(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("DUNLIN_HOME").map(PathBuf::from);
    let user = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/dunlin"));
    let models = fs::read_dir(home.or_else(user)?.join("models")).ok()?;
    let files = models.flatten().map(|folder| folder.path().join(name));
    files.into_iter().find(|path| path.is_file())
}
