//! Dynamic temperature (Zhu et al. 2023, arXiv:2309.02772, in the form of llama.cpp).

use super::SamplerConfig;
use super::filter::{self, Candidate};

/// The temperature for these candidates: low where one stands out, high where all are as likely.
pub(super) fn temperature(candidates: &[Candidate], config: &SamplerConfig) -> f64 {
    let (middle, range) = (
        f64::from(config.temperature),
        f64::from(config.dynatemp_range),
    );
    // One candidate alone is drawn at any temperature.
    if candidates.len() < 2 {
        return 1.0;
    }
    let low = (middle - range).max(0.0);
    let high = middle + range;
    let largest_entropy = (candidates.len() as f64).ln();
    // Rounding must not lead beyond the range.
    let part = (filter::entropy(candidates) / largest_entropy).clamp(0.0, 1.0);
    low + (high - low) * part.powf(f64::from(config.dynatemp_exponent))
}
