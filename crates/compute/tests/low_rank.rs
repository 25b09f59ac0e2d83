//! Low-rank products that are added, against plain arithmetic, and the same bits alone and among others.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{
    Activations, LOW_RANK_PRODUCTS, LowRank, Matmul, PackedMatrix, Pool, Tier, add_low_rank,
    matmul, matmul_rows, pack,
};
use dunlin_format::DType;

/// Numbers that BF16 and F16 hold exactly.
fn values(count: usize, seed: usize) -> Vec<f32> {
    let value = |i: usize| ((i * 37 + seed * 11) % 61) as f32 / 32.0 - 0.9375;
    (0..count).map(value).collect()
}

fn packed(pool: &Pool, dtype: DType, rows: usize, cols: usize, values: &[f32]) -> PackedMatrix {
    let mut bytes = Vec::new();
    for value in values {
        match dtype {
            DType::F32 => bytes.extend(value.to_le_bytes()),
            DType::BF16 => bytes.extend(&value.to_le_bytes()[2..]),
            _ => bytes.extend(half::f16::from_f32(*value).to_le_bytes()),
        }
    }
    pack(pool, dtype, rows, cols, &bytes).unwrap()
}

#[test]
fn adds_the_products_of_a_group() {
    for tier in Tier::available() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for tokens in [1, 2, 5, 9] {
                let pool = Pool::new(2).unwrap();
                // Rows that are no whole panels, ranks of any size.
                let (first, second) = ((20, 3), (64, 5));
                let input = values(tokens * 8, 1);
                let weights = [values(first.0 * first.1, 2), values(second.0 * second.1, 3)];
                let matrices = [
                    packed(&pool, dtype, first.0, first.1, &weights[0]),
                    packed(&pool, dtype, second.0, second.1, &weights[1]),
                ];
                let before = [values(tokens * first.0, 4), values(tokens * second.0, 5)];
                let mut out = before.clone();
                let [out_first, out_second] = &mut out;
                let mut group: [Option<LowRank<'_>>; LOW_RANK_PRODUCTS] = [
                    Some(LowRank {
                        weights: &matrices[0],
                        first: 5,
                        scale: 0.5,
                        out: out_first,
                    }),
                    None,
                    Some(LowRank {
                        weights: &matrices[1],
                        first: 0,
                        scale: -2.0,
                        out: out_second,
                    }),
                    None,
                ];
                add_low_rank(&pool, tier, tokens, &input, &mut group);
                for (which, (rows, rank), first, scale) in
                    [(0, first, 5, 0.5), (1, second, 0, -2.0)]
                {
                    for token in 0..tokens {
                        for row in 0..rows {
                            let product: f64 = (0..rank)
                                .map(|k| {
                                    f64::from(weights[which][row * rank + k])
                                        * f64::from(input[token * 8 + first + k])
                                })
                                .sum();
                            let at = token * rows + row;
                            let want = f64::from(before[which][at]) + scale * product;
                            let found = f64::from(out[which][at]);
                            assert!((found - want).abs() < 1e-5, "{found} {want}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn some_rows_give_the_bits_that_all_give() {
    let pool = Pool::new(2).unwrap();
    let (rows, cols, tokens) = (30, 70, 13);
    for tier in Tier::available() {
        let weights = packed(&pool, DType::F32, rows, cols, &values(rows * cols, 1));
        let mut input = Activations::new(tokens, cols);
        input.fill(&pool, tier, tokens, false, |token, row| {
            row.copy_from_slice(&values(cols, token));
        });
        let mut all = vec![0.0; tokens * rows];
        let out = &mut all[..];
        matmul(
            &pool,
            tier,
            &input,
            &mut [Matmul {
                weights: &weights,
                out,
            }],
        );
        for some in [0..1, 3..4, 2..9, 12..13, 5..5] {
            let mut out = vec![0.0; some.len() * rows];
            let product = Matmul {
                weights: &weights,
                out: &mut out,
            };
            matmul_rows(&pool, tier, &input, some.clone(), &mut [product]);
            assert_eq!(out, all[some.start * rows..some.end * rows]);
            // The second half, likewise: the first products are its input.
            let b = packed(&pool, DType::F32, 11, rows, &values(11 * rows, 2));
            let add = |tokens: usize, input: &[f32]| {
                let mut out = vec![0.25; tokens * 11];
                let mut group = [const { None }; LOW_RANK_PRODUCTS];
                group[1] = Some(LowRank {
                    weights: &b,
                    first: 0,
                    scale: 0.7,
                    out: &mut out,
                });
                add_low_rank(&pool, tier, tokens, input, &mut group);
                out
            };
            let whole = add(tokens, &all);
            assert_eq!(add(some.len(), &out), whole[some.start * 11..some.end * 11]);
        }
    }
}
