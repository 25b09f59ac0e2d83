//! Eight magnitudes out of a book, and their signs: IQ2_XXS, IQ2_XS, IQ2_S.

use super::{grids, half, parts, signs};

/// 8 groups of 32. Bytes 0..2 half scale, then 8 bytes a group: four indices; four times seven signs and the group's
/// scale in the 4 bits on top.
pub(super) fn iq2_xxs(block: &[u8; 66], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    let scale = half(block, 0);
    let (groups, _) = block[2..].as_chunks::<8>();
    for (n, (codes, group)) in parts::<32, _>(codes).zip(groups).enumerate() {
        let word = u32::from_le_bytes([group[4], group[5], group[6], group[7]]);
        let group_scale = four_bit_scale(scale, (word >> 28) as u8);
        [scales[2 * n], scales[2 * n + 1]] = [group_scale; 2];
        for (i, codes) in parts::<8, _>(codes).enumerate() {
            let entry = grids::IQ2_XXS[usize::from(group[i])];
            *codes = signs::signed(entry, signs::even(word >> (7 * i)));
        }
    }
}

/// 16 groups of 16. Bytes 0..2 half scale, 2..66 a word for each 8 weights: index in 9 bits, seven signs; 66..74 scales of
/// the groups in 4 bits.
pub(super) fn iq2_xs(block: &[u8; 74], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    four_bit_scales(half(block, 0), &block[66..], scales);
    let (words, _) = block[2..66].as_chunks::<2>();
    for (codes, word) in parts::<8, _>(codes).zip(words) {
        let word = u16::from_le_bytes(*word);
        let entry = grids::IQ2_XS[usize::from(word & 511)];
        *codes = signs::signed(entry, signs::even(u32::from(word >> 9)));
    }
}

/// 16 groups of 16. Bytes 0..2 half scale, 2..34 low eight bits of the indices, 34..66 signs, 66..74 high two bits of the
/// indices (four to a byte), 74..82 scales of the groups in 4 bits.
pub(super) fn iq2_s(block: &[u8; 82], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    four_bit_scales(half(block, 0), &block[74..], scales);
    for (n, codes) in parts::<32, _>(codes).enumerate() {
        let high = usize::from(block[66 + n]);
        for (i, codes) in parts::<8, _>(codes).enumerate() {
            let index = usize::from(block[2 + 4 * n + i]) | (high >> (2 * i) & 3) << 8;
            *codes = signs::signed(grids::IQ2_S[index], block[34 + 4 * n + i]);
        }
    }
}

#[inline(always)]
fn four_bit_scales(scale: f32, codes: &[u8], scales: &mut [f32; 16]) {
    for (scales, codes) in parts::<2, _>(scales).zip(codes) {
        *scales = [codes & 15, codes >> 4].map(|code| four_bit_scale(scale, code));
    }
}

#[inline(always)]
fn four_bit_scale(scale: f32, code: u8) -> f32 {
    scale * (0.5 + f32::from(code)) * 0.25
}
