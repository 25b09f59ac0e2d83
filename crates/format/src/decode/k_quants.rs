//! Blocks of 256 weights in groups with scales of their own: Q2_K to Q6_K.

use super::half;

/// 16 groups of 16. Bytes 0..16 scales (low half) and minimums (high half) of the groups, 16..80
/// codes of 2 bits, 80..84 halves that multiply scales and minimums.
pub(super) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 80), half(block, 82));
    for (group, weights) in out.chunks_exact_mut(16).enumerate() {
        let group_scale = scale * f32::from(block[group] & 15);
        let group_minimum = minimum * f32::from(block[group] >> 4);
        let codes = two_bit_codes(&block[16..80], group);
        for (weight, code) in weights.iter_mut().zip(codes) {
            *weight = group_scale * f32::from(code) - group_minimum;
        }
    }
}

/// 16 groups of 16. Bytes 0..32 third bits (a cleared bit means minus 4), 32..96 codes of 2 bits,
/// 96..108 scales of 6 bits, 108..110 the half that multiplies them.
pub(super) fn q3_k(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 108);
    let scales = q3_k_scales(&block[96..108]);
    for (group, weights) in out.chunks_exact_mut(16).enumerate() {
        let group_scale = scale * f32::from(scales[group]);
        let codes = two_bit_codes(&block[32..96], group);
        let high = &block[group % 2 * 16..][..16];
        for ((weight, code), high) in weights.iter_mut().zip(codes).zip(high) {
            let low_by = if high >> (group / 2) & 1 == 0 { 4 } else { 0 };
            *weight = group_scale * f32::from(code as i8 - low_by);
        }
    }
}

/// 8 groups of 32. Bytes 0..4 halves that multiply scales and minimums, 4..16 both in 6 bits,
/// 16..144 codes of 4 bits: 32 bytes hold one group in their low halves, the next in the high.
pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (group, weights) in out.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_minimum) = six_bit_pair(&block[4..16], group);
        let group_scale = scale * f32::from(group_scale);
        let group_minimum = minimum * f32::from(group_minimum);
        let codes = &block[16 + group / 2 * 32..][..32];
        for (weight, codes) in weights.iter_mut().zip(codes) {
            let code = codes >> (group % 2 * 4) & 15;
            *weight = group_scale * f32::from(code) - group_minimum;
        }
    }
}

/// As Q4_K, with the fifth bits in bytes 16..48 (bit `g` of byte `i` for weight `i` of group `g`)
/// and the low four in 48..176.
pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (group, weights) in out.chunks_exact_mut(32).enumerate() {
        let (group_scale, group_minimum) = six_bit_pair(&block[4..16], group);
        let group_scale = scale * f32::from(group_scale);
        let group_minimum = minimum * f32::from(group_minimum);
        let codes = &block[48 + group / 2 * 32..][..32];
        for ((weight, codes), high) in weights.iter_mut().zip(codes).zip(&block[16..48]) {
            let code = codes >> (group % 2 * 4) & 15 | (high >> group & 1) << 4;
            *weight = group_scale * f32::from(code) - group_minimum;
        }
    }
}

/// 16 groups of 16. Bytes 0..128 low four bits, 128..192 high two bits, 192..208 signed scales,
/// 208..210 the half that multiplies them; weight = scale x (code - 32).
pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 208);
    for (group, weights) in out.chunks_exact_mut(16).enumerate() {
        let group_scale = scale * f32::from(block[192 + group] as i8);
        // Each half of the block: 64 bytes of low bits for 4 x 32 weights, 32 bytes of high bits.
        let (side, quarter, offset) = (group / 8, group / 2 % 4, group % 2 * 16);
        let low = &block[side * 64 + quarter % 2 * 32 + offset..][..16];
        let high = &block[128 + side * 32 + offset..][..16];
        for ((weight, low), high) in weights.iter_mut().zip(low).zip(high) {
            let code = low >> (quarter / 2 * 4) & 15 | (high >> (quarter * 2) & 3) << 4;
            *weight = group_scale * f32::from(code as i8 - 32);
        }
    }
}

/// The 2-bit codes of group `group` of 16: 32 bytes hold 8 groups, each pair of groups at another
/// pair of bits.
fn two_bit_codes(bytes: &[u8], group: usize) -> impl Iterator<Item = u8> {
    let shift = group / 2 % 4 * 2;
    bytes[group / 8 * 32 + group % 2 * 16..][..16]
        .iter()
        .map(move |codes| codes >> shift & 3)
}

/// Sixteen 6-bit scales less 32: the low four bits in bytes 0..8 (first eight scales in the low
/// halves, the others in the high), the high two in bytes 8..12 (four scales at each pair of bits).
fn q3_k_scales(bytes: &[u8]) -> [i8; 16] {
    std::array::from_fn(|group| {
        let low = bytes[group % 8] >> (group / 8 * 4) & 15;
        let high = bytes[8 + group % 4] >> (group / 4 * 2) & 3;
        (low | high << 4) as i8 - 32
    })
}

/// Scale and minimum of group `group` of eight, 6 bits each: whole in bytes 0..8 for the first
/// four groups; for the others the low four bits in bytes 8..12, the high two on top of 0..8.
fn six_bit_pair(bytes: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        return (bytes[group] & 63, bytes[group + 4] & 63);
    }
    let low = bytes[group + 4];
    (
        low & 15 | bytes[group - 4] >> 6 << 4,
        low >> 4 | bytes[group] >> 6 << 4,
    )
}
