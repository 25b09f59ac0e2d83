//! Top-n-sigma (Tang et al. 2024, arXiv:2411.07641).

use super::filter::Candidate;

/// Keeps the candidates whose logit is at most `n` standard deviations of them all below the largest. (A temperature would
/// stretch both alike.)
pub(super) fn keep_top_n_sigma(candidates: &mut Vec<Candidate>, n: f32) {
    let count = candidates.len() as f64;
    let logits = || {
        candidates
            .iter()
            .map(|candidate| f64::from(candidate.logit))
    };
    let mean = logits().sum::<f64>() / count;
    let variance = logits().map(|logit| (logit - mean).powi(2)).sum::<f64>() / count;
    let largest = logits().fold(f64::NEG_INFINITY, f64::max);
    let least = largest - f64::from(n) * variance.sqrt();
    candidates.retain(|candidate| f64::from(candidate.logit) >= least);
}
