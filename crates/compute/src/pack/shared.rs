//! Matrices that stay in the file's layout, in memory that somebody else owns: a mapped file, whose pages the system shares
//! between processes and takes back when it is short.
//!
//! A panel is packed into memory of the thread whenever it is multiplied, and then goes through the same kernel as any other:
//! the results are the same bits. A prompt hardly notices, a single token takes several times longer.

use super::{Layout, PackError, pack_panel};
use crate::panels::{Data, PackedMatrix, PanelFormat, ROWS};
use dunlin_format::DType;
use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

/// Somebody else's bytes, which stay as they are as long as a matrix refers to them.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Rows of a matrix in the layout of the file.
pub(crate) struct SharedRows {
    owner: SharedBytes,
    range: Range<usize>,
    row_bytes: usize,
}

/// A matrix `[rows, cols]` of a file type whose rows are the bytes `range` of `owner`, one after the other.
///
/// # Errors
/// As [`pack`](super::pack); [`PackError::WrongSize`] where `owner` has no such range.
pub fn map(
    dtype: DType,
    rows: usize,
    cols: usize,
    owner: SharedBytes,
    range: Range<usize>,
) -> Result<PackedMatrix, PackError> {
    let bytes = (*owner).as_ref().get(range.clone());
    let bytes = bytes.ok_or(PackError::WrongSize {
        dtype,
        rows,
        cols,
        bytes: 0,
    })?;
    let Layout {
        format, row_bytes, ..
    } = Layout::of(dtype, rows, cols, bytes.len())?;
    Ok(PackedMatrix {
        format,
        rows,
        cols,
        data: Data::Shared(SharedRows {
            owner,
            range,
            row_bytes,
        }),
    })
}

thread_local! {
    /// The panels that this thread multiplies. Grows to the largest ones and stays.
    static PANELS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl SharedRows {
    pub(crate) fn bytes(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }

    /// Calls `f` with neighbouring panels of `panel_bytes` bytes each.
    pub(crate) fn with_panels(
        &self,
        format: PanelFormat,
        panels: Range<usize>,
        panel_bytes: usize,
        f: impl FnOnce(&[u8]),
    ) {
        let (all, bytes) = (self.bytes(), ROWS * self.row_bytes);
        let rows = &all[panels.start * bytes..all.len().min(panels.end * bytes)];
        if let PanelFormat::Blocks(_) = format {
            return f(rows);
        }
        let length = panels.len() * panel_bytes;
        PANELS.with_borrow_mut(|packed| {
            if packed.len() < length {
                packed.resize(length, 0);
            }
            let packed = &mut packed[..length];
            for (rows, panel) in rows.chunks(bytes).zip(packed.chunks_exact_mut(panel_bytes)) {
                if rows.len() < bytes {
                    // Packing leaves the scales of missing rows as they are.
                    panel.fill(0);
                }
                pack_panel(format, rows, self.row_bytes, panel);
            }
            f(packed);
        });
    }
}
