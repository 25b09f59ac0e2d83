//! Encode of weights: the types that a model is imported to, or converted to while it is loaded.
//!
//! Plain numbers and the types with blocks of 32 are, bit for bit, what `quantize` of the `gguf` Python package makes (and
//! ggml's `quantize_row_*_ref`); NaN alone may keep another payload in F16. K-quants leave a choice of scales, which is
//! searched for here in a way of its own ([`search`]).

mod k_quants;
mod lanes;
mod legacy;
mod search;

use half::f16;

use crate::{DType, FormatError};

/// Appends `values`, whole blocks of them, to `out` as weights of type `dtype`.
///
/// Plain numbers take any value: what is beyond their range becomes infinite, and NaN stays NaN. Types with blocks have no
/// code for such values, which would also spoil their neighbours.
///
/// # Errors
/// [`FormatError::UnsupportedEncoding`] where [`can_encode`] says no, [`FormatError::PartialBlocks`]
/// where the values are not whole blocks, [`FormatError::NotEncodable`] for a value that is no finite number, or one that needs
/// a larger scale than blocks can have. Nothing is appended then.
pub fn encode(dtype: DType, values: &[f32], out: &mut Vec<u8>) -> Result<(), FormatError> {
    let encoding = encoding(dtype).ok_or(FormatError::UnsupportedEncoding { dtype })?;
    let Some(bytes) = dtype.row_bytes(values.len()) else {
        return Err(FormatError::PartialBlocks {
            dtype,
            values: values.len(),
        });
    };
    match encoding {
        Encoding::Numbers(encode) => {
            out.reserve(bytes);
            encode(values, out);
        }
        Encoding::Blocks { largest, encode } => {
            check(dtype, values, largest)?;
            out.reserve(bytes);
            for block in values.chunks_exact(dtype.block_len()) {
                encode(block, out);
            }
        }
    }
    Ok(())
}

/// Whether [`encode`] knows this type: [`encodable_types`] has it.
pub fn can_encode(dtype: DType) -> bool {
    encoding(dtype).is_some()
}

/// The types that [`encode`] knows, in the order of their numbers.
pub fn encodable_types() -> impl Iterator<Item = DType> {
    DType::all().filter(|dtype| can_encode(*dtype))
}

/// The type that weights in rows of `columns` become where `dtype` is wanted: `dtype` itself if the rows are whole blocks of it,
/// and otherwise the next one of a little more bits that they are: K-quants become a type with blocks of 32 (as in llama.cpp:
/// Q4_0, Q5_0, Q5_1 or Q8_0), and these F16.
pub fn encoding_for_width(dtype: DType, columns: usize) -> DType {
    if dtype.row_bytes(columns).is_some() {
        return dtype;
    }
    let wider = match dtype {
        DType::Q2_K | DType::Q3_K => DType::Q4_0,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        _ => DType::F16,
    };
    encoding_for_width(wider, columns)
}

/// How weights of a type come about.
enum Encoding {
    /// One by one.
    Numbers(fn(&[f32], &mut Vec<u8>)),
    /// A block at a time. The magnitude of each value is below `largest`, so that no scale is infinite as F16.
    Blocks {
        largest: f32,
        encode: fn(&[f32], &mut Vec<u8>),
    },
}

/// What is at least this becomes infinite as F16: it is nearer to 65536 than to 65504.
const F16_END: f32 = 65520.0;

fn encoding(dtype: DType) -> Option<Encoding> {
    let blocks = |codes: f32, encode| Encoding::Blocks {
        largest: F16_END * codes,
        encode,
    };
    Some(match dtype {
        DType::F32 => Encoding::Numbers(f32_values),
        DType::F16 => Encoding::Numbers(f16_values),
        DType::BF16 => Encoding::Numbers(bf16_values),
        DType::Q4_0 => blocks(8.0, legacy::q4_0),
        DType::Q5_0 => blocks(16.0, legacy::q5_0),
        DType::Q8_0 => blocks(127.0, legacy::q8_0),
        // Their minimum is an F16.
        DType::Q4_1 => blocks(1.0, legacy::q4_1),
        DType::Q5_1 => blocks(1.0, legacy::q5_1),
        // Far below what their scales could express.
        DType::Q2_K => blocks(1.0, k_quants::q2_k),
        DType::Q3_K => blocks(1.0, k_quants::q3_k),
        DType::Q4_K => blocks(1.0, k_quants::q4_k),
        DType::Q5_K => blocks(1.0, k_quants::q5_k),
        DType::Q6_K => blocks(1.0, k_quants::q6_k),
        _ => return None,
    })
}

fn check(dtype: DType, values: &[f32], largest: f32) -> Result<(), FormatError> {
    // NaN is not below anything.
    let is_sound = |value: &f32| value.abs() < largest;
    match values.iter().position(|value| !is_sound(value)) {
        None => Ok(()),
        Some(index) => Err(FormatError::NotEncodable {
            dtype,
            index,
            value: values[index],
            largest,
        }),
    }
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
