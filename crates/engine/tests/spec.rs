//! The description of a model: what is read from good files, and what is refused in bad ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{json, shared};
use dunlin_engine::spec::{
    Activation, AttentionSpec, Expected, Head, QkNorm, RopeFactors, RopeKind, names,
};
use dunlin_engine::{EngineError, KvElement, KvElements, KvTypes, ModelSpec};
use dunlin_format::{Array, DType, FormatError, Gguf, GgufWriter, Metadata, Value};

/// A small model of `architecture`: 64 wide, 4 query heads, 2 key heads, 12 layers, 100 tokens.
fn metadata(architecture: &str) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", architecture);
    let sizes = [
        ("block_count", 12u32),
        ("context_length", 1024),
        ("embedding_length", 64),
        ("feed_forward_length", 128),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
    ];
    for (suffix, size) in sizes {
        metadata.insert(format!("{architecture}.{suffix}"), size);
    }
    metadata.insert(
        format!("{architecture}.attention.layer_norm_rms_epsilon"),
        1e-5f32,
    );
    metadata
}

fn with(architecture: &str, suffix: &str, value: impl Into<Value>) -> Metadata {
    let mut metadata = metadata(architecture);
    metadata.insert(format!("{architecture}.{suffix}"), value);
    metadata
}

/// A file with these tensors, all F32 and zero.
fn file(metadata: Metadata, tensors: &[Expected]) -> Gguf {
    let mut writer = GgufWriter::new(metadata);
    for Expected { name, shape } in tensors {
        let bytes = 4 * shape.iter().product::<u64>() as usize;
        writer.add_tensor(name, shape, DType::F32, vec![0; bytes]);
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    Gguf::from_bytes(bytes).unwrap()
}

fn tensor(name: &str, shape: &[u64]) -> Expected {
    Expected {
        name: name.to_owned(),
        shape: shape.to_vec(),
    }
}

/// The description of a file with these metadata and nothing but an embedding, and `more`.
fn read_with(metadata: Metadata, more: &[Expected]) -> Result<ModelSpec, EngineError> {
    let embedding = [tensor(names::TOKEN_EMBEDDING, &[64, 100])];
    ModelSpec::from_gguf(&file(metadata, &[&embedding[..], more].concat()))
}

/// The attention of a layer.
fn attention(spec: &ModelSpec, layer: usize) -> &AttentionSpec {
    spec.layers[layer].attention().unwrap()
}

fn read(metadata: Metadata) -> Result<ModelSpec, EngineError> {
    read_with(metadata, &[])
}

#[test]
fn sizes_are_those_of_the_config_file() {
    let Some(shared) = shared() else { return };
    let models = [
        "llama",
        "smollm2",
        "mistral",
        "mistral_swa",
        "qwen2",
        "qwen3",
        "gemma3",
        "gemma3_linear",
    ];
    for name in models {
        let folder = shared.join("conformance").join(name);
        let config = json(&folder.join("config.json"));
        let size = |key: &str| config[key].as_u64().unwrap() as usize;
        let gguf = Gguf::open(&folder.join("model.gguf")).unwrap();
        let spec = ModelSpec::from_gguf(&gguf).unwrap();
        spec.check_tensors(&gguf).unwrap();

        assert_eq!(spec.vocab_size, size("vocab_size"), "{name}");
        assert_eq!(spec.hidden_size, size("hidden_size"), "{name}");
        assert_eq!(spec.layer_count(), size("num_hidden_layers"), "{name}");
        assert_eq!(
            spec.context_length,
            size("max_position_embeddings"),
            "{name}"
        );
        assert_eq!(
            Some(spec.head == Head::Tied),
            config["tie_word_embeddings"].as_bool(),
            "{name}"
        );
        assert!(
            (f64::from(spec.norm.eps()) / config["rms_norm_eps"].as_f64().unwrap() - 1.0).abs()
                < 1e-6
        );

        let head_dim = config["head_dim"].as_u64().map(|dim| dim as usize);
        let head_dim = head_dim.unwrap_or(size("hidden_size") / size("num_attention_heads"));
        for (index, layer) in spec.layers.iter().enumerate() {
            let length = layer.feed_forward.length;
            assert_eq!(length, size("intermediate_size"), "{name}");
            let layer = layer.attention().unwrap();
            assert_eq!(layer.head_count, size("num_attention_heads"), "{name}");
            assert_eq!(layer.head_count_kv, size("num_key_value_heads"), "{name}");
            assert_eq!(
                (layer.head_dim_k, layer.head_dim_v),
                (head_dim, head_dim),
                "{name}"
            );

            let layer_type = config["layer_types"][index].as_str();
            let local = layer_type.is_none_or(|kind| kind == "sliding_attention");
            let window = config["sliding_window"].as_u64().filter(|_| local);
            assert_eq!(
                layer.sliding_window.map(u64::from),
                window,
                "{name}, layer {index}"
            );

            let rope = &config["rope_parameters"];
            let rope = layer_type.and_then(|kind| rope.get(kind)).unwrap_or(rope);
            assert_eq!(
                f64::from(layer.rope.base),
                rope["rope_theta"].as_f64().unwrap(),
                "{name}"
            );
            let factor = match rope["rope_type"].as_str() {
                Some("linear") => rope["factor"].as_f64().unwrap(),
                _ => 1.0,
            };
            assert_eq!(
                f64::from(layer.rope.scale),
                1.0 / factor,
                "{name}, layer {index}"
            );
            assert_eq!(
                layer.rope.factors == RopeFactors::Fixed,
                rope["rope_type"] == "llama3",
                "{name}"
            );
        }
    }
}

#[test]
fn a_family_sets_what_its_files_do_not_say() {
    let llama = read(metadata("llama")).unwrap();
    let layer = attention(&llama, 0);
    assert_eq!(llama.layers[0].feed_forward.activation, Activation::Silu);
    assert_eq!(llama.embedding_scale, 1.0);
    assert_eq!(layer.rope.kind, RopeKind::Interleaved);
    assert_eq!(
        (layer.rope.base, layer.rope.scale, layer.rope.dims),
        (10_000.0, 1.0, 16)
    );
    assert_eq!(layer.scale, 0.25);
    assert!(layer.qk_norm.is_none() && !layer.qkv_bias);
    assert!(llama.layers[0].mixer_norms.branch.is_none());

    let qwen2 = read(metadata("qwen2")).unwrap();
    let layer = attention(&qwen2, 0);
    assert_eq!(layer.rope.kind, RopeKind::Neox);
    assert!(layer.qkv_bias && layer.qk_norm.is_none());

    let qwen3 = read(metadata("qwen3")).unwrap();
    let layer = attention(&qwen3, 0);
    assert!(!layer.qkv_bias && layer.qk_norm == Some(QkNorm::PerHead));

    let gemma3 = read(metadata("gemma3")).unwrap();
    let layer = &gemma3.layers[0];
    assert_eq!(layer.feed_forward.activation, Activation::GeluTanh);
    assert_eq!(gemma3.embedding_scale, 8.0);
    assert_eq!(attention(&gemma3, 0).qk_norm, Some(QkNorm::PerHead));
    assert!(layer.mixer_norms.branch.is_some() && layer.feed_forward_norms.branch.is_some());
}

#[test]
fn gemma3_has_a_global_layer_after_five_local_ones() {
    let mut metadata = with("gemma3", "attention.sliding_window", 16u32);
    metadata.insert("gemma3.rope.freq_base", 1e6f32);
    metadata.insert("gemma3.rope.scaling.type", "linear");
    metadata.insert("gemma3.rope.scaling.factor", 8.0f32);
    let spec = read(metadata).unwrap();
    for (index, layer) in spec.attentions().enumerate() {
        let global = index == 5 || index == 11;
        assert_eq!(layer.sliding_window, (!global).then_some(16));
        let rope = if global { (1e6, 0.125) } else { (1e4, 1.0) };
        assert_eq!((layer.rope.base, layer.rope.scale), rope, "layer {index}");
    }
}

#[test]
fn a_window_pattern_is_a_period_or_one_flag_a_layer() {
    let windows = |pattern: Value| {
        let mut metadata = with("gemma3", "attention.sliding_window", 16u32);
        metadata.insert("gemma3.attention.sliding_window_pattern", pattern);
        read(metadata).map(|spec| {
            Vec::from_iter(
                spec.attentions()
                    .map(|layer| layer.sliding_window.is_some()),
            )
        })
    };
    assert_eq!(
        windows(Value::U32(3)).unwrap()[..6],
        [true, true, false, true, true, false]
    );
    assert_eq!(windows(Value::U32(1)).unwrap(), [false; 12]);
    assert_eq!(windows(Value::U32(0)).unwrap(), [true; 12]);
    let flags: Vec<bool> = (0..12).map(|layer| layer % 4 == 1).collect();
    assert_eq!(
        windows(Value::Array(Array::Bool(flags.clone()))).unwrap(),
        flags
    );

    let error = windows(Value::Array(Array::Bool(vec![true; 11]))).unwrap_err();
    assert!(
        matches!(error, EngineError::InvalidMetadata { .. }),
        "{error}"
    );
    let error = windows(Value::String("all".to_owned())).unwrap_err();
    assert!(
        matches!(error, EngineError::Format(FormatError::WrongType { .. })),
        "{error}"
    );
}

#[test]
fn gemma3_27b_scales_by_its_training_and_not_by_its_head_length() {
    let mut metadata = with("gemma3", "block_count", 62u32);
    metadata.insert("gemma3.attention.key_length", 4u32);
    let spec = read(metadata).unwrap();
    assert_eq!(attention(&spec, 0).scale, 0.25);
}

#[test]
fn head_counts_may_differ_a_layer() {
    let per_layer: Vec<u32> = (0..12).map(|layer| if layer < 6 { 1 } else { 4 }).collect();
    let spec = read(with(
        "llama",
        "attention.head_count_kv",
        Value::Array(Array::U32(per_layer)),
    ))
    .unwrap();
    assert_eq!(
        (
            attention(&spec, 5).head_count_kv,
            attention(&spec, 6).head_count_kv
        ),
        (1, 4)
    );
    // Keys and values of 16 numbers: six layers with one head, six with four, two bytes a number.
    assert_eq!(
        spec.kv_bytes_per_token(KvElement::F16),
        (6 + 6 * 4) * 2 * 16 * 2
    );
}

#[test]
fn layers_with_a_window_may_have_number_types_of_their_own() {
    let mut metadata = with("gemma3", "attention.sliding_window", 16u32);
    metadata.insert("gemma3.attention.sliding_window_pattern", 6u32);
    metadata.insert("gemma3.attention.key_length", 64u32);
    metadata.insert("gemma3.attention.value_length", 64u32);
    metadata.insert("gemma3.attention.head_count_kv", 1u32);
    let spec = read(metadata).unwrap();
    // Of 64 elements; each 32 have a scale of two bytes.
    let bytes = |element| match element {
        KvElement::F32 => 256,
        KvElement::F16 => 128,
        KvElement::Q8_0 => 64 + 2 * 2,
        _ => 32 + 2 * 2,
    };
    // Ten of the twelve layers have a window.
    for full in KvElement::ALL {
        for window in KvElement::ALL {
            let types = KvTypes::from(full).with_window(window);
            let windows = 10 * 2 * bytes(window);
            assert_eq!(spec.window_kv_bytes_per_token(types), windows);
            let all = windows + 2 * 2 * bytes(full);
            assert_eq!(spec.kv_bytes_per_token(types), all);
        }
    }
    let keys_and_values = KvTypes::from(KvElement::Q8_0).with_values(KvElement::Q4_0);
    let each = KvElements {
        keys: KvElement::Q8_0,
        values: KvElement::Q4_0,
    };
    assert_eq!(keys_and_values, KvTypes::from(each));
    let all = 12 * (bytes(KvElement::Q8_0) + bytes(KvElement::Q4_0));
    assert_eq!(spec.kv_bytes_per_token(keys_and_values), all);
}

#[test]
fn tensors_in_the_file_decide_what_metadata_leave_open() {
    let more = [
        tensor(names::OUTPUT, &[64, 100]),
        tensor(names::ROPE_FREQS, &[8]),
        tensor(&names::layer(3, &names::bias(names::ATTN_Q)), &[64]),
    ];
    let spec = read_with(metadata("llama"), &more).unwrap();
    assert_eq!(spec.vocab_size, 100);
    assert_eq!(spec.head, Head::Own);
    assert_eq!(attention(&spec, 0).rope.factors, RopeFactors::Fixed);
    assert!(attention(&spec, 3).qkv_bias && !attention(&spec, 4).qkv_bias);
    assert_eq!(read(metadata("llama")).unwrap().head, Head::Tied);
}

#[test]
fn old_and_empty_ways_to_write_a_key_are_understood() {
    let spec = read(with("llama", "rope.scale_linear", 4.0f32)).unwrap();
    assert_eq!(attention(&spec, 0).rope.scale, 0.25);
    let mut unscaled = with("llama", "rope.scaling.type", "none");
    unscaled.insert("llama.rope.scaling.factor", 4.0f32);
    assert_eq!(attention(&read(unscaled).unwrap(), 0).rope.scale, 1.0);
    let spec = read(with("llama", "attention.sliding_window", 0u32)).unwrap();
    assert_eq!(attention(&spec, 0).sliding_window, None);
    let mut no_kv = metadata("llama");
    no_kv.remove("llama.attention.head_count_kv");
    assert_eq!(attention(&read(no_kv).unwrap(), 0).head_count_kv, 4);
}

#[test]
fn an_unknown_architecture_is_named_beside_the_known_ones() {
    let error = read(metadata("mamba")).unwrap_err();
    assert!(matches!(error, EngineError::UnknownArchitecture { .. }));
    let text = error.to_string();
    for word in ["\"mamba\"", "llama", "qwen2", "qwen3", "gemma3"] {
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn what_would_change_the_answer_and_is_not_computed_is_refused() {
    let refused = [
        with("llama", "expert_count", 8u32),
        with("llama", "attention.causal", false),
        with("llama", "rope.scaling.type", "dynamic"),
        with("bert", "attention.causal", true),
        with("qwen2", "attention.sliding_window", 4096u32),
    ];
    for metadata in refused {
        let error = read(metadata).unwrap_err();
        assert!(
            matches!(error, EngineError::UnsupportedFeature { .. }),
            "{error}"
        );
    }
}

#[test]
fn a_size_that_no_model_has_is_refused_by_its_key() {
    let refused: [(&str, Value); 22] = [
        ("block_count", Value::U32(0)),
        ("block_count", Value::U32(1025)),
        ("block_count", Value::U32(u32::MAX)),
        ("context_length", Value::U32(0)),
        ("context_length", Value::U32(u32::MAX)),
        ("embedding_length", Value::U32(0)),
        ("embedding_length", Value::U32(u32::MAX)),
        ("feed_forward_length", Value::U32(0)),
        ("feed_forward_length", Value::U32(u32::MAX)),
        ("attention.head_count", Value::U32(0)),
        ("attention.head_count", Value::U32(u32::MAX)),
        ("attention.head_count_kv", Value::U32(0)),
        ("attention.head_count_kv", Value::U32(3)),
        ("attention.head_count_kv", Value::U32(8)),
        (
            "attention.head_count_kv",
            Value::Array(Array::U32(vec![2; 11])),
        ),
        ("attention.key_length", Value::U32(0)),
        ("attention.value_length", Value::U32(u32::MAX)),
        ("rope.dimension_count", Value::U32(0)),
        ("rope.dimension_count", Value::U32(15)),
        ("rope.dimension_count", Value::U32(18)),
        ("attention.layer_norm_rms_epsilon", Value::F32(0.0)),
        ("attention.layer_norm_rms_epsilon", Value::F32(f32::NAN)),
    ];
    for (suffix, value) in refused {
        let error = read(with("llama", suffix, value)).unwrap_err();
        match &error {
            EngineError::InvalidMetadata { key, .. } => assert_eq!(*key, format!("llama.{suffix}")),
            other => panic!("{suffix}: {other}"),
        }
    }
}

#[test]
fn a_number_that_no_model_has_is_refused_by_its_key() {
    let keys = [
        "rope.freq_base",
        "rope.scaling.factor",
        "attention.scale",
        "final_logit_softcapping",
    ];
    for suffix in keys {
        for value in [f32::NAN, f32::INFINITY, -1.0, f32::from_bits(1)] {
            let error = read(with("llama", suffix, value)).unwrap_err();
            assert!(
                matches!(error, EngineError::InvalidMetadata { .. }),
                "{suffix} {value}: {error}"
            );
        }
    }
}

#[test]
fn heads_that_do_not_split_the_hidden_size_need_a_head_length() {
    let mut uneven = with("llama", "attention.head_count", 6u32);
    let error = read(uneven.clone()).unwrap_err();
    assert!(
        matches!(error, EngineError::InvalidMetadata { .. }),
        "{error}"
    );
    uneven.insert("llama.attention.key_length", 16u32);
    uneven.insert("llama.attention.value_length", 16u32);
    assert_eq!(attention(&read(uneven).unwrap(), 0).q_size(), 96);
}

#[test]
fn a_missing_key_or_one_of_another_type_is_named() {
    for suffix in [
        "block_count",
        "embedding_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ] {
        let key = format!("llama.{suffix}");
        let mut missing = metadata("llama");
        missing.remove(&key);
        match read(missing).unwrap_err() {
            EngineError::Format(FormatError::MissingKey { key: found }) => assert_eq!(found, key),
            other => panic!("{other}"),
        }
        let error = read(with("llama", suffix, "many")).unwrap_err();
        assert!(
            matches!(error, EngineError::Format(FormatError::WrongType { .. })),
            "{error}"
        );
    }
}

#[test]
fn a_file_without_an_embedding_is_refused() {
    let error = ModelSpec::from_gguf(&file(metadata("llama"), &[])).unwrap_err();
    assert!(
        matches!(error, EngineError::MissingTensor { .. }),
        "{error}"
    );
    let vector = [tensor(names::TOKEN_EMBEDDING, &[64])];
    let error = ModelSpec::from_gguf(&file(metadata("llama"), &vector)).unwrap_err();
    assert!(
        matches!(error, EngineError::InvalidMetadata { .. }),
        "{error}"
    );
}

/// All tensors of a small model.
fn complete(architecture: &str) -> (Metadata, ModelSpec, Vec<Expected>) {
    let metadata = metadata(architecture);
    let spec = read(metadata.clone()).unwrap();
    let tensors = spec.expected_tensors();
    (metadata, spec, tensors)
}

#[test]
fn a_file_with_all_its_tensors_is_complete() {
    for architecture in ["llama", "qwen2", "qwen3", "gemma3"] {
        let (metadata, spec, mut tensors) = complete(architecture);
        spec.check_tensors(&file(metadata.clone(), &tensors))
            .unwrap();
        // The image tower of a model that can see.
        tensors.push(tensor("v.patch_embd.weight", &[4, 4]));
        spec.check_tensors(&file(metadata, &tensors)).unwrap();
    }
}

#[test]
fn each_missing_tensor_is_named() {
    for architecture in ["llama", "qwen2", "qwen3", "gemma3"] {
        let (metadata, spec, tensors) = complete(architecture);
        for index in 0..tensors.len() {
            let mut rest = tensors.clone();
            let removed = rest.remove(index);
            match spec.check_tensors(&file(metadata.clone(), &rest)) {
                Err(EngineError::MissingTensor { name }) => assert_eq!(name, removed.name),
                other => panic!("{}: {other:?}", removed.name),
            }
        }
    }
}

#[test]
fn a_tensor_of_another_shape_is_named_with_both_shapes() {
    let (metadata, spec, mut tensors) = complete("llama");
    let at = tensors
        .iter()
        .position(|tensor| tensor.name == "blk.1.attn_q.weight")
        .unwrap();
    tensors[at].shape = vec![32, 128];
    let error = spec.check_tensors(&file(metadata, &tensors)).unwrap_err();
    match error {
        EngineError::WrongShape {
            name,
            expected,
            found,
        } => {
            assert_eq!(
                (name.as_str(), expected, found),
                ("blk.1.attn_q.weight", vec![64, 64], vec![32, 128])
            );
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_tensor_that_nothing_would_read_is_named() {
    let (metadata, spec, mut tensors) = complete("llama");
    tensors.push(tensor("blk.0.attn_output.bias", &[64]));
    match spec.check_tensors(&file(metadata, &tensors)).unwrap_err() {
        EngineError::UnexpectedTensor { name, .. } => assert_eq!(name, "blk.0.attn_output.bias"),
        other => panic!("{other}"),
    }
}

#[test]
fn tensors_that_files_carry_beside_the_model_are_let_pass() {
    // Keys and values of layers that read those of others, as Gemma 4 was saved.
    let mut gemma4 = with("gemma4", "attention.sliding_window", 16u32);
    gemma4.insert("gemma4.attention.shared_kv_layers", 6u32);
    let spec = read(gemma4.clone()).unwrap();
    assert_eq!(attention(&spec, 5).shares_kv_of, None);
    assert_eq!(attention(&spec, 10).shares_kv_of, Some(4));
    assert_eq!(attention(&spec, 11).shares_kv_of, Some(5));
    let mut tensors = spec.expected_tensors();
    let unused = tensor("blk.11.attn_k.weight", &[64, 32]);
    assert!(!tensors.contains(&unused));
    tensors.push(unused);
    tensors.push(tensor("blk.11.attn_v.weight", &[64, 32]));
    spec.check_tensors(&file(gemma4, &tensors)).unwrap();

    // Blocks that predict further tokens.
    let qwen3 = with("qwen3", "nextn_predict_layers", 1u32);
    let spec = read(qwen3.clone()).unwrap();
    assert_eq!(spec.layer_count(), 11);
    let mut tensors = spec.expected_tensors();
    tensors.push(tensor("blk.11.nextn.eh_proj.weight", &[128, 64]));
    spec.check_tensors(&file(qwen3, &tensors)).unwrap();
}

#[test]
fn rope_frequencies_fall_geometrically_and_are_divided_by_the_factors() {
    let spec = read(with("llama", "rope.scaling.factor", 2.0f32)).unwrap();
    let mut rope = attention(&spec, 0).rope.clone();
    rope.dims = 4;
    let found = rope.frequencies(None).unwrap();
    assert!(
        (found[0] - 0.5).abs() < 1e-12 && (found[1] - 0.005).abs() < 1e-12,
        "{found:?}"
    );
    let found = rope
        .frequencies(Some((names::ROPE_FREQS, &[1.0, 10.0])))
        .unwrap();
    assert!(
        (found[0] - 0.5).abs() < 1e-12 && (found[1] - 0.0005).abs() < 1e-12,
        "{found:?}"
    );

    let error = rope
        .frequencies(Some((names::ROPE_FREQS, &[1.0])))
        .unwrap_err();
    assert!(matches!(error, EngineError::WrongShape { .. }), "{error}");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let error = rope
            .frequencies(Some((names::ROPE_FREQS, &[1.0, bad])))
            .unwrap_err();
        assert!(
            matches!(error, EngineError::InvalidTensorValue { index: 1, .. }),
            "{error}"
        );
    }
}
