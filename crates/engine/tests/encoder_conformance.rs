//! Embeddings and reranking scores against Hugging Face transformers on tiny random models, on every tier.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{integers, json, shared};
use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Engine, EngineConfig, EngineError, Input, Pooling};
use dunlin_format::Gguf;
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const ENCODERS: [&str; 6] = [
    "bert",
    "nomic_bert",
    "modernbert",
    "gemma_embedding",
    "gemma_embedding_dense",
    "qwen3_embedding",
];

const RERANKERS: [&str; 2] = ["bert_reranker", "xlmr_reranker"];

fn load(shared: &Path, name: &str, tier: Tier) -> (Engine, Vec<Value>) {
    let folder = shared.join("conformance").join(name);
    let gguf = Gguf::open(&folder.join("model.gguf")).unwrap();
    let config = EngineConfig {
        threads: 2,
        tier,
        context_length: 512,
        kv_types: KvElement::F32.into(),
        yarn_factor: None,
    };
    let engine = Engine::load(
        Arc::new(gguf),
        config,
        &mut |_, _| ControlFlow::Continue(()),
    );
    let golden = json(&folder.join("golden.json"));
    (
        engine.unwrap(),
        golden["sequences"].as_array().unwrap().clone(),
    )
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum();
    let squares: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
    dot / squares.sqrt() / b.iter().map(|b| b * b).sum::<f64>().sqrt()
}

fn embed(engine: &mut Engine, ids: &[u32], pooling: Pooling) -> Result<Vec<f32>, EngineError> {
    Ok(engine.embed(&[Input::new(ids)], pooling)?.remove(0))
}

fn rank(engine: &mut Engine, ids: &[u32], token_types: &[u32]) -> Vec<f32> {
    let input = Input {
        tokens: ids,
        token_types,
    };
    engine.rank(&[input]).unwrap().remove(0)
}

#[test]
fn embeddings_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    for name in ENCODERS {
        for tier in Tier::available() {
            let (mut engine, sequences) = load(&shared, name, tier);
            let pooling = engine.spec().embedding_pooling().unwrap();
            for sequence in &sequences {
                let ids = integers(&sequence["ids"]);
                let golden = sequence["embedding"].as_array().unwrap().iter();
                let golden: Vec<f64> = golden.map(|x| x.as_f64().unwrap()).collect();
                let found = embed(&mut engine, &ids, pooling).unwrap();
                let cosine = cosine(&found, &golden);
                println!(
                    "{name} on {}, {} tokens: {:.1e}",
                    tier.name(),
                    ids.len(),
                    1.0 - cosine
                );
                assert!(cosine > 0.99999, "{name}, {} tokens: {cosine}", ids.len());
            }
        }
    }
}

#[test]
fn scores_are_those_of_transformers() {
    let Some(shared) = shared() else { return };
    for name in RERANKERS {
        for tier in Tier::available() {
            let (mut engine, sequences) = load(&shared, name, tier);
            for sequence in &sequences {
                let ids = integers(&sequence["ids"]);
                let golden = sequence["score"].as_f64().unwrap();
                let found = rank(&mut engine, &ids, &[]);
                assert_eq!(found.len(), 1);
                println!("{name}: {} {golden}", found[0]);
                assert!((f64::from(found[0]) - golden).abs() < 1e-3, "{name}");
                if !sequence["token_type_ids_pair"].is_null() {
                    let types = integers(&sequence["token_type_ids_pair"]);
                    let golden = sequence["score_token_type_pair"].as_f64().unwrap();
                    let found = rank(&mut engine, &ids, &types);
                    assert!((f64::from(found[0]) - golden).abs() < 1e-3, "{name}, types");
                }
            }
        }
    }
}

#[test]
fn what_a_model_cannot_do_is_an_error() {
    let Some(shared) = shared() else { return };
    let (mut bert, _) = load(&shared, "bert", Tier::detect());
    assert!(bert.rank(&[Input::new(&[1, 2])]).is_err(), "no classifier");
    let mut fails = |tokens: &[u32], token_types: &[u32], pooling| {
        let input = Input {
            tokens,
            token_types,
        };
        bert.embed(&[Input::new(&[1]), input], pooling).is_err()
    };
    assert!(fails(&[], &[], Pooling::Mean), "no tokens");
    assert!(
        fails(&[1; 513], &[], Pooling::Mean),
        "longer than the context"
    );
    assert!(fails(&[1, 2], &[0], Pooling::Mean), "a type for each token");
    assert!(fails(&[1, 2], &[0, 2], Pooling::Mean), "two types");
    assert!(
        fails(&[1, 2], &[0, 1], Pooling::Rank),
        "scores are no embedding"
    );
    assert!(fails(&[u32::MAX], &[], Pooling::Mean), "no such token");
    let sequence = bert.create_sequence();
    let chunk = dunlin_engine::Chunk {
        sequence,
        tokens: &[1],
        logits: dunlin_engine::Logits::Last,
    };
    assert!(bert.step(&[chunk], |_| {}).is_err(), "gives no logits");
    assert_eq!(
        embed(&mut bert, &[1, 2, 3], Pooling::Cls).unwrap().len(),
        64
    );
}

#[test]
fn an_embedding_does_not_depend_on_the_texts_before_it() {
    let Some(shared) = shared() else { return };
    let (mut engine, sequences) = load(&shared, "modernbert", Tier::detect());
    let ids: Vec<_> = sequences.iter().map(|s| integers(&s["ids"])).collect();
    let first = embed(&mut engine, &ids[0], Pooling::Mean).unwrap();
    let long: Vec<u32> = ids.iter().flatten().copied().cycle().take(400).collect();
    embed(&mut engine, &long, Pooling::Mean).unwrap();
    assert_eq!(embed(&mut engine, &ids[0], Pooling::Mean).unwrap(), first);
}

#[test]
fn texts_together_are_embedded_and_scored_as_each_alone() {
    let Some(shared) = shared() else { return };
    for name in ["bert", "modernbert", "gemma_embedding", "qwen3_embedding"] {
        let (mut engine, sequences) = load(&shared, name, Tier::detect());
        let pooling = engine.spec().embedding_pooling().unwrap();
        let golden: Vec<_> = sequences.iter().map(|s| integers(&s["ids"])).collect();
        // Many short texts, and long ones between them.
        let texts = (0..100).map(|i| match i % 40 {
            39 => golden[2].iter().copied().cycle().take(300).collect(),
            _ => golden[i % golden.len()][..1 + i % 5].to_vec(),
        });
        let texts: Vec<Vec<u32>> = texts.collect();
        let inputs: Vec<_> = texts.iter().map(|text| Input::new(text)).collect();
        let together = engine.embed(&inputs, pooling).unwrap();
        assert_eq!(together.len(), texts.len());
        for (text, together) in texts.iter().zip(&together) {
            let alone = embed(&mut engine, text, pooling).unwrap();
            let alone: Vec<f64> = alone.iter().map(|x| f64::from(*x)).collect();
            assert!(
                cosine(together, &alone) > 1.0 - 1e-9,
                "{name}, {} tokens",
                text.len()
            );
        }
    }
    let (mut engine, sequences) = load(&shared, "bert_reranker", Tier::detect());
    let ids: Vec<_> = sequences.iter().map(|s| integers(&s["ids"])).collect();
    let types: Vec<_> = sequences
        .iter()
        .map(|s| integers(&s["token_type_ids_pair"]))
        .collect();
    let inputs = ids
        .iter()
        .zip(&types)
        .enumerate()
        .map(|(i, (tokens, types))| Input {
            tokens,
            token_types: if i == 1 { &[] } else { types },
        });
    let inputs: Vec<_> = inputs.collect();
    for (input, together) in inputs.iter().zip(engine.rank(&inputs).unwrap()) {
        let alone = rank(&mut engine, input.tokens, input.token_types);
        assert!((together[0] - alone[0]).abs() < 1e-5);
    }
}
