//! The softmax of a segment.

use super::kernel::{Part, around, group};
use super::tile::{Ahead, SEGMENT};
use crate::simd::{EXPONENT, Kernel, Simd, polynomial, tanh, whole_power};
use std::ops::Range;

/// Rows whose largest scores, and whose sums, one operation finds.
const EACH: usize = 8;

/// The softmax of a tile's rows, of which groups for one register tile have their scores for all vectors of `granule` positions
/// around what they see.
pub(super) struct Weights<'a> {
    pub(super) part: &'a Part<'a>,
    pub(super) granule: usize,
    /// What is asked for with the vectors of scores, a line with each.
    pub(super) ahead: Ahead,
}

impl Kernel for Weights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part {
            tile,
            slot,
            segment,
            acc,
        } = *self.part;
        let rows = tile.rows();
        for index in 0..rows.div_ceil(S::ROWS) {
            let (first, count) = group(rows, S::ROWS, index);
            let computed = around(tile.sees_in(segment, first, count), self.granule);
            let end = first + count;
            for first in (first..end).step_by(EACH) {
                self.rows(s, first..end.min(first + EACH), computed);
            }
        }
        // SAFETY: the promise of who made the tile.
        unsafe { acc.sums.fold(s, rows, slot.sums, slot.factors) };
    }
}

impl Weights<'_> {
    /// Up to [`EACH`] rows. Their sums are found together, so that none waits for another's.
    #[inline(always)]
    fn rows<S: Simd>(&self, s: S, rows: Range<usize>, computed: (usize, usize)) {
        let Part {
            tile,
            slot,
            segment,
            ..
        } = *self.part;
        let cap = tile.softcap.map(|cap| cap * std::f32::consts::LOG2_E);
        let first = rows.start;
        // SAFETY: the promise of who made the tile.
        unsafe {
            let mut most = [s.splat(f32::MIN); EACH];
            for r in rows.clone() {
                let (from, to) = tile.sees_in(segment, r, 1);
                if from < to {
                    let scores = slot.scores.add(r * SEGMENT);
                    most[r - first] = largest(s, scores, computed, (from, to), cap);
                }
            }
            s.store(slot.sums.largest.add(first), s.max_each(&most));
            let mut totals = [s.splat(0.0); EACH];
            for r in rows {
                let scores = slot.scores.add(r * SEGMENT);
                match *slot.sums.largest.add(r) {
                    f32::MIN => no_weights(s, scores, computed),
                    most => {
                        let ahead = self.ahead.part((r, tile.rows()), SEGMENT / 16);
                        totals[r - first] = weights(s, scores, computed, most, ahead);
                    }
                }
            }
            s.store(slot.sums.total.add(first), s.sum_each(&totals));
        }
    }
}

/// The largest of the scores `from..to` of a row in each of 8 lanes. `cap` is applied as `cap * tanh(score)` before; those around
/// them in the vectors `low..high` become less than all.
///
/// # Safety
/// `scores` has `high` elements; `low` and `high` are multiples of 16 with `low <= from < to <= high`.
#[inline(always)]
unsafe fn largest<S: Simd>(
    s: S,
    scores: *mut f32,
    (low, high): (usize, usize),
    (from, to): (usize, usize),
    cap: Option<f32>,
) -> S::F {
    // SAFETY: the caller's promise.
    unsafe {
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
        s.max(b, a)
    }
}

/// Turns the scores of a row in the vectors `low..high` into weights relative to the largest. Returns their sums in 8 lanes.
///
/// # Safety
/// `scores` has `high` elements; `low` and `high` are multiples of 16.
#[inline(always)]
unsafe fn weights<S: Simd>(
    s: S,
    scores: *mut f32,
    (low, high): (usize, usize),
    largest: f32,
    mut ahead: Ahead,
) -> S::F {
    let mut total = s.splat_16(0.0);
    // SAFETY: the caller's promise.
    unsafe {
        for at in (low..high).step_by(16) {
            ahead.ask(s, at / 16);
            let weight = exp2(s, s.sub_16(s.load_16(scores.add(at)), s.splat_16(largest)));
            s.store_16(scores.add(at), weight);
            total = s.add_16(total, weight);
        }
    }
    let [a, b] = s.halves(total);
    s.add(a, b)
}

/// Makes the weights of a row that sees nothing of a segment.
///
/// # Safety
/// As [`weights`].
#[inline(always)]
unsafe fn no_weights<S: Simd>(s: S, scores: *mut f32, (low, high): (usize, usize)) {
    for at in (low..high).step_by(16) {
        // SAFETY: the caller's promise.
        unsafe { s.store_16(scores.add(at), s.splat_16(0.0)) };
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
pub(super) fn exp2<S: Simd>(s: S, x: S::W) -> S::W {
    // In this order what is not a number stays so.
    let x = s.max_16(s.splat_16(-127.0), x);
    let (n, power) = whole_power(s, s.add_16(x, s.splat_16(EXPONENT)));
    let r = s.sub_16(x, n);
    let coefficients = [
        1.326_472_7e-3,
        9.671_513e-3,
        5.550_733_6e-2,
        2.402_224_2e-1,
        6.931_47e-1,
        1.0,
    ];
    s.mul_16(polynomial(s, r, coefficients), power)
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::exp2;
    use crate::simd::{Kernel, Simd};
    use crate::tier::Tier;

    struct Powers([f32; 16]);

    impl Kernel for Powers {
        type Output = [f32; 16];
        #[inline(always)]
        fn run<S: Simd>(mut self, s: S) -> [f32; 16] {
            // SAFETY: 16 floats.
            unsafe {
                let powers = exp2(s, s.load_16(self.0.as_ptr()));
                s.store_16(self.0.as_mut_ptr(), powers);
            }
            self.0
        }
    }

    /// Of numbers on a grid, of halves, where rounding decides, and of the ends of the range.
    #[test]
    fn powers_are_as_exact_as_said() {
        for tier in Tier::available() {
            for i in 0..20_000 {
                let x: [f32; 16] = std::array::from_fn(|lane| -0.000_39 * (16 * i + lane) as f32);
                let x = x.map(|x| x.max(-125.9));
                let halves = x.map(|x| x.round() - 0.5);
                for x in [x, halves] {
                    for (got, x) in tier.run(Powers(x)).into_iter().zip(x) {
                        let want = f64::from(x).exp2();
                        let error = (f64::from(got) - want).abs() / want;
                        assert!(error < 2e-7, "{} 2^{x}: {got}, {error:e}", tier.name());
                    }
                }
            }
            let ends = [0.0, -127.0, -1e30, f32::NEG_INFINITY, f32::NAN];
            let mut x = [0.0; 16];
            x[..5].copy_from_slice(&ends);
            let got = tier.run(Powers(x));
            assert_eq!(got[..4], [1.0, 0.0, 0.0, 0.0], "{}", tier.name());
            assert!(got[4].is_nan(), "{}", tier.name());
        }
    }
}
