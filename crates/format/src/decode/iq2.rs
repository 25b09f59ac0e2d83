//! Eight magnitudes out of a book, and their signs: IQ2_XXS, IQ2_XS, IQ2_S.

use super::{grids, half, scaled, signs};

/// 8 groups of 32. Bytes 0..2 half scale, then 8 bytes a group: four indices; four times seven signs and the group's
/// scale in the 4 bits on top.
#[inline(always)]
pub(super) fn iq2_xxs(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (groups, _) = block[2..66].as_chunks::<8>();
    let (out, _) = out.as_chunks_mut::<32>();
    for (weights, group) in out.iter_mut().zip(groups) {
        let word = u32::from_le_bytes([group[4], group[5], group[6], group[7]]);
        let group_scale = four_bit_scale(scale, (word >> 28) as u8);
        let (weights, _) = weights.as_chunks_mut::<8>();
        for (i, weights) in weights.iter_mut().enumerate() {
            let codes = grids::IQ2_XXS[usize::from(group[i])];
            let codes = signs::signed(codes, signs::even(word >> (7 * i)));
            scaled(group_scale, codes, weights);
        }
    }
}

/// 16 groups of 16. Bytes 0..2 half scale, 2..66 a word for each 8 weights: index in 9 bits, seven signs; 66..74 scales of
/// the groups in 4 bits.
#[inline(always)]
pub(super) fn iq2_xs(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (words, _) = block[2..66].as_chunks::<2>();
    let (out, _) = out.as_chunks_mut::<16>();
    for (group, weights) in out.iter_mut().enumerate() {
        let group_scale = four_bit_scale(scale, block[66 + group / 2] >> (4 * (group % 2)) & 15);
        let (weights, _) = weights.as_chunks_mut::<8>();
        for (i, weights) in weights.iter_mut().enumerate() {
            let word = u16::from_le_bytes(words[2 * group + i]);
            let codes = grids::IQ2_XS[usize::from(word & 511)];
            let codes = signs::signed(codes, signs::even(u32::from(word >> 9)));
            scaled(group_scale, codes, weights);
        }
    }
}

/// 16 groups of 16. Bytes 0..2 half scale, 2..34 low eight bits of the indices, 34..66 signs, 66..74 high two bits of the
/// indices (four to a byte), 74..82 scales of the groups in 4 bits.
#[inline(always)]
pub(super) fn iq2_s(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (out, _) = out.as_chunks_mut::<16>();
    for (group, weights) in out.iter_mut().enumerate() {
        let group_scale = four_bit_scale(scale, block[74 + group / 2] >> (4 * (group % 2)) & 15);
        let high = block[66 + group / 2] >> (4 * (group % 2));
        let (weights, _) = weights.as_chunks_mut::<8>();
        for (i, weights) in weights.iter_mut().enumerate() {
            let index = u16::from(block[2 + 2 * group + i]) | u16::from(high >> (2 * i) & 3) << 8;
            let codes = grids::IQ2_S[usize::from(index)];
            let codes = signs::signed(codes, block[34 + 2 * group + i]);
            scaled(group_scale, codes, weights);
        }
    }
}

#[inline(always)]
fn four_bit_scale(scale: f32, code: u8) -> f32 {
    scale * (0.5 + f32::from(code)) * 0.25
}
