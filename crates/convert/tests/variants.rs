//! Shapes that folders of one family come in: parts of larger models, old endings of names, heads
//! that score.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::fs;

use common::{Tensor, Work, ramp};
use dunlin_convert::OutputType;
use dunlin_format::{DType, Gguf, Value};
use serde_json::json;

#[test]
fn the_text_model_of_a_model_that_sees_is_taken_out() {
    let wrap = |tensors: &mut Vec<Tensor>| {
        for tensor in tensors.iter_mut() {
            tensor.0.insert_str(0, "language_model.");
        }
        tensors.push(ramp("vision_tower.patch_conv.weight", &[4, 4]));
        tensors.push(ramp("multi_modal_projector.linear_1.weight", &[4, 4]));
    };
    let work = Work::with_weights(wrap);
    let mut text: serde_json::Value =
        serde_json::from_slice(&fs::read(work.file("config.json")).unwrap()).unwrap();
    text["model_type"] = json!("ministral3");
    text["rope_scaling"] = json!({
        "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.125,
    });
    let whole = json!({
        "architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
        "text_config": text, "vision_config": {"hidden_size": 4},
    });
    fs::write(work.file("config.json"), whole.to_string()).unwrap();

    let (gguf, report) = work.convert(OutputType::F32).unwrap();
    assert_eq!(gguf.architecture(), Some("mistral3"));
    assert_eq!(
        report.notes,
        ["2 tensors of the parts for images and sound were left out: this is the text model"]
    );
    assert_eq!(gguf.tensors().len(), 21);
    for (key, expected) in [
        ("rope.scaling.type", Value::from("yarn")),
        ("rope.scaling.factor", Value::from(16.0f32)),
        ("rope.scaling.original_context_length", Value::from(64u32)),
        ("rope.scaling.yarn_beta_fast", Value::from(32.0f32)),
        ("rope.scaling.yarn_beta_slow", Value::from(1.0f32)),
        ("rope.scaling.yarn_log_multiplier", Value::from(1.0f32)),
        ("attention.temperature_scale", Value::from(0.125f32)),
    ] {
        assert_eq!(
            gguf.metadata().get(&format!("mistral3.{key}")),
            Some(&expected),
            "{key}"
        );
    }
}

#[test]
fn an_absent_window_is_mistrals_own_and_null_is_none() {
    let window = |work: &Work| {
        let (gguf, _) = work.convert(OutputType::F32).unwrap();
        gguf.metadata()
            .u32("llama.attention.sliding_window")
            .unwrap()
    };
    let work = Work::tiny_llama();
    let scaling = json!({"rope_type": "default"});
    work.edit(
        "config.json",
        json!({"architectures": ["MistralForCausalLM"], "rope_scaling": scaling}),
    );
    assert_eq!(window(&work), Some(4096));
    let config = fs::read_to_string(work.file("config.json")).unwrap();
    let config = config.replacen('{', "{\"sliding_window\": null, ", 1);
    fs::write(work.file("config.json"), config).unwrap();
    assert_eq!(window(&work), None);
}

#[test]
fn a_qwen3_reranker_gets_a_head_of_its_answers() {
    let work = qwen3("Qwen3ForCausalLM", true, &[]);
    fs::write(work.file("README.md"), "# Qwen3-Reranker-0.1B\n").unwrap();
    // The tokenizer's last two tokens.
    let tokenizer = fs::read_to_string(work.file("tokenizer.json")).unwrap();
    let tokenizer = tokenizer
        .replace("<|end_of_text|>", "yes")
        .replace("<|eot_id|>", "no");
    fs::write(work.file("tokenizer.json"), tokenizer).unwrap();
    work.edit("tokenizer_config.json", json!({"eos_token": "yes"}));

    let (gguf, _) = work.convert(OutputType::F32).unwrap();
    let metadata = gguf.metadata();
    assert_eq!(metadata.u32("qwen3.pooling_type").unwrap(), Some(4));
    let labels = metadata
        .strings("qwen3.classifier.output_labels")
        .unwrap()
        .unwrap();
    assert!(labels.iter().eq(["yes", "no"]));
    let template = metadata
        .str("tokenizer.chat_template.rerank")
        .unwrap()
        .unwrap();
    assert!(template.contains("<Query>: {query}\n<Document>: {document}"));
    let head = gguf.tensor("cls.output.weight").unwrap();
    assert_eq!(
        (head.shape.as_slice(), head.dtype),
        (&[32, 2][..], DType::F32)
    );
    let rows = floats(&gguf, "cls.output.weight");
    assert_eq!((rows[0], rows[32]), (262.0 * 32.0, 263.0 * 32.0));
    assert!(gguf.tensor("token_embd.weight").is_some());
}

#[test]
fn a_qwen3_score_head_is_a_classifier() {
    let work = qwen3(
        "Qwen3ForSequenceClassification",
        true,
        &[ramp("score.weight", &[1, 32])],
    );
    work.edit("config.json", json!({"id2label": {"0": "LABEL_0"}}));
    let (gguf, _) = work.convert(OutputType::F16).unwrap();
    assert_eq!(gguf.metadata().u32("qwen3.pooling_type").unwrap(), Some(4));
    let head = gguf.tensor("cls.output.weight").unwrap();
    assert_eq!(
        (head.shape.as_slice(), head.dtype),
        (&[32, 1][..], DType::F16)
    );
}

#[test]
fn old_names_of_norms_are_understood() {
    let rename = |tensors: &mut Vec<Tensor>| {
        let norm = tensors
            .iter_mut()
            .find(|tensor| tensor.0 == "model.norm.weight")
            .unwrap();
        norm.0 = "model.norm.gamma".to_owned();
    };
    let (gguf, _) = Work::with_weights(rename).convert(OutputType::F32).unwrap();
    assert!(gguf.tensor("output_norm.weight").is_some());
}

#[test]
fn modules_that_change_the_embedding_and_are_not_computed_are_refused() {
    let work = qwen3("Qwen3Model", false, &[]);
    fs::write(
        work.file("modules.json"),
        r#"[{"type": "a.b.LayerNorm", "path": "1_LayerNorm"}]"#,
    )
    .unwrap();
    let text = work.refusal().to_string();
    assert!(
        text.contains("the sentence-transformers module `LayerNorm`"),
        "{text}"
    );
    fs::write(
        work.file("modules.json"),
        r#"[{"type": "a.Pooling", "path": "../1_Pooling"}]"#,
    )
    .unwrap();
    let text = work.refusal().to_string();
    assert!(text.contains("outside the folder"), "{text}");
}

#[test]
fn the_longest_text_of_an_embedder_is_kept_beside_the_context() {
    let work = qwen3("Qwen3Model", false, &[]);
    let modules = r#"[{"type": "a.Transformer", "path": ""}]"#;
    fs::write(work.file("modules.json"), modules).unwrap();
    let settings = work.file("sentence_bert_config.json");
    fs::write(&settings, r#"{"max_seq_length": 24}"#).unwrap();
    let (gguf, _) = work.convert(OutputType::F32).unwrap();
    let number = |key| gguf.metadata().u32(key).unwrap();
    assert_eq!(number("qwen3.max_seq_length"), Some(24));
    assert_ne!(number("qwen3.context_length"), Some(24));

    fs::write(&settings, r#"{"max_seq_length": null}"#).unwrap();
    let (gguf, _) = work.convert(OutputType::F32).unwrap();
    assert_eq!(gguf.metadata().u32("qwen3.max_seq_length").unwrap(), None);
    for bad in ["0", "-1", "1e9", "\"long\""] {
        fs::write(&settings, format!(r#"{{"max_seq_length": {bad}}}"#)).unwrap();
        let text = work.refusal().to_string();
        assert!(text.contains("max_seq_length"), "{text}");
    }
}

/// The tiny Llama's tokenizer with a Qwen 3 of one layer.
fn qwen3(architecture: &str, prefix: bool, extra: &[Tensor]) -> Work {
    let work = Work::with_weights(|tensors| {
        tensors.clear();
        for (name, shape) in [
            ("embed_tokens.weight", &[264, 32][..]),
            ("norm.weight", &[32]),
            ("layers.0.input_layernorm.weight", &[32]),
            ("layers.0.post_attention_layernorm.weight", &[32]),
            ("layers.0.self_attn.q_proj.weight", &[64, 32]),
            ("layers.0.self_attn.k_proj.weight", &[32, 32]),
            ("layers.0.self_attn.v_proj.weight", &[32, 32]),
            ("layers.0.self_attn.o_proj.weight", &[32, 64]),
            ("layers.0.self_attn.q_norm.weight", &[16]),
            ("layers.0.self_attn.k_norm.weight", &[16]),
            ("layers.0.mlp.gate_proj.weight", &[48, 32]),
            ("layers.0.mlp.up_proj.weight", &[48, 32]),
            ("layers.0.mlp.down_proj.weight", &[32, 48]),
        ] {
            let prefix = if prefix { "model." } else { "" };
            tensors.push(ramp(&format!("{prefix}{name}"), shape));
        }
        tensors.extend_from_slice(extra);
    });
    work.edit(
        "config.json",
        json!({
            "architectures": [architecture], "model_type": "qwen3", "num_hidden_layers": 1,
            "head_dim": 16, "rope_scaling": {"rope_type": "default"}, "tie_word_embeddings": true,
        }),
    );
    work
}

fn floats(gguf: &Gguf, name: &str) -> Vec<f32> {
    let bytes = gguf.data(gguf.tensor(name).unwrap());
    let (numbers, _) = bytes.as_chunks::<4>();
    numbers
        .iter()
        .map(|&number| f32::from_le_bytes(number))
        .collect()
}
