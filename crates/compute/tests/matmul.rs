//! Packed products against plain sums over weights that `dunlin-format` decodes.
//!
//! Kernels of quantized types round activations to 8 bits, the largest of 16 columns being 127. Most tests give them whole
//! numbers with a largest magnitude of 127, so that this loses nothing, and the only difference left is the rounding of `f32`
//! sums. Types without a kernel are multiplied with exact activations.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{
    Activations, Matmul, PackError, PackedMatrix, PanelFormat, Pool, Precision, Tier,
    has_fast_kernel, matmul, pack,
};
use dunlin_format::{DType, can_decode, decode};
use proptest::prelude::*;

/// Types with a kernel of their own.
const TYPES: [DType; 15] = [
    DType::F32,
    DType::F16,
    DType::BF16,
    DType::Q4_0,
    DType::Q4_1,
    DType::Q5_0,
    DType::Q5_1,
    DType::Q8_0,
    DType::IQ4_NL,
    DType::Q2_K,
    DType::Q3_K,
    DType::Q4_K,
    DType::Q5_K,
    DType::Q6_K,
    DType::IQ4_XS,
];

/// Types that are decoded on the way.
const GENERAL: [DType; 13] = [
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

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0 >> 33
    }
}

/// Bytes of random blocks; `extreme` sets every code bit. Exponents of halves are kept small, so that sums stay finite.
fn blocks(dtype: DType, count: usize, extreme: bool, random: &mut Random) -> Vec<u8> {
    let size = dtype.block_bytes();
    let halves: &[usize] = match dtype {
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        DType::TQ1_0 => &[52],
        DType::TQ2_0 => &[64],
        DType::F32 | DType::IQ1_M | DType::MXFP4 | DType::NVFP4 => &[],
        _ => &[0],
    };
    let mut out = Vec::with_capacity(count * size);
    for _ in 0..count {
        if dtype == DType::F32 {
            out.extend(((random.next() % 2000) as f32 / 1000.0 - 1.0).to_le_bytes());
            continue;
        }
        let mut block: Vec<u8> = (0..size)
            .map(|_| if extreme { 255 } else { random.next() as u8 })
            .collect();
        for &at in halves {
            let sign = (random.next() & 1) << 15;
            let bits =
                if dtype == DType::BF16 { 0x3c00 } else { 0x2000 } | sign | random.next() & 0x3ff;
            block[at..at + 2].copy_from_slice(&(bits as u16).to_le_bytes());
        }
        match dtype {
            // The upper half of this byte is that of the scale, which stays below 1; powers of two from 2^-8 to 2^7.
            DType::IQ1_M => block[55] = block[55] & 0x8f | 0x20,
            DType::MXFP4 => block[0] = 120 + block[0] % 16,
            _ => {}
        }
        out.extend(block);
    }
    out
}

/// The product of `tokens` rows `x` with a matrix.
fn product(
    pool: &Pool,
    tier: Tier,
    precision: Precision,
    weights: &PackedMatrix,
    tokens: usize,
    x: &[f32],
) -> Vec<f32> {
    let cols = weights.cols();
    let mut input = Activations::with_precision(tokens, cols, precision);
    let quantize = weights.format().is_quantized();
    input.fill(pool, tier, tokens, quantize, |t, row| {
        row.copy_from_slice(&x[t * cols..][..cols])
    });
    let mut out = vec![f32::NAN; tokens * weights.rows()];
    let group = &mut [Matmul {
        weights,
        out: &mut out,
    }];
    matmul(pool, tier, &input, group);
    out
}

/// Random weights `[rows, cols]` as blocks and decoded, and `tokens` rows of numbers from -1 to 1.
fn random_case(
    dtype: DType,
    rows: usize,
    cols: usize,
    tokens: usize,
    extreme: bool,
    seed: u64,
) -> (Vec<u8>, Vec<f32>, Vec<f32>) {
    let mut random = Random(seed);
    let bytes = blocks(dtype, rows * cols / dtype.block_len(), extreme, &mut random);
    let mut weights = vec![0.0; rows * cols];
    decode(dtype, &bytes, &mut weights).unwrap();
    let numbers = (0..tokens * cols).map(|_| random.next() as f32 / 2f32.powi(30) - 1.0);
    (bytes, weights, numbers.collect())
}

/// A product of two rows in `f64`, and the sum of the magnitudes of its terms.
fn exact(w: &[f32], x: &[f32]) -> (f64, f64) {
    w.iter().zip(x).fold((0.0, 0.0), |(sum, size), (w, x)| {
        let term = f64::from(*w) * f64::from(*x);
        (sum + term, size + term.abs())
    })
}

/// What rounding activations by half a step can change: a step is a 127th of the largest magnitude of 16 columns, or a 32767th
/// of that of 32.
fn half_steps(precision: Precision, w: &[f32], x: &[f32]) -> f64 {
    let (columns, steps) = match precision {
        Precision::Bits8 => (16, 127.0),
        Precision::Bits16 => (32, 32767.0),
    };
    let largest = |part: &[f32]| part.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    let groups = w.chunks(columns).zip(x.chunks(columns));
    groups
        .map(|(w, x)| {
            let weights: f64 = w.iter().map(|w| f64::from(w.abs())).sum();
            f64::from(largest(x)) / (2.0 * steps) * weights
        })
        .sum()
}

fn check(tier: Tier, dtype: DType, rows: usize, cols: usize, tokens: usize, extreme: bool) {
    let mut random = Random(rows as u64 * 7919 + tokens as u64);
    let bytes = blocks(dtype, rows * cols / dtype.block_len(), extreme, &mut random);
    let mut weights = vec![0.0; rows * cols];
    decode(dtype, &bytes, &mut weights).unwrap();
    let x: Vec<f32> = (0..tokens * cols)
        .map(|i| match (i % 16, extreme) {
            (5, _) => -127.0,
            (_, true) => 127.0,
            _ => (random.next() % 255) as f32 - 127.0,
        })
        .collect();

    let pool = Pool::new(2).unwrap();
    let packed = pack(&pool, dtype, rows, cols, &bytes).unwrap();
    let mut input = Activations::new(tokens, cols);
    input.fill(&pool, tier, tokens, true, |t, row| {
        row.copy_from_slice(&x[t * cols..][..cols])
    });
    let mut out = vec![f32::NAN; tokens * rows];
    let mut twin = vec![f32::NAN; tokens * rows];
    let group = &mut [
        Matmul {
            weights: &packed,
            out: &mut out,
        },
        Matmul {
            weights: &packed,
            out: &mut twin,
        },
    ];
    matmul(&pool, tier, &input, group);
    assert_eq!(out, twin, "both products of a group");

    for t in 0..tokens {
        for r in 0..rows {
            let (want, size) = exact(&weights[r * cols..][..cols], &x[t * cols..][..cols]);
            let got = f64::from(out[t * rows + r]);
            // The offset of unsigned codes is taken off at the end, so that intermediate sums are a few times larger.
            let bound = 3e-6 * size + 1e-6;
            assert!(
                (got - want).abs() <= bound,
                "{} on {}: token {t}, row {r}: {got}, not {want} (bound {bound})",
                dtype.name(),
                tier.name()
            );
        }
    }
}

#[test]
fn every_type_matches_plain_sums_on_every_tier_for_any_number_of_tokens() {
    for tier in Tier::available() {
        for dtype in TYPES {
            for tokens in [1, 2, 3, 5, 8, 9, 13] {
                check(tier, dtype, 19, 512, tokens, false);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Half a step of the activations' codes in every column, and the rounding of sums.
    #[test]
    fn types_with_a_kernel_are_within_the_rounding_of_activations(
        dtype in proptest::sample::select(&TYPES),
        rows in 1usize..=21,
        units in 1usize..=5,
        tokens in 1usize..=14,
        threads in 1usize..=3,
        extreme: bool,
        seed: u64,
    ) {
        let cols = units * dtype.block_len().max(32);
        let (bytes, weights, x) = random_case(dtype, rows, cols, tokens, extreme, seed);
        let pool = Pool::new(threads).unwrap();
        let packed = pack(&pool, dtype, rows, cols, &bytes).unwrap();
        for tier in Tier::available() {
            for precision in [Precision::Bits8, Precision::Bits16] {
                let out = product(&pool, tier, precision, &packed, tokens, &x);
                for (t, x) in x.chunks_exact(cols).enumerate() {
                    for (r, w) in weights.chunks_exact(cols).enumerate() {
                        let (want, size) = exact(w, x);
                        let quantized = packed.format().is_quantized();
                        let coarse = if quantized { half_steps(precision, w, x) } else { 0.0 };
                        let bound = coarse + 3e-6 * size;
                        let got = f64::from(out[t * rows + r]);
                        prop_assert!(
                            (got - want).abs() <= bound,
                            "{} on {}, {:?}: token {}, row {}: {}, not {} (bound {})",
                            dtype, tier.name(), precision, t, r, got, want, bound
                        );
                    }
                }
            }
        }
    }

    /// Eight sums run side by side over 512 columns, then are added up, then the sums of all stretches: the bound is that of
    /// any such sum (Higham, Accuracy and Stability of Numerical Algorithms, 4.2), one rounding more where products round.
    #[test]
    fn types_without_a_kernel_are_within_the_rounding_of_sums(
        dtype in proptest::sample::select(&GENERAL),
        rows in 1usize..=21,
        blocks_in_row in 1usize..=40,
        tokens in 1usize..=11,
        threads in 1usize..=3,
        extreme: bool,
        seed: u64,
    ) {
        let cols = (blocks_in_row * dtype.block_len()).min(1536 / dtype.block_len() * dtype.block_len());
        let (bytes, weights, x) = random_case(dtype, rows, cols, tokens, extreme, seed);
        let pool = Pool::new(threads).unwrap();
        let packed = pack(&pool, dtype, rows, cols, &bytes).unwrap();
        prop_assert_eq!(packed.bytes(), bytes.len(), "the blocks are kept as they are");
        let roundings = 512 / 8 + 1 + 3 + cols.div_ceil(512);
        for tier in Tier::available() {
            let out = product(&pool, tier, Precision::Bits8, &packed, tokens, &x);
            for (t, x) in x.chunks_exact(cols).enumerate() {
                for (r, w) in weights.chunks_exact(cols).enumerate() {
                    let (want, size) = exact(w, x);
                    let bound = roundings as f64 * 2f64.powi(-24) * size;
                    let got = f64::from(out[t * rows + r]);
                    prop_assert!(
                        (got - want).abs() <= bound,
                        "{} on {}: token {}, row {}: {}, not {} (bound {})",
                        dtype, tier.name(), t, r, got, want, bound
                    );
                }
            }
        }
    }
}

#[test]
fn a_token_gets_the_same_bits_however_many_come_with_it() {
    // Whole pairs of panels and a lone one, stretches of several lengths, tokens in tiles and left over.
    let (rows, cols, tokens) = (43, 1280, 131);
    let pool = Pool::new(2).unwrap();
    let mut random = Random(3);
    let x = Vec::from_iter((0..tokens * cols).map(|_| random.next() as f32 / 2f32.powi(30) - 1.0));
    for dtype in TYPES.into_iter().chain(GENERAL) {
        let bytes = blocks(dtype, rows * cols / dtype.block_len(), false, &mut random);
        let packed = pack(&pool, dtype, rows, cols, &bytes).unwrap();
        for tier in Tier::available() {
            for precision in [Precision::Bits8, Precision::Bits16] {
                let whole = product(&pool, tier, precision, &packed, tokens, &x);
                for (first, count) in [
                    (0, 1),
                    (1, 2),
                    (60, 3),
                    (61, 4),
                    (63, 8),
                    (119, 11),
                    (130, 1),
                ] {
                    let few = product(&pool, tier, precision, &packed, count, &x[first * cols..]);
                    assert!(
                        few == whole[first * rows..][..count * rows],
                        "{dtype} on {}, {precision:?}, {count} tokens",
                        tier.name()
                    );
                }
            }
        }
    }
}

#[test]
fn any_bytes_and_any_activations_give_numbers_or_show_the_fault() {
    let pool = Pool::new(2).unwrap();
    let mut random = Random(11);
    for dtype in GENERAL.into_iter().chain(TYPES) {
        let cols = 512;
        for fill in [Some(0x00), Some(0x7f), Some(0xff), None] {
            let size = 9 * cols / dtype.block_len() * dtype.block_bytes();
            let bytes = Vec::from_iter((0..size).map(|_| fill.unwrap_or(random.next() as u8)));
            let packed = pack(&pool, dtype, 9, cols, &bytes).unwrap();
            for tier in Tier::available() {
                for x in [0.0, f32::MAX, f32::NAN, f32::INFINITY] {
                    let out = product(
                        &pool,
                        tier,
                        Precision::Bits8,
                        &packed,
                        3,
                        &vec![x; 3 * cols],
                    );
                    if x.is_nan() {
                        assert!(out.iter().all(|y| y.is_nan()), "{dtype} on {}", tier.name());
                    }
                }
            }
        }
    }
}

#[test]
fn each_type_of_weights_has_a_way_and_says_which() {
    let pool = Pool::new(1).unwrap();
    for dtype in DType::all() {
        let (cols, bytes) = (dtype.block_len(), vec![0; dtype.block_bytes()]);
        let packed = pack(&pool, dtype, 1, cols, &bytes);
        assert_eq!(has_fast_kernel(dtype), TYPES.contains(&dtype), "{dtype}");
        match packed {
            Ok(packed) if has_fast_kernel(dtype) => {
                assert!(packed.format() != PanelFormat::Blocks(dtype))
            }
            Ok(packed) => {
                assert!(GENERAL.contains(&dtype));
                assert_eq!(packed.format(), PanelFormat::Blocks(dtype));
            }
            Err(error) => {
                assert!(!can_decode(dtype));
                assert_eq!(error, PackError::UnsupportedType(dtype));
            }
        }
    }
}

#[test]
fn long_rows_and_many_tokens_cross_every_cache_block() {
    for tier in Tier::available() {
        for dtype in [
            DType::F16,
            DType::Q4_1,
            DType::Q5_0,
            DType::Q6_K,
            DType::Q8_0,
        ] {
            check(tier, dtype, 9, 2304, 131, false);
        }
    }
}

#[test]
fn widths_that_are_no_multiple_of_256_work_where_the_type_allows() {
    for tier in Tier::available() {
        for dtype in [
            DType::Q4_0,
            DType::Q4_1,
            DType::Q5_0,
            DType::Q5_1,
            DType::Q8_0,
            DType::IQ4_NL,
        ] {
            check(tier, dtype, 16, 1056, 13, false);
        }
    }
}

#[test]
fn largest_codes_times_largest_activations_do_not_saturate() {
    for tier in Tier::available() {
        for dtype in TYPES.into_iter().filter(|t| t.block_len() > 1) {
            for tokens in [1, 8, 12] {
                check(tier, dtype, 16, 256, tokens, true);
            }
        }
    }
}

#[test]
fn an_input_that_is_not_finite_shows_in_the_output() {
    let pool = Pool::new(1).unwrap();
    let packed = pack(&pool, DType::Q8_0, 8, 32, &vec![1; 8 * 34]).unwrap();
    for tier in Tier::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut input = Activations::new(1, 32);
            input.fill(&pool, tier, 1, true, |_, row| {
                row.fill(1.0);
                row[7] = bad;
            });
            let mut out = [0.0; 8];
            matmul(
                &pool,
                tier,
                &input,
                &mut [Matmul {
                    weights: &packed,
                    out: &mut out,
                }],
            );
            assert!(
                out.iter().all(|x| x.is_nan()),
                "{bad} on {}: {out:?}",
                tier.name()
            );
        }
    }
}

#[test]
fn refuses_sizes_that_do_not_fit() {
    let pool = Pool::new(1).unwrap();
    for (dtype, rows, cols, bytes) in [
        (DType::Q4_0, 8, 33, 200),
        (DType::Q4_0, 8, 32, 143),
        (DType::Q4_K, 1, 128, 72),
        (DType::F32, usize::MAX, 8, 0),
        (DType::F16, 0, 1 << 60, 0),
        (DType::IQ3_S, 0, 1 << 60, 0),
        (DType::IQ3_S, 1, 128, 55),
        (DType::IQ3_S, 2, 256, 219),
        (DType::MXFP4, usize::MAX, 32, 0),
        (DType::TQ2_0, 1, 0, 0),
    ] {
        assert!(
            pack(&pool, dtype, rows, cols, &vec![0; bytes]).is_err(),
            "{} {rows} x {cols}",
            dtype.name()
        );
    }
}
