//! Scalar encode of weights: the types that a model is imported to.
//!
//! Each is, bit for bit, what `quantize` of the `gguf` Python package makes (and ggml's
//! `quantize_row_*_ref`); NaN alone may keep another payload in F16.

use half::f16;

use crate::{DType, FormatError};

/// Appends `values`, whole blocks of them, to `out` as weights of type `dtype`.
///
/// # Errors
/// [`FormatError::UnsupportedEncoding`] where [`can_encode`] says no, [`FormatError::PartialBlocks`]
/// where the values are not whole blocks.
pub fn encode(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<(), FormatError> {
    let encoder = encoder(dtype).ok_or(FormatError::UnsupportedEncoding { dtype })?;
    let Some(bytes) = dtype.row_bytes(values.len()) else {
        return Err(FormatError::PartialBlocks {
            dtype,
            values: values.len(),
        });
    };
    out.reserve(bytes);
    encoder(values, out);
    Ok(())
}

/// Whether [`encode`] knows this type: F32, F16, BF16 and Q8_0.
pub fn can_encode(dtype: DType) -> bool {
    encoder(dtype).is_some()
}

type Encoder = fn(&[f32], &mut Vec<u8>);

fn encoder(dtype: DType) -> Option<Encoder> {
    Some(match dtype {
        DType::F32 => f32_values,
        DType::F16 => f16_values,
        DType::BF16 => bf16_values,
        DType::Q8_0 => q8_0_blocks,
        _ => return None,
    })
}

fn f32_values(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

/// Rounds to nearest, ties to even; what is beyond 65519 becomes infinite.
fn f16_values(values: &[f32], out: &mut Vec<u8>) {
    let halves = values.iter().map(|&value| f16::from_f32(value));
    out.extend(halves.flat_map(|half| half.to_le_bytes()));
}

/// Rounds to nearest, ties to even; NaN stays NaN, made quiet.
fn bf16_values(values: &[f32], out: &mut Vec<u8>) {
    let halves = values.iter().map(|value| {
        let bits = value.to_bits();
        if value.is_nan() {
            (bits >> 16) as u16 | 64
        } else {
            ((u64::from(bits) + 0x7fff + u64::from((bits >> 16) & 1)) >> 16) as u16
        }
    });
    out.extend(halves.flat_map(u16::to_le_bytes));
}

/// Blocks of 32: a scale (the largest magnitude / 127, kept as F16) and 32 codes, rounded half away
/// from zero with the scale before it was rounded.
fn q8_0_blocks(values: &[f32], out: &mut Vec<u8>) {
    for block in values.chunks_exact(DType::Q8_0.block_len()) {
        let largest = block.iter().fold(0.0f32, |max, value| max.max(value.abs()));
        let scale = largest / 127.0;
        let inverse = scale.recip();
        // A scale of zero, or so small that it becomes zero as F16: the codes mean nothing.
        let inverse = if inverse.is_finite() { inverse } else { 0.0 };
        out.extend(f16::from_f32(scale).to_le_bytes());
        out.extend(
            block
                .iter()
                .map(|&value| (value * inverse).round() as i8 as u8),
        );
    }
}
