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
    decode_inlined(dtype, bytes, out)
}

/// [`decode()`], part of its caller: where that is compiled for more than the basic instruction set, so is this.
///
/// # Errors
/// As [`decode()`].
#[inline(always)]
pub fn decode_inlined(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    if !can_decode(dtype) {
        return Err(FormatError::UnsupportedDType { dtype });
    }
    if dtype.row_bytes(out.len()) != Some(bytes.len()) {
        let (values, bytes) = (out.len(), bytes.len());
        return Err(FormatError::BlockLength {
            dtype,
            values,
            bytes,
        });
    }
    match dtype {
        DType::F32 => blocks::<4, 1>(bytes, out, f32_block),
        DType::F16 => blocks::<2, 1>(bytes, out, f16_block),
        DType::BF16 => blocks::<2, 1>(bytes, out, bf16_block),
        DType::Q4_0 => blocks::<18, 32>(bytes, out, legacy::q4_0),
        DType::Q4_1 => blocks::<20, 32>(bytes, out, legacy::q4_1),
        DType::Q5_0 => blocks::<22, 32>(bytes, out, legacy::q5_0),
        DType::Q5_1 => blocks::<24, 32>(bytes, out, legacy::q5_1),
        DType::Q8_0 => blocks::<34, 32>(bytes, out, legacy::q8_0),
        DType::Q2_K => blocks::<84, 256>(bytes, out, k_quants::q2_k),
        DType::Q3_K => blocks::<110, 256>(bytes, out, k_quants::q3_k),
        DType::Q4_K => blocks::<144, 256>(bytes, out, k_quants::q4_k),
        DType::Q5_K => blocks::<176, 256>(bytes, out, k_quants::q5_k),
        DType::Q6_K => blocks::<210, 256>(bytes, out, k_quants::q6_k),
        DType::IQ1_S => blocks::<50, 256>(bytes, out, iq1::iq1_s),
        DType::IQ1_M => blocks::<56, 256>(bytes, out, iq1::iq1_m),
        DType::IQ2_XXS => blocks::<66, 256>(bytes, out, iq2::iq2_xxs),
        DType::IQ2_XS => blocks::<74, 256>(bytes, out, iq2::iq2_xs),
        DType::IQ2_S => blocks::<82, 256>(bytes, out, iq2::iq2_s),
        DType::IQ3_XXS => blocks::<98, 256>(bytes, out, iq3::iq3_xxs),
        DType::IQ3_S => blocks::<110, 256>(bytes, out, iq3::iq3_s),
        DType::IQ4_NL => blocks::<18, 32>(bytes, out, iq4::iq4_nl),
        DType::IQ4_XS => blocks::<136, 256>(bytes, out, iq4::iq4_xs),
        DType::TQ1_0 => blocks::<54, 256>(bytes, out, few_bits::tq1_0),
        DType::TQ2_0 => blocks::<66, 256>(bytes, out, few_bits::tq2_0),
        DType::Q1_0 => blocks::<18, 128>(bytes, out, few_bits::q1_0),
        DType::Q2_0 => blocks::<18, 64>(bytes, out, few_bits::q2_0),
        DType::MXFP4 => blocks::<17, 32>(bytes, out, fp4::mxfp4),
        DType::NVFP4 => blocks::<36, 64>(bytes, out, fp4::nvfp4),
        // Refused above.
        DType::Q8_1 | DType::Q8_K | DType::F64 => {}
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => {}
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

/// Hands each block of `BYTES` bytes and its `LEN` weights to `block`; both lengths are the type's own.
#[inline(always)]
fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8], &mut [f32]),
) {
    let (bytes, _) = bytes.as_chunks::<BYTES>();
    let (out, _) = out.as_chunks_mut::<LEN>();
    for (bytes, weights) in bytes.iter().zip(out) {
        block(bytes, weights);
    }
}

/// Weight = scale x code.
#[inline(always)]
fn scaled<const N: usize>(scale: f32, codes: [i8; N], out: &mut [f32; N]) {
    for (weight, code) in out.iter_mut().zip(codes) {
        *weight = scale * f32::from(code);
    }
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
