//! Eight weights out of a book of -1, 0, 1, all moved by an eighth up or down: IQ1_S, IQ1_M.
//!
//! The codes here are eighths, and the scales an eighth of the file's: nothing is rounded by that.

use half::f16;

use super::{grids, half, parts};

/// 8 groups of 32. Bytes 0..2 half scale, 2..34 low eight bits of the indices (one for each 8 weights), 34..50 a word a
/// group: four times the high three bits of the indices, the group's scale in 3 bits, the direction of the move.
pub(super) fn iq1_s(block: &[u8; 50], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    let scale = half(block, 0);
    for (group, codes) in parts::<32, _>(codes).enumerate() {
        let word = u16::from_le_bytes([block[34 + 2 * group], block[35 + 2 * group]]);
        let group_scale = eighth(scale, word >> 12);
        [scales[2 * group], scales[2 * group + 1]] = [group_scale; 2];
        for (i, codes) in parts::<8, _>(codes).enumerate() {
            let low = u16::from(block[2 + 4 * group + i]);
            *codes = moved(low | word >> (3 * i) << 8, word >> 15 == 1);
        }
    }
}

/// 16 groups of 16. Bytes 0..32 low eight bits of the indices, 32..48 half a byte an index: its high three bits and the
/// direction of the move; 48..56 four words of four scales in 3 bits each, with a quarter of the half that multiplies
/// them on top.
pub(super) fn iq1_m(block: &[u8; 56], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    let words = [48, 50, 52, 54].map(|at| u16::from_le_bytes([block[at], block[at + 1]]));
    let quarters = words.map(|word| word >> 12);
    let scale = quarters[0] | quarters[1] << 4 | quarters[2] << 8 | quarters[3] << 12;
    let scale = f16::from_bits(scale).to_f32();
    for (group, scale_of) in scales.iter_mut().enumerate() {
        *scale_of = eighth(scale, words[group / 4] >> (3 * (group % 4)));
    }
    for (i, codes) in parts::<8, _>(codes).enumerate() {
        let high = u16::from(block[32 + i / 2] >> (4 * (i % 2)));
        *codes = moved(u16::from(block[i]) | high << 8, high & 8 != 0);
    }
}

/// An eighth of the scale of a group whose code lies in the low 3 bits.
#[inline(always)]
fn eighth(scale: f32, code: u16) -> f32 {
    scale * f32::from(2 * (code & 7) + 1) * 0.125
}

/// Entry `index` (its low 11 bits) in eighths, moved by one.
#[inline(always)]
fn moved(index: u16, down: bool) -> [i8; 8] {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let entry = grids::IQ1[usize::from(index & 2047)];
    // The entries are 128 too large, so that nothing is carried from byte to byte.
    let moved = if down { entry - ONES } else { entry + ONES };
    (moved ^ (0x80 * ONES)).to_le_bytes().map(|code| code as i8)
}
