//! Matrices that become another type while they are packed: a few rows at a time on every thread, so that memory holds the
//! result and no copy of what it is made of.

use super::WeightTypes;
use crate::EngineError;
use crate::memory::matrices;
use crate::spec::ModelSpec;
use dunlin_compute::{PackError, PackedMatrix, Pool, WeightMemory, pack_written};
use dunlin_format::{DType, FormatError, Gguf, can_decode, can_encode, decode, encode};
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

/// Rows of a matrix of the file, in the order in which they are wanted.
pub(super) struct Rows<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: DType,
    /// All rows of the matrix.
    pub(super) bytes: &'a [u8],
    pub(super) cols: usize,
    pub(super) ranges: &'a [Range<usize>],
}

/// Checks that all that is asked for can be had, before any weight is read.
///
/// # Errors
/// [`EngineError::Convert`].
pub(super) fn check(gguf: &Gguf, spec: &ModelSpec, types: &WeightTypes) -> Result<(), EngineError> {
    for (name, &dtype) in types {
        let refuse = |reason: String| EngineError::Convert {
            name: name.clone(),
            dtype,
            reason,
        };
        let info = matrices(spec, gguf.tensors()).find(|info| info.name == *name);
        let Some(info) = info else {
            let reason = "the model multiplies with no such matrix; norms, biases, convolutions and embeddings keep their types";
            return Err(refuse(reason.to_owned()));
        };
        if info.dtype == dtype {
            continue;
        }
        if !can_encode(dtype) {
            return Err(refuse(
                FormatError::UnsupportedEncoding { dtype }.to_string(),
            ));
        }
        if !can_decode(info.dtype) {
            return Err(refuse(
                FormatError::UnsupportedDType { dtype: info.dtype }.to_string(),
            ));
        }
        if dtype.row_bytes(info.cols()).is_none() {
            return Err(refuse(format!(
                "its rows have {} weights, and {dtype} comes in blocks of {}; choose another type",
                info.cols(),
                dtype.block_len()
            )));
        }
    }
    Ok(())
}

/// Packs the rows as weights of type `to`. `advance` is told of the bytes of the file that are through.
///
/// # Errors
/// [`EngineError::Convert`] for a weight that `to` has no code for, and what `advance` gives.
pub(super) fn pack(
    pool: &Pool,
    memory: &mut WeightMemory,
    rows: &Rows<'_>,
    to: DType,
    advance: &mut dyn FnMut(usize) -> Result<(), EngineError>,
) -> Result<PackedMatrix, EngineError> {
    let failed = Mutex::new(None);
    let count = rows.ranges.iter().map(Range::len).sum();
    let write = |wanted: Range<usize>, out: &mut Vec<u8>| {
        if let Err(error) = rows.encode(wanted, to, out) {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
        }
    };
    let row_bytes = rows.row_bytes();
    let mut refused = None;
    let packed = pack_written(pool, memory, to, count, rows.cols, write, &mut |packed| {
        let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_some() {
            return ControlFlow::Break(());
        }
        match advance(packed * row_bytes) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(source) = failed {
        return Err(EngineError::Convert {
            name: rows.name.to_owned(),
            dtype: to,
            reason: source.to_string(),
        });
    }
    if let Some(error) = refused {
        return Err(error);
    }
    packed.map_err(|source: PackError| EngineError::Pack {
        name: rows.name.to_owned(),
        source,
    })
}

impl Rows<'_> {
    fn row_bytes(&self) -> usize {
        self.cols / self.dtype.block_len() * self.dtype.block_bytes()
    }

    /// Appends the rows `wanted`, counted in the order in which they are wanted.
    ///
    /// # Errors
    /// [`FormatError::NotEncodable`], with the weight's index in the tensor.
    fn encode(
        &self,
        wanted: Range<usize>,
        to: DType,
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let (cols, row_bytes) = (self.cols, self.row_bytes());
        let mut values = vec![0.0; cols];
        for row in wanted.filter_map(|index| self.source(index)) {
            let bytes = &self.bytes[row * row_bytes..][..row_bytes];
            decode(self.dtype, bytes, &mut values)?;
            encode(to, &values, out).map_err(|error| match error {
                FormatError::NotEncodable {
                    dtype,
                    index,
                    value,
                    largest,
                } => FormatError::NotEncodable {
                    dtype,
                    index: row * cols + index,
                    value,
                    largest,
                },
                other => other,
            })?;
        }
        Ok(())
    }

    /// The row of the matrix that is wanted in place `index`.
    fn source(&self, mut index: usize) -> Option<usize> {
        for range in self.ranges {
            if index < range.len() {
                return Some(range.start + index);
            }
            index -= range.len();
        }
        None
    }
}
