//! Blocks of 32 weights with one scale: what `quantize` of the `gguf` Python package makes of finite weights, bit for bit.
//!
//! A block whose scale is too small to have an inverse is all zeros once it is decoded, whatever its codes; the package
//! divides by zero there.

use half::f16;

/// A scale and 16 bytes with two codes of 4 bits each; weight = scale x (code - 8). The weight of the largest magnitude
/// gets the code 0.
pub(super) fn q4_0(block: &[f32], out: &mut Vec<u8>) {
    let (scale, codes) = signed::<8>(block);
    out.extend(f16::from_f32(scale).to_le_bytes());
    put_nibbles(&codes, out);
}

/// As Q4_0 with codes of 5 bits: 4 bytes hold the fifth bits.
pub(super) fn q5_0(block: &[f32], out: &mut Vec<u8>) {
    let (scale, codes) = signed::<16>(block);
    out.extend(f16::from_f32(scale).to_le_bytes());
    put_fifth_bits(&codes, out);
    put_nibbles(&codes, out);
}

/// A scale, a minimum and codes of 4 bits; weight = scale x code + minimum.
pub(super) fn q4_1(block: &[f32], out: &mut Vec<u8>) {
    let (scale, minimum, codes) = with_minimum::<15>(block);
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(f16::from_f32(minimum).to_le_bytes());
    put_nibbles(&codes, out);
}

/// As Q4_1 with codes of 5 bits.
pub(super) fn q5_1(block: &[f32], out: &mut Vec<u8>) {
    let (scale, minimum, codes) = with_minimum::<31>(block);
    out.extend(f16::from_f32(scale).to_le_bytes());
    out.extend(f16::from_f32(minimum).to_le_bytes());
    put_fifth_bits(&codes, out);
    put_nibbles(&codes, out);
}

/// A scale (the largest magnitude / 127) and 32 codes, rounded half away from zero with the scale before it was rounded.
pub(super) fn q8_0(block: &[f32], out: &mut Vec<u8>) {
    let largest = block.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    out.extend(f16::from_f32(scale).to_le_bytes());
    let codes = block.iter().map(|value| (value * inverse).round() as i8);
    out.extend(codes.map(|code| code as u8));
}

/// Scale and codes of 0 to `2 HALF - 1` for a block that is symmetric about zero.
fn signed<const HALF: i32>(block: &[f32]) -> (f32, [u8; 32]) {
    let larger = |a: f32, b: f32| if b.abs() > a.abs() { b } else { a };
    let extreme = block.iter().copied().reduce(larger).unwrap_or_default();
    let scale = extreme / -HALF as f32;
    let inverse = inverse(scale);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(block) {
        let rounded = value * inverse + (HALF as f32 + 0.5);
        *code = (rounded as u8).min((2 * HALF - 1) as u8);
    }
    (scale, codes)
}

/// Scale, minimum and codes of 0 to `TOP`.
fn with_minimum<const TOP: u8>(block: &[f32]) -> (f32, f32, [u8; 32]) {
    let smaller = |least: f32, &next: &f32| if next < least { next } else { least };
    let larger = |most: f32, &next: &f32| if next > most { next } else { most };
    let minimum = block.iter().fold(f32::INFINITY, smaller);
    let maximum = block.iter().fold(f32::NEG_INFINITY, larger);
    let scale = (maximum - minimum) / f32::from(TOP);
    let inverse = inverse(scale);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(block) {
        *code = (((value - minimum) * inverse + 0.5) as u8).min(TOP);
    }
    (scale, minimum, codes)
}

/// 1 / `scale`, and 0 where that is no number: such a scale is zero as F16, so that the codes mean nothing.
fn inverse(scale: f32) -> f32 {
    let inverse = scale.recip();
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// The low four bits: weight `i` in the low half of byte `i`, weight `i + 16` in the high one.
fn put_nibbles(codes: &[u8; 32], out: &mut Vec<u8>) {
    let (low, high) = codes.split_at(16);
    out.extend(low.iter().zip(high).map(|(low, high)| low & 15 | high << 4));
}

/// The fifth bits: bit `i` of 32 for weight `i`.
fn put_fifth_bits(codes: &[u8; 32], out: &mut Vec<u8>) {
    let bits = codes
        .iter()
        .enumerate()
        .fold(0, |bits, (i, code)| bits | u32::from(code >> 4) << i);
    out.extend(bits.to_le_bytes());
}
