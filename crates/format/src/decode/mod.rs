//! Scalar decode of weight blocks: slow, obvious, and what every faster kernel is compared with.
//!
//! The layouts are those of ggml (`ggml-common.h`), the arithmetic that of its reference
//! (`dequantize_row_*` in `ggml-quants.c`): one rounding per written operation, in that order.

mod iq4;
mod k_quants;
mod legacy;

use half::{bf16, f16};

use crate::{DType, FormatError};

/// Decodes whole blocks of `dtype` from `bytes` into `out`, which says how many weights there are.
///
/// # Errors
/// [`FormatError::UnsupportedDType`] where [`can_decode`] says no, [`FormatError::BlockLength`]
/// where `bytes` is not exactly the blocks of `out.len()` weights.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut [f32]) -> Result<(), FormatError> {
    let decoder = decoder(dtype).ok_or(FormatError::UnsupportedDType { dtype })?;
    if dtype.row_bytes(out.len()) != Some(bytes.len()) {
        let (values, bytes) = (out.len(), bytes.len());
        return Err(FormatError::BlockLength {
            dtype,
            values,
            bytes,
        });
    }
    let blocks = bytes.chunks_exact(dtype.block_bytes());
    for (block, weights) in blocks.zip(out.chunks_exact_mut(dtype.block_len())) {
        decoder(block, weights);
    }
    Ok(())
}

/// Whether [`decode`] knows this type.
pub fn can_decode(dtype: DType) -> bool {
    decoder(dtype).is_some()
}

/// Turns one block (of `block_bytes`) into its weights (`block_len` of them).
type Decoder = fn(&[u8], &mut [f32]);

fn decoder(dtype: DType) -> Option<Decoder> {
    Some(match dtype {
        DType::F32 => f32_block,
        DType::F16 => f16_block,
        DType::BF16 => bf16_block,
        DType::Q4_0 => legacy::q4_0,
        DType::Q4_1 => legacy::q4_1,
        DType::Q5_0 => legacy::q5_0,
        DType::Q5_1 => legacy::q5_1,
        DType::Q8_0 => legacy::q8_0,
        DType::Q2_K => k_quants::q2_k,
        DType::Q3_K => k_quants::q3_k,
        DType::Q4_K => k_quants::q4_k,
        DType::Q5_K => k_quants::q5_k,
        DType::Q6_K => k_quants::q6_k,
        DType::IQ4_NL => iq4::iq4_nl,
        DType::IQ4_XS => iq4::iq4_xs,
        _ => return None,
    })
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
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
