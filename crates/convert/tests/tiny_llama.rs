//! A small folder in two files, against what llama.cpp's rules make of it (`make_tiny_llama.py`
//! writes them out in numpy).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{collections::BTreeSet, fs, ops::ControlFlow, path::Path};

use common::{FIXTURES, Work};
use dunlin_convert::{ConvertError, ConvertOptions, Folder, OutputType, convert, is_model_folder};
use dunlin_format::{DType, Gguf, Value, decode};
use sha2::{Digest, Sha256};

#[test]
fn every_tensor_is_as_the_rules_say_in_every_type() {
    let expected = fs::read(Path::new(FIXTURES).join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_slice(&expected).unwrap();
    for (asked, name) in [
        (OutputType::F32, "F32"),
        (OutputType::F16, "F16"),
        (OutputType::BF16, "BF16"),
        (OutputType::Q8_0, "Q8_0"),
        (OutputType::Source, "BF16"),
    ] {
        let (gguf, report) = Work::tiny_llama().convert(asked).unwrap();
        let expected = expected[name].as_object().unwrap();
        assert_eq!(report.dtype.name(), name);
        assert_eq!(report.tensors, expected.len());
        assert_eq!(report.bytes, gguf.file_bytes());
        let names: BTreeSet<&str> = gguf
            .tensors()
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(names, expected.keys().map(String::as_str).collect());
        for tensor in gguf.tensors() {
            let expected = &expected[&tensor.name];
            let what = format!("{} as {name}", tensor.name);
            assert_eq!(serde_json::json!(tensor.shape), expected["shape"], "{what}");
            assert_eq!(tensor.dtype.name(), expected["type"], "{what}");
            assert_eq!(sha256(gguf.data(tensor)), expected["sha256"], "{what}");
        }
    }
}

#[test]
fn the_metadata_describe_the_model() {
    let (gguf, _) = Work::tiny_llama().convert(OutputType::Q8_0).unwrap();
    for (key, expected) in [
        ("general.architecture", Value::from("llama")),
        ("general.type", Value::from("model")),
        ("general.name", Value::from("Tiny")),
        ("general.size_label", Value::from("32K")),
        ("general.file_type", Value::from(7u32)),
        ("general.quantization_version", Value::from(2u32)),
        ("general.sampling.top_k", Value::from(20i32)),
        ("general.sampling.top_p", Value::from(0.5f32)),
        ("general.sampling.temp", Value::from(0.25f32)),
        ("llama.block_count", Value::from(2u32)),
        ("llama.context_length", Value::from(256u32)),
        ("llama.embedding_length", Value::from(32u32)),
        ("llama.feed_forward_length", Value::from(48u32)),
        ("llama.attention.head_count", Value::from(4u32)),
        ("llama.attention.head_count_kv", Value::from(2u32)),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Value::from(1e-5f32),
        ),
        ("llama.attention.key_length", Value::from(8u32)),
        ("llama.attention.value_length", Value::from(8u32)),
        ("llama.rope.freq_base", Value::from(500_000.0f32)),
        ("llama.rope.dimension_count", Value::from(8u32)),
        ("llama.vocab_size", Value::from(264u32)),
        ("tokenizer.ggml.model", Value::from("gpt2")),
        ("tokenizer.ggml.pre", Value::from("llama-bpe")),
        ("tokenizer.ggml.bos_token_id", Value::from(261u32)),
        ("tokenizer.ggml.eos_token_id", Value::from(262u32)),
        (
            "tokenizer.chat_template",
            Value::from("{{ bos_token }}{{ messages[0].content }}"),
        ),
    ] {
        assert_eq!(gguf.metadata().get(key), Some(&expected), "{key}");
    }
    let tokens = gguf.metadata().strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.unwrap().len(), 264);
}

#[test]
fn rows_that_are_no_whole_blocks_are_said() {
    let (gguf, report) = Work::tiny_llama().convert(OutputType::Q8_0).unwrap();
    let down = gguf.tensor("blk.1.ffn_down.weight").unwrap();
    assert_eq!(down.dtype, DType::F16);
    assert_eq!(
        report.notes,
        [
            "2 tensors were written as F16, since their rows are not whole blocks of Q8_0 (32 each): \
          blk.0.ffn_down.weight has rows of 48, for example"
        ]
    );
}

#[test]
fn k_quants_of_narrow_rows_become_the_next_types() {
    let work = Work::tiny_llama();
    let (gguf, report) = work.convert("q4_k".parse().unwrap()).unwrap();
    let dtype = |name: &str| gguf.tensor(name).unwrap().dtype;
    assert_eq!(dtype("blk.0.attn_q.weight"), DType::Q5_0);
    assert_eq!(dtype("token_embd.weight"), DType::Q5_0);
    assert_eq!(dtype("blk.0.ffn_down.weight"), DType::F16);
    assert_eq!(dtype("blk.0.attn_norm.weight"), DType::F32);
    assert_eq!(report.notes.len(), 2, "{:?}", report.notes);
    assert!(
        report
            .notes
            .iter()
            .all(|note| note.contains("blocks of Q4_K (256 each)"))
    );

    // The same weights as in F32, each within half a step of its block.
    let (exact, _) = work.convert(OutputType::F32).unwrap();
    for info in gguf
        .tensors()
        .iter()
        .filter(|info| info.dtype == DType::Q5_0)
    {
        let read = |gguf: &Gguf| {
            let info = gguf.tensor(&info.name).unwrap();
            let mut values = vec![0.0; info.rows() * info.cols()];
            decode(info.dtype, gguf.data(info), &mut values).unwrap();
            values
        };
        let (found, exact) = (read(&gguf), read(&exact));
        for (found, exact) in found.chunks(32).zip(exact.chunks(32)) {
            let largest = exact.iter().fold(0.0f32, |most, x| most.max(x.abs()));
            for (a, b) in found.iter().zip(exact) {
                // The end of the range without a code of its own is up to a step away.
                assert!(
                    (a - b).abs() <= largest / 16.0 * 1.01,
                    "{}: {a} {b}",
                    info.name
                );
            }
        }
    }
}

#[test]
fn progress_ends_at_its_total_and_can_stop_the_conversion() {
    let work = Work::tiny_llama();
    let folder = Folder::open(work.path()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("model.gguf");
    let mut heard = Vec::new();
    let options = ConvertOptions::default();
    convert(&folder, &options, &path, &mut |done, total| {
        heard.push((done, total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(heard.is_sorted());
    let &(done, total) = heard.last().unwrap();
    assert_eq!(done, total);

    let before = fs::read(&path).unwrap();
    let stopped = convert(
        &folder,
        &options,
        &path,
        &mut |done, total| match done * 2 < total {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        },
    );
    assert!(
        matches!(stopped, Err(ConvertError::Cancelled)),
        "{stopped:?}"
    );
    assert_eq!(
        fs::read(&path).unwrap(),
        before,
        "the old file is untouched"
    );
    assert_eq!(
        fs::read_dir(out.path()).unwrap().count(),
        1,
        "nothing is left behind"
    );
}

#[test]
fn a_folder_is_told_by_its_config() {
    let work = Work::tiny_llama();
    assert!(is_model_folder(work.path()));
    assert!(!is_model_folder(&work.file("config.json")));
    assert!(!is_model_folder(Work::empty().path()));
    let folder = Folder::open(work.path()).unwrap();
    assert_eq!(folder.architecture(), "llama");
    assert_eq!(folder.hugging_face_architecture(), "LlamaForCausalLM");
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
