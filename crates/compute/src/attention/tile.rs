//! Register tiles of attention: a few query rows against a few vectors of positions or of dimensions.
//!
//! Each score is one chain of multiply-adds over the dimensions, and each weighted value one over the positions of a segment,
//! in every tile. So a row comes out the same to the last bit whatever rows it is computed with.

use crate::kv::element::Element;
use crate::simd::{Simd, tanh};

/// Positions whose weights are relative to one largest score. Segments begin at multiples of this, whatever a step holds.
///
/// Long enough that sums are seldom rescaled; 16 columns of values and 6 rows of weights lie in the first-level cache.
pub(super) const SEGMENT: usize = 128;

/// Bytes that are asked for on the way into the second-level cache, a line at most each turn of a loop: all at once they would hold up
/// the loads behind them.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    next: *const u8,
    step: usize,
}

impl Ahead {
    /// The `part`th of `parts` parts of some bytes, in so many turns.
    #[inline(always)]
    pub(super) fn of(
        (start, len): (*const u8, usize),
        (part, parts): (usize, usize),
        turns: usize,
    ) -> Self {
        /// What is asked for where there is nothing.
        static HERE: u8 = 0;
        Ahead {
            next: match len {
                0 => &raw const HERE,
                _ => start.wrapping_add(part * len / parts),
            },
            step: len / parts / turns,
        }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self, s: S) {
        s.prefetch_far(self.next);
        self.next = self.next.wrapping_add(self.step);
    }
}

/// Scores of `R` rows with the positions of `N` vectors from vector `first` on.
///
/// # Safety
/// `keys` has `dim` elements of those positions; `q` is `[R, dim]`; `scores` has `R` rows of stride [`SEGMENT`] with room for
/// `16 * N`.
#[inline(always)]
pub(super) unsafe fn score<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    keys: E,
    first: usize,
    dim: usize,
    q: *const f32,
    scores: *mut f32,
    mut ahead: Ahead,
) {
    let mut acc = [[s.splat_16(0.0); N]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for d in 0..dim {
            ahead.ask(s);
            let mut k = [s.splat_16(0.0); N];
            for i in 0..N {
                k[i] = keys.key(s, d, first + i);
            }
            for r in 0..R {
                let q = s.splat_16(*q.add(r * dim + d));
                for i in 0..N {
                    acc[r][i] = s.fma_16(q, k[i], acc[r][i]);
                }
            }
        }
        for r in 0..R {
            for i in 0..N {
                s.store_16(scores.add(r * SEGMENT + 16 * i), acc[r][i]);
            }
        }
    }
}

/// Adds the weighted values of the positions `from..to` to `R` rows of `N` vectors of dimensions from vector `first` on.
///
/// # Safety
/// `values` has those positions and dimensions; `weights` has `R` rows of stride [`SEGMENT`] with `to` elements.
#[inline(always)]
pub(super) unsafe fn weigh<S: Simd, E: Element, const R: usize, const N: usize>(
    s: S,
    values: E,
    first: usize,
    from: usize,
    to: usize,
    weights: *const f32,
    acc: &mut [[S::W; N]; R],
    mut ahead: Ahead,
) {
    for p in from..to {
        ahead.ask(s);
        let mut v = [s.splat_16(0.0); N];
        for i in 0..N {
            // SAFETY: the caller's promise.
            v[i] = unsafe { values.value(s, p, first + i) };
        }
        for r in 0..R {
            // SAFETY: the caller's promise.
            let weight = s.splat_16(unsafe { *weights.add(r * SEGMENT + p) });
            for i in 0..N {
                acc[r][i] = s.fma_16(weight, v[i], acc[r][i]);
            }
        }
    }
}

/// The scores of a row in a segment: the largest one, and the sum of the weights relative to it. Scores are to the base 2.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    pub(super) largest: f32,
    pub(super) total: f32,
}

impl Sums {
    /// Of no positions.
    pub(super) const NONE: Sums = Sums {
        largest: f32::NEG_INFINITY,
        total: 0.0,
    };

    /// Takes in the next segment. Returns the factors of what was summed before, and of the segment's sums.
    #[inline(always)]
    pub(super) fn fold(&mut self, segment: Sums) -> (f32, f32) {
        let factors = if segment.largest == f32::NEG_INFINITY {
            (1.0, 0.0)
        } else if self.largest == f32::NEG_INFINITY {
            (0.0, 1.0)
        } else if segment.largest > self.largest {
            ((self.largest - segment.largest).exp2(), 1.0)
        } else {
            (1.0, (segment.largest - self.largest).exp2())
        };
        // A score that is not a number makes the sums such, too.
        if segment.largest > self.largest || segment.largest.is_nan() {
            self.largest = segment.largest;
        }
        self.total = self.total * factors.0 + segment.total * factors.1;
        factors
    }
}

/// Turns the scores `from..to` of a row into weights relative to the largest, and those around them in the vectors
/// `low..high` into zeros.
///
/// `cap` is applied as `cap * tanh(score)` before.
///
/// # Safety
/// `scores` has `high` elements; `low` and `high` are multiples of 16 with `low <= from` and `to <= high`, or `from >= to`.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd>(
    s: S,
    scores: *mut f32,
    (low, high): (usize, usize),
    (from, to): (usize, usize),
    cap: Option<f32>,
) -> Sums {
    // SAFETY: the caller's promise.
    unsafe {
        if from >= to {
            for at in (low..high).step_by(16) {
                s.store_16(scores.add(at), s.splat_16(0.0));
            }
            return Sums::NONE;
        }
        if let Some(cap) = cap {
            for at in (low..high).step_by(16) {
                let score = tanh(s, s.load_16(scores.add(at)));
                s.store_16(scores.add(at), s.mul_16(score, s.splat_16(cap)));
            }
        }
        for at in (low..from).chain(to..high) {
            *scores.add(at) = f32::NEG_INFINITY;
        }
        let mut largest = s.load_16(scores.add(low));
        for at in (low + 16..high).step_by(16) {
            largest = s.max_16(s.load_16(scores.add(at)), largest);
        }
        let [a, b] = s.halves(largest);
        let largest = s.largest(s.max(b, a));
        let mut total = s.splat_16(0.0);
        for at in (low..high).step_by(16) {
            let weight = exp2(s, s.sub_16(s.load_16(scores.add(at)), s.splat_16(largest)));
            s.store_16(scores.add(at), weight);
            total = s.add_16(total, weight);
        }
        let [a, b] = s.halves(total);
        Sums {
            largest,
            total: s.sum(s.add(a, b)),
        }
    }
}

/// `2^x` for `x <= 0`, relative error below 2e-7; 0 from -127 on.
///
/// The polynomial has the least relative error of degree 5 on -0.5..0.5 with `2^0 = 1`.
#[inline(always)]
#[allow(
    clippy::approx_constant,
    reason = "near ln 2, but fitted with the other coefficients"
)]
fn exp2<S: Simd>(s: S, x: S::W) -> S::W {
    // In this order what is not a number stays so.
    let x = s.max_16(s.splat_16(-127.0), x);
    let n = s.round_16(x);
    let r = s.sub_16(x, n);
    let mut p = s.splat_16(1.326_472_7e-3);
    for c in [
        9.671_513e-3,
        5.550_733_6e-2,
        2.402_224_2e-1,
        6.931_47e-1,
        1.0,
    ] {
        p = s.fma_16(p, r, s.splat_16(c));
    }
    // The factor of -127 is zero.
    s.mul_16(p, s.exp2_whole_16(n))
}

/// Where the weighted values of a tile go.
#[derive(Clone, Copy)]
pub(super) enum Sink {
    /// Added to what is there, with a factor for each row of both.
    Fold {
        acc: *mut f32,
        /// `[rows, 2]`, of the first row of the tile on.
        factors: *const (f32, f32),
    },
    /// Written over it.
    Store { acc: *mut f32 },
}

impl Sink {
    /// The sink of the rows from `row` on.
    ///
    /// # Safety
    /// There is such a row, of this stride.
    #[inline(always)]
    pub(super) unsafe fn rows_from(self, row: usize, stride: usize) -> Sink {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Sink::Fold { acc, factors } => Sink::Fold {
                    acc: acc.add(row * stride),
                    factors: factors.add(row),
                },
                Sink::Store { acc } => Sink::Store {
                    acc: acc.add(row * stride),
                },
            }
        }
    }

    /// # Safety
    /// The sink has `R` rows of the stride with room for `16 * N` from `at` on.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd, const R: usize, const N: usize>(
        self,
        s: S,
        stride: usize,
        at: usize,
        x: &[[S::W; N]; R],
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Sink::Fold { acc, factors } => {
                    for r in 0..R {
                        let (before, this) = *factors.add(r);
                        let (before, this) = (s.splat_16(before), s.splat_16(this));
                        for i in 0..N {
                            let p = acc.add(r * stride + at + 16 * i);
                            s.store_16(p, s.fma_16(s.load_16(p), before, s.mul_16(x[r][i], this)));
                        }
                    }
                }
                Sink::Store { acc } => {
                    for r in 0..R {
                        for i in 0..N {
                            s.store_16(acc.add(r * stride + at + 16 * i), x[r][i]);
                        }
                    }
                }
            }
        }
    }
}
