//! One unit of 8 rows of each file type, from the file's blocks (ggml's `ggml-common.h`) to the layout in `panels.rs`.
#![allow(
    non_camel_case_types,
    reason = "the names of the types as ggml writes them"
)]

use super::words::{Rows, Words, spread_bits, store, transpose_bits, transpose_pairs};
use crate::panels::{self, Unit};

/// How the blocks of one file type become units.
pub(super) trait Packer: 'static {
    /// Bytes of the unit.
    const BYTES: usize;
    /// Bytes of its columns in a row of the file.
    const FILE_BYTES: usize;

    /// Packs one unit. The scales of rows that the matrix lacks are left as they are, zero.
    ///
    /// # Safety
    /// Every row has `FILE_BYTES` bytes, and `out` has those of the unit.
    unsafe fn pack(rows: &Rows, out: *mut u8);
}

/// Bytes of a step.
const STEP: usize = 32;

/// 16 bytes of nibbles of each row, columns 0 to 15 low and 16 to 31 high, which is how a panel has them, too.
///
/// # Safety
/// The rows have 16 bytes at `at`, and `out` has 128.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn copy_nibbles(rows: &Rows, at: usize, out: *mut u8) {
    for i in 0..4 {
        store(out.add(STEP * i), rows.words(at + 4 * i));
    }
}

/// 32 bytes of nibbles of each row, the low ones of one block and the high ones of another.
///
/// # Safety
/// The rows have 32 bytes at `at`; `low` and `high` have 128.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn split_nibbles(rows: &Rows, at: usize, low: *mut u8, high: *mut u8) {
    for i in 0..4 {
        let (a, b) = (rows.words(at + 4 * i), rows.words(at + 16 + 4 * i));
        let (mut l, mut h): (Words, Words) = ([0; 8], [0; 8]);
        for r in 0..8 {
            l[r] = (a[r] & 0x0f0f_0f0f) | (b[r] & 0x0f0f_0f0f) << 4;
            h[r] = (a[r] >> 4 & 0x0f0f_0f0f) | (b[r] & 0xf0f0_f0f0);
        }
        store(low.add(STEP * i), l);
        store(high.add(STEP * i), h);
    }
}

/// 32 bytes of each row, each with one bit of 8 blocks; those of block `b` to `out + b * stride`.
///
/// # Safety
/// The rows have 32 bytes at `at`; `out + b * stride` has 32.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn split_bits(rows: &Rows, at: usize, out: *mut u8, stride: usize) {
    let mut words = [[0; 8]; 8];
    for i in 0..8 {
        words[i] = rows.words(at + 4 * i);
    }
    transpose_bits(&mut words);
    for b in 0..8 {
        store(out.add(b * stride), words[b]);
    }
}

/// 32 bytes of each row, each with 2 bits of 4 blocks; those of block `b` to `out + b * stride`.
///
/// # Safety
/// The rows have 32 bytes at `at`; `out + b * stride` has 64.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn split_pairs(rows: &Rows, at: usize, out: *mut u8, stride: usize) {
    for plane in 0..2 {
        let mut words = [[0; 8]; 4];
        for i in 0..4 {
            words[i] = rows.words(at + 16 * plane + 4 * i);
        }
        transpose_pairs(&mut words);
        for b in 0..4 {
            store(out.add(b * stride + STEP * plane), words[b]);
        }
    }
}

/// Byte `i` of a row's scales to `out + i * stride + row`; the scales of rows that the matrix has.
///
/// # Safety
/// `out + i * stride` has 8 bytes for each of the `N` scales.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn put_scales<const N: usize>(out: *mut u8, stride: usize, row: usize, scales: [u8; N]) {
    for (i, scale) in scales.into_iter().enumerate() {
        *out.add(i * stride + row) = scale;
    }
}

/// Columns of 4 bytes.
pub(super) struct Words4;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Words4 {
    const BYTES: usize = STEP;
    const FILE_BYTES: usize = 4;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        store(out, rows.words(0));
    }
}

/// Two columns of 2 bytes.
pub(super) struct Halves;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Halves {
    const BYTES: usize = STEP;
    const FILE_BYTES: usize = 4;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        let words = rows.words(0);
        let mut columns = [[0; 8]; 2];
        for r in 0..8 {
            columns[0][r] = (words[r] as u16).to_le();
            columns[1][r] = ((words[r] >> 16) as u16).to_le();
        }
        out.cast::<[[u16; 8]; 2]>().write_unaligned(columns);
    }
}

/// `d`, with `MIN` also `m`, with `FIFTH` fifth bits, and nibbles: Q4_0, Q4_1, Q5_0, Q5_1 and IQ4_NL.
macro_rules! legacy {
    ($name:ident, min: $min:literal, fifth: $fifth:literal) => {
        pub(super) struct $name;
        #[allow(unsafe_op_in_unsafe_fn)]
        impl Packer for $name {
            const BYTES: usize = panels::$name::BYTES;
            const FILE_BYTES: usize = Self::NIBBLES + 16;
            #[inline(always)]
            unsafe fn pack(rows: &Rows, mut out: *mut u8) {
                rows.copy_halves(0, out);
                out = out.add(16);
                if $min {
                    rows.copy_halves(2, out);
                    out = out.add(16);
                }
                if $fifth {
                    let mut bits = rows.words(Self::FIFTH);
                    spread_bits(&mut bits);
                    store(out, bits);
                    out = out.add(STEP);
                }
                copy_nibbles(rows, Self::NIBBLES, out);
            }
        }
        impl $name {
            const FIFTH: usize = if $min { 4 } else { 2 };
            const NIBBLES: usize = Self::FIFTH + if $fifth { 4 } else { 0 };
        }
    };
}

legacy!(Q4_0, min: false, fifth: false);
legacy!(Q4_1, min: true, fifth: false);
legacy!(Q5_0, min: false, fifth: true);
legacy!(Q5_1, min: true, fifth: true);
legacy!(IQ4_NL, min: false, fifth: false);

pub(super) struct Q8_0;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Q8_0 {
    const BYTES: usize = panels::Q8_0::BYTES;
    const FILE_BYTES: usize = 34;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        rows.copy_halves(0, out);
        for i in 0..8 {
            store(out.add(16 + STEP * i), rows.words(2 + 4 * i));
        }
    }
}

/// Scales and mins of 16 halves of blocks, 64 bytes of 2-bit codes, `d`, `dmin`.
pub(super) struct Q2_K;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Q2_K {
    const BYTES: usize = panels::Q2_K::BYTES;
    const FILE_BYTES: usize = 84;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        const BLOCK: usize = 96;
        rows.copy_halves(80, out);
        rows.copy_halves(82, out.add(16));
        let blocks = out.add(32);
        for row in 0..rows.count {
            let packed: [u8; 16] = rows.bytes(row, 0);
            for (i, packed) in packed.into_iter().enumerate() {
                let scale = blocks.add(BLOCK * (i / 2) + 8 * (i % 2) + row);
                *scale = packed & 15;
                *scale.add(16) = packed >> 4;
            }
        }
        for half in 0..2 {
            let codes = blocks.add(BLOCK * 4 * half + 32);
            split_pairs(rows, 16 + 32 * half, codes, BLOCK);
        }
    }
}

/// 32 bytes of third bits, 64 of 2-bit codes, 12 of scales, `d`.
pub(super) struct Q3_K;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Q3_K {
    const BYTES: usize = panels::Q3_K::BYTES;
    const FILE_BYTES: usize = 110;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        const BLOCK: usize = 112;
        rows.copy_halves(108, out);
        let blocks = out.add(16);
        for row in 0..rows.count {
            let low: [u8; 8] = rows.bytes(row, 96);
            let (low, high) = (u64::from_le_bytes(low), rows.bytes(row, 104));
            let high = u64::from(u32::from_le_bytes(high));
            // The upper bits of scales 0 to 3 and 4 to 7, 8 to 11 and 12 to 15.
            for (i, high) in [high | high >> 2 << 32, high >> 4 | high >> 6 << 32]
                .into_iter()
                .enumerate()
            {
                let scales =
                    low >> (4 * i) & 0x0f0f_0f0f_0f0f_0f0f | (high & 0x0303_0303_0303_0303) << 4;
                for (j, scale) in scales.to_le_bytes().into_iter().enumerate() {
                    let at = BLOCK * (4 * i + j / 2) + 8 * (j % 2) + row;
                    *blocks.add(at) = scale.wrapping_sub(32);
                }
            }
        }
        split_bits(rows, 0, blocks.add(16), BLOCK);
        // The third bit is bit 2 of a code, and a panel has it alone.
        for half in 0..2 {
            let codes = blocks.add(BLOCK * 4 * half + 48);
            split_pairs(rows, 32 + 32 * half, codes, BLOCK);
        }
    }
}

/// 8 scales and 8 mins of 6 bits each, out of 12 bytes.
fn six_bits(packed: [u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for i in 0..4 {
        let (a, b, c) = (packed[i], packed[4 + i], packed[8 + i]);
        scales[i] = a & 63;
        mins[i] = b & 63;
        scales[4 + i] = (c & 15) | (a >> 6) << 4;
        mins[4 + i] = (c >> 4) | (b >> 6) << 4;
    }
    (scales, mins)
}

/// `d`, `dmin` and the scales of Q4_K and Q5_K.
///
/// # Safety
/// The rows have 16 bytes; `out` has the bytes of the unit, whose blocks take `block` bytes.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn pack_scales_and_mins(rows: &Rows, out: *mut u8, block: usize) {
    rows.copy_halves(0, out);
    rows.copy_halves(2, out.add(16));
    for row in 0..rows.count {
        let (scales, mins) = six_bits(rows.bytes(row, 4));
        put_scales(out.add(32), block, row, scales);
        put_scales(out.add(32 + 8), block, row, mins);
    }
}

/// `d`, `dmin`, 12 bytes of scales and mins, 128 bytes of nibbles.
pub(super) struct Q4_K;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Q4_K {
    const BYTES: usize = panels::Q4_K::BYTES;
    const FILE_BYTES: usize = 144;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        const BLOCK: usize = 144;
        pack_scales_and_mins(rows, out, BLOCK);
        for pair in 0..4 {
            let low = out.add(32 + BLOCK * 2 * pair + 16);
            split_nibbles(rows, 16 + 32 * pair, low, low.add(BLOCK));
        }
    }
}

/// As [`Q4_K`], 32 bytes of fifth bits before the nibbles.
pub(super) struct Q5_K;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Q5_K {
    const BYTES: usize = panels::Q5_K::BYTES;
    const FILE_BYTES: usize = 176;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        const BLOCK: usize = 176;
        pack_scales_and_mins(rows, out, BLOCK);
        split_bits(rows, 16, out.add(32 + 16), BLOCK);
        for pair in 0..4 {
            let low = out.add(32 + BLOCK * 2 * pair + 48);
            split_nibbles(rows, 48 + 32 * pair, low, low.add(BLOCK));
        }
    }
}

/// 128 bytes of nibbles, 64 of upper bits, 16 signed scales, `d`.
pub(super) struct Q6_K;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for Q6_K {
    const BYTES: usize = panels::Q6_K::BYTES;
    const FILE_BYTES: usize = 210;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        const BLOCK: usize = 208;
        rows.copy_halves(208, out);
        let blocks = out.add(16);
        for row in 0..rows.count {
            let scales: [u8; 16] = rows.bytes(row, 192);
            for (i, scale) in scales.into_iter().enumerate() {
                *blocks.add(BLOCK * (i / 2) + 8 * (i % 2) + row) = scale;
            }
        }
        for half in 0..2 {
            let blocks = blocks.add(BLOCK * 4 * half);
            split_pairs(rows, 128 + 32 * half, blocks.add(16), BLOCK);
            for quarter in 0..2 {
                let low = blocks.add(BLOCK * quarter + 80);
                let at = 64 * half + 32 * quarter;
                split_nibbles(rows, at, low, low.add(2 * BLOCK));
            }
        }
    }
}

/// `d`, the upper 2 bits and the lower 4 of 8 scales, 128 bytes of nibbles.
pub(super) struct IQ4_XS;
#[allow(unsafe_op_in_unsafe_fn)]
impl Packer for IQ4_XS {
    const BYTES: usize = panels::IQ4_XS::BYTES;
    const FILE_BYTES: usize = 136;
    #[inline(always)]
    unsafe fn pack(rows: &Rows, out: *mut u8) {
        const BLOCK: usize = 136;
        rows.copy_halves(0, out);
        let blocks = out.add(16);
        for row in 0..rows.count {
            let high = u16::from_le_bytes(rows.bytes(row, 2));
            let low: [u8; 4] = rows.bytes(row, 4);
            let mut scales = [0; 8];
            for (i, scale) in scales.iter_mut().enumerate() {
                let low = low[i / 2] >> (4 * (i % 2)) & 15;
                let high = (high >> (2 * i) & 3) as u8;
                *scale = (low | high << 4).wrapping_sub(32);
            }
            put_scales(blocks, BLOCK, row, scales);
        }
        for b in 0..8 {
            copy_nibbles(rows, 8 + 16 * b, blocks.add(BLOCK * b + 8));
        }
    }
}
