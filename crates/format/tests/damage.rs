//! Damage anywhere in a small model: an answer or an error, never a panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::hint::black_box;

use common::{F32, Q4_0, Raw, array, kind, text, texts};
use dunlin_format::{FormatError, Gguf, can_decode, check_vocabulary, decode};
use proptest::prelude::*;

#[test]
fn every_truncation_is_an_error() {
    let model = model();
    use_all(model.clone()).expect("the model is right before it is damaged");
    for length in 0..model.len() {
        use_all(model[..length].to_vec()).expect_err(&format!("cut at {length}"));
    }
}

#[test]
fn no_changed_byte_makes_it_panic() {
    let model = model();
    for at in 0..model.len() {
        for change in 1..=255 {
            let mut damaged = model.clone();
            damaged[at] ^= change;
            let _ = black_box(use_all(damaged));
        }
    }
}

proptest! {
    #[test]
    fn no_mixed_up_file_makes_it_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        swap in any::<[proptest::sample::Index; 3]>(),
    ) {
        let mut damaged = model();
        let length = damaged.len();
        let [from, to, count] = swap.map(|index| index.index(length));
        let count = count.min(length - from).min(length - to);
        damaged.copy_within(from..from + count, to);
        for (at, byte) in changes {
            damaged[at.index(length)] = byte;
        }
        let _ = black_box(use_all(damaged));
    }

    #[test]
    fn no_bytes_behind_a_head_make_it_panic(
        tensor_count in 0u64..4,
        entry_count in 0u64..4,
        rest in proptest::collection::vec(prop_oneof![4 => Just(0u8), 4 => 0u8..13, 1 => any::<u8>()], 0..400),
    ) {
        let mut raw = Raw::new();
        raw.tensor_count = Some(tensor_count);
        raw.entry_count = Some(entry_count);
        let bytes = [raw.bytes(), rest].concat();
        let _ = black_box(use_all(bytes));
    }
}

/// Opens the model and touches all that a reader could.
fn use_all(bytes: Vec<u8>) -> Result<(), FormatError> {
    let gguf = Gguf::from_bytes(bytes)?;
    black_box(check_vocabulary(gguf.metadata()));
    black_box(format!("{:?}", gguf.metadata()));
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        assert_eq!(data.len() as u64, tensor.byte_len());
        let mut weights = vec![0.0; tensor.elements() as usize];
        if can_decode(tensor.dtype) {
            decode(tensor.dtype, data, &mut weights)?;
        }
        black_box((weights, tensor.rows(), tensor.cols()));
    }
    Ok(())
}

fn model() -> Vec<u8> {
    let nested = array(
        kind::ARRAY,
        2,
        &[texts(&["x"]), texts(&["y", "z"])].concat(),
    );
    Raw::model()
        .u32("general.alignment", 32)
        .entry("test.flag", kind::BOOL, &[1])
        .entry("test.scale", kind::F32, &0.5f32.to_le_bytes())
        .entry("test.flags", kind::ARRAY, &array(kind::BOOL, 2, &[0, 1]))
        .entry("test.nested", kind::ARRAY, &nested)
        .entry("tokenizer.ggml.model", kind::STRING, &text(b"gpt2"))
        .entry(
            "tokenizer.ggml.tokens",
            kind::ARRAY,
            &texts(&["a", "ü", ""]),
        )
        .entry(
            "tokenizer.ggml.scores",
            kind::ARRAY,
            &array(kind::F32, 3, &[0; 12]),
        )
        .entry(
            "tokenizer.ggml.token_type",
            kind::ARRAY,
            &array(kind::I32, 3, &[0; 12]),
        )
        .entry("tokenizer.ggml.merges", kind::ARRAY, &texts(&["a ü"]))
        .tensor("token_embd.weight", &[32, 2], Q4_0, 0)
        .tensor("norm.weight", &[2, 2, 2, 1], F32, 64)
        .data(96)
        .bytes()
}
