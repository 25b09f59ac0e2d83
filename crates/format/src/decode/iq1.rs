//! Eight weights out of a book of 2048 triples of -1, 0, 1, all moved by an eighth up or down: IQ1_S, IQ1_M.

use half::f16;

use super::{grids, half};

/// 8 groups of 32. Bytes 0..2 half scale, 2..34 low eight bits of the indices (one for each 8 weights), 34..50 a word a
/// group: four times the high three bits of the indices, the group's scale in 3 bits, the direction of the move.
#[inline(always)]
pub(super) fn iq1_s(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (low, _) = block[2..34].as_chunks::<4>();
    let (words, _) = block[34..50].as_chunks::<2>();
    let (groups, _) = out.as_chunks_mut::<32>();
    for ((weights, low), word) in groups.iter_mut().zip(low).zip(words) {
        let word = u16::from_le_bytes(*word);
        let group_scale = scale * f32::from(2 * (word >> 12 & 7) + 1);
        let (weights, _) = weights.as_chunks_mut::<8>();
        for (i, weights) in weights.iter_mut().enumerate() {
            let index = u16::from(low[i]) | (word >> (3 * i) & 7) << 8;
            eight(group_scale, index, word >> 15 == 1, weights);
        }
    }
}

/// 16 groups of 16. Bytes 0..32 low eight bits of the indices, 32..48 half a byte an index: its high three bits and the
/// direction of the move; 48..56 four words of four scales in 3 bits each, with a quarter of the half that multiplies
/// them on top.
#[inline(always)]
pub(super) fn iq1_m(block: &[u8], out: &mut [f32]) {
    let (words, _) = block[48..56].as_chunks::<2>();
    let mut scale = 0;
    for (quarter, word) in words.iter().enumerate() {
        scale |= u16::from_le_bytes(*word) >> 12 << (4 * quarter);
    }
    let scale = f16::from_bits(scale).to_f32();
    let (groups, _) = out.as_chunks_mut::<16>();
    for (group, weights) in groups.iter_mut().enumerate() {
        let word = u16::from_le_bytes(words[group / 4]);
        let group_scale = scale * f32::from(2 * (word >> (3 * (group % 4)) & 7) + 1);
        let high = block[32 + group];
        let (weights, _) = weights.as_chunks_mut::<8>();
        for (i, weights) in weights.iter_mut().enumerate() {
            let high = high >> (4 * i) & 15;
            let index = u16::from(block[2 * group + i]) | u16::from(high & 7) << 8;
            eight(group_scale, index, high & 8 != 0, weights);
        }
    }
}

/// Weight = scale x (code + or - 1/8).
#[inline(always)]
fn eight(scale: f32, index: u16, down: bool, out: &mut [f32; 8]) {
    let by = if down { -0.125 } else { 0.125 };
    let codes = grids::IQ1[usize::from(index & 2047)].to_le_bytes();
    for (weight, code) in out.iter_mut().zip(codes) {
        *weight = scale * (f32::from(code as i8) + by);
    }
}
