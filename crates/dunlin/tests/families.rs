//! Every family against Hugging Face transformers on tiny random models, three ways: the GGUF file of llama.cpp's
//! converter, the Hugging Face folder through the importer, and the importer's GGUF file loaded again.
//!
//! A family is a row.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::path::{Path, PathBuf};

use common::conformance;
use dunlin::{
    ConvertOptions, EmbedOptions, Embedder, HubConfig, KvElement, Lm, LoadOptions, ModelRef,
    OutputType, RerankOptions, Reranker,
};
use serde_json::Value;

enum Kind {
    Decoder,
    Encoder,
    Reranker,
}
use Kind::{Decoder, Encoder, Reranker as Scorer};

const FAMILIES: [(&str, Kind); 24] = [
    ("llama", Decoder),
    ("smollm2", Decoder),
    ("mistral", Decoder),
    ("mistral_swa", Decoder),
    ("qwen2", Decoder),
    ("qwen3", Decoder),
    ("qwen3_5", Decoder),
    ("gemma2", Decoder),
    ("gemma3", Decoder),
    ("gemma3_linear", Decoder),
    ("gemma4", Decoder),
    ("phi4_mini", Decoder),
    ("smollm3", Decoder),
    ("granite", Decoder),
    ("olmo2", Decoder),
    ("lfm2", Decoder),
    ("bert", Encoder),
    ("nomic_bert", Encoder),
    ("modernbert", Encoder),
    ("gemma_embedding", Encoder),
    ("gemma_embedding_dense", Encoder),
    ("qwen3_embedding", Encoder),
    ("bert_reranker", Scorer),
    ("xlmr_reranker", Scorer),
];

/// What a model answers to all that its golden file asks, in order.
type Answers = Vec<Vec<f32>>;

#[test]
fn each_family_computes_what_transformers_computes_from_every_kind_of_file() {
    let Some(folder) = conformance() else { return };
    let cache = tempfile::tempdir().unwrap();
    for (name, kind) in FAMILIES {
        let folder = folder.join(name);
        let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
        let golden: Value = serde_json::from_str(&text).unwrap();
        let check = match kind {
            Decoder => decoder,
            Encoder => encoder,
            Scorer => reranker,
        };
        let converted = cache.path().join(format!("{name}.gguf"));
        let settings = ConvertOptions {
            dtype: OutputType::F32,
            ..ConvertOptions::default()
        };
        let model = ModelRef::Path(folder.clone());
        dunlin::convert(&model, &settings, &converted, &mut options(cache.path())).unwrap();

        let ways = [
            folder.join("model.gguf"),
            import_alone(&folder, cache.path(), name),
            converted,
        ];
        let answers = ways.map(|path| check(&path, cache.path(), &golden, name));
        assert_eq!(
            answers[1], answers[2],
            "{name}: the import and its file loaded again"
        );
    }
}

/// The folder without the GGUF file that lies in it.
fn import_alone(folder: &Path, temporary: &Path, name: &str) -> PathBuf {
    let alone = temporary.join(format!("{name}-folder"));
    copy(folder, &alone);
    std::fs::remove_file(alone.join("model.gguf")).unwrap();
    alone
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => {
                // The data may be read-only; the copy must go away with its folder.
                std::fs::write(target, std::fs::read(entry.path()).unwrap()).unwrap();
            }
        }
    }
}

fn options<'a>(cache: &Path) -> LoadOptions<'a> {
    common::options()
        .with_hub(HubConfig::new(cache.join("cache")))
        .with_kv_element(KvElement::F32)
}

fn ids(value: &Value) -> Vec<u32> {
    let values = value.as_array().unwrap().iter();
    values
        .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
        .collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|x| x.as_f64().unwrap()).collect()
}

/// Logits within 2e-3 of the largest, and sixteen greedy tokens.
fn decoder(path: &Path, cache: &Path, golden: &Value, name: &str) -> Answers {
    let lm = Lm::load(ModelRef::Path(path.to_path_buf()), options(cache)).unwrap();
    let mut answers = Vec::new();
    for prompt in golden["prompts"].as_array().unwrap() {
        let prompt_ids = ids(&prompt["ids"]);
        let positions: Vec<usize> = ids(&prompt["positions"])
            .iter()
            .map(|p| *p as usize)
            .collect();
        let found = lm.logits(&prompt_ids, &positions).unwrap();
        let (mut difference, mut largest) = (0.0f64, 0.0f64);
        for (found, golden) in found.iter().zip(prompt["logits"].as_array().unwrap()) {
            let golden = numbers(golden);
            assert_eq!(found.len(), golden.len());
            for (found, golden) in found.iter().zip(golden) {
                assert!(found.is_finite());
                difference = difference.max((f64::from(*found) - golden).abs());
                largest = largest.max(golden.abs());
            }
        }
        println!("{name} {}: {:.1e}", path.display(), difference / largest);
        assert!(
            difference < 2e-3 * largest,
            "{name}, {}: {difference}",
            path.display()
        );

        let mut text = prompt_ids;
        for wanted in ids(&prompt["greedy"]) {
            let last = lm.logits(&text, &[text.len() - 1]).unwrap().remove(0);
            assert_eq!(argmax(&last), wanted, "{name}, {}", path.display());
            text.push(wanted);
        }
        answers.extend(found);
    }
    answers
}

fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    u32::try_from(best.unwrap()).unwrap()
}

/// Cosine above 0.99999.
fn encoder(path: &Path, cache: &Path, golden: &Value, name: &str) -> Answers {
    let embedder = Embedder::load(
        ModelRef::Path(path.to_path_buf()),
        options(cache),
        EmbedOptions::default(),
    )
    .unwrap();
    let sequences = golden["sequences"].as_array().unwrap().iter();
    let answers = sequences.map(|sequence| {
        let found = embedder.embed_ids(&ids(&sequence["ids"])).unwrap();
        let golden = numbers(&sequence["embedding"]);
        assert_eq!(found.len(), golden.len());
        let dot: f64 = found
            .iter()
            .zip(&golden)
            .map(|(a, b)| f64::from(*a) * b)
            .sum();
        let square: f64 = found.iter().map(|a| f64::from(*a).powi(2)).sum();
        let cosine = dot / (square * golden.iter().map(|b| b * b).sum::<f64>()).sqrt();
        assert!(cosine > 0.99999, "{name}, {}: {cosine}", path.display());
        found
    });
    answers.collect()
}

/// Scores within 1e-3.
fn reranker(path: &Path, cache: &Path, golden: &Value, name: &str) -> Answers {
    let reranker = Reranker::load(
        ModelRef::Path(path.to_path_buf()),
        options(cache),
        RerankOptions::default(),
    )
    .unwrap();
    let sequences = golden["sequences"].as_array().unwrap().iter();
    let answers = sequences.map(|sequence| {
        let tokens = ids(&sequence["ids"]);
        let score = |types: &[u32], golden: &Value| {
            let found = reranker.rank_ids(&tokens, types).unwrap();
            let difference = (f64::from(found) - golden.as_f64().unwrap()).abs();
            assert!(
                difference < 1e-3,
                "{name}, {}: {difference}",
                path.display()
            );
            found
        };
        let mut found = vec![score(&[], &sequence["score"])];
        if !sequence["token_type_ids_pair"].is_null() {
            let types = ids(&sequence["token_type_ids_pair"]);
            found.push(score(&types, &sequence["score_token_type_pair"]));
        }
        found
    });
    answers.collect()
}
