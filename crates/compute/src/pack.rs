//! From a file's rows of blocks to panels, at about the speed of memory: 8 rows at a time, a word of 4 columns of each row
//! side by side ([`words`]), one routine for each file type ([`units`]).

mod shared;
mod units;
mod words;

use crate::memory::Memory;
use crate::panels::{Data, PackedMatrix, PanelFormat, ROWS};
use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use dunlin_format::DType;
use std::marker::PhantomData;
use units::Packer;
use words::Rows;

pub(crate) use shared::SharedRows;
pub use shared::{SharedBytes, map};

/// Why a matrix cannot be packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// Numbers that are no weights: integers, F64, and the types of activations.
    #[error("{} is no type of weights, so that nothing can be multiplied with it; choose another file", .0.name())]
    UnsupportedType(DType),
    /// The row length is not a whole number of blocks, or the bytes are not those of `rows` rows.
    #[error("a {rows} x {cols} matrix of type {} does not take {bytes} bytes", dtype.name())]
    WrongSize {
        /// The type of the weights.
        dtype: DType,
        /// Output features.
        rows: usize,
        /// Input features.
        cols: usize,
        /// The bytes that were given.
        bytes: usize,
    },
}

/// Bytes of the file that are packed before anybody is told.
const PIECE: usize = 16 << 20;

/// Packs a row-major matrix `[rows, cols]` of a file type into panels, in parallel. Types without a kernel
/// ([`crate::has_fast_kernel`]) are copied as they are.
///
/// # Errors
/// See [`PackError`].
pub fn pack(
    pool: &Pool,
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: &[u8],
) -> Result<PackedMatrix, PackError> {
    pack_with(pool, dtype, rows, cols, bytes, &mut |_| ())
}

/// As [`pack`], which tells `packed` after each 16 MiB or so how many bytes it has packed since: they are not needed any more.
///
/// # Errors
/// See [`PackError`].
pub fn pack_with(
    pool: &Pool,
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: &[u8],
    packed: &mut dyn FnMut(usize),
) -> Result<PackedMatrix, PackError> {
    let Layout {
        format,
        row_bytes,
        size,
    } = Layout::of(dtype, rows, cols, bytes.len())?;
    let (unit_cols, unit_bytes) = format.unit();
    let (panels, panel_bytes) = (rows.div_ceil(ROWS), cols / unit_cols * unit_bytes);
    let mut data = Memory::zeroed(size);
    let out = SendPtr(data.as_mut_ptr());
    let piece = (PIECE / (ROWS * row_bytes)).max(1);
    for start in (0..panels).step_by(piece) {
        let end = panels.min(start + piece);
        pool.for_each(end - start, 16, |index| {
            let panel = start + index;
            let at = panel * panel_bytes;
            // SAFETY: each panel is a part of `data` of its own.
            let target = unsafe {
                std::slice::from_raw_parts_mut(out.get().add(at), panel_bytes.min(size - at))
            };
            let first = panel * ROWS;
            let count = ROWS.min(rows - first);
            let rows = &bytes[first * row_bytes..(first + count) * row_bytes];
            pack_panel(format, rows, row_bytes, target);
        });
        packed((rows.min(end * ROWS) - start * ROWS) * row_bytes);
    }
    Ok(PackedMatrix {
        format,
        rows,
        cols,
        data: Data::Packed(data),
    })
}

/// How a matrix of the file becomes panels.
struct Layout {
    format: PanelFormat,
    /// Of the file.
    row_bytes: usize,
    /// Bytes of all panels.
    size: usize,
}

impl Layout {
    /// # Errors
    /// The type is none of weights, or the matrix does not take `bytes` bytes.
    fn of(dtype: DType, rows: usize, cols: usize, bytes: usize) -> Result<Self, PackError> {
        let format = PanelFormat::of(dtype).ok_or(PackError::UnsupportedType(dtype))?;
        let wrong = || PackError::WrongSize {
            dtype,
            rows,
            cols,
            bytes,
        };
        let size = packed_bytes(dtype, rows, cols).ok_or_else(wrong)?;
        let row_bytes = dtype.row_bytes(cols).ok_or_else(wrong)?;
        if row_bytes.checked_mul(rows) != Some(bytes) {
            return Err(wrong());
        }
        Ok(Layout {
            format,
            row_bytes,
            size,
        })
    }
}

/// Bytes of memory that [`pack`] makes of a matrix `[rows, cols]` of a file type; `None` where it would refuse. Known from
/// a file's header, before any weight is read.
pub fn packed_bytes(dtype: DType, rows: usize, cols: usize) -> Option<usize> {
    let format = PanelFormat::of(dtype)?;
    let row_bytes = dtype.row_bytes(cols)?;
    if rows == 0 || cols == 0 {
        return None;
    }
    match format {
        PanelFormat::Blocks(_) => row_bytes.checked_mul(rows),
        _ => {
            let (unit_cols, unit_bytes) = format.unit();
            let panel_bytes = (cols / unit_cols).checked_mul(unit_bytes)?;
            rows.div_ceil(ROWS).checked_mul(panel_bytes)
        }
    }
}

fn pack_panel(format: PanelFormat, rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    match format {
        PanelFormat::F32 => pack_units::<units::Words4>(rows, row_bytes, out),
        PanelFormat::F16 | PanelFormat::BF16 => {
            pack_units::<units::Halves>(rows, row_bytes, out);
            // An odd column is left.
            let (_, column) = out.as_chunks_mut::<{ units::Halves::BYTES }>();
            for (half, row) in column.chunks_exact_mut(2).zip(rows.chunks_exact(row_bytes)) {
                half.copy_from_slice(&row[row_bytes - 2..]);
            }
        }
        PanelFormat::Blocks(_) => out.copy_from_slice(rows),
        PanelFormat::Q4_0 => pack_units::<units::Q4_0>(rows, row_bytes, out),
        PanelFormat::Q4_1 => pack_units::<units::Q4_1>(rows, row_bytes, out),
        PanelFormat::Q5_0 => pack_units::<units::Q5_0>(rows, row_bytes, out),
        PanelFormat::Q5_1 => pack_units::<units::Q5_1>(rows, row_bytes, out),
        PanelFormat::Q8_0 => pack_units::<units::Q8_0>(rows, row_bytes, out),
        PanelFormat::IQ4_NL => pack_units::<units::IQ4_NL>(rows, row_bytes, out),
        PanelFormat::Q2_K => pack_units::<units::Q2_K>(rows, row_bytes, out),
        PanelFormat::Q3_K => pack_units::<units::Q3_K>(rows, row_bytes, out),
        PanelFormat::Q4_K => pack_units::<units::Q4_K>(rows, row_bytes, out),
        PanelFormat::Q5_K => pack_units::<units::Q5_K>(rows, row_bytes, out),
        PanelFormat::Q6_K => pack_units::<units::Q6_K>(rows, row_bytes, out),
        PanelFormat::IQ4_XS => pack_units::<units::IQ4_XS>(rows, row_bytes, out),
    }
}

/// Stands in for a unit of a row that the matrix lacks.
static ZEROS: [u8; 256] = [0; 256];

/// Packs the units of up to 8 rows.
fn pack_units<P: Packer>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    // Packing is moving bytes, which comes out alike on every tier.
    Tier::detect().run(Units::<P> {
        rows,
        row_bytes,
        out,
        packer: PhantomData,
    });
}

struct Units<'a, P> {
    rows: &'a [u8],
    row_bytes: usize,
    out: &'a mut [u8],
    packer: PhantomData<P>,
}

impl<P: Packer> Kernel for Units<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        const { assert!(P::FILE_BYTES <= ZEROS.len()) };
        let units = self.out.len() / P::BYTES;
        let mut at = [ZEROS.as_ptr(); ROWS];
        let mut step = [0; ROWS];
        let mut count = 0;
        for row in self.rows.chunks_exact(self.row_bytes).take(ROWS) {
            assert!(row.len() >= units * P::FILE_BYTES, "a row of whole units");
            (at[count], step[count]) = (row.as_ptr(), P::FILE_BYTES);
            count += 1;
        }
        let mut rows = Rows { at, count };
        for unit in self.out.chunks_exact_mut(P::BYTES) {
            // SAFETY: each row has `units` times `FILE_BYTES` bytes, or is `ZEROS`, which has as many for any type.
            unsafe { P::pack(&rows, unit.as_mut_ptr()) };
            for r in 0..ROWS {
                rows.at[r] = rows.at[r].wrapping_add(step[r]);
            }
        }
    }
}
