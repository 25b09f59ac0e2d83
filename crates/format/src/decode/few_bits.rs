//! One and two bits, and digits of three: Q1_0, Q2_0, TQ1_0, TQ2_0. One scale a block.

use super::{half, parts, signs};

/// 128 weights: half scale, a bit each; weight = scale, or minus scale where the bit is clear.
pub(super) fn q1_0(block: &[u8; 18], codes: &mut [i8; 128], scales: &mut [f32; 8]) {
    scales.fill(half(block, 0));
    for (codes, bits) in parts::<8, _>(codes).zip(&block[2..]) {
        *codes = signs::plus_or_minus_one(*bits);
    }
}

/// 64 weights: half scale, 16 bytes of four 2-bit codes; weight = scale x (code - 1).
pub(super) fn q2_0(block: &[u8; 18], codes: &mut [i8; 64], scales: &mut [f32; 4]) {
    scales.fill(half(block, 0));
    for (codes, byte) in parts::<4, _>(codes).zip(&block[2..]) {
        *codes = [0, 2, 4, 6].map(|shift| (byte >> shift & 3) as i8 - 1);
    }
}

/// 256 weights of -1, 0, 1, five to a byte in base three: bytes 0..32 hold 5 x 32 weights, 32..48 hold 5 x 16, 48..52 hold
/// 4 x 4; 52..54 half scale.
pub(super) fn tq1_0(block: &[u8; 54], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    scales.fill(half(block, 52));
    let (bytes, _) = block.as_chunks::<16>();
    let (codes, last) = codes.split_at_mut(240);
    let (codes, _) = codes.as_chunks_mut::<16>();
    digits(bytes[0], codes[..10].iter_mut().step_by(2));
    digits(bytes[1], codes[..10].iter_mut().skip(1).step_by(2));
    digits(bytes[2], codes[10..].iter_mut());
    let (last, _) = last.as_chunks_mut::<4>();
    digits(
        [block[48], block[49], block[50], block[51]],
        last.iter_mut(),
    );
}

/// Digit after digit of each byte, the most significant first. A byte is a fraction of 256: its next digit is what it
/// carries over when it is multiplied by three.
#[inline(always)]
fn digits<'a, const N: usize>(
    mut fractions: [u8; N],
    codes: impl Iterator<Item = &'a mut [i8; N]>,
) {
    for codes in codes {
        for (code, fraction) in codes.iter_mut().zip(&mut fractions) {
            let product = u16::from(*fraction) * 3;
            *code = (product >> 8) as i8 - 1;
            *fraction = product as u8;
        }
    }
}

/// 256 weights of -1, 0, 1 (and 2, which no encoder writes): bytes 0..64 codes of 2 bits, 32 bytes for 4 x 32 weights;
/// 64..66 half scale; weight = scale x (code - 1).
pub(super) fn tq2_0(block: &[u8; 66], codes: &mut [i8; 256], scales: &mut [f32; 16]) {
    scales.fill(half(block, 64));
    let (bytes, _) = block.as_chunks::<32>();
    for (i, codes) in parts::<32, _>(codes).enumerate() {
        let shift = 2 * (i % 4);
        for (code, byte) in codes.iter_mut().zip(&bytes[i / 4]) {
            *code = (byte >> shift & 3) as i8 - 1;
        }
    }
}
