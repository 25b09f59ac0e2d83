//! Scalar encode against the `gguf` Python package, which shares no code with this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;

use dunlin_format::{DType, FormatError, can_encode, decode, encode, encoding_for_width};
use serde_json::Value;

/// What the package encodes, too.
const LIKE_THE_PACKAGE: [DType; 8] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
];

const K_QUANTS: [DType; 5] = [
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
];

fn encoded_types() -> impl Iterator<Item = DType> {
    LIKE_THE_PACKAGE.into_iter().chain(K_QUANTS)
}

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
    for dtype in LIKE_THE_PACKAGE {
        let expected = from_hex(&table[dtype.name()]);
        let block = dtype.block_bytes();
        let mut encoded = Vec::new();
        encode(dtype, &values, &mut encoded).unwrap();
        assert_eq!(encoded.len(), expected.len(), "{dtype}");
        let blocks = encoded.chunks(block).zip(expected.chunks(block));
        for ((index, (a, b)), values) in blocks.enumerate().zip(values.chunks(dtype.block_len())) {
            if dtype != DType::Q8_0 && values.len() > 1 && has_no_inverse(values) {
                // The package divides by zero there.
                assert!(
                    decoded(dtype, a).iter().all(|x| *x == 0.0),
                    "{dtype} block {index}"
                );
            } else {
                assert_eq!(a, b, "{dtype} block {index}");
            }
        }
    }
}

/// Whether a block's values are so small that one over their scale is no number.
fn has_no_inverse(values: &[f32]) -> bool {
    let largest = values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    largest > 0.0 && largest < 1e-36
}

fn decoded(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    decode(dtype, bytes, &mut out).unwrap();
    out
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
fn blocks_refuse_what_they_have_no_code_for() {
    for dtype in encoded_types().filter(|dtype| dtype.block_len() > 1) {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e38, f32::MIN] {
            let mut values = vec![0.5; 512];
            values[300] = value;
            let mut out = vec![7];
            let error = encode(dtype, &values, &mut out).unwrap_err();
            let FormatError::NotEncodable { index: 300, .. } = error else {
                panic!("{dtype} {value}: {error}");
            };
            assert!(error.to_string().contains(dtype.name()), "{error}");
            assert_eq!(out, [7], "{dtype} {value}");
        }
    }
}

#[test]
fn the_largest_values_that_are_taken_stay_finite_and_near() {
    for dtype in encoded_types().filter(|dtype| dtype.block_len() > 1) {
        // The step between codes next to the largest magnitude, as a part of it.
        let step = 2.0f32.powf(2.0 - dtype.bits_per_weight().floor());
        for largest in [65519.0, -65519.0, 40000.0] {
            let values = Vec::from_iter((0..256).map(|i| largest * (i as f32 / 128.0 - 1.0)));
            let mut encoded = Vec::new();
            encode(dtype, &values, &mut encoded).unwrap();
            for (value, found) in values.iter().zip(decoded(dtype, &encoded)) {
                let error = (value - found).abs() / 65519.0;
                assert!(error <= step, "{dtype}: {value} became {found}");
            }
        }
    }
}

#[test]
fn blocks_of_nothing_or_nearly_nothing_are_zeros() {
    for dtype in encoded_types() {
        for value in [0.0, -0.0, f32::MIN_POSITIVE, -1e-40, f32::from_bits(1)] {
            let mut encoded = Vec::new();
            encode(dtype, &[value; 256], &mut encoded).unwrap();
            let is_zero = |found: &f32| match dtype {
                DType::F32 => *found == value,
                DType::BF16 => (found - value).abs() <= value.abs(),
                _ => *found == 0.0,
            };
            let found = decoded(dtype, &encoded);
            assert!(found.iter().all(is_zero), "{dtype} {value:e}: {found:?}");
        }
    }
}

#[test]
fn values_that_are_all_alike_are_hardly_changed() {
    for dtype in encoded_types() {
        for value in [0.3, -0.3, 1.0, -700.0, 0.05] {
            let mut encoded = Vec::new();
            encode(dtype, &[value; 256], &mut encoded).unwrap();
            for found in decoded(dtype, &encoded) {
                assert!(
                    (found - value).abs() <= value.abs() * 0.005,
                    "{dtype}: {value} became {found}"
                );
            }
        }
    }
}

#[test]
fn what_is_encoded_already_is_encoded_again_nearly_unchanged() {
    let noise = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5;
    let values = Vec::from_iter((0..4096).map(noise));
    let error =
        |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum() };
    for dtype in encoded_types() {
        let mut once = Vec::new();
        encode(dtype, &values, &mut once).unwrap();
        let once = decoded(dtype, &once);
        let mut twice = Vec::new();
        encode(dtype, &once, &mut twice).unwrap();
        let twice = decoded(dtype, &twice);
        let (first, second) = (error(&values, &once), error(&once, &twice));
        assert!(second <= first * 0.2, "{dtype}: {first} and then {second}");
    }
}

#[test]
fn rows_that_are_no_whole_blocks_get_the_next_type() {
    let cases = [
        (DType::Q4_K, 512, DType::Q4_K),
        (DType::Q2_K, 576, DType::Q4_0),
        (DType::Q3_K, 576, DType::Q4_0),
        (DType::Q4_K, 576, DType::Q5_0),
        (DType::Q5_K, 896, DType::Q5_1),
        (DType::Q6_K, 640, DType::Q8_0),
        (DType::Q8_0, 100, DType::F16),
        (DType::Q4_K, 100, DType::F16),
        (DType::F32, 7, DType::F32),
    ];
    for (wanted, columns, found) in cases {
        assert_eq!(
            encoding_for_width(wanted, columns),
            found,
            "{wanted} {columns}"
        );
    }
    for dtype in encoded_types() {
        let found = encoding_for_width(dtype, 100);
        assert!(can_encode(found) && found.row_bytes(100).is_some());
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
    let known = Vec::from_iter(encoded_types());
    for dtype in DType::all().filter(|dtype| !known.contains(dtype)) {
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
