//! Products with rows in 16 bits.
//!
//! Rows are quantized so that the largest magnitude of 32 columns becomes 32767: whole numbers with that largest magnitude are
//! their own codes, and every sum of them below 2^24 is exact in `f32`.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{Activations, Matmul, Pool, Precision, Tier, matmul, pack};
use dunlin_format::{DType, decode};
use proptest::prelude::*;

/// The products of rows `x` with Q8_0 blocks.
fn product(tier: Tier, rows: usize, cols: usize, bytes: &[u8], x: &[f32]) -> Vec<f32> {
    let pool = Pool::new(2).unwrap();
    let weights = &pack(&pool, DType::Q8_0, rows, cols, bytes).unwrap();
    let tokens = x.len() / cols;
    let mut input = Activations::with_precision(tokens, cols, Precision::Bits16);
    input.fill(&pool, tier, tokens, true, |t, row| {
        row.copy_from_slice(&x[t * cols..][..cols]);
    });
    let mut out = vec![f32::NAN; tokens * rows];
    let out_of_product = &mut out;
    matmul(
        &pool,
        tier,
        &input,
        &mut [Matmul {
            weights,
            out: out_of_product,
        }],
    );
    out
}

/// Q8_0 blocks with a scale of 1.
fn unit_blocks(codes: &[i8]) -> Vec<u8> {
    let one = [0x00, 0x3c];
    let block = |codes: &[i8]| {
        one.into_iter()
            .chain(codes.iter().map(|c| *c as u8))
            .collect()
    };
    codes
        .chunks(32)
        .flat_map(|c: &[i8]| -> Vec<u8> { block(c) })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whole_numbers_come_out_exact_on_every_tier(
        rows in 1usize..=35,
        tokens in 1usize..=21,
        codes in prop::collection::vec(-128i8..=127, 35 * 32),
        numbers in prop::collection::vec(-1000i16..=1000, 21 * 32),
        top in 0usize..32,
        sign: bool,
    ) {
        let bytes = unit_blocks(&codes[..rows * 32]);
        let mut x = Vec::from_iter(numbers[..tokens * 32].iter().map(|n| f32::from(*n)));
        for row in x.chunks_exact_mut(32) {
            row[top] = if sign { 32767.0 } else { -32767.0 };
        }
        let mut want = Vec::new();
        for x in x.chunks_exact(32) {
            for w in codes[..rows * 32].chunks_exact(32) {
                let terms = w.iter().zip(x).map(|(w, x)| i64::from(*w) * *x as i64);
                want.push(terms.sum::<i64>() as f32);
            }
        }
        for tier in Tier::available() {
            prop_assert_eq!(&product(tier, rows, 32, &bytes, &x), &want, "{}", tier.name());
        }
    }
}

#[test]
fn the_largest_codes_overflow_nothing() {
    let cols = 1536;
    for code in [-128i8, 127] {
        let bytes = unit_blocks(&vec![code; 16 * cols]);
        for x in [-1.0, 1.0] {
            let want = f64::from(code) * f64::from(x) * cols as f64;
            for tier in Tier::available() {
                for got in product(tier, 16, cols, &bytes, &vec![x; 7 * cols]) {
                    let error = (f64::from(got) - want).abs();
                    assert!(
                        error < 1e-5 * want.abs(),
                        "{got}, not {want}, on {}",
                        tier.name()
                    );
                }
            }
        }
    }
}

#[test]
fn numbers_that_are_not_finite_show_in_their_own_row_only() {
    let bytes = unit_blocks(&[1; 8 * 64]);
    for tier in Tier::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 9 * 64];
            x[4 * 64 + 40] = bad;
            let out = product(tier, 8, 64, &bytes, &x);
            for (token, out) in out.chunks_exact(8).enumerate() {
                for got in out {
                    let fault = got.is_nan();
                    assert_eq!(fault, token == 4, "{bad}: token {token} on {}", tier.name());
                }
            }
        }
    }
}

#[test]
fn numbers_too_small_to_have_a_scale_count_as_zero() {
    let bytes = unit_blocks(&[1; 8 * 32]);
    for tier in Tier::available() {
        for tiny in [0.0, f32::from_bits(1), f32::MIN_POSITIVE / 1e4] {
            let out = product(tier, 8, 32, &bytes, &[tiny; 32]);
            assert!(
                out.iter().all(|x| x.abs() < 1e-30),
                "{tiny} on {}",
                tier.name()
            );
        }
    }
}

#[test]
fn rows_that_cross_stretches_and_token_blocks_are_sums_of_their_parts() {
    let (rows, cols, tokens) = (24, 1120, 131);
    let number = |i: usize| ((i * 7919) % 255) as i32 - 127;
    let codes = Vec::from_iter((0..rows * cols).map(|i| number(i) as i8));
    let bytes = unit_blocks(&codes);
    let mut weights = vec![0.0; rows * cols];
    decode(DType::Q8_0, &bytes, &mut weights).unwrap();
    let x = Vec::from_iter((0..tokens * cols).map(|i| number(3 * i + 1) as f32 / 127.0));
    for tier in Tier::available() {
        let out = product(tier, rows, cols, &bytes, &x);
        for (t, x) in x.chunks_exact(cols).enumerate() {
            for (r, w) in weights.chunks_exact(cols).enumerate() {
                let terms = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x));
                let size: f64 = terms.clone().map(f64::abs).sum();
                let error = (f64::from(out[t * rows + r]) - terms.sum::<f64>()).abs();
                assert!(error < 1e-5 * size, "token {t}, row {r} on {}", tier.name());
            }
        }
    }
}
