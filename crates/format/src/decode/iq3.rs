//! Twice four magnitudes out of a book, and their signs: IQ3_XXS, IQ3_S.

use super::{grids, half, parts, signs};

/// 8 groups of 32. Bytes 0..2 half scale, 2..66 indices (one for each 4 weights), 66..98 a word a group: four times seven
/// signs and the group's scale in the 4 bits on top.
pub(super) fn iq3_xxs(block: &[u8; 98], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    let scale = half(block, 0);
    let (words, _) = block[66..].as_chunks::<4>();
    for (n, (codes, word)) in parts::<32, _>(codes).zip(words).enumerate() {
        let word = u32::from_le_bytes(*word);
        let group_scale = scale * (0.5 + (word >> 28) as f32) * 0.5;
        [scales[2 * n], scales[2 * n + 1]] = [group_scale; 2];
        for (i, codes) in parts::<8, _>(codes).enumerate() {
            let at = 2 + 8 * n + 2 * i;
            let low = grids::IQ3_XXS[usize::from(block[at])];
            let high = grids::IQ3_XXS[usize::from(block[at + 1])];
            *codes = signs::signed(pair(low, high), signs::even(word >> (7 * i)));
        }
    }
}

/// 8 groups of 32. Bytes 0..2 half scale, 2..66 low eight bits of the indices, 66..74 their ninth bits, 74..106 signs,
/// 106..110 scales of the groups in 4 bits; scale = half x (1 + 2 x code).
pub(super) fn iq3_s(block: &[u8; 110], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    let scale = half(block, 0);
    for (n, scales) in parts::<2, _>(scales).enumerate() {
        let code = block[106 + n / 2] >> (4 * (n % 2)) & 15;
        *scales = [scale * f32::from(1 + 2 * code); 2];
    }
    for (n, codes) in parts::<32, _>(codes).enumerate() {
        let ninth = usize::from(block[66 + n]) << 8;
        for (i, codes) in parts::<8, _>(codes).enumerate() {
            let at = 2 + 8 * n + 2 * i;
            let low = usize::from(block[at]) | ninth >> (2 * i) & 256;
            let high = usize::from(block[at + 1]) | ninth >> (2 * i + 1) & 256;
            let entry = pair(grids::IQ3_S[low], grids::IQ3_S[high]);
            *codes = signs::signed(entry, block[74 + 4 * n + i]);
        }
    }
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}
