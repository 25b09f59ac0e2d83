//! The rows of a matrix with the smallest angle to a query: all are compared, none is missed.

use std::sync::OnceLock;

use dunlin_compute::{Pool, Tier, dot_rows, dot_rows_error};

use crate::device::physical_cores;
use crate::embed::normalize;

/// Numbers from which several threads are worth their start.
const SHARED_NUMBERS: usize = 1 << 20;
/// How far the length of a stored row may be from 1: more than what rounding its numbers to `f32` does.
pub(super) const LENGTH_TOLERANCE: f64 = 1e-6;

/// Rows of length 1, one after another.
pub(super) struct Rows {
    width: usize,
    numbers: Vec<f32>,
    /// Started at the first search that is long enough. `None` where the system gives no threads: then one does all.
    pool: OnceLock<Option<Pool>>,
}

impl Rows {
    pub(super) fn new(width: usize) -> Self {
        Self::of(width, Vec::new())
    }

    /// Of rows that have length 1 already.
    pub(super) fn of(width: usize, numbers: Vec<f32>) -> Self {
        Rows {
            width,
            numbers,
            pool: OnceLock::new(),
        }
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.numbers[row * self.width..][..self.width]
    }

    pub(super) fn push(&mut self, unit: &[f32]) {
        self.numbers.extend_from_slice(unit);
    }

    pub(super) fn set(&mut self, row: usize, unit: &[f32]) {
        self.numbers[row * self.width..][..self.width].copy_from_slice(unit);
    }

    /// Leaves out the rows of which `keep` is false.
    pub(super) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut kept = 0;
        for row in 0..self.numbers.len() / self.width {
            if keep(row) {
                let start = row * self.width;
                self.numbers
                    .copy_within(start..start + self.width, kept * self.width);
                kept += 1;
            }
        }
        self.numbers.truncate(kept * self.width);
        self.numbers.shrink_to_fit();
    }

    /// The `top_k` allowed rows with the largest cosines, and whatever else has the same cosine as the last of them, in no
    /// order. Cosines are computed again in `f64`, so that the answer depends on no kernel and no number of threads.
    pub(super) fn nearest(
        &self,
        query: &[f32],
        top_k: usize,
        allowed: impl Fn(usize) -> bool,
    ) -> Vec<(usize, f64)> {
        let mut scores = vec![0.0; self.numbers.len() / self.width];
        let tier = Tier::detect();
        match self.pool() {
            Some(pool) => dot_rows(pool, tier, &self.numbers, query, &mut scores),
            None => return self.all(query, (0..scores.len()).filter(|row| allowed(*row))),
        }
        let mut candidates: Vec<(f32, usize)> = scores
            .into_iter()
            .enumerate()
            .filter(|(row, _)| allowed(*row))
            .map(|(row, score)| (score, row))
            .collect();
        if top_k == 0 {
            return Vec::new();
        }
        if top_k < candidates.len() {
            let (_, last, _) =
                candidates.select_nth_unstable_by(top_k - 1, |a, b| b.0.total_cmp(&a.0));
            // Whatever may be as near as the last one in truth: both can be off, by their sums and by their lengths.
            let error = dot_rows_error(self.width) + 3.0 * LENGTH_TOLERANCE;
            let threshold = f64::from(last.0) - 2.0 * error;
            candidates.retain(|(score, _)| f64::from(*score) >= threshold);
        }
        self.all(query, candidates.into_iter().map(|(_, row)| row))
    }

    fn all(&self, query: &[f32], rows: impl Iterator<Item = usize>) -> Vec<(usize, f64)> {
        let cosine = |row| {
            let row = self.row(row);
            dot(row, query) / (dot(row, row) * dot(query, query)).sqrt()
        };
        rows.map(|row| (row, cosine(row))).collect()
    }

    fn pool(&self) -> Option<&Pool> {
        let threads = match self.numbers.len() < SHARED_NUMBERS {
            true => return alone(),
            false => physical_cores(),
        };
        let pool = self.pool.get_or_init(|| Pool::new(threads).ok());
        pool.as_ref().or_else(|| alone())
    }
}

/// A pool of the calling thread, which starts none.
fn alone() -> Option<&'static Pool> {
    static ALONE: OnceLock<Option<Pool>> = OnceLock::new();
    ALONE.get_or_init(|| Pool::new(1).ok()).as_ref()
}

/// The dot product, summed in `f64`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
    products.sum()
}

/// The vector scaled to length 1; `None` for one of zeros, or with what is no finite number.
pub(super) fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let mut unit = vector.to_vec();
    let square = dot(vector, vector);
    if !square.is_finite() || square <= 0.0 {
        return None;
    }
    normalize(&mut unit);
    let length = dot(&unit, &unit).sqrt();
    ((length - 1.0).abs() <= LENGTH_TOLERANCE).then_some(unit)
}
