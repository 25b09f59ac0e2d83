//! From a file's rows of blocks to panels, at about the speed of memory: 8 rows at a time, a word of 4 columns of each row
//! side by side ([`words`]), one routine for each file type ([`units`]).

mod shared;
mod units;
mod words;

use crate::memory::{Memory, WeightMemory};
use crate::panels::{Data, PackedMatrix, PanelFormat, ROWS};
use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use dunlin_format::DType;
use std::marker::PhantomData;
use std::ops::{ControlFlow, Range};
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
    /// Whoever was told of the progress wanted no more.
    #[error("the packing was interrupted")]
    Interrupted,
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
    let mut own = WeightMemory::default();
    pack_with(pool, &mut own, dtype, rows, cols, bytes, &mut |_| ())
}

/// As [`pack`], into `memory`. Tells `packed` after each 16 MiB or so how many bytes it has packed since: they are not needed any
/// more.
///
/// # Errors
/// See [`PackError`].
pub fn pack_with(
    pool: &Pool,
    memory: &mut WeightMemory,
    dtype: DType,
    rows: usize,
    cols: usize,
    bytes: &[u8],
    packed: &mut dyn FnMut(usize),
) -> Result<PackedMatrix, PackError> {
    let layout = Layout::of(dtype, rows, cols, bytes.len())?;
    let (format, row_bytes) = (layout.format, layout.row_bytes);
    let mut data = memory.take(layout.size);
    let piece = (PIECE / (ROWS * row_bytes)).max(1) * ROWS;
    for start in (0..rows).step_by(piece) {
        let piece = start..rows.min(start + piece);
        layout.for_each_panel(pool, 16, &mut data, piece.clone(), |rows, panel| {
            let rows = &bytes[rows.start * row_bytes..rows.end * row_bytes];
            pack_panel(format, rows, row_bytes, panel);
        });
        packed(piece.len() * row_bytes);
    }
    Ok(PackedMatrix {
        format,
        rows,
        cols,
        data: Data::Packed(data),
    })
}

/// Weights that are written and packed before anybody is told.
const WRITTEN_PIECE: usize = 1 << 20;

/// Packs a matrix `[rows, cols]` whose rows are not there yet into `memory`: `write` appends the bytes of some neighbouring ones, in the layout
/// of `dtype`, to an empty vector, on any thread. So a matrix changes its type without a copy of all of it; what is not written is
/// zero. `packed` is told after each million weights or so how many rows are packed since, and can end it.
///
/// # Errors
/// See [`PackError`].
pub fn pack_written(
    pool: &Pool,
    memory: &mut WeightMemory,
    dtype: DType,
    rows: usize,
    cols: usize,
    write: impl Fn(Range<usize>, &mut Vec<u8>) + Sync,
    packed: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<PackedMatrix, PackError> {
    let wrong = || PackError::WrongSize {
        dtype,
        rows,
        cols,
        bytes: 0,
    };
    let row_bytes = dtype.row_bytes(cols).ok_or_else(wrong)?;
    let bytes = row_bytes.checked_mul(rows).ok_or_else(wrong)?;
    let layout = Layout::of(dtype, rows, cols, bytes)?;
    let format = layout.format;
    let mut data = memory.take(layout.size);
    let piece = (WRITTEN_PIECE / (ROWS * cols)).max(pool.threads()) * ROWS;
    for start in (0..rows).step_by(piece) {
        let piece = start..rows.min(start + piece);
        layout.for_each_panel(pool, 1, &mut data, piece.clone(), |rows, panel| {
            let bytes = rows.len() * row_bytes;
            let mut written = Vec::with_capacity(bytes);
            write(rows, &mut written);
            written.resize(bytes, 0);
            pack_panel(format, &written, row_bytes, panel);
        });
        if packed(piece.len()).is_break() {
            return Err(PackError::Interrupted);
        }
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
    panel_bytes: usize,
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
        let (unit_cols, unit_bytes) = format.unit();
        Ok(Layout {
            format,
            row_bytes,
            panel_bytes: cols / unit_cols * unit_bytes,
            size,
        })
    }

    /// Calls `f` with the rows of each panel of `rows`, which begin one, and the panel's part of `data`.
    fn for_each_panel(
        &self,
        pool: &Pool,
        chunk: usize,
        data: &mut Memory,
        rows: Range<usize>,
        f: impl Fn(Range<usize>, &mut [u8]) + Sync,
    ) {
        let (size, panel_bytes) = (self.size, self.panel_bytes);
        let out = SendPtr(data.as_mut_ptr());
        pool.for_each(rows.len().div_ceil(ROWS), chunk, |index| {
            let first = rows.start + index * ROWS;
            let at = first / ROWS * panel_bytes;
            // SAFETY: each panel is a part of `data` of its own, which has `size` bytes.
            let panel = unsafe {
                std::slice::from_raw_parts_mut(out.get().add(at), panel_bytes.min(size - at))
            };
            f(first..rows.end.min(first + ROWS), panel);
        });
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
