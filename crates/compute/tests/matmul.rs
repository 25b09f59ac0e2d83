//! Packed products against plain sums over weights that `dunlin-format` decodes.
//!
//! Activations are whole numbers with a largest magnitude of 127 in each block of 16, so that quantizing them loses nothing,
//! and the only difference left is the rounding of `f32` sums.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{Activations, Matmul, Pool, Tier, matmul, pack};
use dunlin_format::{DType, decode};

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
        DType::Q4_0
        | DType::Q5_0
        | DType::Q8_0
        | DType::IQ4_NL
        | DType::IQ4_XS
        | DType::F16
        | DType::BF16 => &[0],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => &[0, 2],
        DType::Q2_K => &[80, 82],
        DType::Q3_K => &[108],
        DType::Q6_K => &[208],
        _ => &[],
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
        out.extend(block);
    }
    out
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
            let (mut want, mut size) = (0.0f64, 0.0f64);
            for (w, x) in weights[r * cols..][..cols]
                .iter()
                .zip(&x[t * cols..][..cols])
            {
                want += f64::from(*w) * f64::from(*x);
                size += (f64::from(*w) * f64::from(*x)).abs();
            }
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
            for tokens in [1, 2, 3, 4, 5, 8, 13] {
                check(tier, dtype, 19, 512, tokens, false);
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
            check(tier, dtype, 8, 1056, 9, false);
        }
    }
}

#[test]
fn largest_codes_times_largest_activations_do_not_saturate() {
    for tier in Tier::available() {
        for dtype in TYPES.into_iter().filter(|t| t.block_len() > 1) {
            for tokens in [1, 8] {
                check(tier, dtype, 8, 256, tokens, true);
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
    ] {
        assert!(
            pack(&pool, dtype, rows, cols, &vec![0; bytes]).is_err(),
            "{} {rows} x {cols}",
            dtype.name()
        );
    }
}
