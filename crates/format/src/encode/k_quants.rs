//! K-quants: 256 weights in groups, laid out as `decode/k_quants.rs` reads them.
//!
//! Scales and codes come from a search ([`super::search`]). A block whose weights are all too small for an F16 scale
//! becomes zeros.

use super::search::{BLOCK, OffsetBlock, SignedBlock, signed, with_offset};

/// 16 groups of 16 with codes of 2 bits, scales and offsets of 4.
pub(super) fn q2_k(block: &[f32], out: &mut Vec<u8>) {
    let found = with_offset::<16, 2>(block, 3.0, 15.0);
    let pairs = found.scales.iter().zip(&found.offsets);
    out.extend(pairs.map(|(scale, offset)| scale | offset << 4));
    put_pairs(&found.codes, out);
    put_common(&found, out);
}

/// 16 groups of 16 with codes of 3 bits (2 and 1), scales of 6.
pub(super) fn q3_k(block: &[f32], out: &mut Vec<u8>) {
    let found = signed(block, 4.0, 32.0);
    out.extend(high_bits::<32>(&found.codes, 2));
    put_pairs(&found.codes, out);
    put_q3_k_scales(&found, out);
    out.extend(found.scale.to_le_bytes());
}

/// 8 groups of 32 with codes of 4 bits, scales and offsets of 6.
pub(super) fn q4_k(block: &[f32], out: &mut Vec<u8>) {
    let found = with_offset::<32, 1>(block, 15.0, 63.0);
    put_common(&found, out);
    put_six_bit_pairs(&found, out);
    put_nibbles(&found.codes, out);
}

/// As Q4_K with codes of 5 bits (4 and 1).
pub(super) fn q5_k(block: &[f32], out: &mut Vec<u8>) {
    let found = with_offset::<32, 1>(block, 31.0, 63.0);
    put_common(&found, out);
    put_six_bit_pairs(&found, out);
    out.extend(high_bits::<32>(&found.codes, 4));
    put_nibbles(&found.codes, out);
}

/// 16 groups of 16 with codes of 6 bits (4 and 2), signed scales of 8.
pub(super) fn q6_k(block: &[f32], out: &mut Vec<u8>) {
    let found = signed(block, 32.0, 128.0);
    // Each half of the block: 4 x 32 weights, of which the first 64 lie in the low bits.
    for half in found.codes.chunks_exact(BLOCK / 2) {
        let (first, second) = half.split_at(BLOCK / 4);
        out.extend(
            first
                .iter()
                .zip(second)
                .map(|(low, high)| low & 15 | high << 4),
        );
    }
    for half in found.codes.chunks_exact(BLOCK / 2) {
        out.extend((0..32).map(|i| {
            (0..4).fold(0, |byte, quarter| {
                byte | (half[quarter * 32 + i] >> 4) << (2 * quarter)
            })
        }));
    }
    out.extend(found.scales.map(|scale| scale as u8));
    out.extend(found.scale.to_le_bytes());
}

fn put_common(block: &OffsetBlock, out: &mut Vec<u8>) {
    out.extend(block.scale.to_le_bytes());
    out.extend(block.offset.to_le_bytes());
}

/// The low four bits: 32 bytes hold 32 weights in their low halves and the next 32 in the high ones.
fn put_nibbles(codes: &[u8; BLOCK], out: &mut Vec<u8>) {
    for codes in codes.chunks_exact(64) {
        let (low, high) = codes.split_at(32);
        out.extend(low.iter().zip(high).map(|(low, high)| low & 15 | high << 4));
    }
}

/// The low two bits: 32 bytes hold 4 x 32 weights.
fn put_pairs(codes: &[u8; BLOCK], out: &mut Vec<u8>) {
    for codes in codes.chunks_exact(BLOCK / 2) {
        out.extend((0..32).map(|i| {
            (0..4).fold(0, |byte, quarter| {
                byte | (codes[quarter * 32 + i] & 3) << (2 * quarter)
            })
        }));
    }
}

/// Bit `bit` of all codes: bit `g` of byte `i` for weight `i` of 32 of stretch `g`.
fn high_bits<const BYTES: usize>(codes: &[u8; BLOCK], bit: u32) -> [u8; BYTES] {
    std::array::from_fn(|i| {
        (0..8).fold(0, |byte, stretch| {
            byte | (codes[stretch * BYTES + i] >> bit & 1) << stretch
        })
    })
}

/// Scales and offsets of eight groups in 12 bytes: those of the first four in bytes 0..4 and 4..8, whose highest two bits are
/// those of the last four, with their other bits in bytes 8..12.
fn put_six_bit_pairs(block: &OffsetBlock, out: &mut Vec<u8>) {
    let mut bytes = [0; 12];
    for group in 0..4 {
        let [scale, offset] = [block.scales, block.offsets].map(|all| (all[group], all[group + 4]));
        bytes[group] = scale.0 | scale.1 >> 4 << 6;
        bytes[group + 4] = offset.0 | offset.1 >> 4 << 6;
        bytes[group + 8] = scale.1 & 15 | offset.1 << 4;
    }
    out.extend(bytes);
}

/// Sixteen scales plus 32 in 12 bytes: the low four bits of the first eight and of the last eight in bytes 0..8, the high two
/// of four scales in each of bytes 8..12.
fn put_q3_k_scales(block: &SignedBlock, out: &mut Vec<u8>) {
    let scales = block.scales.map(|scale| (scale + 32) as u8);
    out.extend((0..8).map(|i| scales[i] & 15 | scales[i + 8] << 4));
    out.extend((0..4).map(|i| {
        (0..4).fold(0, |byte, quarter| {
            byte | (scales[quarter * 4 + i] >> 4) << (2 * quarter)
        })
    }));
}
