//! Dot products of one row with many: how near a query is to each vector of an index.

use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;

/// Rows that a thread takes at a time.
const CHUNK: usize = 512;
/// Numbers of a row that are summed side by side.
const LANES: usize = 64;

/// `out[i]` becomes the dot product of `query` and row `i` of `rows`, which is `[out.len(), query.len()]`.
///
/// Sums are of `f32`: see [`dot_rows_error`] for how far they can be off.
///
/// # Panics
/// If `rows` has not one row for each number of `out`, or the query is empty.
pub fn dot_rows(pool: &Pool, tier: Tier, rows: &[f32], query: &[f32], out: &mut [f32]) {
    let width = query.len();
    assert!(width > 0, "a query that is not empty");
    assert!(
        Some(rows.len()) == out.len().checked_mul(width),
        "one row for each number"
    );
    let count = out.len();
    let out = SendPtr(out.as_mut_ptr());
    pool.for_each_chunk(count, CHUNK, |chunk| {
        let rows = &rows[chunk.start * width..chunk.end * width];
        // SAFETY: the chunk lies in `out`, and belongs to this call alone.
        let out =
            unsafe { std::slice::from_raw_parts_mut(out.get().add(chunk.start), chunk.len()) };
        tier.run(DotRows { rows, query, out });
    });
}

/// How far a number of [`dot_rows`] can be from the exact dot product of two vectors of this width and of length 1, on any
/// tier.
///
/// Each of the numbers that are added passes at most `width / 64` sums of its lane, 3 of lanes that are left, 15 of single
/// numbers and 8 between lanes, and is rounded once itself; each of these is off by at most half a unit in the last place
/// (Higham, Accuracy and Stability of Numerical Algorithms, 3.1). The sum of the magnitudes is at most 1 (Cauchy and Schwarz).
#[must_use]
pub fn dot_rows_error(width: usize) -> f64 {
    (width / LANES + 28) as f64 * f64::from(f32::EPSILON) / 2.0
}

struct DotRows<'a> {
    rows: &'a [f32],
    query: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for DotRows<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (row, out) in self.rows.chunks_exact(self.query.len()).zip(self.out) {
            *out = dot(s, row, self.query);
        }
    }
}

/// The dot product of two slices of one length.
#[inline(always)]
fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    let mut sums = [s.splat_16(0.0); 4];
    for (a, b) in whole_a.iter().zip(whole_b) {
        // SAFETY: a chunk has 64 elements: 4 times 16.
        unsafe {
            sums[0] = multiply_add(s, a, b, 0, sums[0]);
            sums[1] = multiply_add(s, a, b, 16, sums[1]);
            sums[2] = multiply_add(s, a, b, 32, sums[2]);
            sums[3] = multiply_add(s, a, b, 48, sums[3]);
        }
    }
    let mut sum = s.add_16(s.add_16(sums[0], sums[1]), s.add_16(sums[2], sums[3]));
    let (whole_a, rest_a) = rest_a.as_chunks::<16>();
    let (whole_b, rest_b) = rest_b.as_chunks::<16>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        // SAFETY: a chunk has 16 elements.
        unsafe { sum = multiply_add(s, a, b, 0, sum) };
    }
    let [low, high] = s.halves(sum);
    let whole = s.sum(s.add(low, high));
    rest_a
        .iter()
        .zip(rest_b)
        .fold(whole, |sum, (a, b)| sum + a * b)
}

/// # Safety
/// Both slices have 16 elements from `at` on.
#[inline(always)]
unsafe fn multiply_add<S: Simd>(s: S, a: &[f32], b: &[f32], at: usize, sum: S::W) -> S::W {
    // SAFETY: as the caller promises.
    unsafe {
        s.fma_16(
            s.load_16(a.as_ptr().add(at)),
            s.load_16(b.as_ptr().add(at)),
            sum,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of -1 to 1 that look random (Knuth's generator).
    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut random = seed;
        let next = |_| {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (random >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(next).collect()
    }

    fn exact(a: &[f32], b: &[f32]) -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    }

    fn magnitudes(a: &[f32], b: &[f32]) -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.map(f64::abs).sum()
    }

    #[test]
    fn every_tier_stays_within_the_stated_error() {
        let pool = Pool::new(2).unwrap();
        for width in [1, 7, 15, 16, 17, 63, 64, 65, 79, 128, 383, 384, 1000, 1024] {
            let count = 3 * CHUNK + 5;
            let rows = numbers(count * width, width as u64);
            let query = numbers(width, 99);
            for tier in Tier::available() {
                let mut out = vec![f32::NAN; count];
                dot_rows(&pool, tier, &rows, &query, &mut out);
                for (row, &got) in rows.chunks_exact(width).zip(&out) {
                    let error = (f64::from(got) - exact(row, &query)).abs();
                    let bound = dot_rows_error(width) * magnitudes(row, &query);
                    assert!(
                        error <= bound,
                        "{error:e} > {bound:e} for width {width} on {}",
                        tier.name()
                    );
                }
            }
        }
    }

    /// Products and sums of small whole numbers are exact, whatever their order.
    #[test]
    fn every_tier_equals_its_scalar_twin_on_whole_numbers() {
        let pool = Pool::new(1).unwrap();
        let whole = |numbers: Vec<f32>| -> Vec<f32> {
            numbers.iter().map(|x| (x * 127.0).round()).collect()
        };
        for width in [5, 16, 100, 384] {
            let (rows, query) = (whole(numbers(40 * width, 3)), whole(numbers(width, 4)));
            let twin: Vec<f32> = rows
                .chunks_exact(width)
                .map(|row| exact(row, &query) as f32)
                .collect();
            for tier in Tier::available() {
                let mut out = vec![0.0; 40];
                dot_rows(&pool, tier, &rows, &query, &mut out);
                assert_eq!(out, twin, "width {width} on {}", tier.name());
            }
        }
    }

    #[test]
    fn what_is_not_a_number_shows() {
        let pool = Pool::new(1).unwrap();
        for tier in Tier::available() {
            for at in [0, 40, 70, 82] {
                let mut rows = vec![0.5; 2 * 83];
                rows[83 + at] = f32::NAN;
                let mut out = [0.0; 2];
                dot_rows(&pool, tier, &rows, &[1.0; 83], &mut out);
                assert_eq!(out[0], 41.5, "on {}", tier.name());
                assert!(out[1].is_nan(), "at {at} on {}", tier.name());
            }
        }
    }
}
