//! Locally typical sampling (Meister et al. 2022, arXiv:2202.00666).

use std::cmp::Ordering;

use super::filter::{self, Candidate};

/// Keeps the fewest of those candidates whose surprise is nearest to the entropy, so that their share of all weights is more
/// than `typical_p`.
pub(super) fn keep_typical(candidates: &mut Vec<Candidate>, typical_p: f32) {
    let total = filter::total(candidates);
    let entropy = filter::entropy(candidates);
    let distance = |candidate: &Candidate| ((candidate.weight / total).ln() + entropy).abs();
    // Of equally typical ones the likelier.
    let compare = |a: &Candidate, b: &Candidate| -> Ordering {
        distance(a).total_cmp(&distance(b)).then(a.cmp(b))
    };
    let wanted = total * f64::from(typical_p);
    filter::keep_until(candidates, compare, |sum| sum > wanted);
}
