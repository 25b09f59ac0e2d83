//! Adapters at run time: against the same adapter merged into the weights, in batches, in the cache, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Golden, json, relative_difference, shared};
use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{
    AdapterId, AdapterUse, Chunk, Engine, EngineConfig, EngineError, Logits, LoraAdapter,
    LoraMatrix, LoraPair, ModelSpec, SequenceId,
};
use dunlin_format::{DType, Gguf, GgufWriter, Metadata, Value, decode};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// Plain, biases, norms of heads, windows, fused matrices, norms over all heads, a gate of attention's result beside delta nets,
/// layers that share keys, short convolutions.
const FAMILIES: [&str; 10] = [
    "llama",
    "qwen2",
    "qwen3",
    "gemma3",
    "phi4_mini",
    "olmo2",
    "qwen3_5",
    "gemma4",
    "lfm2",
    "granite",
];

fn load(gguf: Gguf) -> Engine {
    let config = EngineConfig {
        threads: 2,
        tier: Tier::detect(),
        context_length: 512,
        kv_types: KvElement::F32.into(),
        yarn_factor: None,
    };
    Engine::load(
        Arc::new(gguf),
        config,
        &mut |_, _| ControlFlow::Continue(()),
    )
    .unwrap()
}

/// Numbers from -1 to 1.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// A random adapter on every matrix of the model that adapters can change.
struct Random {
    architecture: String,
    alpha: f32,
    rank: usize,
    pairs: Vec<RandomPair>,
}

struct RandomPair {
    tensor: String,
    rows: usize,
    cols: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Random {
    fn new(gguf: &Gguf, rank: usize, seed: u64) -> Self {
        let spec = ModelSpec::from_gguf(gguf).unwrap();
        let mut pairs = Vec::new();
        for (index, info) in gguf.tensors().iter().enumerate() {
            let is_adapted = info.name == "output.weight" || is_in_layer(&spec, &info.name);
            if !is_adapted {
                continue;
            }
            let (rows, cols) = (info.rows(), info.cols());
            let scaled = |seed: u64, count: usize, by: usize| {
                let by = (by as f32).sqrt();
                random(seed, count).iter().map(|x| x / by).collect()
            };
            let seed = seed * 1000 + 2 * index as u64;
            pairs.push(RandomPair {
                tensor: info.name.clone(),
                rows,
                cols,
                a: scaled(seed, rank * cols, cols),
                b: scaled(seed + 1, rows * rank, rank),
            });
        }
        assert!(pairs.len() >= 7);
        Random {
            architecture: spec.architecture,
            alpha: 1.5 * rank as f32,
            rank,
            pairs,
        }
    }

    fn adapter(&self) -> LoraAdapter {
        LoraAdapter::from_gguf(&Arc::new(self.gguf(&|_, _| {}))).unwrap()
    }

    /// The adapter's file, after `change` had its way with keys and tensors.
    fn gguf(&self, change: &dyn Fn(&mut Metadata, &mut Tensors)) -> Gguf {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", self.architecture.as_str());
        metadata.insert("general.type", "adapter");
        metadata.insert("adapter.type", "lora");
        metadata.insert("adapter.lora.alpha", Value::F32(self.alpha));
        let mut tensors = Tensors::new();
        let rank = self.rank as u64;
        for pair in &self.pairs {
            let (rows, cols) = (pair.rows as u64, pair.cols as u64);
            let name = |half: &str| format!("{}.{half}", pair.tensor);
            tensors.push((name("lora_a"), vec![cols, rank], bytes(&pair.a)));
            tensors.push((name("lora_b"), vec![rank, rows], bytes(&pair.b)));
        }
        change(&mut metadata, &mut tensors);
        write(metadata, tensors)
    }

    /// The model's tensors with `scale` times the adapter's added to them, computed in double precision.
    fn merge_into(&self, model: &mut HashMap<String, Vec<f64>>, scale: f64) {
        let scale = scale * f64::from(self.alpha) / self.rank as f64;
        let rank = self.rank;
        for pair in &self.pairs {
            let weights = model.get_mut(&pair.tensor).unwrap();
            for row in 0..pair.rows {
                for col in 0..pair.cols {
                    let product = (0..rank).map(|k| {
                        f64::from(pair.b[row * rank + k]) * f64::from(pair.a[k * pair.cols + col])
                    });
                    weights[row * pair.cols + col] += scale * product.sum::<f64>();
                }
            }
        }
    }
}

fn is_in_layer(spec: &ModelSpec, name: &str) -> bool {
    let Some((layer, suffix)) = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return false;
    };
    let layer: usize = layer.parse().unwrap();
    let attends = spec.layers[layer].attention().is_some();
    let attention = [
        "attn_q.weight",
        "attn_k.weight",
        "attn_v.weight",
        "attn_qkv.weight",
        "attn_output.weight",
    ];
    let feed_forward = ["ffn_gate.weight", "ffn_up.weight", "ffn_down.weight"];
    attends && attention.contains(&suffix) || feed_forward.contains(&suffix)
}

type Tensors = Vec<(String, Vec<u64>, Vec<u8>)>;

fn write(metadata: Metadata, tensors: Tensors) -> Gguf {
    let mut writer = GgufWriter::new(metadata);
    for (name, shape, bytes) in tensors {
        writer.add_tensor(&name, &shape, DType::F32, bytes);
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    Gguf::from_bytes(bytes).unwrap()
}

/// A model with adapters merged into its weights.
fn merged(gguf: &Gguf, adapters: &[(&Random, f64)]) -> Gguf {
    let mut values = HashMap::new();
    for info in gguf.tensors() {
        assert_eq!(info.dtype, DType::F32);
        let mut out = vec![0.0; info.elements() as usize];
        decode(info.dtype, gguf.data(info), &mut out).unwrap();
        let out: Vec<f64> = out.into_iter().map(f64::from).collect();
        values.insert(info.name.clone(), out);
    }
    for (adapter, scale) in adapters {
        adapter.merge_into(&mut values, *scale);
    }
    let tensors = gguf.tensors().iter().map(|info| {
        let values: Vec<f32> = values[&info.name].iter().map(|x| *x as f32).collect();
        (info.name.clone(), info.shape.clone(), bytes(&values))
    });
    write(gguf.metadata().clone(), tensors.collect())
}

fn ids(shared: &Path, name: &'static str, count: usize) -> Vec<u32> {
    Golden::read(shared, name).prompts[1].ids[..count].to_vec()
}

/// The logits after all tokens, given in pieces.
fn logits(
    engine: &mut Engine,
    ids: &[u32],
    adapters: &[AdapterUse],
    piece: usize,
) -> Vec<Vec<f32>> {
    engine.clear_cache();
    let (sequence, known) = engine.create_adapted_sequence(ids, adapters).unwrap();
    assert_eq!(known, 0);
    let mut rows = Vec::new();
    for tokens in ids.chunks(piece) {
        let chunk = Chunk {
            sequence,
            tokens,
            logits: Logits::All,
        };
        engine
            .step(&[chunk], |scores| rows.push(scores.logits.to_vec()))
            .unwrap();
    }
    engine.remove_sequence(sequence).unwrap();
    rows
}

fn at(adapter: AdapterId, scale: f32) -> AdapterUse {
    AdapterUse { adapter, scale }
}

#[test]
fn adapters_compute_what_they_would_merged_into_the_weights() {
    let Some(shared) = shared() else { return };
    for name in FAMILIES {
        let gguf = Golden::gguf(&shared, name);
        let (one, two) = (Random::new(&gguf, 4, 1), Random::new(&gguf, 3, 2));
        let ids = ids(&shared, name, 40);
        let mut engine = load(Golden::gguf(&shared, name));
        let base = logits(&mut engine, &ids, &[], 40);
        let a = engine.add_adapter(&one.adapter()).unwrap();
        let b = engine.add_adapter(&two.adapter()).unwrap();
        let cases: [&[(AdapterId, &Random, f32)]; 3] = [
            &[(a, &one, 1.0)],
            &[(b, &two, -0.5)],
            &[(b, &two, 0.75), (a, &one, 0.5)],
        ];
        for case in cases {
            let merge = Vec::from_iter(case.iter().map(|(_, it, x)| (*it, f64::from(*x))));
            let mut reference = load(merged(&gguf, &merge));
            let want = logits(&mut reference, &ids, &[], 40);
            let uses = Vec::from_iter(case.iter().map(|(id, _, scale)| at(*id, *scale)));
            let found = logits(&mut engine, &ids, &uses, 40);
            let difference = relative_difference(&found, &want);
            let moved = relative_difference(&base, &want);
            println!("{name}: {difference:.1e} of logits that moved by {moved:.1e}");
            assert!(difference < 2e-4, "{name}: {difference}");
            assert!(moved > 0.05, "{name}: the adapter does something");
            for piece in [1, 7] {
                let again = logits(&mut engine, &ids, &uses, piece);
                assert!(again == found, "{name}: the same bits by {piece}");
            }
        }
        let none = logits(&mut engine, &ids, &[at(a, 0.0)], 40);
        assert!(none == base, "{name}: at scale 0 the bits of the model");
    }
}

/// Sequences of one step, each with its own adapters.
fn together(
    engine: &mut Engine,
    texts: &[(&[u32], Vec<AdapterUse>)],
    tokens: usize,
) -> Vec<Vec<f32>> {
    engine.clear_cache();
    let sequences: Vec<SequenceId> = texts
        .iter()
        .map(|(_, adapters)| engine.create_adapted_sequence(&[], adapters).unwrap().0)
        .collect();
    let mut rows = vec![Vec::new(); texts.len()];
    // A prompt, then the others a token each: many rows and few.
    let length = texts[0].0.len();
    let pieces = std::iter::once(0..tokens).chain((tokens..length).map(|at| at..at + 1));
    for piece in pieces {
        let batch: Vec<_> = texts
            .iter()
            .zip(&sequences)
            .map(|((ids, _), sequence)| Chunk {
                sequence: *sequence,
                tokens: &ids[piece.clone()],
                logits: Logits::Last,
            })
            .collect();
        engine
            .step(&batch, |scores| {
                rows[scores.chunk].extend_from_slice(scores.logits)
            })
            .unwrap();
    }
    rows
}

/// In a quantized model, too, where the feed-forward part is computed otherwise without adapters.
#[test]
fn a_batch_of_different_adapters_gives_the_bits_of_each_sequence_alone() {
    let Some(shared) = shared() else { return };
    let quantized = |dtype: &str| {
        let file = shared.join(format!("conformance/quant/model-{dtype}.gguf"));
        (dtype.to_owned(), Gguf::open(&file).unwrap())
    };
    let mut models = vec![quantized("Q8_0"), quantized("Q4_K_M")];
    for name in ["llama", "gemma3", "phi4_mini"] {
        models.push((name.to_owned(), Golden::gguf(&shared, name)));
    }
    for (name, gguf) in models {
        let (one, two) = (Random::new(&gguf, 8, 1), Random::new(&gguf, 5, 2));
        let vocab = ModelSpec::from_gguf(&gguf).unwrap().vocab_size as u32;
        let mut engine = load(gguf);
        let a = engine.add_adapter(&one.adapter()).unwrap();
        let b = engine.add_adapter(&two.adapter()).unwrap();
        let text = |seed: u32| Vec::from_iter((0..24).map(|at| (seed + at * 37) % vocab));
        let ids = Vec::from_iter((0..6).map(text));
        let texts = [
            (&ids[0][..], vec![at(a, 1.0)]),
            (&ids[1][..], vec![]),
            (&ids[2][..], vec![at(b, 0.5)]),
            (&ids[3][..], vec![at(b, 0.5)]),
            (&ids[4][..], vec![at(b, 0.5), at(a, -1.0)]),
            (&ids[5][..], vec![at(a, 0.25)]),
        ];
        let all = together(&mut engine, &texts, 20);
        for (text, rows) in texts.iter().zip(&all) {
            let alone = together(&mut engine, std::slice::from_ref(text), 20);
            assert!(alone[0] == *rows, "{name}");
        }
    }
}

#[test]
fn what_one_set_of_adapters_left_is_not_found_by_another() {
    let Some(shared) = shared() else { return };
    for name in ["llama", "gemma3"] {
        let gguf = Golden::gguf(&shared, name);
        let (one, two) = (Random::new(&gguf, 4, 1), Random::new(&gguf, 3, 2));
        let ids = ids(&shared, name, 40);
        let mut engine = load(gguf);
        let a = engine.add_adapter(&one.adapter()).unwrap();
        let b = engine.add_adapter(&two.adapter()).unwrap();
        let sets: [&[AdapterUse]; 6] = [
            &[],
            &[at(a, 1.0)],
            &[at(a, 0.5)],
            &[at(b, 1.0)],
            &[at(a, 1.0), at(b, 1.0)],
            &[at(a, 1.0), at(b, 0.5)],
        ];
        let mut step = |adapters: &[AdapterUse]| {
            let (sequence, known) = engine.create_adapted_sequence(&ids, adapters).unwrap();
            let chunk = Chunk {
                sequence,
                tokens: &ids[known..],
                logits: Logits::Last,
            };
            let mut row = Vec::new();
            engine
                .step(&[chunk], |scores| row = scores.logits.to_vec())
                .unwrap();
            engine.remove_sequence(sequence).unwrap();
            (known, row)
        };
        let first = Vec::from_iter(sets.iter().map(|set| step(set)));
        let again = Vec::from_iter(sets.iter().map(|set| step(set)));
        for (index, ((before, row), (known, same))) in first.iter().zip(&again).enumerate() {
            assert_eq!(
                *before, 0,
                "{name}: set {index} finds nothing of the others"
            );
            assert!(*known > 32, "{name}: set {index} finds its own");
            assert!(row == same, "{name}: set {index}");
        }
        let (known, row) = step(&[at(b, 1.0), at(a, 1.0)]);
        assert!(known > 32 && row == first[4].1, "the order does not matter");
        let (known, row) = step(&[at(b, 0.0)]);
        assert!(known > 32 && row == first[0].1, "scale 0 is none");
    }
}

#[test]
fn an_adapter_in_use_stays() {
    let Some(shared) = shared() else { return };
    let gguf = Golden::gguf(&shared, "llama");
    let adapter = Random::new(&gguf, 4, 1).adapter();
    let mut engine = load(gguf);
    assert_eq!(engine.adapter_bytes(), 0);
    let id = engine.add_adapter(&adapter).unwrap();
    let second = engine.add_adapter(&adapter).unwrap();
    assert_ne!(id, second);
    assert!(engine.adapter_bytes() > 0);
    let (sequence, _) = engine.create_adapted_sequence(&[], &[at(id, 1.0)]).unwrap();
    engine.remove_adapter(second).unwrap();
    let error = engine.remove_adapter(id).unwrap_err();
    assert!(matches!(error, EngineError::AdapterInUse { sequences: 1 }));
    engine.remove_sequence(sequence).unwrap();
    engine.remove_adapter(id).unwrap();
    assert_eq!(engine.adapter_bytes(), 0);
    for gone in [id, second] {
        let error = engine.create_adapted_sequence(&[], &[at(gone, 1.0)]);
        assert!(matches!(error, Err(EngineError::UnknownAdapter)));
        let error = engine.remove_adapter(gone);
        assert!(matches!(error, Err(EngineError::UnknownAdapter)));
    }
    let id = engine.add_adapter(&adapter).unwrap();
    let twice = [at(id, 1.0), at(id, 0.5)];
    let error = engine.create_adapted_sequence(&[], &twice);
    assert!(matches!(error, Err(EngineError::AdapterTwice)));
    let error = engine.create_adapted_sequence(&[], &[at(id, f32::NAN)]);
    assert!(matches!(error, Err(EngineError::AdapterScale { .. })));
}

/// Loads a changed adapter file and adds it to the model it was made for.
fn add(
    engine: &mut Engine,
    random: &Random,
    change: &dyn Fn(&mut Metadata, &mut Tensors),
) -> Result<AdapterId, EngineError> {
    let adapter = LoraAdapter::from_gguf(&Arc::new(random.gguf(change)))?;
    engine.add_adapter(&adapter)
}

fn rename(tensors: &mut Tensors, from: &str, to: &str) {
    for (name, ..) in tensors {
        *name = name.replace(from, to);
    }
}

#[test]
fn refuses_files_that_are_no_adapter_of_the_model() {
    let Some(shared) = shared() else { return };
    let gguf = Golden::gguf(&shared, "llama");
    let random = Random::new(&gguf, 4, 1);
    let mut engine = load(gguf);
    let model = Arc::new(Golden::gguf(&shared, "llama"));
    let message = LoraAdapter::from_gguf(&model).unwrap_err().to_string();
    assert!(message.contains("general.type"), "{message}");

    let mut refused = |change: &dyn Fn(&mut Metadata, &mut Tensors)| {
        let error = add(&mut engine, &random, change).unwrap_err();
        assert_eq!(engine.adapter_bytes(), 0);
        (error.to_string(), error)
    };
    let (message, error) = refused(&|keys, _| {
        keys.insert("general.architecture", "qwen2");
    });
    assert!(matches!(error, EngineError::AdapterArchitecture { .. }));
    assert!(message.contains("qwen2") && message.contains("llama"));

    let (message, error) = refused(&|keys, _| {
        keys.insert("adapter.type", "control_vector");
    });
    assert!(matches!(error, EngineError::NotAnAdapter { .. }));
    assert!(message.contains("control_vector"), "{message}");

    let (message, error) = refused(&|keys, _| {
        keys.insert("adapter.lora.alpha", Value::F32(f32::NAN));
    });
    assert!(
        matches!(error, EngineError::InvalidMetadata { .. }),
        "{message}"
    );

    let (_, error) = refused(&|_, tensors| tensors.clear());
    assert!(matches!(error, EngineError::NotAnAdapter { .. }));

    let (message, error) = refused(&|_, tensors| {
        tensors.retain(|(name, ..)| name != "blk.1.attn_k.weight.lora_b");
    });
    assert!(matches!(error, EngineError::AdapterUnpaired { .. }));
    assert!(message.contains("blk.1.attn_k.weight.lora_b"), "{message}");

    let (message, error) = refused(&|_, tensors| rename(tensors, "blk.2.", "blk.3."));
    assert!(matches!(error, EngineError::AdapterUnknownTensor { .. }));
    assert!(message.contains("blk.3."), "{message}");

    let (message, error) = refused(&|_, tensors| rename(tensors, "blk.0.attn_q", "token_embd"));
    assert!(matches!(error, EngineError::AdapterUnsupported { .. }));
    assert!(message.contains("token_embd.weight"), "{message}");

    let (message, error) = refused(&|_, tensors| rename(tensors, ".lora_a", ".lora_c"));
    assert!(matches!(error, EngineError::AdapterUnsupported { .. }));
    assert!(message.contains(".lora_c"), "{message}");

    let (_, error) = refused(&|keys, _| {
        keys.insert("adapter.alora.invocation_tokens", Value::U32(7));
    });
    assert!(matches!(error, EngineError::AdapterUnsupported { .. }));
}

#[test]
fn refuses_shapes_ranks_and_numbers_that_cannot_be_computed() {
    let Some(shared) = shared() else { return };
    let gguf = Golden::gguf(&shared, "llama");
    let random = Random::new(&gguf, 4, 1);
    let mut engine = load(gguf);
    let mut refused = |tensor: &'static str, shape: &[u64], values: &[f32]| {
        let error = add(&mut engine, &random, &|_, tensors| {
            let changed = tensors.iter_mut().find(|(name, ..)| name == tensor);
            let (_, old_shape, old) = changed.unwrap();
            (*old_shape, *old) = (shape.to_vec(), bytes(values));
        });
        let error = error.unwrap_err();
        (error.to_string(), error)
    };
    // The model's queries are 64 x 64, the rank is 4.
    let (q_a, q_b) = ("blk.0.attn_q.weight.lora_a", "blk.0.attn_q.weight.lora_b");
    let (message, error) = refused(q_a, &[32, 4], &random_values(128));
    assert!(matches!(error, EngineError::AdapterShape { .. }));
    assert!(
        message.contains(q_a) && message.contains("32") && message.contains("64"),
        "{message}"
    );
    let (_, error) = refused(q_b, &[4, 128], &random_values(512));
    assert!(matches!(
        error,
        EngineError::AdapterShape {
            found: (128, 4),
            expected: (64, 4),
            ..
        }
    ));
    let (_, error) = refused(q_b, &[8, 64], &random_values(512));
    assert!(matches!(
        error,
        EngineError::AdapterShape {
            found: (64, 8),
            expected: (64, 4),
            ..
        }
    ));
    for value in [f32::NAN, f32::INFINITY] {
        let mut values = random_values(256);
        values[130] = value;
        let (message, error) = refused(q_b, &[4, 64], &values);
        assert!(matches!(
            error,
            EngineError::InvalidTensorValue { index: 130, .. }
        ));
        assert!(message.contains(q_b), "{message}");
    }

    // Ranks of nothing and without end: no number of them is read.
    let matrix =
        |rows, cols| LoraMatrix::new("q", DType::F32, rows, cols, || panic!("is not read"));
    for rank in [0, 4097, usize::MAX] {
        let pair = LoraPair {
            tensor: "blk.0.attn_q.weight".to_owned(),
            a: matrix(rank, 64),
            b: matrix(64, rank),
            scale: 1.0,
        };
        let adapter = LoraAdapter::new("llama", vec![pair]);
        let error = engine.add_adapter(&adapter).unwrap_err();
        assert!(
            matches!(error, EngineError::AdapterRank { rank: found, limit: 4096, .. } if found == rank)
        );
    }
}

fn random_values(count: usize) -> Vec<f32> {
    random(7, count)
}

#[test]
fn refuses_models_that_do_not_write() {
    let Some(shared) = shared() else { return };
    let folder = shared.join("conformance/bert");
    assert_eq!(json(&folder.join("golden.json"))["kind"], "encoder");
    let mut engine = load(Golden::gguf(&shared, "bert"));
    let llama = Golden::gguf(&shared, "llama");
    let error = engine.add_adapter(&Random::new(&llama, 2, 1).adapter());
    assert!(matches!(error, Err(EngineError::NoLogits { .. })));
}
