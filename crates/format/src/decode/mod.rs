//! Scalar decode of weight blocks: slow, obvious, and what every faster kernel is compared with.
//!
//! The layouts are those of ggml (`ggml-common.h`), the arithmetic that of its reference
//! (`dequantize_row_*` in `ggml-quants.c`): one rounding per written operation, in that order.

mod few_bits;
mod fp4;
mod grids;
mod iq1;
mod iq2;
mod iq3;
mod iq4;
mod k_quants;
mod legacy;
mod signs;

use half::{bf16, f16};

use crate::{DType, FormatError};

/// Decodes whole blocks of `dtype` from `bytes` into `out`, which says how many weights there are.
///
/// # Errors
/// [`FormatError::UnsupportedDType`] where [`can_decode`] says no, [`FormatError::BlockLength`]
/// where `bytes` is not exactly the blocks of `out.len()` weights.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    if !can_decode(dtype) {
        return Err(FormatError::UnsupportedDType { dtype });
    }
    check_length(dtype, bytes, out.len())?;
    match dtype {
        DType::F32 => blocks(dtype, bytes, out, f32_block),
        DType::F16 => blocks(dtype, bytes, out, f16_block),
        DType::BF16 => blocks(dtype, bytes, out, bf16_block),
        DType::Q4_0 => blocks(dtype, bytes, out, legacy::q4_0),
        DType::Q4_1 => blocks(dtype, bytes, out, legacy::q4_1),
        DType::Q5_0 => blocks(dtype, bytes, out, legacy::q5_0),
        DType::Q5_1 => blocks(dtype, bytes, out, legacy::q5_1),
        DType::Q8_0 => blocks(dtype, bytes, out, legacy::q8_0),
        DType::Q2_K => blocks(dtype, bytes, out, k_quants::q2_k),
        DType::Q3_K => blocks(dtype, bytes, out, k_quants::q3_k),
        DType::Q4_K => blocks(dtype, bytes, out, k_quants::q4_k),
        DType::Q5_K => blocks(dtype, bytes, out, k_quants::q5_k),
        DType::Q6_K => blocks(dtype, bytes, out, k_quants::q6_k),
        DType::IQ4_NL => blocks(dtype, bytes, out, iq4::iq4_nl),
        DType::IQ4_XS => blocks(dtype, bytes, out, iq4::iq4_xs),
        _ => return decode_coded(dtype, bytes, out),
    }
    Ok(())
}

/// Whether [`decode()`] knows this type: every type of weights, but not the integers, `F64`, and the types that only
/// activations have (`Q8_1`, `Q8_K`).
pub fn can_decode(dtype: DType) -> bool {
    !matches!(
        dtype,
        DType::Q8_1 | DType::Q8_K | DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::F64
    )
}

/// Columns that share a scale in what [`decode_codes`] gives.
pub const CODES_PER_SCALE: usize = 16;

/// Decodes whole blocks of `dtype` half way, for kernels that multiply on their own: into `codes`, which says how many
/// weights there are, and a scale for each [`CODES_PER_SCALE`] of them. Weight = scale x code, rounded once, is what
/// [`decode()`] gives.
///
/// # Errors
/// [`FormatError::UnsupportedDType`] for types that are not of that kind: those with a minimum, the plain numbers, and IQ4
/// and Q8_0, which nobody needs in this form. [`FormatError::BlockLength`] where `bytes` is not exactly the blocks of
/// `codes.len()` weights, or `scales` not one for each 16 of them.
pub fn decode_codes(
    dtype: DType,
    bytes: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
) -> Result<(), FormatError> {
    check_length(dtype, bytes, codes.len())?;
    check_length(dtype, bytes, scales.len() * CODES_PER_SCALE)?;
    match dtype {
        DType::IQ1_S => coded(bytes, codes, scales, iq1::iq1_s),
        DType::IQ1_M => coded(bytes, codes, scales, iq1::iq1_m),
        DType::IQ2_XXS => coded(bytes, codes, scales, iq2::iq2_xxs),
        DType::IQ2_XS => coded(bytes, codes, scales, iq2::iq2_xs),
        DType::IQ2_S => coded(bytes, codes, scales, iq2::iq2_s),
        DType::IQ3_XXS => coded(bytes, codes, scales, iq3::iq3_xxs),
        DType::IQ3_S => coded(bytes, codes, scales, iq3::iq3_s),
        DType::TQ1_0 => coded(bytes, codes, scales, few_bits::tq1_0),
        DType::TQ2_0 => coded(bytes, codes, scales, few_bits::tq2_0),
        DType::Q1_0 => coded(bytes, codes, scales, few_bits::q1_0),
        DType::Q2_0 => coded(bytes, codes, scales, few_bits::q2_0),
        DType::MXFP4 => coded(bytes, codes, scales, fp4::mxfp4),
        DType::NVFP4 => coded(bytes, codes, scales, fp4::nvfp4),
        _ => return Err(FormatError::UnsupportedDType { dtype }),
    }
    Ok(())
}

fn check_length(dtype: DType, bytes: &[u8], values: usize) -> Result<(), FormatError> {
    match dtype.row_bytes(values) == Some(bytes.len()) {
        true => Ok(()),
        false => Err(FormatError::BlockLength {
            dtype,
            values,
            bytes: bytes.len(),
        }),
    }
}

fn blocks(dtype: DType, bytes: &[u8], out: &mut [f32], block: fn(&[u8], &mut [f32])) {
    let bytes = bytes.chunks_exact(dtype.block_bytes());
    for (bytes, weights) in bytes.zip(out.chunks_exact_mut(dtype.block_len())) {
        block(bytes, weights);
    }
}

/// Blocks of `BYTES` bytes, `LEN` weights and `SCALES` scales: the decoder's arguments say them.
#[inline(always)]
fn coded<const BYTES: usize, const LEN: usize, const SCALES: usize>(
    bytes: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [i8; LEN], &mut [f32; SCALES]),
) {
    let (bytes, _) = bytes.as_chunks::<BYTES>();
    let (codes, _) = codes.as_chunks_mut::<LEN>();
    let (scales, _) = scales.as_chunks_mut::<SCALES>();
    for ((bytes, codes), scales) in bytes.iter().zip(codes).zip(scales) {
        block(bytes, codes, scales);
    }
}

/// The parts of `N` that codes or scales consist of.
#[inline(always)]
fn parts<const N: usize, T>(whole: &mut [T]) -> impl ExactSizeIterator<Item = &mut [T; N]> {
    whole.as_chunks_mut().0.iter_mut()
}

fn decode_coded(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    const COLUMNS: usize = 256;
    let chunk = COLUMNS / dtype.block_len() * dtype.block_bytes();
    for (bytes, weights) in bytes.chunks(chunk).zip(out.chunks_mut(COLUMNS)) {
        let (mut codes, mut scales) = ([0; COLUMNS], [0.0; COLUMNS / CODES_PER_SCALE]);
        let codes = &mut codes[..weights.len()];
        let scales = &mut scales[..weights.len() / CODES_PER_SCALE];
        decode_codes(dtype, bytes, codes, scales)?;
        for (index, (weight, code)) in weights.iter_mut().zip(codes).enumerate() {
            *weight = scales[index / CODES_PER_SCALE] * f32::from(*code);
        }
    }
    Ok(())
}

fn f32_block(block: &[u8], out: &mut [f32]) {
    out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
}

fn f16_block(block: &[u8], out: &mut [f32]) {
    out[0] = half(block, 0);
}

fn bf16_block(block: &[u8], out: &mut [f32]) {
    out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32();
}

/// The half-precision number at byte `at`.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
