//! A tiny BERT with random weights as a Hugging Face folder, made by the test that needs it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::Path;

const HIDDEN: usize = 32;
const FEED_FORWARD: usize = 64;
/// Tokens that a sequence can have.
pub(crate) const POSITIONS: usize = 24;
/// Tokens of the longest text that the embedder was made for.
pub(crate) const LONGEST_TEXT: usize = 20;
const WORDS: [&str; 13] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "sleeps", "runs", "##s", ".",
    "shares",
];
pub(crate) const CLS: u32 = 2;
pub(crate) const SEP: u32 = 3;
pub(crate) const CAT: u32 = 6;
pub(crate) const DOG: u32 = 7;
pub(crate) const SLEEPS: u32 = 8;

/// Writes an embedder with mean pooling.
pub(crate) fn write_embedder(folder: &Path) {
    write(folder, "BertModel", "");
    fs::create_dir_all(folder.join("1_Pooling")).unwrap();
    let modules = r#"[
        {"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"},
        {"idx":1,"name":"1","path":"1_Pooling","type":"sentence_transformers.models.Pooling"}]"#;
    fs::write(folder.join("modules.json"), modules).unwrap();
    let pooling = r#"{"word_embedding_dimension":32,"pooling_mode_mean_tokens":true}"#;
    fs::write(folder.join("1_Pooling/config.json"), pooling).unwrap();
    let settings = serde_json::json!({"max_seq_length": LONGEST_TEXT});
    fs::write(
        folder.join("sentence_bert_config.json"),
        settings.to_string(),
    )
    .unwrap();
}

/// Writes a cross-encoder with one score.
pub(crate) fn write_reranker(folder: &Path) {
    write(folder, "BertForSequenceClassification", "bert.");
}

fn write(folder: &Path, class: &str, prefix: &str) {
    fs::create_dir_all(folder).unwrap();
    let config = serde_json::json!({
        "architectures": [class],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "type_vocab_size": 2,
        "vocab_size": WORDS.len(),
        "id2label": {"0": "LABEL_0"},
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    fs::write(folder.join("vocab.txt"), WORDS.join("\n")).unwrap();
    let tokenizer = serde_json::json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": true,
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    });
    fs::write(folder.join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
    let mut tensors = tensors(prefix);
    if !prefix.is_empty() {
        tensors.push(("bert.pooler.dense.weight".to_owned(), vec![HIDDEN, HIDDEN]));
        tensors.push(("bert.pooler.dense.bias".to_owned(), vec![HIDDEN]));
        tensors.push(("classifier.weight".to_owned(), vec![1, HIDDEN]));
        tensors.push(("classifier.bias".to_owned(), vec![1]));
    }
    fs::write(folder.join("model.safetensors"), safetensors(&tensors)).unwrap();
}

fn tensors(prefix: &str) -> Vec<(String, Vec<usize>)> {
    let (h, f) = (HIDDEN, FEED_FORWARD);
    let mut tensors = vec![
        ("embeddings.word_embeddings.weight", vec![WORDS.len(), h]),
        ("embeddings.position_embeddings.weight", vec![POSITIONS, h]),
        ("embeddings.token_type_embeddings.weight", vec![2, h]),
    ];
    for (name, rows, columns) in [
        ("encoder.layer.0.attention.self.query", h, h),
        ("encoder.layer.0.attention.self.key", h, h),
        ("encoder.layer.0.attention.self.value", h, h),
        ("encoder.layer.0.attention.output.dense", h, h),
        ("encoder.layer.0.intermediate.dense", f, h),
        ("encoder.layer.0.output.dense", h, f),
    ] {
        tensors.push((name, vec![rows, columns]));
    }
    let mut all: Vec<(String, Vec<usize>)> = Vec::new();
    for (name, shape) in tensors {
        match name.strip_prefix("encoder") {
            None => all.push((format!("{prefix}{name}"), shape)),
            Some(_) => {
                all.push((format!("{prefix}{name}.bias"), vec![shape[0]]));
                all.push((format!("{prefix}{name}.weight"), shape));
            }
        }
    }
    for norm in [
        "embeddings.LayerNorm",
        "encoder.layer.0.attention.output.LayerNorm",
        "encoder.layer.0.output.LayerNorm",
    ] {
        all.push((format!("{prefix}{norm}.weight"), vec![h]));
        all.push((format!("{prefix}{norm}.bias"), vec![h]));
    }
    all
}

/// The format's own layout: the length of a JSON header, the header, the bytes. The numbers look random and are the same
/// each time (Knuth's generator).
fn safetensors(tensors: &[(String, Vec<usize>)]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut bytes = Vec::new();
    let mut random = 7_u64;
    for (name, shape) in tensors {
        let start = bytes.len();
        for _ in 0..shape.iter().product::<usize>() {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            let number = (random >> 40) as f32 / (1 << 24) as f32 - 0.5;
            bytes.extend(number.to_le_bytes());
        }
        let entry = serde_json::json!({
            "dtype": "F32", "shape": shape, "data_offsets": [start, bytes.len()],
        });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(bytes);
    file
}
