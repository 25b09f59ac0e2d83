//! Twice four magnitudes out of a book, and their signs: IQ3_XXS, IQ3_S.

use super::{grids, half, scaled, signs};

/// 8 groups of 32. Bytes 0..2 half scale, 2..66 indices (one for each 4 weights), 66..98 a word a group: four times seven
/// signs and the group's scale in the 4 bits on top.
#[inline(always)]
pub(super) fn iq3_xxs(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (indices, _) = block[2..66].as_chunks::<8>();
    let (words, _) = block[66..98].as_chunks::<4>();
    let (out, _) = out.as_chunks_mut::<32>();
    for ((weights, indices), word) in out.iter_mut().zip(indices).zip(words) {
        let word = u32::from_le_bytes(*word);
        let group_scale = scale * (0.5 + (word >> 28) as f32) * 0.5;
        let (weights, _) = weights.as_chunks_mut::<8>();
        for (i, weights) in weights.iter_mut().enumerate() {
            let codes = pair(
                grids::IQ3_XXS[usize::from(indices[2 * i])],
                grids::IQ3_XXS[usize::from(indices[2 * i + 1])],
            );
            let codes = signs::signed(codes, signs::even(word >> (7 * i)));
            scaled(group_scale, codes, weights);
        }
    }
}

/// 8 groups of 32. Bytes 0..2 half scale, 2..66 low eight bits of the indices, 66..74 their ninth bits, 74..106 signs,
/// 106..110 scales of the groups in 4 bits; scale = half x (1 + 2 x code).
#[inline(always)]
pub(super) fn iq3_s(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (indices, _) = block[2..66].as_chunks::<8>();
    let (sign_bits, _) = block[74..106].as_chunks::<4>();
    let (out, _) = out.as_chunks_mut::<32>();
    for (group, weights) in out.iter_mut().enumerate() {
        let code = block[106 + group / 2] >> (4 * (group % 2)) & 15;
        let group_scale = scale * f32::from(1 + 2 * code);
        let (indices, high) = (&indices[group], usize::from(block[66 + group]));
        let (weights, _) = weights.as_chunks_mut::<8>();
        for (i, weights) in weights.iter_mut().enumerate() {
            let index = |at: usize| usize::from(indices[at]) | (high >> at & 1) << 8;
            let codes = pair(grids::IQ3_S[index(2 * i)], grids::IQ3_S[index(2 * i + 1)]);
            let codes = signs::signed(codes, sign_bits[group][i]);
            scaled(group_scale, codes, weights);
        }
    }
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
