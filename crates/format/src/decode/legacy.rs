//! Blocks of 32 weights with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! In the 4 and 5 bit types byte `i` of the codes holds weight `i` in its low half and weight
//! `i + 16` in its high half; the fifth bits of all 32 weights stand in one little-endian word.

use super::half;

/// Half scale, 16 bytes of codes; weight = scale x (code - 8).
pub(super) fn q4_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    for (i, codes) in block[2..18].iter().enumerate() {
        out[i] = scale * (f32::from(codes & 15) - 8.0);
        out[i + 16] = scale * (f32::from(codes >> 4) - 8.0);
    }
}

/// Half scale, half minimum, 16 bytes of codes; weight = scale x code + minimum.
pub(super) fn q4_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    for (i, codes) in block[4..20].iter().enumerate() {
        out[i] = scale * f32::from(codes & 15) + minimum;
        out[i + 16] = scale * f32::from(codes >> 4) + minimum;
    }
}

/// Half scale, word of fifth bits, 16 bytes of codes; weight = scale x (code - 16).
pub(super) fn q5_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    let codes = five_bit_codes(&block[2..22]);
    for (weight, code) in out.iter_mut().zip(codes) {
        *weight = scale * (f32::from(code) - 16.0);
    }
}

/// Half scale, half minimum, word of fifth bits, 16 bytes of codes; weight = scale x code +
/// minimum.
pub(super) fn q5_1(block: &[u8], out: &mut [f32]) {
    let (scale, minimum) = (half(block, 0), half(block, 2));
    let codes = five_bit_codes(&block[4..24]);
    for (weight, code) in out.iter_mut().zip(codes) {
        *weight = scale * f32::from(code) + minimum;
    }
}

/// Half scale, 32 signed codes; weight = scale x code.
pub(super) fn q8_0(block: &[u8], out: &mut [f32]) {
    let scale = half(block, 0);
    for (weight, &code) in out.iter_mut().zip(&block[2..34]) {
        *weight = scale * f32::from(code as i8);
    }
}

fn five_bit_codes(bytes: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let mut codes = [0; 32];
    for (i, low) in bytes[4..20].iter().enumerate() {
        codes[i] = low & 15;
        codes[i + 16] = low >> 4;
    }
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((high >> i & 1) as u8) << 4;
    }
    codes
}
