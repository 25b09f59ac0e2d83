//! What cannot be converted is named, with what to do; nothing is left behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{fs, ops::ControlFlow};

use common::{Tensor, Work, ramp};
use dunlin_convert::{ConvertError, ConvertOptions, Folder, OutputType, convert};
use dunlin_format::FormatError;
use serde_json::{Value, json};

#[test]
fn an_unknown_architecture_is_named_with_all_that_are_known() {
    let work = Work::tiny_llama();
    work.edit(
        "config.json",
        json!({"architectures": ["MambaForCausalLM"]}),
    );
    let error = work.refusal();
    assert!(matches!(error, ConvertError::UnknownArchitecture { .. }));
    let text = error.to_string();
    assert!(text.contains("`MambaForCausalLM`"), "{text}");
    for known in [
        "LlamaForCausalLM",
        "Gemma3ForConditionalGeneration",
        "BertModel",
    ] {
        assert!(text.contains(known), "{text}");
    }
}

#[test]
fn a_missing_tensor_is_named_as_the_folder_would_name_it() {
    let work = without("model.layers.1.mlp.up_proj.weight");
    let text = work.refusal().to_string();
    let start = "the tensor `model.layers.1.mlp.up_proj.weight` is missing; llama models need it \
                 (as `blk.1.ffn_up.weight`)";
    assert!(text.starts_with(start), "{text}");
    assert!(text.contains("Supported are: LlamaForCausalLM"), "{text}");
}

#[test]
fn a_missing_head_is_refused_only_where_it_is_not_the_embedding() {
    let work = without("lm_head.weight");
    let error = work.refusal();
    assert!(matches!(&error, ConvertError::MissingTensor { gguf, .. } if gguf == "output.weight"));
    work.edit("config.json", json!({"tie_word_embeddings": true}));
    let (gguf, _) = work.convert(OutputType::F32).unwrap();
    assert!(gguf.tensor("output.weight").is_none());
}

#[test]
fn a_tensor_without_a_place_is_named() {
    let extra = |tensors: &mut Vec<Tensor>| {
        tensors.push(ramp("model.layers.0.mlp.router.weight", &[4, 32]))
    };
    let error = Work::with_weights(extra).refusal();
    assert_eq!(
        error.to_string(),
        "the tensor `model.layers.0.mlp.router.weight` has no place in llama models. The model has \
         parts that are not supported, or config.json names the wrong architecture"
    );
}

#[test]
fn a_layer_beyond_the_last_is_named() {
    let work = Work::tiny_llama();
    work.edit("config.json", json!({"num_hidden_layers": 1}));
    let error = work.refusal();
    assert!(
        matches!(&error, ConvertError::UnknownTensor { tensor, .. } if tensor.contains("layers.1."))
    );
}

#[test]
fn a_wrong_shape_says_both() {
    let work = Work::tiny_llama();
    work.edit("config.json", json!({"intermediate_size": 64}));
    let error = work.refusal();
    assert!(
        matches!(&error, ConvertError::WrongShape { found, expected, .. }
            if found == &[32, 48] && expected == &[32, 64]),
        "{error}"
    );
}

#[test]
fn buffers_of_whole_numbers_are_passed_over_but_not_weights() {
    let buffer = |name: &str| (name.to_owned(), "I64", vec![1, 4], vec![0; 32]);
    let with = |name: &'static str| Work::with_weights(move |tensors| tensors.push(buffer(name)));
    with("model.embeddings.position_ids")
        .convert(OutputType::F32)
        .unwrap();

    let eight_bits = |tensors: &mut Vec<Tensor>| {
        let weight = tensors
            .iter_mut()
            .find(|tensor| tensor.0.contains("0.mlp.gate_proj"))
            .unwrap();
        weight.1 = "F8_E4M3";
        weight.3.truncate(weight.3.len() / 2);
    };
    let text = Work::with_weights(eight_bits).refusal().to_string();
    assert!(text.contains("numbers of the type F8_E4M3"), "{text}");
}

#[test]
fn a_missing_shard_is_named() {
    let work = Work::tiny_llama();
    fs::remove_file(work.file("model-00002-of-00002.safetensors")).unwrap();
    let error = work.refusal();
    assert!(
        matches!(&error, ConvertError::MissingShard { path } if path.ends_with("model-00002-of-00002.safetensors"))
    );
}

#[test]
fn a_tensor_that_is_not_in_its_shard_is_named() {
    let work = Work::tiny_llama();
    work.edit(
        "model.safetensors.index.json",
        json!({"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}),
    );
    let error = work.refusal();
    assert!(
        matches!(&error, ConvertError::NotInShard { tensor, .. } if tensor == "model.norm.weight")
    );
}

#[test]
fn an_index_cannot_lead_out_of_the_folder() {
    for file in [
        "../model.safetensors",
        "/etc/passwd",
        "a/../../b.safetensors",
        "",
        "a/b.safetensors",
    ] {
        let work = Work::tiny_llama();
        work.edit(
            "model.safetensors.index.json",
            json!({"weight_map": {"model.norm.weight": file}}),
        );
        let error = work.refusal();
        assert!(
            matches!(error, ConvertError::BadFile { .. }),
            "{file}: {error}"
        );
    }
}

#[test]
fn truncated_weights_are_refused() {
    let work = Work::tiny_llama();
    let shard = work.file("model-00001-of-00002.safetensors");
    let length = fs::metadata(&shard).unwrap().len();
    fs::File::options()
        .write(true)
        .open(&shard)
        .unwrap()
        .set_len(length - 1)
        .unwrap();
    let error = work.refusal();
    assert!(
        matches!(error, ConvertError::Format(FormatError::SafeTensors { .. })),
        "{error}"
    );
}

#[test]
fn folders_that_lack_a_part_say_which() {
    for (missing, expected) in [
        ("config.json", "it has no config.json"),
        ("model.safetensors", "it has no model.safetensors"),
        ("tokenizer.json", "the tokenizer cannot be converted"),
    ] {
        let work = Work::with_weights(|_| {});
        fs::remove_file(work.file(missing)).unwrap();
        let text = work.refusal().to_string();
        assert!(text.contains(expected), "{missing}: {text}");
    }
}

#[test]
fn files_that_are_no_json_are_named() {
    for file in [
        "config.json",
        "model.safetensors.index.json",
        "tokenizer_config.json",
    ] {
        let work = Work::tiny_llama();
        fs::write(work.file(file), "{\"a\": ").unwrap();
        let text = work.refusal().to_string();
        assert!(text.contains(file), "{text}");
    }
}

#[test]
fn settings_that_the_file_could_not_say_are_refused() {
    for (entries, expected) in [
        (
            json!({"hidden_act": "relu"}),
            "the activation `relu` is not supported for llama models",
        ),
        (
            json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}),
            "rope_type `dynamic` is not supported for llama models",
        ),
        (
            json!({"num_local_experts": 8}),
            "a mixture of experts (`num_local_experts`)",
        ),
        (
            json!({"quantization_config": {"quant_method": "fp8"}}),
            "already quantized (with `fp8`",
        ),
        (
            json!({"layer_types": ["sliding_attention", "full_attention"]}),
            "attention with a window is not supported",
        ),
    ] {
        let work = Work::tiny_llama();
        work.edit("config.json", entries);
        let error = work.refusal();
        assert!(matches!(error, ConvertError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for entries in [
        json!({"num_hidden_layers": 0}),
        json!({"num_hidden_layers": 4_000_000_000u32}),
        json!({"num_hidden_layers": -1}),
        json!({"num_hidden_layers": "two"}),
        json!({"num_attention_heads": 0}),
        json!({"num_attention_heads": 3}),
        json!({"num_key_value_heads": 3}),
        json!({"num_key_value_heads": 0}),
        json!({"head_dim": 0}),
        json!({"head_dim": 7}),
        json!({"hidden_size": 1.5}),
        json!({"hidden_size": 18_446_744_073_709_551_615u64}),
        json!({"layer_types": ["full_attention"]}),
        json!({"rope_scaling": "linear"}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": "x"}}),
        json!({"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 1}}),
    ] {
        let work = Work::tiny_llama();
        work.edit("config.json", entries.clone());
        let error = work.refusal();
        assert!(
            matches!(error, ConvertError::BadSetting { .. }),
            "{entries}: {error}"
        );
    }
}

#[test]
fn a_setting_that_is_missing_is_named() {
    for key in [
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "vocab_size",
    ] {
        let work = Work::tiny_llama();
        work.edit("config.json", json!({ key: Value::Null }));
        let text = work.refusal().to_string();
        assert!(
            text.contains(&format!("`{key}` is missing in config.json")),
            "{text}"
        );
    }
}

#[test]
fn weights_beyond_the_type_are_named() {
    let large = |tensors: &mut Vec<Tensor>| {
        let weight = tensors
            .iter_mut()
            .find(|tensor| tensor.0.contains("0.mlp.gate_proj"))
            .unwrap();
        // 2^17 as BF16.
        weight.3[..2].copy_from_slice(&0x4800u16.to_le_bytes());
    };
    let work = Work::with_weights(large);
    work.convert(OutputType::BF16).unwrap();
    let error = work.convert(OutputType::F16).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tensor `blk.0.ffn_gate.weight` holds 1.31072e5, which F16 cannot express. Convert to bf16 or \
         f32 instead"
    );
    let error = work
        .convert("q5_1".parse().unwrap())
        .unwrap_err()
        .to_string();
    let named = error.contains("blk.0.ffn_gate.weight") && error.contains("Q5_1");
    assert!(named, "{error}");
}

fn without(name: &'static str) -> Work {
    Work::with_weights(|tensors| tensors.retain(|tensor| tensor.0 != name))
}

#[test]
fn the_files_that_are_read_are_not_replaced() {
    let work = Work::tiny_llama();
    let folder = Folder::open(work.path()).unwrap();
    for name in ["model-00001-of-00002.safetensors", "config.json"] {
        let out = work.path().join(name);
        let before = fs::read(&out).unwrap();
        let refused = convert(&folder, &ConvertOptions::default(), &out, &mut |_, _| {
            ControlFlow::Continue(())
        });
        assert!(matches!(refused, Err(ConvertError::OutIsSource { .. })));
        assert_eq!(fs::read(&out).unwrap(), before);
    }
}
