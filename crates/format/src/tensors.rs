//! The tensor table: names, shapes, types and places, each checked before anybody relies on it.

use std::{collections::HashSet, mem::size_of, ops::Range};

use crate::{
    DType, FormatError,
    cursor::{Budget, Cursor},
};

/// The smallest entry: name length, dimension count, one dimension, type, offset.
pub(crate) const MIN_ENTRY_BYTES: u64 = 8 + 4 + 8 + 4 + 8;

const DIMENSION_LIMIT: u32 = 4;

/// Name, shape and type of one tensor, and where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Lengths in GGUF order: `shape[0]` is contiguous (columns), `shape[1]` counts rows.
    pub shape: Vec<u64>,
    /// Element type.
    pub dtype: DType,
    pub(crate) part: usize,
    /// Bytes of the part's file.
    pub(crate) bytes: Range<usize>,
}

impl TensorInfo {
    /// Number of weights.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Number of bytes in the file.
    pub fn byte_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Length of a row: `shape[0]`.
    pub fn cols(&self) -> usize {
        self.shape.first().map_or(0, |&columns| columns as usize)
    }

    /// Number of rows: the product of all lengths but the first.
    pub fn rows(&self) -> usize {
        self.shape.iter().skip(1).product::<u64>() as usize
    }

    /// The bytes of the part's file that this tensor takes.
    pub fn file_range(&self) -> Range<u64> {
        self.bytes.start as u64..self.bytes.end as u64
    }

    /// The part of a split file that holds this tensor, from 0.
    pub fn part(&self) -> usize {
        self.part
    }
}

/// Bytes that a tensor of this shape takes. `at` is the byte where its description stands.
///
/// # Errors
/// Those on dimensions and blocks.
pub(crate) fn checked_byte_len(
    tensor: &str,
    shape: &[u64],
    dtype: DType,
    at: u64,
) -> Result<u64, FormatError> {
    if shape.is_empty() || shape.len() > DIMENSION_LIMIT as usize {
        let dimensions = shape.len() as u32;
        return Err(FormatError::DimensionCount {
            tensor: tensor.to_owned(),
            dimensions,
            at,
        });
    }
    if shape.contains(&0) {
        let (tensor, shape) = (tensor.to_owned(), shape.to_vec());
        return Err(FormatError::ZeroDimension { tensor, shape, at });
    }
    let columns = shape[0];
    if !columns.is_multiple_of(dtype.block_len() as u64) {
        return Err(FormatError::PartialBlock {
            tensor: tensor.to_owned(),
            columns,
            dtype,
            at,
        });
    }
    // Signed 64 bits hold both numbers, as ggml demands, so that sums of two cannot overflow.
    let elements = shape
        .iter()
        .try_fold(1u64, |product, &length| product.checked_mul(length));
    elements
        .filter(|&elements| elements <= i64::MAX as u64)
        .map(|elements| elements / dtype.block_len() as u64)
        .and_then(|blocks| blocks.checked_mul(dtype.block_bytes() as u64))
        .filter(|&bytes| bytes <= i64::MAX as u64)
        .ok_or_else(|| FormatError::ShapeOverflow {
            tensor: tensor.to_owned(),
            shape: shape.to_vec(),
            at,
        })
}

/// Reads `count` entries; `cursor` stands behind the metadata and knows the whole file.
pub(crate) fn read_table(
    cursor: &mut Cursor,
    part: usize,
    count: u64,
    alignment: u64,
    budget: &mut Budget,
) -> Result<Vec<TensorInfo>, FormatError> {
    // Each tensor as it is written and as it is kept (for a moment twice), its shape, and its name
    // in two indexes at their lowest load.
    let entry_bytes = size_of::<Entry>()
        + 2 * size_of::<TensorInfo>()
        + DIMENSION_LIMIT as usize * size_of::<u64>()
        + 6 * size_of::<(String, usize)>();
    budget.take(count.saturating_mul(entry_bytes as u64), cursor.at())?;

    let mut entries = Vec::with_capacity(count as usize);
    let mut names = HashSet::with_capacity(count as usize);
    for _ in 0..count {
        let entry = read_entry(cursor, alignment, budget)?;
        if !names.insert(entry.name) {
            return Err(FormatError::DuplicateTensor {
                name: entry.name.to_owned(),
                at: entry.at,
            });
        }
        entries.push(entry);
    }

    let data_start = cursor.at().next_multiple_of(alignment);
    let file_bytes = cursor.at() + cursor.left();
    let tensors = entries
        .into_iter()
        .map(|entry| place(entry, part, data_start, file_bytes))
        .collect::<Result<Vec<_>, _>>()?;
    reject_overlaps(&tensors)?;
    Ok(tensors)
}

/// One entry as it is written.
struct Entry<'a> {
    at: u64,
    name: &'a str,
    shape: Vec<u64>,
    dtype: DType,
    byte_len: u64,
    /// From the start of the data section.
    offset: u64,
    offset_at: u64,
}

fn read_entry<'a>(
    cursor: &mut Cursor<'a>,
    alignment: u64,
    budget: &mut Budget,
) -> Result<Entry<'a>, FormatError> {
    let at = cursor.at();
    // For the table and for its index.
    let name = cursor.text("a tensor name", 2, budget)?;

    let shape_at = cursor.at();
    let dimensions = cursor.u32("the dimension count of a tensor")?;
    if dimensions == 0 || dimensions > DIMENSION_LIMIT {
        let tensor = name.to_owned();
        return Err(FormatError::DimensionCount {
            tensor,
            dimensions,
            at: shape_at,
        });
    }
    let mut shape = Vec::with_capacity(dimensions as usize);
    for _ in 0..dimensions {
        shape.push(cursor.u64("the shape of a tensor")?);
    }

    let type_at = cursor.at();
    let id = cursor.u32("the type of a tensor")?;
    let dtype = DType::from_ggml(id).ok_or_else(|| FormatError::UnknownTensorType {
        tensor: name.to_owned(),
        id,
        at: type_at,
    })?;
    let byte_len = checked_byte_len(name, &shape, dtype, shape_at)?;

    let offset_at = cursor.at();
    let offset = cursor.u64("the offset of a tensor")?;
    if !offset.is_multiple_of(alignment) {
        let tensor = name.to_owned();
        return Err(FormatError::MisalignedTensor {
            tensor,
            offset,
            alignment,
            at: offset_at,
        });
    }
    Ok(Entry {
        at,
        name,
        shape,
        dtype,
        byte_len,
        offset,
        offset_at,
    })
}

fn place(
    entry: Entry,
    part: usize,
    data_start: u64,
    file_bytes: u64,
) -> Result<TensorInfo, FormatError> {
    let end = u128::from(data_start) + u128::from(entry.offset) + u128::from(entry.byte_len);
    if end > u128::from(file_bytes) {
        return Err(FormatError::TensorPastEnd {
            tensor: entry.name.to_owned(),
            at: entry.offset_at,
            start: data_start.saturating_add(entry.offset),
            end,
            file_bytes,
        });
    }
    let start = (data_start + entry.offset) as usize;
    Ok(TensorInfo {
        name: entry.name.to_owned(),
        shape: entry.shape,
        dtype: entry.dtype,
        part,
        bytes: start..start + entry.byte_len as usize,
    })
}

fn reject_overlaps(tensors: &[TensorInfo]) -> Result<(), FormatError> {
    let mut by_start: Vec<&TensorInfo> = tensors.iter().collect();
    by_start.sort_by_key(|tensor| tensor.bytes.start);
    for pair in by_start.windows(2) {
        if pair[0].bytes.end > pair[1].bytes.start {
            return Err(FormatError::OverlappingTensors {
                first: pair[0].name.clone(),
                second: pair[1].name.clone(),
                at: pair[1].bytes.start as u64,
            });
        }
    }
    Ok(())
}
