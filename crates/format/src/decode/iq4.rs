//! Four bits through a table of uneven steps: IQ4_NL, IQ4_XS.

use super::half;

/// What the sixteen codes stand for (`kvalues_iq4nl` in ggml).
const STEPS: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// 32 weights: half scale, 16 bytes of codes (weight `i` low, weight `i + 16` high).
pub(super) fn iq4_nl(block: &[u8], out: &mut [f32]) {
    group(half(block, 0), &block[2..18], out);
}

/// 8 groups of 32 weights. Bytes 0..2 half scale, 2..4 high two bits and 4..8 low four bits of the
/// groups' scales (less 32), 8..136 codes, each group as in IQ4_NL.
pub(super) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let high_bits = u16::from_le_bytes([block[2], block[3]]);
    for (index, weights) in out.chunks_exact_mut(32).enumerate() {
        let low = block[4 + index / 2] >> (index % 2 * 4) & 15;
        let high = (high_bits >> (index * 2) & 3) as u8;
        let group_scale = scale * f32::from((low | high << 4) as i8 - 32);
        group(group_scale, &block[8 + index * 16..][..16], weights);
    }
}

fn group(scale: f32, codes: &[u8], out: &mut [f32]) {
    for (i, codes) in codes.iter().enumerate() {
        out[i] = scale * f32::from(STEPS[usize::from(codes & 15)]);
        out[i + 16] = scale * f32::from(STEPS[usize::from(codes >> 4)]);
    }
}
