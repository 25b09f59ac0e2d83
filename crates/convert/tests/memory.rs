//! How much memory a conversion takes: alone in its process, so that the peak is its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{fs, io::Write};

use common::Work;
use dunlin_convert::OutputType;
use serde_json::{Map, json};

const HIDDEN: u64 = 4096;
const FEED_FORWARD: u64 = 8192;

/// 400 MB of weights in matrices of 67 MB at most.
#[test]
fn memory_stays_far_below_the_weights() {
    let work = Work::tiny_llama();
    let mut weights = 0;
    let mut header = Map::new();
    let mut add = |name: &str, shape: &[u64]| {
        let start = weights;
        weights += 2 * shape.iter().product::<u64>();
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, weights]});
        header.insert(format!("model.{name}.weight"), entry);
    };
    add("embed_tokens", &[264, HIDDEN]);
    add("norm", &[HIDDEN]);
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[u64]| add(&format!("layers.{layer}.{name}"), shape);
        add("input_layernorm", &[HIDDEN]);
        add("post_attention_layernorm", &[HIDDEN]);
        add("self_attn.q_proj", &[32, HIDDEN]);
        add("self_attn.k_proj", &[16, HIDDEN]);
        add("self_attn.v_proj", &[16, HIDDEN]);
        add("self_attn.o_proj", &[HIDDEN, 32]);
        add("mlp.gate_proj", &[FEED_FORWARD, HIDDEN]);
        add("mlp.up_proj", &[FEED_FORWARD, HIDDEN]);
        add("mlp.down_proj", &[HIDDEN, FEED_FORWARD]);
    }
    assert!(weights > 400_000_000);
    for shard in ["model-00001-of-00002", "model-00002-of-00002"] {
        fs::remove_file(work.file(&format!("{shard}.safetensors"))).unwrap();
    }
    fs::remove_file(work.file("model.safetensors.index.json")).unwrap();
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = fs::File::create(work.file("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(&header).unwrap();
    // Zeros that take no room on the disk.
    file.set_len(8 + header.len() as u64 + weights).unwrap();
    work.edit(
        "config.json",
        json!({
            "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD, "head_dim": 8,
            "tie_word_embeddings": true,
        }),
    );

    let folder = dunlin_convert::Folder::open(work.path()).unwrap();
    let out = work.file("model.gguf");
    let options = dunlin_convert::ConvertOptions {
        dtype: OutputType::Q8_0,
        name: None,
    };
    let before = peak_bytes();
    let report = dunlin_convert::convert(&folder, &options, &out, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    let grown = peak_bytes() - before;
    assert!(report.bytes > 200_000_000);
    // Promised are 1.5 times the largest tensor and 200 MB: 300 MB here. A part of that is needed.
    assert!(grown < 64 << 20, "{grown} bytes");
}

/// The most memory that this process ever held.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
