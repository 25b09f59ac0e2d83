//! Floats of four bits (E2M1) with a shared scale: MXFP4 (OCP Microscaling Formats 1.0), NVFP4.

use super::scaled;

/// What the sixteen codes stand for, twice over; the scales are halved for it. Minus zero is zero, as in ggml.
const DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// 32 weights: a scale that is a power of two (E8M0), 16 bytes of codes (weight `i` low, weight `i + 16` high).
#[inline(always)]
pub(super) fn mxfp4(block: &[u8], out: &mut [f32]) {
    split(half_power(block[0]), &block[1..17], out);
}

/// 4 groups of 16: bytes 0..4 their scales (E4M3, without a sign), then 8 bytes of codes a group (weight `i` low, weight
/// `i + 8` high).
#[inline(always)]
pub(super) fn nvfp4(block: &[u8], out: &mut [f32]) {
    for (group, weights) in out.chunks_exact_mut(16).enumerate() {
        split(
            half_e4m3(block[group]),
            &block[4 + 8 * group..][..8],
            weights,
        );
    }
}

#[inline(always)]
fn split(scale: f32, codes: &[u8], out: &mut [f32]) {
    let (low, high) = out.split_at_mut(codes.len());
    for ((codes, low), high) in codes.iter().zip(low).zip(high) {
        let codes = [codes & 15, codes >> 4].map(|code| DOUBLED[usize::from(code)]);
        let mut weights = [0.0; 2];
        scaled(scale, codes, &mut weights);
        [*low, *high] = weights;
    }
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
