//! The head of one file: magic, version, metadata, and the tensor table as it is written.

use std::mem::size_of;

use crate::{
    Array, FormatError, Metadata, StringArray, Value,
    cursor::{Budget, Cursor},
    tensors::{self, TensorInfo},
    value::type_id,
};

/// How deep arrays may lie in arrays. Real models use one level.
pub(crate) const ARRAY_DEPTH_LIMIT: usize = 4;

const MAGIC: [u8; 4] = *b"GGUF";
const DEFAULT_ALIGNMENT: u32 = 32;

/// What one file says before its weights.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Reads and checks everything but the weights of part number `part`.
pub(crate) fn read(bytes: &[u8], part: usize, budget: &mut Budget) -> Result<Header, FormatError> {
    let mut cursor = Cursor::new(bytes);
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.count(tensors::MIN_ENTRY_BYTES, "the tensor count")?;
    // A key (length and no text), a type and one byte.
    let entry_count = cursor.count(8 + 4 + 1, "the metadata count")?;

    let metadata = read_metadata(&mut cursor, entry_count, budget)?;
    let alignment = alignment(&metadata)?;
    let tensors = tensors::read_table(&mut cursor, part, tensor_count, alignment, budget)?;
    Ok(Header {
        version,
        metadata,
        tensors,
    })
}

/// The alignment that `metadata` asks for, in bytes.
pub(crate) fn alignment(metadata: &Metadata) -> Result<u64, FormatError> {
    let alignment = metadata
        .u32("general.alignment")?
        .unwrap_or(DEFAULT_ALIGNMENT);
    let alignment = u64::from(alignment);
    if !alignment.is_power_of_two() || alignment < 8 {
        return Err(FormatError::BadAlignment { alignment });
    }
    Ok(alignment)
}

fn read_version(cursor: &mut Cursor) -> Result<u32, FormatError> {
    let magic = cursor.array("the magic number")?;
    if magic == [b'F', b'U', b'G', b'G'] {
        return Err(FormatError::BigEndian);
    }
    if magic != MAGIC {
        return Err(FormatError::BadMagic { found: magic });
    }
    let version = cursor.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        _ if (1..=3).contains(&version.swap_bytes()) => Err(FormatError::BigEndian),
        _ => Err(FormatError::UnsupportedVersion { version }),
    }
}

fn read_metadata(
    cursor: &mut Cursor,
    entry_count: u64,
    budget: &mut Budget,
) -> Result<Metadata, FormatError> {
    // The entry in the list, and the one in the index at its lowest load.
    let entry_bytes = size_of::<(String, Value, Option<u64>)>() + 3 * size_of::<(String, usize)>();
    budget.take(entry_count.saturating_mul(entry_bytes as u64), cursor.at())?;
    let mut metadata = Metadata::with_capacity(entry_count as usize);
    for _ in 0..entry_count {
        let at = cursor.at();
        let key = cursor.text("a metadata key", 2, budget)?;
        if metadata.contains(key) {
            return Err(FormatError::DuplicateKey {
                key: key.to_owned(),
                at,
            });
        }
        let value = read_value(cursor, key, budget)?;
        metadata.insert_at(key, value, at);
    }
    Ok(metadata)
}

fn read_value(cursor: &mut Cursor, key: &str, budget: &mut Budget) -> Result<Value, FormatError> {
    const WHAT: &str = "a metadata value";
    let at = cursor.at();
    Ok(match cursor.u32("the type of a metadata value")? {
        type_id::U8 => Value::U8(u8::from_le_bytes(cursor.array(WHAT)?)),
        type_id::I8 => Value::I8(i8::from_le_bytes(cursor.array(WHAT)?)),
        type_id::U16 => Value::U16(u16::from_le_bytes(cursor.array(WHAT)?)),
        type_id::I16 => Value::I16(i16::from_le_bytes(cursor.array(WHAT)?)),
        type_id::U32 => Value::U32(u32::from_le_bytes(cursor.array(WHAT)?)),
        type_id::I32 => Value::I32(i32::from_le_bytes(cursor.array(WHAT)?)),
        type_id::U64 => Value::U64(u64::from_le_bytes(cursor.array(WHAT)?)),
        type_id::I64 => Value::I64(i64::from_le_bytes(cursor.array(WHAT)?)),
        type_id::F32 => Value::F32(f32::from_le_bytes(cursor.array(WHAT)?)),
        type_id::F64 => Value::F64(f64::from_le_bytes(cursor.array(WHAT)?)),
        type_id::BOOL => {
            let at = cursor.at();
            let [byte] = cursor.array(WHAT)?;
            Value::Bool(read_bool(byte, key, at)?)
        }
        type_id::STRING => Value::String(cursor.text(WHAT, 1, budget)?.to_owned()),
        type_id::ARRAY => Value::Array(read_array(cursor, key, 1, budget)?),
        id => {
            return Err(FormatError::UnknownValueType {
                key: key.to_owned(),
                id,
                at,
            });
        }
    })
}

fn read_array(
    cursor: &mut Cursor,
    key: &str,
    depth: usize,
    budget: &mut Budget,
) -> Result<Array, FormatError> {
    let at = cursor.at();
    if depth > ARRAY_DEPTH_LIMIT {
        return Err(FormatError::ArrayTooDeep {
            key: key.to_owned(),
            at,
            limit: ARRAY_DEPTH_LIMIT,
        });
    }
    Ok(match cursor.u32("the type of an array")? {
        type_id::U8 => Array::U8(read_numbers(cursor, budget, u8::from_le_bytes)?),
        type_id::I8 => Array::I8(read_numbers(cursor, budget, i8::from_le_bytes)?),
        type_id::U16 => Array::U16(read_numbers(cursor, budget, u16::from_le_bytes)?),
        type_id::I16 => Array::I16(read_numbers(cursor, budget, i16::from_le_bytes)?),
        type_id::U32 => Array::U32(read_numbers(cursor, budget, u32::from_le_bytes)?),
        type_id::I32 => Array::I32(read_numbers(cursor, budget, i32::from_le_bytes)?),
        type_id::U64 => Array::U64(read_numbers(cursor, budget, u64::from_le_bytes)?),
        type_id::I64 => Array::I64(read_numbers(cursor, budget, i64::from_le_bytes)?),
        type_id::F32 => Array::F32(read_numbers(cursor, budget, f32::from_le_bytes)?),
        type_id::F64 => Array::F64(read_numbers(cursor, budget, f64::from_le_bytes)?),
        type_id::BOOL => Array::Bool(read_bools(cursor, key, budget)?),
        type_id::STRING => Array::String(read_strings(cursor, budget)?),
        type_id::ARRAY => {
            // A nested array has at least its type and its count.
            let count = cursor.count(4 + 8, "the length of an array")?;
            budget.take(count * size_of::<Array>() as u64, at)?;
            let mut arrays = Vec::with_capacity(count as usize);
            for _ in 0..count {
                arrays.push(read_array(cursor, key, depth + 1, budget)?);
            }
            Array::Array(arrays)
        }
        id => {
            return Err(FormatError::UnknownValueType {
                key: key.to_owned(),
                id,
                at,
            });
        }
    })
}

fn read_numbers<const N: usize, T>(
    cursor: &mut Cursor,
    budget: &mut Budget,
    convert: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, FormatError> {
    let at = cursor.at();
    let count = cursor.count(N as u64, "the length of an array")?;
    budget.take(count * N as u64, at)?;
    let bytes = cursor.take(count * N as u64, "an array")?;
    let (numbers, _) = bytes.as_chunks::<N>();
    Ok(numbers.iter().map(|&number| convert(number)).collect())
}

fn read_bools(
    cursor: &mut Cursor,
    key: &str,
    budget: &mut Budget,
) -> Result<Vec<bool>, FormatError> {
    let at = cursor.at();
    let count = cursor.count(1, "the length of an array")?;
    budget.take(count, at)?;
    let first = cursor.at();
    let bytes = cursor.take(count, "an array")?;
    let mut bools = Vec::with_capacity(bytes.len());
    for (index, &byte) in bytes.iter().enumerate() {
        bools.push(read_bool(byte, key, first + index as u64)?);
    }
    Ok(bools)
}

fn read_bool(byte: u8, key: &str, at: u64) -> Result<bool, FormatError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(FormatError::InvalidBool {
            key: key.to_owned(),
            value,
            at,
        }),
    }
}

/// Reads the texts twice: once for their lengths, so that the second time they go into a buffer of
/// exactly the right size. They are checked all at once, in a fraction of the time.
fn read_strings(cursor: &mut Cursor, budget: &mut Budget) -> Result<StringArray, FormatError> {
    const WHAT: &str = "a text of an array";
    let at = cursor.at();
    let count = cursor.count(8, "the length of an array")?;

    budget.take(count * size_of::<usize>() as u64, at)?;
    let start = cursor.clone();
    let mut ends = Vec::with_capacity(count as usize);
    let mut text_bytes = 0;
    for _ in 0..count {
        let length = cursor.count(1, WHAT)?;
        cursor.take(length, WHAT)?;
        text_bytes += length as usize;
        ends.push(text_bytes);
    }

    budget.take(text_bytes as u64, at)?;
    let mut all = Vec::with_capacity(text_bytes);
    let mut again = start.clone();
    for _ in 0..count {
        let length = again.count(1, WHAT)?;
        all.extend_from_slice(again.take(length, WHAT)?);
    }
    match StringArray::cut(all, ends) {
        Some(strings) => Ok(strings),
        None => Err(invalid_text(start, count, WHAT, budget)),
    }
}

/// Which of some texts is no UTF-8, where one is.
fn invalid_text(
    mut cursor: Cursor,
    count: u64,
    what: &'static str,
    budget: &mut Budget,
) -> FormatError {
    let at = cursor.at();
    let mut texts = (0..count).map(|_| cursor.text(what, 0, budget));
    match texts.find_map(Result::err) {
        Some(error) => error,
        None => FormatError::InvalidUtf8 { what, at },
    }
}
