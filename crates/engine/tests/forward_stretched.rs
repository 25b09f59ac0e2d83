//! Contexts stretched by YaRN against llama.cpp, on tiny models whose metadata are changed in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Golden, argmax, integers, relative_difference, shared};
use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Chunk, Engine, EngineConfig, Logits, ModelSpec};
use dunlin_format::{Gguf, GgufWriter, Metadata, Value};
use serde_json::Value as Json;
use std::ops::ControlFlow;
use std::path::Path;
use std::slice::from_ref;
use std::sync::Arc;

/// The model with another architecture and more keys.
fn rewrite(gguf: &Gguf, architecture: &str, keys: &Json) -> Gguf {
    let old = gguf.architecture().unwrap().to_owned();
    let mut metadata = Metadata::new();
    for (key, value) in gguf.metadata().iter() {
        match key.strip_prefix(&old) {
            Some(suffix) => metadata.insert(format!("{architecture}{suffix}"), value.clone()),
            None => metadata.insert(key, value.clone()),
        };
    }
    metadata.insert("general.architecture", architecture);
    for (suffix, value) in keys.as_object().unwrap() {
        let value = match value {
            Json::String(text) => Value::String(text.clone()),
            number if number.is_u64() => {
                Value::U32(u32::try_from(number.as_u64().unwrap()).unwrap())
            }
            number => Value::F32(number.as_f64().unwrap() as f32),
        };
        metadata.insert(format!("{architecture}.{suffix}"), value);
    }
    let mut writer = GgufWriter::new(metadata);
    for tensor in gguf.tensors() {
        let bytes = gguf.data(tensor).to_vec();
        writer.add_tensor(&tensor.name, &tensor.shape, tensor.dtype, bytes);
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    Gguf::from_bytes(bytes).unwrap()
}

#[test]
fn yarn_and_growing_queries_are_those_of_llama_cpp() {
    let Some(shared) = shared() else { return };
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stretched_contexts.json");
    for case in common::json(&fixture).as_array().unwrap() {
        let source = case["source"].as_str().unwrap().to_owned();
        let gguf = Golden::read(&shared, source.leak()).gguf;
        let architecture = case["architecture"].as_str().unwrap();
        let gguf = rewrite(&gguf, architecture, &case["keys"]);
        let config = EngineConfig {
            threads: 2,
            tier: Tier::detect(),
            context_length: 512,
            kv_types: KvElement::F32.into(),
            yarn_factor: None,
        };
        let mut engine = Engine::load(
            Arc::new(gguf),
            config,
            &mut |_, _| ControlFlow::Continue(()),
        )
        .unwrap();
        let sequence = engine.create_sequence();
        let mut last = Vec::new();
        let mut next = integers(&case["ids"]);
        let mut found = Vec::new();
        let golden = case["logits"].as_array().unwrap().iter();
        let golden: Vec<f32> = golden.map(|x| x.as_f64().unwrap() as f32).collect();
        for step in 0..16 {
            let chunk = Chunk {
                sequence,
                tokens: &next,
                logits: Logits::Last,
            };
            engine
                .step(&[chunk], |scores| last = scores.logits.to_vec())
                .unwrap();
            if step == 0 {
                let difference = relative_difference(from_ref(&last), from_ref(&golden));
                println!("{architecture}: {difference:.1e}");
                assert!(difference < 1e-4, "{architecture}: {difference}");
            }
            next = vec![argmax(&last)];
            found.push(next[0]);
        }
        assert_eq!(found, integers(&case["greedy"]), "{architecture}");
    }
}

#[test]
fn stretching_by_option_is_stretching_by_metadata() {
    let Some(shared) = shared() else { return };
    let gguf = Golden::read(&shared, "qwen3").gguf;
    let keys = serde_json::json!({
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 1024,
        "context_length": 4096,
    });
    let written = rewrite(&gguf, "qwen3", &keys);
    let plain = ModelSpec::from_gguf(&gguf).unwrap();
    assert_eq!(
        plain.clone().stretched(4.0).unwrap(),
        ModelSpec::from_gguf(&written).unwrap()
    );
    for factor in [0.5, 65.0, f32::NAN, f32::INFINITY] {
        assert!(plain.clone().stretched(factor).is_err(), "{factor}");
    }
    let twice = plain.stretched(2.0).unwrap().stretched(2.0);
    assert!(twice.is_err(), "stretched already");
    let bert = ModelSpec::from_gguf(&Golden::gguf(&shared, "bert")).unwrap();
    assert!(bert.stretched(2.0).is_err(), "positions have embeddings");
}
