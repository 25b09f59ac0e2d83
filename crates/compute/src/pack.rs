//! From a file's rows of blocks to panels.
//!
//! Each file type becomes, per row and 32 columns, plain codes and scales ([`RowBlock`]), which one routine per panel part
//! lays out. Block layouts are ggml's (`ggml-common.h`).

use crate::panels::{BLOCK, PackedMatrix, PanelFormat, ROWS};
use crate::pool::{Pool, SendPtr};
use dunlin_format::DType;

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
    let format = PanelFormat::of(dtype).ok_or(PackError::UnsupportedType(dtype))?;
    let wrong = || PackError::WrongSize {
        dtype,
        rows,
        cols,
        bytes: bytes.len(),
    };
    let size = packed_bytes(dtype, rows, cols).ok_or_else(wrong)?;
    let row_bytes = dtype.row_bytes(cols).ok_or_else(wrong)?;
    if row_bytes.checked_mul(rows) != Some(bytes.len()) {
        return Err(wrong());
    }
    let mut packed = PackedMatrix {
        format,
        rows,
        cols,
        data: Vec::new(),
    };
    let (panels, panel_bytes) = (packed.panels(), packed.panel_bytes());
    let mut data = vec![0; size];
    let out = SendPtr(data.as_mut_ptr());
    pool.for_each(panels, 16, |panel| {
        let at = panel * panel_bytes;
        // SAFETY: each panel is a part of `data` of its own.
        let target = unsafe {
            std::slice::from_raw_parts_mut(out.get().add(at), panel_bytes.min(size - at))
        };
        let first = panel * ROWS;
        let count = ROWS.min(rows - first);
        pack_panel(
            format,
            &bytes[first * row_bytes..(first + count) * row_bytes],
            row_bytes,
            target,
        );
    });
    packed.data = data;
    Ok(packed)
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
    let (unit_cols, unit_bytes) = format.unit();
    match format {
        PanelFormat::F32 => interleave::<4>(rows, row_bytes, out),
        PanelFormat::F16 | PanelFormat::BF16 => interleave::<2>(rows, row_bytes, out),
        PanelFormat::Blocks(_) => out.copy_from_slice(rows),
        _ => {
            let units = out.len() / unit_bytes;
            let file_unit = row_bytes / units;
            let read = reader(format);
            for (index, unit) in out.chunks_exact_mut(unit_bytes).enumerate() {
                for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
                    let bytes = &bytes[index * file_unit..(index + 1) * file_unit];
                    for b in 0..unit_cols / BLOCK {
                        write_block(format, unit, row, b, &read(bytes, b));
                    }
                }
            }
        }
    }
}

/// Numbers of `N` bytes, column by column, 8 rows side by side.
fn interleave<const N: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    for (row, bytes) in rows.chunks_exact(row_bytes).enumerate() {
        for (col, value) in bytes.chunks_exact(N).enumerate() {
            let at = (col * ROWS + row) * N;
            out[at..at + N].copy_from_slice(value);
        }
    }
}

/// 32 columns of one row: raw codes, and the scales as the file has them.
#[derive(Default)]
struct RowBlock {
    codes: [u8; 32],
    /// The f16 bits of `d` and of `m` or `dmin`.
    d: [u8; 2],
    m: [u8; 2],
    /// Integer scales and mins of the two halves; the first alone where there is one per 32 columns.
    scales: [u8; 2],
    mins: [u8; 2],
}

type Reader = fn(&[u8], usize) -> RowBlock;

fn reader(format: PanelFormat) -> Reader {
    match format {
        PanelFormat::Q4_0 | PanelFormat::IQ4_NL => |x, _| RowBlock {
            codes: split(&x[2..18]),
            d: two(x, 0),
            ..RowBlock::default()
        },
        PanelFormat::Q4_1 => |x, _| RowBlock {
            codes: split(&x[4..20]),
            d: two(x, 0),
            m: two(x, 2),
            ..RowBlock::default()
        },
        PanelFormat::Q5_0 => |x, _| RowBlock {
            codes: fifth(&x[6..22], &x[2..6]),
            d: two(x, 0),
            ..RowBlock::default()
        },
        PanelFormat::Q5_1 => |x, _| RowBlock {
            codes: fifth(&x[8..24], &x[4..8]),
            d: two(x, 0),
            m: two(x, 2),
            ..RowBlock::default()
        },
        PanelFormat::Q8_0 => |x, _| {
            let mut codes = [0; 32];
            codes.copy_from_slice(&x[2..34]);
            RowBlock {
                codes,
                d: two(x, 0),
                ..RowBlock::default()
            }
        },
        PanelFormat::Q2_K => read_q2_k,
        PanelFormat::Q3_K => read_q3_k,
        PanelFormat::Q4_K => |x, b| {
            let codes = std::array::from_fn(|i| nibble(x[16 + 32 * (b / 2) + i], b % 2));
            let (scale, min) = six_bits(&x[4..16], b);
            RowBlock {
                codes,
                d: two(x, 0),
                m: two(x, 2),
                scales: [scale, 0],
                mins: [min, 0],
            }
        },
        PanelFormat::Q5_K => |x, b| {
            let codes = std::array::from_fn(|i| {
                nibble(x[48 + 32 * (b / 2) + i], b % 2) | (x[16 + i] >> b & 1) << 4
            });
            let (scale, min) = six_bits(&x[4..16], b);
            RowBlock {
                codes,
                d: two(x, 0),
                m: two(x, 2),
                scales: [scale, 0],
                mins: [min, 0],
            }
        },
        PanelFormat::Q6_K => |x, b| {
            let (half, quarter) = (b / 4, b % 4);
            let low = 64 * half + 32 * (quarter % 2);
            let codes = std::array::from_fn(|i| {
                nibble(x[low + i], quarter / 2) | (x[128 + 32 * half + i] >> (2 * quarter) & 3) << 4
            });
            RowBlock {
                codes,
                d: two(x, 208),
                scales: two(x, 192 + 2 * b),
                ..RowBlock::default()
            }
        },
        PanelFormat::IQ4_XS => |x, b| {
            let high = u16::from_le_bytes(two(x, 2));
            let low = nibble(x[4 + b / 2], b % 2);
            let scale = (low | ((high >> (2 * b) & 3) << 4) as u8).wrapping_sub(32);
            RowBlock {
                codes: split(&x[8 + 16 * b..24 + 16 * b]),
                d: two(x, 0),
                scales: [scale, 0],
                ..RowBlock::default()
            }
        },
        PanelFormat::F32 | PanelFormat::F16 | PanelFormat::BF16 | PanelFormat::Blocks(_) => {
            |_, _| RowBlock::default()
        }
    }
}

fn read_q2_k(x: &[u8], b: usize) -> RowBlock {
    let codes = std::array::from_fn(|i| x[16 + 32 * (b / 4) + i] >> (2 * (b % 4)) & 3);
    let packed = two(x, 2 * b);
    RowBlock {
        codes,
        d: two(x, 80),
        m: two(x, 82),
        scales: packed.map(|s| s & 15),
        mins: packed.map(|s| s >> 4),
    }
}

fn read_q3_k(x: &[u8], b: usize) -> RowBlock {
    let codes = std::array::from_fn(|i| {
        (x[32 + 32 * (b / 4) + i] >> (2 * (b % 4)) & 3) | (x[i] >> b & 1) << 2
    });
    let scales = std::array::from_fn(|h| {
        let j = 2 * b + h;
        let low = nibble(x[96 + j % 8], j / 8);
        let high = x[104 + j % 4] >> (2 * (j / 4)) & 3;
        (low | high << 4).wrapping_sub(32)
    });
    RowBlock {
        codes,
        d: two(x, 108),
        scales,
        ..RowBlock::default()
    }
}

fn two(x: &[u8], at: usize) -> [u8; 2] {
    [x[at], x[at + 1]]
}

fn nibble(byte: u8, high: usize) -> u8 {
    if high == 0 { byte & 15 } else { byte >> 4 }
}

/// 16 bytes: the low nibbles are columns 0 to 15, the high ones 16 to 31.
fn split(x: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| nibble(x[i % 16], i / 16))
}

fn fifth(x: &[u8], high: &[u8]) -> [u8; 32] {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let mut codes = split(x);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((high >> i & 1) as u8) << 4;
    }
    codes
}

/// Scale and min number `j` of the 12 bytes of Q4_K and Q5_K.
fn six_bits(x: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (x[j] & 63, x[j + 4] & 63)
    } else {
        (
            (x[j + 4] & 15) | (x[j - 4] >> 6) << 4,
            (x[j + 4] >> 4) | (x[j] >> 6) << 4,
        )
    }
}

/// Puts one row's block into its place in a unit (layouts: `panels.rs`).
fn write_block(format: PanelFormat, unit: &mut [u8], row: usize, b: usize, x: &RowBlock) {
    let put = |unit: &mut [u8], at: usize, value: [u8; 2]| {
        unit[at + 2 * row..at + 2 * row + 2].copy_from_slice(&value)
    };
    put(unit, 0, x.d);
    match format {
        PanelFormat::Q4_0 | PanelFormat::IQ4_NL => put_nibbles(&mut unit[16..], row, &x.codes),
        PanelFormat::Q4_1 => {
            put(unit, 16, x.m);
            put_nibbles(&mut unit[32..], row, &x.codes);
        }
        PanelFormat::Q5_0 => {
            put_bits(&mut unit[16..], row, &x.codes, 4);
            put_nibbles(&mut unit[48..], row, &x.codes);
        }
        PanelFormat::Q5_1 => {
            put(unit, 16, x.m);
            put_bits(&mut unit[32..], row, &x.codes, 4);
            put_nibbles(&mut unit[64..], row, &x.codes);
        }
        PanelFormat::Q8_0 => {
            for (step, codes) in x.codes.chunks_exact(4).enumerate() {
                let at = 16 + 32 * step + 4 * row;
                unit[at..at + 4].copy_from_slice(codes);
            }
        }
        PanelFormat::Q2_K => {
            put(unit, 16, x.m);
            let block = &mut unit[32 + 96 * b..];
            put_scales(block, row, x.scales);
            put_scales(&mut block[16..], row, x.mins);
            put_pairs(&mut block[32..], row, &x.codes, 0);
        }
        PanelFormat::Q3_K => {
            let block = &mut unit[16 + 112 * b..];
            put_scales(block, row, x.scales);
            put_bits(&mut block[16..], row, &x.codes, 2);
            put_pairs(&mut block[48..], row, &x.codes, 0);
        }
        PanelFormat::Q4_K | PanelFormat::Q5_K => {
            put(unit, 16, x.m);
            let five = format == PanelFormat::Q5_K;
            let block = &mut unit[32 + if five { 176 } else { 144 } * b..];
            block[row] = x.scales[0];
            block[8 + row] = x.mins[0];
            if five {
                put_bits(&mut block[16..], row, &x.codes, 4);
            }
            put_nibbles(&mut block[if five { 48 } else { 16 }..], row, &x.codes);
        }
        PanelFormat::Q6_K => {
            let block = &mut unit[16 + 208 * b..];
            put_scales(block, row, x.scales);
            put_pairs(&mut block[16..], row, &x.codes, 4);
            put_nibbles(&mut block[80..], row, &x.codes);
        }
        PanelFormat::IQ4_XS => {
            let block = &mut unit[16 + 136 * b..];
            block[row] = x.scales[0];
            put_nibbles(&mut block[8..], row, &x.codes);
        }
        PanelFormat::F32 | PanelFormat::F16 | PanelFormat::BF16 | PanelFormat::Blocks(_) => {}
    }
}

fn put_scales(block: &mut [u8], row: usize, scales: [u8; 2]) {
    block[row] = scales[0];
    block[8 + row] = scales[1];
}

fn put_nibbles(out: &mut [u8], row: usize, codes: &[u8; 32]) {
    for i in 0..16 {
        let at = 32 * (i / 4) + 4 * row + i % 4;
        out[at] = (codes[i] & 15) | codes[i + 16] << 4;
    }
}

/// Bit `bit` of the codes.
fn put_bits(out: &mut [u8], row: usize, codes: &[u8; 32], bit: u32) {
    for k in 0..4 {
        out[4 * row + k] = (0..8).fold(0, |byte, step| {
            byte | (codes[4 * step + k] >> bit & 1) << step
        });
    }
}

/// Bits `from` and `from + 1` of the codes.
fn put_pairs(out: &mut [u8], row: usize, codes: &[u8; 32], from: u32) {
    for plane in 0..2 {
        for k in 0..4 {
            out[32 * plane + 4 * row + k] = (0..4).fold(0, |byte, f| {
                byte | (codes[16 * plane + 4 * f + k] >> from & 3) << (2 * f)
            });
        }
    }
}
