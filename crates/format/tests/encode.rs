//! Scalar encode against the `gguf` Python package, which shares no code with this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;

use dunlin_format::{DType, FormatError, can_encode, decode, encode};
use serde_json::Value;

const ENCODED: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::Q8_0];

#[test]
fn equals_the_gguf_package_bit_for_bit() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/encoded.json");
    let table: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let values = from_hex(&table["values"]);
    let (values, _) = values.as_chunks::<4>();
    let values: Vec<f32> = values
        .iter()
        .map(|&bits| f32::from_le_bytes(bits))
        .collect();
    for dtype in ENCODED {
        let expected = from_hex(&table[dtype.name()]);
        let block = dtype.block_bytes();
        let mut encoded = Vec::new();
        encode(dtype, &values, &mut encoded).unwrap();
        assert_eq!(encoded.len(), expected.len(), "{dtype}");
        for (index, (a, b)) in encoded
            .chunks(block)
            .zip(expected.chunks(block))
            .enumerate()
        {
            assert_eq!(a, b, "{dtype} block {index}");
        }
    }
}

#[test]
fn numbers_without_a_value_stay_so() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let special = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let mut encoded = Vec::new();
        encode(dtype, &special, &mut encoded).unwrap();
        let mut back = [0.0; 4];
        decode(dtype, &encoded, &mut back).unwrap();
        assert!(back[0].is_nan() && back[1].is_nan(), "{dtype}: {back:?}");
        assert_eq!(back[2..], special[2..], "{dtype}");
    }
}

#[test]
fn appends_to_what_is_there() {
    let mut out = vec![7];
    encode(DType::F32, &[1.0], &mut out).unwrap();
    assert_eq!(out, [7, 0, 0, 128, 63]);
}

#[test]
fn refuses_part_of_a_block() {
    let error = encode(DType::Q8_0, &[1.0; 33], &mut Vec::new()).unwrap_err();
    assert!(matches!(
        error,
        FormatError::PartialBlocks { values: 33, .. }
    ));
    assert_eq!(
        error.to_string(),
        "33 weights are not whole blocks of Q8_0, which holds 32 each"
    );
}

#[test]
fn a_type_without_an_encoder_is_named() {
    for dtype in DType::all().filter(|dtype| !ENCODED.contains(dtype)) {
        assert!(!can_encode(dtype));
        let error = encode(dtype, &[], &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains(dtype.name()), "{error}");
    }
}

fn from_hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
