//! Adapters against PEFT, and what the SDK does with them. `fixtures/make_lora.py` made the adapters and the expected logits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{conformance, fixture, options};
use dunlin::{
    AdapterId, AdapterUse, ConvertError, DraftLength, EngineError, Error, GenerateOptions,
    KvElement, Lm, LoraAdapter, ModelRef, Prompt, Speculation,
};
use serde_json::{Map, Value, json};

const MODELS: [&str; 5] = ["llama", "qwen2", "qwen3", "gemma3", "phi4_mini"];

fn folder(model: &str, adapter: &str) -> PathBuf {
    fixture("lora").join(model).join(adapter)
}

fn expected() -> Value {
    let text = fs::read_to_string(fixture("lora").join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn load(conformance: &Path, model: &str) -> Lm {
    let path = conformance.join(model).join("model.gguf");
    let options = options().with_kv_element(KvElement::F32);
    Lm::load(ModelRef::Path(path), options).unwrap()
}

fn add(lm: &Lm, path: &Path) -> AdapterId {
    lm.add_adapter(&LoraAdapter::load(path).unwrap()).unwrap()
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The largest difference, as a part of the largest expected number.
fn difference(found: &[Vec<f32>], want: &[Vec<f32>]) -> f32 {
    assert_eq!(found.len(), want.len());
    let (found, want) = (found.concat(), want.concat());
    assert_eq!(found.len(), want.len());
    let differences = found.iter().zip(&want).map(|(a, b)| (a - b).abs());
    let largest = want.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
    differences.fold(0.0, f32::max) / largest
}

#[test]
fn logits_are_those_of_peft() {
    let Some(conformance) = conformance() else {
        return;
    };
    let expected = expected();
    for model in MODELS {
        let lm = load(&conformance, model);
        let ids: Vec<u32> = numbers(&expected[model]["ids"]);
        let positions: Vec<usize> = numbers(&expected[model]["positions"]);
        let adapters =
            BTreeMap::from(["one", "two"].map(|name| (name, add(&lm, &folder(model, name)))));
        let base = lm.logits(&ids, &positions).unwrap();
        for (case, of) in expected[model]["cases"].as_object().unwrap() {
            let uses: Vec<(String, f32)> = numbers(&of["adapters"]);
            let uses = uses.iter().map(|(name, scale)| AdapterUse {
                adapter: adapters[name.as_str()],
                scale: *scale,
            });
            let uses = Vec::from_iter(uses);
            let want: Vec<Vec<f32>> = numbers(&of["logits"]);
            let found = lm.logits_with_adapters(&ids, &positions, &uses).unwrap();
            let difference_here = difference(&found, &want);
            println!("{model}, {case}: {difference_here:.1e}");
            assert!(difference_here < 2e-3, "{model}, {case}: {difference_here}");
            // The expected numbers tell a scale from another, and an adapter from none.
            match case.as_str() {
                "none" => assert!(found == base, "{model}"),
                _ => assert!(difference(&base, &want) > 0.02, "{model}, {case}"),
            }
        }
    }
}

#[test]
fn a_gguf_file_and_a_peft_folder_of_the_same_weights_give_the_same_bits() {
    let Some(conformance) = conformance() else {
        return;
    };
    for model in ["llama", "phi4_mini"] {
        let lm = load(&conformance, model);
        let peft = add(&lm, &folder(model, "one"));
        let file = folder(model, "one").join("adapter_model.safetensors");
        let by_file = add(&lm, &file);
        let gguf = add(&lm, &fixture("lora").join(model).join("one.gguf"));
        let rows = [peft, by_file, gguf].map(|adapter| {
            let uses = [AdapterUse {
                adapter,
                scale: 0.75,
            }];
            lm.logits_with_adapters(&[1, 50, 99, 3, 7], &[0, 4], &uses)
                .unwrap()
        });
        assert!(rows[0] == rows[1] && rows[0] == rows[2], "{model}");
    }
}

fn complete(lm: &Lm, options: &GenerateOptions) -> dunlin::Completion {
    let prompt = Prompt::Tokens((0..70).map(|at| 60 + at * 37 % 190).collect());
    let options = options.clone().with_max_tokens(24);
    lm.generate(&prompt, &options).unwrap().complete().unwrap()
}

#[test]
fn each_generation_has_its_own_adapters() {
    let Some(conformance) = conformance() else {
        return;
    };
    let lm = load(&conformance, "llama");
    let plain = GenerateOptions::greedy();
    let before = complete(&lm, &plain);
    let one = add(&lm, &folder("llama", "one"));
    let two = add(&lm, &folder("llama", "two"));
    let settings = [
        plain.clone(),
        plain.clone().with_adapter(one, 1.0),
        plain.clone().with_adapter(one, 0.5),
        plain.clone().with_adapter(one, 1.0).with_adapter(two, 1.0),
    ];
    let first = Vec::from_iter(settings.iter().map(|options| complete(&lm, options)));
    assert_eq!(first[0].tokens, before.tokens);
    for (index, answer) in first.iter().enumerate().skip(1) {
        assert_eq!(answer.usage.cached_prompt_tokens, 0, "setting {index}");
        assert_ne!(answer.tokens, before.tokens, "setting {index}");
    }
    for (options, first) in settings.iter().zip(&first) {
        let again = complete(&lm, options);
        assert!(again.usage.cached_prompt_tokens > 60);
        assert_eq!(again.tokens, first.tokens);
        // Guessed tokens are checked with the adapters, too.
        let guessed = options.clone().with_speculation(Speculation::PromptLookup {
            length: DraftLength::Fixed(3),
        });
        assert_eq!(complete(&lm, &guessed).tokens, first.tokens);
    }
    lm.remove_adapter(two).unwrap();
    assert_eq!(complete(&lm, &settings[1]).tokens, first[1].tokens);
    assert_eq!(complete(&lm, &settings[0]).tokens, before.tokens);
}

#[test]
fn an_adapter_belongs_to_the_model_it_was_added_to() {
    let Some(conformance) = conformance() else {
        return;
    };
    let (lm, other) = (load(&conformance, "llama"), load(&conformance, "llama"));
    let adapter = add(&lm, &folder("llama", "one"));
    assert!(lm.adapter_bytes() > 0);
    let prompt = Prompt::from("Hello");
    let options = GenerateOptions::greedy().with_adapter(adapter, 1.0);
    let refused = |lm: &Lm| match lm.generate(&prompt, &options).map(drop) {
        Err(Error::Engine(EngineError::UnknownAdapter)) => {}
        other => panic!("{other:?}"),
    };
    refused(&other);
    lm.remove_adapter(adapter).unwrap();
    assert_eq!(lm.adapter_bytes(), 0);
    refused(&lm);
    let adapter = LoraAdapter::load(folder("qwen3", "one")).unwrap();
    match lm.add_adapter(&adapter) {
        Err(Error::Engine(
            EngineError::AdapterShape { .. } | EngineError::AdapterUnknownTensor { .. },
        )) => {}
        other => panic!("{other:?}"),
    }
    let fused = LoraAdapter::load(folder("phi4_mini", "one")).unwrap();
    match lm.add_adapter(&fused) {
        Err(Error::Convert(ConvertError::AdapterUnsupported { name, .. })) => {
            assert!(name.ends_with("gate_up_proj"), "{name}");
        }
        other => panic!("{other:?}"),
    }
    let gguf = LoraAdapter::load(fixture("lora").join("phi4_mini/one.gguf")).unwrap();
    match lm.add_adapter(&gguf) {
        Err(Error::Engine(EngineError::AdapterArchitecture { adapter, model })) => {
            assert_eq!((adapter.as_str(), model.as_str()), ("phi3", "llama"));
        }
        other => panic!("{other:?}"),
    }
}

/// Shapes and numbers.
type Tensors = BTreeMap<String, (Vec<u64>, Vec<f32>)>;

/// A safetensors file of F32 tensors.
fn write_safetensors(path: &Path, tensors: &Tensors) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, (shape, values)) in tensors {
        let start = data.len();
        data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(path, file).unwrap();
}

const QUERY: &str = "base_model.model.model.layers.0.self_attn.q_proj";

/// A folder with an adapter of rank 2 on one matrix of the tiny llama, and what `change` makes of it.
fn peft(change: impl FnOnce(&mut Value, &mut Tensors)) -> tempfile::TempDir {
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none",
        "target_modules": ["q_proj"], "use_dora": false, "modules_to_save": null, "rank_pattern": {}});
    let mut tensors = BTreeMap::from([
        (
            format!("{QUERY}.lora_A.weight"),
            (vec![2, 64], vec![0.25; 128]),
        ),
        (
            format!("{QUERY}.lora_B.weight"),
            (vec![64, 2], vec![0.5; 128]),
        ),
    ]);
    change(&mut config, &mut tensors);
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("adapter_config.json"),
        config.to_string(),
    )
    .unwrap();
    write_safetensors(&folder.path().join("adapter_model.safetensors"), &tensors);
    folder
}

#[test]
fn refuses_adapters_that_change_more_than_pairs_of_matrices() {
    assert!(LoraAdapter::load(peft(|_, _| {}).path()).is_ok());
    let settings = [
        ("use_dora", json!(true)),
        ("bias", json!("lora_only")),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("trainable_token_indices", json!([1, 2])),
        ("fan_in_fan_out", json!(true)),
        ("layer_replication", json!([[0, 2], [1, 3]])),
        ("target_parameters", json!(["experts.down"])),
        ("alora_invocation_tokens", json!([5])),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("rank_pattern", json!({r"layers\.\d+\.q_proj": 2})),
    ];
    for (name, value) in settings {
        let folder = peft(|config, _| config[name] = value);
        match LoraAdapter::load(folder.path()) {
            Err(Error::Convert(error @ ConvertError::AdapterUnsupported { .. })) => {
                assert!(error.to_string().contains(name), "{error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let tensors = [
        "lora_magnitude_vector",
        "lora_B.bias",
        "weight",
        "bias",
        "lora_embedding_A",
    ];
    for name in tensors {
        let name = format!("{QUERY}.{name}");
        let folder = peft(|_, tensors| {
            tensors.insert(name.clone(), (vec![64], vec![1.0; 64]));
        });
        match LoraAdapter::load(folder.path()) {
            Err(Error::Convert(error @ ConvertError::AdapterUnsupported { .. })) => {
                assert!(error.to_string().contains(&name), "{error}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn refuses_adapters_that_are_damaged() {
    let (a, b) = (
        format!("{QUERY}.lora_A.weight"),
        format!("{QUERY}.lora_B.weight"),
    );
    let refused = |folder: &tempfile::TempDir, wanted: &[&str]| {
        let message = match LoraAdapter::load(folder.path()) {
            Err(Error::Convert(error)) => error.to_string(),
            other => panic!("{other:?}"),
        };
        for wanted in wanted {
            assert!(message.contains(wanted), "{message} has {wanted}");
        }
    };
    let change = |config: &mut Value, key: &str, value: Value| config[key] = value;
    refused(
        &peft(|it, _| change(it, "r", json!(8))),
        &[&a, "rank 2", "8"],
    );
    refused(&peft(|it, _| change(it, "r", json!(-1))), &["`r`", "-1"]);
    refused(
        &peft(|it, _| change(it, "lora_alpha", json!(0))),
        &["`lora_alpha`"],
    );
    refused(
        &peft(|it, _| change(it, "lora_alpha", json!("four"))),
        &["four"],
    );
    refused(
        &peft(|it, _| change(it, "peft_type", json!("LOHA"))),
        &["LOHA"],
    );
    refused(&peft(|it, _| *it = json!([1])), &["JSON object"]);
    refused(&peft(|_, tensors| drop(tensors.remove(&b))), &[&a, &b]);
    refused(&peft(|_, tensors| tensors.clear()), &["no pairs"]);
    let rank_0 = peft(|_, tensors| {
        tensors.insert(a.clone(), (vec![0, 64], Vec::new()));
        tensors.insert(b.clone(), (vec![64, 0], Vec::new()));
    });
    refused(&rank_0, &[&a, "rank 0"]);
    let flat = peft(|_, tensors| {
        tensors.insert(a.clone(), (vec![128], vec![0.5; 128]));
    });
    refused(&flat, &[&a, "128"]);
    let other_rank = peft(|_, tensors| {
        tensors.insert(b.clone(), (vec![64, 3], vec![0.5; 192]));
    });
    refused(&other_rank, &[&b, "3", "2"]);
    let folder = peft(|_, _| {});
    fs::remove_file(folder.path().join("adapter_model.safetensors")).unwrap();
    refused(&folder, &["adapter_model.safetensors"]);
    fs::remove_file(folder.path().join("adapter_config.json")).unwrap();
    refused(&folder, &["adapter_config.json"]);
    match LoraAdapter::load(fixture("tiny.gguf")) {
        Err(Error::Engine(EngineError::NotAnAdapter { .. })) => {}
        other => panic!("{other:?}"),
    }
    match LoraAdapter::load("no-such-adapter") {
        Err(Error::Format(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn refuses_numbers_and_shapes_when_a_peft_adapter_is_added() {
    let Some(conformance) = conformance() else {
        return;
    };
    let lm = load(&conformance, "llama");
    let (a, b) = (
        format!("{QUERY}.lora_A.weight"),
        format!("{QUERY}.lora_B.weight"),
    );
    let add = |folder: &tempfile::TempDir| {
        let adapter = LoraAdapter::load(folder.path()).unwrap();
        match lm.add_adapter(&adapter) {
            Err(Error::Engine(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert!(
        lm.add_adapter(&LoraAdapter::load(peft(|_, _| {}).path()).unwrap())
            .is_ok()
    );
    let wide = peft(|_, tensors| {
        tensors.insert(a.clone(), (vec![2, 96], vec![0.5; 192]));
    });
    match add(&wide) {
        EngineError::AdapterShape {
            name,
            found,
            expected,
        } => {
            assert_eq!((name, found, expected), (a.clone(), (2, 96), (2, 64)));
        }
        other => panic!("{other:?}"),
    }
    let infinite = peft(|_, tensors| tensors.get_mut(&b).unwrap().1[5] = f32::INFINITY);
    match add(&infinite) {
        EngineError::InvalidTensorValue { name, .. } => assert_eq!(name, b),
        other => panic!("{other:?}"),
    }
    let layer = peft(|_, tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (name.replace("layers.0", "layers.30"), tensor))
            .collect();
    });
    match add(&layer) {
        EngineError::AdapterUnknownTensor { name, .. } => {
            assert_eq!(name, "blk.30.attn_q.weight");
        }
        other => panic!("{other:?}"),
    }
}
