//! Every weight of a packed matrix against the one that `dunlin-format` decodes: a product with the unit vectors hands the
//! weights out one by one.

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

/// Bytes of random blocks, whose halves (scales, or the numbers themselves) are finite and of one magnitude.
fn blocks(dtype: DType, count: usize) -> Vec<u8> {
    let halves: Vec<usize> = match dtype {
        DType::F32 => vec![],
        DType::Q4_1 | DType::Q5_1 | DType::Q4_K | DType::Q5_K => vec![0, 2],
        DType::Q2_K => vec![80, 82],
        DType::Q3_K => vec![108],
        DType::Q6_K => vec![208],
        _ => vec![0],
    };
    let mut state = 99_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    let mut out = Vec::new();
    for _ in 0..count {
        if dtype == DType::F32 {
            out.extend((next() as f32 / 2f32.powi(30) - 1.0).to_le_bytes());
            continue;
        }
        let mut block: Vec<u8> = (0..dtype.block_bytes()).map(|_| next() as u8).collect();
        for &at in &halves {
            let half = 0x2c00 | (next() as u16 & 0x83ff);
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        }
        out.extend(block);
    }
    out
}

#[test]
fn a_packed_matrix_holds_every_weight_of_the_file() {
    let pool = Pool::new(2).unwrap();
    for dtype in TYPES {
        // Whole panels, a last one that is not full, and one that is; plain numbers in any count of columns.
        let columns = if dtype.block_len() == 1 { 39 } else { 512 };
        for rows in [8, 13, 1] {
            let bytes = blocks(dtype, rows * columns / dtype.block_len());
            let mut weights = vec![0.0; rows * columns];
            decode(dtype, &bytes, &mut weights).unwrap();
            let packed = pack(&pool, dtype, rows, columns, &bytes).unwrap();
            let mut input = Activations::new(columns, columns);
            input.fill(&pool, Tier::PORTABLE, columns, true, |t, row| {
                row.fill(0.0);
                row[t] = 127.0;
            });
            let mut out = vec![f32::NAN; columns * rows];
            let group = &mut [Matmul {
                weights: &packed,
                out: &mut out,
            }];
            matmul(&pool, Tier::PORTABLE, &input, group);
            // `scale * code + offset` cancels: the error is one of the largest term.
            let largest = weights.iter().fold(0.0_f32, |a, w| a.max(w.abs()));
            for (at, weight) in weights.iter().enumerate() {
                let (row, column) = (at / columns, at % columns);
                let found = out[column * rows + row] / 127.0;
                assert!(
                    (found - weight).abs() <= 2e-6 * largest,
                    "{dtype:?}, {rows} rows: row {row}, column {column} is {found}, not {weight}"
                );
            }
        }
    }
}
