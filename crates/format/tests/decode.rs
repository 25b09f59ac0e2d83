//! Scalar decode against references that share no code with this crate, bit for bit: each weight
//! is one product and at most one sum, rounded alike everywhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::print_stderr,
    reason = "says that a test found no data to run on"
)]

use std::{env, fs, path::PathBuf};

use dunlin_format::{CODES_PER_SCALE, DType, FormatError, can_decode, decode, decode_codes};
use serde_json::Value;

const DECODED: [DType; 28] = [
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
    DType::IQ1_S,
    DType::IQ1_M,
    DType::IQ2_XXS,
    DType::IQ2_XS,
    DType::IQ2_S,
    DType::IQ3_XXS,
    DType::IQ3_S,
    DType::TQ1_0,
    DType::TQ2_0,
    DType::MXFP4,
    DType::NVFP4,
    DType::Q1_0,
    DType::Q2_0,
];

/// Types whose weights are not handed out as codes and scales.
const PRODUCTS_ONLY: [DType; 12] = [
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

/// Where the half-precision scales stand in a block; everything else may be any bytes.
fn halves(dtype: DType) -> &'static [usize] {
    match dtype {
        DType::F32 | DType::BF16 | DType::IQ1_M | DType::MXFP4 | DType::NVFP4 => &[],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        _ => &[0],
    }
}

#[test]
fn equals_the_gguf_package_on_random_and_extreme_blocks() {
    let table = fixture("blocks.json");
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
fn equals_the_gguf_package_on_every_entry_of_the_code_books() {
    let digests = fixture("digests.json");
    for dtype in DECODED.into_iter().filter(|dtype| dtype.block_len() > 1) {
        let mut data = random_bytes(1000 * dtype.block_bytes());
        for block in data.chunks_exact_mut(dtype.block_bytes()) {
            for at in halves(dtype) {
                block[at + 1] = block[at + 1] & 0x83 | 0x20;
            }
            if dtype == DType::IQ1_M {
                block[55] = block[55] & 0x8f | 0x20;
            }
        }
        let mut weights = vec![f32::NAN; 1000 * dtype.block_len()];
        decode(dtype, &data, &mut weights).unwrap();
        let digest = weights
            .iter()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, weight| {
                (hash ^ u64::from(weight.to_bits())).wrapping_mul(0x100_0000_01b3)
            });
        let expected = digests[dtype.name()].as_str().unwrap();
        assert_eq!(format!("{digest:016x}"), expected, "{dtype}");
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
        let weights = entry["f32"].as_array().unwrap();
        let expected: Vec<f32> = weights.iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_bits_equal(
            dtype,
            &from_hex(entry["data_hex"].as_str().unwrap()),
            &expected,
        );
        compared += 1;
    }
    assert_eq!(compared, 18);
}

#[test]
fn a_scale_that_is_no_number_gives_weights_that_are_none() {
    for dtype in DECODED {
        for (bits, finite) in [
            (0x7e00u16, false),
            (0x7c00, false),
            (0xfc00, false),
            (0x3c00, true),
        ] {
            let mut block = vec![0x5a; dtype.block_bytes()];
            for at in halves(dtype) {
                block[*at..at + 2].copy_from_slice(&bits.to_le_bytes());
            }
            if dtype == DType::IQ1_M {
                for quarter in 0..4 {
                    let nibble = (bits >> (4 * quarter)) as u8 & 15;
                    block[49 + 2 * quarter] = nibble << 4;
                }
            } else if halves(dtype).is_empty() {
                continue;
            }
            let mut weights = vec![0.0; dtype.block_len()];
            decode(dtype, &block, &mut weights).unwrap();
            // An infinite scale times a code that is zero is no number, and times any other infinite.
            assert!(
                weights.iter().all(|weight| weight.is_finite() == finite),
                "{dtype} with {bits:x}: {weights:?}"
            );
        }
    }
}

#[test]
fn any_bytes_decode() {
    for dtype in DECODED {
        for fill in [0x00, 0xff, 0x7f, 0x80] {
            let mut weights = vec![0.0; dtype.block_len()];
            decode(dtype, &vec![fill; dtype.block_bytes()], &mut weights).unwrap();
        }
        let mut weights = vec![0.0; 4000 * dtype.block_len()];
        decode(
            dtype,
            &random_bytes(4000 * dtype.block_bytes()),
            &mut weights,
        )
        .unwrap();
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
fn codes_times_scales_are_the_weights() {
    for dtype in DECODED {
        let data = random_bytes(6 * dtype.block_bytes());
        let values = 6 * dtype.block_len();
        let mut weights = vec![0.0; values];
        decode(dtype, &data, &mut weights).unwrap();
        let (mut codes, mut scales) = (vec![0; values], vec![0.0; values / CODES_PER_SCALE]);
        match decode_codes(dtype, &data, &mut codes, &mut scales) {
            Ok(()) => {
                for (i, (weight, code)) in weights.iter().zip(&codes).enumerate() {
                    let product = scales[i / CODES_PER_SCALE] * f32::from(*code);
                    assert!(product == *weight || weight.is_nan(), "{dtype} weight {i}");
                }
                let short = &mut scales[1..];
                let error = decode_codes(dtype, &data, &mut codes, short).unwrap_err();
                assert!(matches!(error, FormatError::BlockLength { .. }), "{error}");
            }
            Err(FormatError::UnsupportedDType { .. }) => assert!(PRODUCTS_ONLY.contains(&dtype)),
            // Plain numbers: six of them have no scale.
            Err(error) => assert!(dtype.block_len() == 1, "{dtype}: {error}"),
        }
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

fn fixture(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    serde_json::from_slice(&fs::read(format!("{folder}/{name}")).unwrap()).unwrap()
}

/// The generator of `make_fixtures.py`.
fn random_bytes(count: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(count).collect()
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
