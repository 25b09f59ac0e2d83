//! Sums of weighted values, and how those of the segments of a row are put together.
//!
//! Segments are folded into those of their run in order, and runs into the total in order. So the result is the same whether one
//! thread goes through all segments, or some threads leave partial results of runs or of single segments.

use super::kernel::{Slot, Tile};
use super::softmax::exp2;
use crate::kv::{KvLayout, rotate};
use crate::simd::{Kernel, Simd};

/// Segments of a run. Runs begin at multiples of this, whatever a step holds.
///
/// Long enough that putting the partial results of runs together is little work.
pub(super) const RUN: usize = 4;

/// Where the `grain` segments end that `segment` is one of.
pub(super) fn next_grain(segment: usize, grain: usize) -> usize {
    (segment / grain + 1) * grain
}

/// What the weights of each row are relative to, and their sums. Scores are to the base 2.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    /// The largest score, or [`f32::MIN`] of no positions.
    pub(super) largest: *mut f32,
    /// The sum of the weights.
    pub(super) total: *mut f32,
}

impl Sums {
    /// Floats of each of the arrays: whole vectors, also for 8 rows from any one on.
    fn padded(rows: usize) -> usize {
        (rows + 7).next_multiple_of(16)
    }

    /// Floats of the sums of so many rows.
    pub(super) fn len(rows: usize) -> usize {
        2 * Self::padded(rows)
    }

    /// # Safety
    /// `start` has [`Sums::len`] floats.
    pub(super) unsafe fn at(start: *mut f32, rows: usize) -> Self {
        Sums {
            largest: start,
            // SAFETY: the caller's promise.
            total: unsafe { start.add(Self::padded(rows)) },
        }
    }

    /// Of no positions.
    ///
    /// # Safety
    /// There are so many rows, which are this thread's.
    #[inline(always)]
    unsafe fn clear<S: Simd>(self, s: S, rows: usize) {
        for at in (0..rows).step_by(16) {
            // SAFETY: the caller's promise.
            unsafe {
                s.store_16(self.largest.add(at), s.splat_16(f32::MIN));
                s.store_16(self.total.add(at), s.splat_16(0.0));
            }
        }
    }

    /// Takes in those of later positions. Writes the factors of what was summed before, and of what was summed of them.
    ///
    /// # Safety
    /// Both have so many rows, and so has `factors`.
    #[inline(always)]
    pub(super) unsafe fn fold<S: Simd>(self, s: S, rows: usize, later: Sums, factors: Factors) {
        for at in (0..rows).step_by(16) {
            // SAFETY: the caller's promise.
            unsafe {
                let (before, this) = (
                    s.load_16(self.largest.add(at)),
                    s.load_16(later.largest.add(at)),
                );
                let largest = s.max_16(before, this);
                let before = exp2(s, s.sub_16(before, largest));
                let this = exp2(s, s.sub_16(this, largest));
                let total = s.mul_16(s.load_16(later.total.add(at)), this);
                let total = s.fma_16(s.load_16(self.total.add(at)), before, total);
                s.store_16(self.largest.add(at), largest);
                s.store_16(self.total.add(at), total);
                s.store_16(factors.before.add(at), before);
                s.store_16(factors.this.add(at), this);
            }
        }
    }
}

/// The factors of each row when sums are put together.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    before: *mut f32,
    this: *mut f32,
}

impl Factors {
    /// # Safety
    /// `start` has [`Sums::len`] floats.
    pub(super) unsafe fn at(start: *mut f32, rows: usize) -> Self {
        // SAFETY: the caller's promise.
        let Sums { largest, total } = unsafe { Sums::at(start, rows) };
        Factors {
            before: largest,
            this: total,
        }
    }
}

/// The weighted values of a tile's rows, and the sums of the weights.
#[derive(Clone, Copy)]
pub(super) struct Acc {
    /// `[rows, padded_v]`
    values: *mut f32,
    pub(super) sums: Sums,
}

/// Floats of a partial result.
pub(super) fn partial_len(layout: KvLayout, rows: usize) -> usize {
    rows * layout.padded_v() + Sums::len(rows)
}

impl Acc {
    /// # Safety
    /// `start` has [`partial_len`] floats.
    pub(super) unsafe fn at(start: *mut f32, rows: usize, layout: KvLayout) -> Self {
        Acc {
            values: start,
            // SAFETY: the caller's promise.
            sums: unsafe { Sums::at(start.add(rows * layout.padded_v()), rows) },
        }
    }

    /// The `index`th of partial results.
    ///
    /// # Safety
    /// From `start` on there are so many of them.
    pub(super) unsafe fn partial(start: *mut f32, index: usize, tile: &Tile<'_>) -> Self {
        let (layout, rows) = (tile.layout, tile.rows());
        // SAFETY: the caller's promise.
        unsafe { Acc::at(start.add(index * partial_len(layout, rows)), rows, layout) }
    }

    /// # Safety
    /// It has the tile's rows, which are this thread's.
    #[inline(always)]
    pub(super) unsafe fn clear<S: Simd>(self, s: S, tile: &Tile<'_>) {
        let (rows, stride) = (tile.rows(), tile.layout.padded_v());
        // SAFETY: the caller's promise.
        unsafe {
            for at in (0..rows * stride).step_by(16) {
                s.store_16(self.values.add(at), s.splat_16(0.0));
            }
            self.sums.clear(s, rows);
        }
    }

    /// Adds weighted values of `R` rows from `first` on in `N` vectors from the column `at` on. Both the sum and they are
    /// multiplied by the row's factors.
    ///
    /// # Safety
    /// There are such rows, of the stride, with such columns; `factors` has all rows.
    #[inline(always)]
    pub(super) unsafe fn fold<S: Simd, const R: usize, const N: usize>(
        self,
        s: S,
        factors: Factors,
        (first, stride): (usize, usize),
        at: usize,
        x: &[[S::W; N]; R],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            for r in 0..R {
                let before = s.splat_16(*factors.before.add(first + r));
                let this = s.splat_16(*factors.this.add(first + r));
                for i in 0..N {
                    let p = self.values.add((first + r) * stride + at + 16 * i);
                    s.store_16(p, s.fma_16(s.load_16(p), before, s.mul_16(x[r][i], this)));
                }
            }
        }
    }

    /// Folds all rows of later segments.
    ///
    /// # Safety
    /// Both have the tile's rows, and so has `factors`.
    #[inline(always)]
    unsafe fn fold_all<S: Simd>(self, s: S, factors: Factors, tile: &Tile<'_>, later: Acc) {
        let (rows, stride) = (tile.rows(), tile.layout.padded_v());
        // SAFETY: the caller's promise.
        unsafe {
            self.sums.fold(s, rows, later.sums, factors);
            for r in 0..rows {
                for at in (0..stride).step_by(16) {
                    let x = s.load_16(later.values.add(r * stride + at));
                    self.fold(s, factors, (r, stride), at, &[[x]]);
                }
            }
        }
    }
}

/// Begins a run or a partial result.
pub(super) struct Clear<'a> {
    pub(super) acc: Acc,
    pub(super) tile: &'a Tile<'a>,
}

impl Kernel for Clear<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: the promise of who made the tile.
        unsafe { self.acc.clear(s, self.tile) }
    }
}

/// Folds a run into the total.
pub(super) struct Total<'a> {
    pub(super) tile: &'a Tile<'a>,
    pub(super) slot: Slot,
}

impl Kernel for Total<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Slot {
            run,
            total,
            factors,
            ..
        } = self.slot;
        // SAFETY: the promise of who made the tile.
        unsafe { total.fold_all(s, factors, self.tile, run) }
    }
}

/// Puts the partial results of a tile's segments together.
pub(super) struct Merge<'a> {
    pub(super) tile: Tile<'a>,
    pub(super) slot: Slot,
    pub(super) partials: *mut f32,
    /// Segments of each partial result, as for [`super::kernel::Target`].
    pub(super) grain: usize,
    pub(super) first_segment: usize,
    pub(super) segments: usize,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

impl Kernel for Merge<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Merge {
            tile, slot, grain, ..
        } = self;
        let (mut index, mut segment) = (0, self.first_segment);
        let end = segment + self.segments;
        // SAFETY: the slot is this thread's; all partial results are there, as `attend` wrote them.
        unsafe {
            slot.total.clear(s, &tile);
            while segment < end {
                let mut run = Acc::partial(self.partials, index, &tile);
                (index, segment) = (index + 1, next_grain(segment, grain));
                if grain < RUN {
                    slot.run.clear(s, &tile);
                    slot.run.fold_all(s, slot.factors, &tile, run);
                    while segment < end && !segment.is_multiple_of(RUN) {
                        run = Acc::partial(self.partials, index, &tile);
                        slot.run.fold_all(s, slot.factors, &tile, run);
                        (index, segment) = (index + 1, next_grain(segment, grain));
                    }
                    run = slot.run;
                }
                slot.total.fold_all(s, slot.factors, &tile, run);
            }
            finish(&tile, slot, self.out, self.out_stride);
        }
    }
}

/// Writes the result of a tile.
pub(super) struct Finish<'a> {
    pub(super) tile: Tile<'a>,
    pub(super) slot: Slot,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // SAFETY: the promise of who made the tile.
        unsafe { finish(&self.tile, self.slot, self.out, self.out_stride) }
    }
}

/// Writes the weighted values over the sum of the weights, rotated back where the values are rotated.
///
/// # Safety
/// The output has the tile's rows, which belong to it alone.
#[inline(always)]
unsafe fn finish(tile: &Tile<'_>, slot: Slot, out: *mut f32, out_stride: usize) {
    let (dim, stride) = (tile.layout.head_dim_v, tile.layout.padded_v());
    for r in 0..tile.rows() {
        let (token, head) = (r / tile.heads, r % tile.heads);
        // SAFETY: the caller's promise.
        unsafe {
            let inverse = 1.0 / *slot.total.sums.total.add(r);
            let to = out.add(token * out_stride + head * dim);
            let to = std::slice::from_raw_parts_mut(to, dim);
            let from = std::slice::from_raw_parts(slot.total.values.add(r * stride), dim);
            for (to, from) in to.iter_mut().zip(from) {
                *to = from * inverse;
            }
            if tile.parts.values.element.is_rotated() {
                rotate(to);
            }
        }
    }
}
