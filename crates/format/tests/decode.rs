//! Scalar decode against references that share no code with this crate, bit for bit: each weight
//! is one product and at most one sum, rounded alike everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::print_stderr,
    reason = "says that a test found no data to run on"
)]

use std::{env, fs, path::PathBuf};

use dunlin_format::{DType, FormatError, can_decode, decode};
use serde_json::Value;

const DECODED: [DType; 15] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_NL,
    DType::IQ4_XS,
];

#[test]
fn equals_the_gguf_package_on_random_and_extreme_blocks() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/blocks.json");
    let table: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    for dtype in DECODED {
        let entry = &table[dtype.name()];
        let bits = from_hex(entry["f32_bits_hex"].as_str().unwrap());
        let (bits, _) = bits.as_chunks::<4>();
        let expected: Vec<f32> = bits.iter().map(|&bits| f32::from_be_bytes(bits)).collect();
        assert_bits_equal(
            dtype,
            &from_hex(entry["data_hex"].as_str().unwrap()),
            &expected,
        );
    }
}

#[test]
fn equals_the_conformance_blocks_of_real_weights() {
    let Some(shared) = shared_folder() else {
        eprintln!("skipped: no conformance data (set DUNLIN_SHARED to its folder)");
        return;
    };
    let path = shared.join("conformance/quant/dequant_blocks.json");
    let table: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let mut compared = 0;
    for (name, entry) in table.as_object().unwrap() {
        let dtype = DType::all().find(|dtype| dtype.name() == name).unwrap();
        if !can_decode(dtype) {
            eprintln!("not compared, as it cannot be decoded: {dtype}");
            continue;
        }
        let weights = entry["f32"].as_array().unwrap();
        let expected: Vec<f32> = weights.iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_bits_equal(
            dtype,
            &from_hex(entry["data_hex"].as_str().unwrap()),
            &expected,
        );
        compared += 1;
    }
    assert_eq!(compared, 14, "all decoded types but F32 are in the table");
}

#[test]
fn a_scale_that_is_no_number_gives_weights_that_are_none() {
    for dtype in [DType::Q4_0, DType::Q8_0, DType::IQ4_NL] {
        let mut block = vec![0; dtype.block_bytes()];
        block[..2].copy_from_slice(&0x7e00u16.to_le_bytes());
        let mut weights = vec![0.0; dtype.block_len()];
        decode(dtype, &block, &mut weights).unwrap();
        assert!(weights.iter().all(|weight| weight.is_nan()), "{dtype}");
    }
}

#[test]
fn refuses_lengths_that_do_not_match() {
    for dtype in DECODED {
        let bytes = vec![0; dtype.block_bytes()];
        let one = dtype.block_len();
        for (bytes, values) in [(&bytes[1..], one), (&bytes[..], one + 1), (&bytes[..], 0)] {
            let error = decode(dtype, bytes, &mut vec![0.0; values]).unwrap_err();
            assert!(
                matches!(error, FormatError::BlockLength { .. }),
                "{dtype}: {error}"
            );
        }
        decode(dtype, &[], &mut []).unwrap();
    }
}

#[test]
fn a_type_without_a_decoder_is_named() {
    for dtype in DType::all().filter(|dtype| !DECODED.contains(dtype)) {
        assert!(!can_decode(dtype));
        let error = decode(dtype, &[], &mut []).unwrap_err();
        assert!(error.to_string().contains(dtype.name()), "{error}");
    }
}

fn assert_bits_equal(dtype: DType, data: &[u8], expected: &[f32]) {
    let mut weights = vec![f32::NAN; expected.len()];
    decode(dtype, data, &mut weights).unwrap();
    for (index, (weight, expected)) in weights.iter().zip(expected).enumerate() {
        assert_eq!(
            weight.to_bits(),
            expected.to_bits(),
            "{dtype} weight {index}: {weight} instead of {expected}"
        );
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The folder of shared conformance data, where there is one.
fn shared_folder() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let folder = env::var_os("DUNLIN_SHARED").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    folder.join("conformance").is_dir().then_some(folder)
}
