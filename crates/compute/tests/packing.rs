//! Every weight of a packed matrix against the one that `dunlin-format` decodes: a product with the unit vectors hands the
//! weights out one by one.

#![allow(clippy::unwrap_used, missing_docs)]

use dunlin_compute::{
    Activations, Matmul, PackError, PackedMatrix, Pool, Tier, WeightMemory, map, matmul, pack,
    pack_with, pack_written,
};
use dunlin_format::{DType, decode};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// The product of `tokens` rows with a matrix.
fn product(pool: &Pool, tier: Tier, weights: &PackedMatrix, tokens: usize) -> Vec<f32> {
    let columns = weights.cols();
    let mut input = Activations::new(tokens, columns);
    input.fill(pool, tier, tokens, true, |t, row| {
        for (k, x) in row.iter_mut().enumerate() {
            *x = ((t * 31 + k * 17) % 201) as f32 / 100.0 - 1.0;
        }
    });
    let mut out = vec![f32::NAN; tokens * weights.rows()];
    let group = &mut [Matmul {
        weights,
        out: &mut out,
    }];
    matmul(pool, tier, &input, group);
    out
}

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

#[test]
fn weights_left_in_the_file_give_the_same_bits() {
    let pool = Pool::new(2).unwrap();
    let types = TYPES.into_iter().chain([DType::IQ2_XXS, DType::MXFP4]);
    for (dtype, rows) in types.flat_map(|dtype| [(dtype, 40), (dtype, 13), (dtype, 1)]) {
        let columns = if dtype.block_len() == 1 { 39 } else { 512 };
        let bytes = blocks(dtype, rows * columns / dtype.block_len());
        let packed = pack(&pool, dtype, rows, columns, &bytes).unwrap();
        // The matrix lies somewhere in a file.
        let (before, length) = (5, bytes.len());
        let file = [&[0xff; 5][..], &bytes, &[0xff; 9]].concat();
        let range = before..before + length;
        let mapped = map(dtype, rows, columns, Arc::new(file), range).unwrap();
        assert_eq!((mapped.bytes(), mapped.shared_bytes()), (0, length));
        for tier in Tier::available() {
            for tokens in [1, 3, 21] {
                let expected = product(&pool, tier, &packed, tokens);
                let found = product(&pool, tier, &mapped, tokens);
                let same = expected.iter().zip(&found);
                assert!(
                    same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{dtype:?}, {rows} rows, {tokens} tokens, {}",
                    tier.name()
                );
            }
        }
    }
}

#[test]
fn a_range_outside_the_file_is_refused() {
    for range in [0..100, 30..64] {
        let file = Arc::new(vec![0_u8; 60]);
        let refused = map(DType::F32, 1, 25, file, range).err();
        assert!(matches!(refused, Some(PackError::WrongSize { .. })));
    }
}

#[test]
fn packing_tells_of_every_byte_once() {
    let pool = Pool::new(2).unwrap();
    // 40 MB of rows, a last panel that is not full.
    let (rows, columns) = (1_221, 8_192);
    let bytes = vec![0; rows * columns * 4];
    let mut told = Vec::new();
    pack_with(
        &pool,
        &mut WeightMemory::default(),
        DType::F32,
        rows,
        columns,
        &bytes,
        &mut |packed| told.push(packed),
    )
    .unwrap();
    assert_eq!(told.iter().sum::<usize>(), bytes.len());
    assert!(told.len() > 1, "{told:?}");
}

#[test]
fn rows_that_are_written_while_packing_give_the_same_matrix() {
    let pool = Pool::new(2).unwrap();
    for (dtype, columns) in [
        (DType::F16, 39),
        (DType::Q5_0, 96),
        (DType::Q4_K, 512),
        (DType::IQ2_XXS, 256),
    ] {
        // Several pieces, and a last panel that is not full.
        let rows = 2_200_000 / columns + 3;
        let row_bytes = dtype.row_bytes(columns).unwrap();
        let bytes = blocks(dtype, rows * columns / dtype.block_len());
        let expected = pack(&pool, dtype, rows, columns, &bytes).unwrap();
        let mut told = Vec::new();
        let write = |rows: std::ops::Range<usize>, out: &mut Vec<u8>| {
            out.extend_from_slice(&bytes[rows.start * row_bytes..rows.end * row_bytes]);
        };
        let found = pack_written(
            &pool,
            &mut WeightMemory::default(),
            dtype,
            rows,
            columns,
            write,
            &mut |rows| {
                told.push(rows);
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        assert_eq!(told.iter().sum::<usize>(), rows);
        assert!(told.len() > 1, "{told:?}");
        let [a, b] = [&expected, &found].map(|packed| product(&pool, Tier::PORTABLE, packed, 1));
        let same = a.iter().zip(&b).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{dtype:?}");
    }
}

#[test]
fn packing_of_written_rows_ends_when_it_is_told_to() {
    let pool = Pool::new(2).unwrap();
    let calls = AtomicUsize::new(0);
    let write = |_: std::ops::Range<usize>, _: &mut Vec<u8>| {
        calls.fetch_add(1, Ordering::Relaxed);
    };
    let mut told = 0;
    let stopped = pack_written(
        &pool,
        &mut WeightMemory::default(),
        DType::Q8_0,
        1 << 20,
        64,
        write,
        &mut |_| {
            told += 1;
            ControlFlow::Break(())
        },
    );
    assert!(matches!(stopped, Err(PackError::Interrupted)));
    assert_eq!(told, 1);
    let calls = calls.into_inner();
    assert!(calls < 1 << 14, "{calls}");
    let refused = pack_written(
        &pool,
        &mut WeightMemory::default(),
        DType::Q4_K,
        8,
        100,
        |_, _| (),
        &mut |_| ControlFlow::Continue(()),
    );
    assert!(matches!(refused, Err(PackError::WrongSize { .. })));
}
