//! Floats of four bits (E2M1) with a shared scale: MXFP4 (OCP Microscaling Formats 1.0), NVFP4.

/// 32 weights: a scale that is a power of two (E8M0), 16 bytes of codes (weight `i` low, weight `i + 16` high).
pub(super) fn mxfp4(block: &[u8; 17], codes: &mut [i8; 32], scales: &mut [f32; 2]) {
    scales.fill(half_power(block[0]));
    split::<16>(&block[1..], codes);
}

/// 4 groups of 16: bytes 0..4 their scales (E4M3, without a sign), then 8 bytes of codes a group (weight `i` low, weight
/// `i + 8` high).
pub(super) fn nvfp4(block: &[u8; 36], codes: &mut [i8; 64], scales: &mut [f32; 4]) {
    for (group, scale) in scales.iter_mut().enumerate() {
        *scale = half_e4m3(block[group]);
        let codes = &mut codes[16 * group..][..16];
        split::<8>(&block[4 + 8 * group..][..8], codes);
    }
}

#[inline(always)]
fn split<const N: usize>(bytes: &[u8], codes: &mut [i8]) {
    let (low, high) = codes.split_at_mut(N);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = doubled(byte & 15);
        *high = doubled(byte >> 4);
    }
}

/// What a code stands for, twice over; the scales are halved for it. Magnitudes 0, 1, 2, 3, 4, 6, 8, 12, then their
/// opposites; minus zero is zero, as in ggml. Without a table, so that many codes are done at once.
#[inline(always)]
fn doubled(code: u8) -> i8 {
    let bits = code & 7;
    let magnitude = bits + bits.saturating_sub(4) + 2 * bits.saturating_sub(6);
    let minus = -((code >> 3) as i8);
    (magnitude as i8 ^ minus) - minus
}

/// `2^(exponent - 127) / 2`; the two smallest are below the normal numbers.
#[inline(always)]
fn half_power(exponent: u8) -> f32 {
    f32::from_bits(match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => u32::from(exponent - 1) << 23,
    })
}

/// Half of the number with 4 bits of exponent (bias 7) and 3 of mantissa; the pattern that is no number gives zero.
#[inline(always)]
fn half_e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (bits >> 3 & 15, f32::from(bits & 7));
    match (bits, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => mantissa / 1024.0,
        // 2^(exponent - 8), written as the bits of a float.
        _ => (1.0 + mantissa / 8.0) * f32::from_bits((u32::from(exponent) + 119) << 23),
    }
}
