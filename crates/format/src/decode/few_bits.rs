//! One and two bits, and digits of three: Q1_0, Q2_0, TQ1_0, TQ2_0.

use super::{half, scaled};

/// 128 weights: half scale, a bit each; weight = scale, or minus scale where the bit is clear.
#[inline(always)]
pub(super) fn q1_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (out, _) = out.as_chunks_mut::<8>();
    for (weights, bits) in out.iter_mut().zip(&block[2..18]) {
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = if bits >> i & 1 == 1 { scale } else { -scale };
        }
    }
}

/// 64 weights: half scale, 16 bytes of four 2-bit codes; weight = scale x (code - 1).
#[inline(always)]
pub(super) fn q2_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let (out, _) = out.as_chunks_mut::<4>();
    for (weights, codes) in out.iter_mut().zip(&block[2..18]) {
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = scale * f32::from((codes >> (2 * i) & 3) as i8 - 1);
        }
    }
}

/// 256 weights of -1, 0, 1, five to a byte in base three: bytes 0..32 hold 5 x 32 weights, 32..48 hold 5 x 16, 48..52 hold
/// 4 x 4; 52..54 half scale.
#[inline(always)]
pub(super) fn tq1_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 52);
    let (out, rest) = out.split_at_mut(160);
    trits::<32>(scale, &block[..32], out);
    let (out, rest) = rest.split_at_mut(80);
    trits::<16>(scale, &block[32..48], out);
    trits::<4>(scale, &block[48..52], rest);
}

/// Digit by digit, the most significant first, `N` weights of the same digit beside one another. A byte is a fraction of
/// 256: its next digit is what it carries over when it is multiplied by three.
#[inline(always)]
fn trits<const N: usize>(scale: f32, bytes: &[u8], out: &mut [f32]) {
    let (bytes, _) = bytes.as_chunks::<N>();
    let (out, _) = out.as_chunks_mut::<N>();
    for bytes in bytes {
        let mut fraction = *bytes;
        for weights in &mut *out {
            let mut codes = [0; N];
            for (code, fraction) in codes.iter_mut().zip(&mut fraction) {
                let product = u16::from(*fraction) * 3;
                *code = (product >> 8) as i8 - 1;
                *fraction = product as u8;
            }
            scaled(scale, codes, weights);
        }
    }
}

/// 256 weights of -1, 0, 1 (and 2, which no encoder writes): bytes 0..64 codes of 2 bits, 32 bytes for 4 x 32 weights;
/// 64..66 half scale; weight = scale x (code - 1).
#[inline(always)]
pub(super) fn tq2_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 64);
    let (bytes, _) = block[..64].as_chunks::<32>();
    let (out, _) = out.as_chunks_mut::<32>();
    for (i, weights) in out.iter_mut().enumerate() {
        let codes = bytes[i / 4].map(|byte| (byte >> (2 * (i % 4)) & 3) as i8 - 1);
        scaled(scale, codes, weights);
    }
}
