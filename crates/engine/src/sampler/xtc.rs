//! "Exclude top choices" (p-e-w 2024): now and then the likeliest tokens are left out, where others are likely enough.

use super::filter::{self, Candidate};

/// Leaves out all top choices, those with at least the probability `threshold`, but for the least likely of them.
pub(super) fn exclude_top(candidates: &mut Vec<Candidate>, threshold: f32) {
    let least = filter::total(candidates) * f64::from(threshold);
    let is_top = |candidate: &Candidate| candidate.weight >= least;
    // The worst candidate is the largest one.
    let last = candidates
        .iter()
        .filter(|candidate| is_top(candidate))
        .max();
    if let Some(last) = last.copied() {
        candidates.retain(|candidate| !is_top(candidate) || *candidate == last);
    }
}
