//! The choice of candidates: the usual steps, and what others share.
//!
//! Candidates that are ordered at all are ordered by falling logit, equal ones by rising id, so that a cut through
//! equal logits is the same everywhere.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::EngineError;

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) token: u32,
    pub(super) logit: f32,
    /// `exp((logit - largest logit) / temperature)`
    pub(super) weight: f64,
}

/// The sum of all weights.
pub(super) fn total(candidates: &[Candidate]) -> f64 {
    candidates.iter().map(|candidate| candidate.weight).sum()
}

/// Sum over the tokens of `-p ln p`, the surprise that is to be expected, in nats.
pub(super) fn entropy(candidates: &[Candidate]) -> f64 {
    let total = total(candidates);
    let surprise = |candidate: &Candidate| {
        let probability = candidate.weight / total;
        match probability > 0.0 {
            true => -probability * probability.ln(),
            false => 0.0,
        }
    };
    candidates.iter().map(surprise).sum()
}

/// The token with the largest logit, the lowest id among equal ones.
pub(super) fn argmax(logits: &[f32]) -> Result<u32, EngineError> {
    let largest = largest(logits)?;
    let token = logits.iter().position(|logit| *logit == largest);
    token.map(|token| token as u32).ok_or(NOTHING_LEFT)
}

/// Fills `candidates` with the `top_k` largest logits (0: all), leaving out forbidden tokens. Where `top_k` cuts, the
/// candidates come out ordered.
pub(super) fn collect(
    logits: &[f32],
    top_k: usize,
    candidates: &mut Vec<Candidate>,
) -> Result<(), EngineError> {
    largest(logits)?;
    candidates.clear();
    if top_k == 0 || top_k >= logits.len() {
        let allowed = (0u32..)
            .zip(logits)
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        candidates.extend(allowed.map(|(token, logit)| Candidate::new(token, *logit)));
    } else {
        collect_top_k(logits, top_k, candidates);
    }
    Ok(())
}

/// Keeps the k best seen so far in a heap with the worst of them on top. Of a large vocabulary in no special order only
/// about `k ln(n / k)` logits ever get into it; whole blocks without one are passed over by a comparison that
/// vectorizes.
fn collect_top_k(logits: &[f32], top_k: usize, candidates: &mut Vec<Candidate>) {
    const BLOCK: usize = 64;
    let mut best = BinaryHeap::from(std::mem::take(candidates));
    let mut threshold = f32::NEG_INFINITY;
    for (block_index, block) in logits.chunks(BLOCK).enumerate() {
        if !block
            .iter()
            .fold(false, |any, logit| any | (*logit > threshold))
        {
            continue;
        }
        for (index, logit) in block.iter().enumerate() {
            // A later token with the same logit has the higher id, and does not push out the earlier one.
            if *logit <= threshold {
                continue;
            }
            if best.len() == top_k {
                best.pop();
            }
            best.push(Candidate::new((block_index * BLOCK + index) as u32, *logit));
            if best.len() == top_k
                && let Some(worst) = best.peek()
            {
                threshold = worst.logit;
            }
        }
    }
    *candidates = best.into_sorted_vec();
}

/// Sets each candidate's weight.
pub(super) fn weigh(candidates: &mut [Candidate], temperature: f64) {
    let largest = candidates
        .iter()
        .map(|candidate| candidate.logit)
        .fold(f32::NEG_INFINITY, f32::max);
    for candidate in candidates {
        let below = f64::from(candidate.logit) - f64::from(largest);
        candidate.weight = (below / temperature).exp();
    }
}

/// Keeps the `top_k` best of a list, in order.
pub(super) fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k < candidates.len() {
        candidates.select_nth_unstable(top_k);
        candidates.truncate(top_k);
    }
    candidates.sort_unstable();
}

/// Keeps the fewest of the best candidates whose share of all weights is `top_p` or more.
pub(super) fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    let wanted = total(candidates) * f64::from(top_p);
    keep_until(candidates, Candidate::cmp, |sum| sum >= wanted);
}

/// Keeps the first candidates of an order up to and with the one whose weight makes the sum reach what is wanted.
pub(super) fn keep_until(
    candidates: &mut Vec<Candidate>,
    compare: impl Fn(&Candidate, &Candidate) -> Ordering,
    is_enough: impl Fn(f64) -> bool,
) {
    let mut sum = 0.0;
    let mut ordered = 0;
    while ordered < candidates.len() {
        order_next(candidates, ordered, &compare);
        let end = next_end(candidates.len(), ordered);
        for index in ordered..end {
            sum += candidates[index].weight;
            if is_enough(sum) {
                candidates.truncate(index + 1);
                return;
            }
        }
        ordered = end;
    }
}

/// Puts the next candidates of an order behind the `ordered` first ones. The first few hundred nearly always suffice, so a
/// whole vocabulary is never sorted for them.
fn order_next(
    candidates: &mut [Candidate],
    ordered: usize,
    compare: impl Fn(&Candidate, &Candidate) -> Ordering,
) {
    let end = next_end(candidates.len(), ordered);
    let rest = &mut candidates[ordered..];
    let wanted = end - ordered;
    if wanted < rest.len() {
        rest.select_nth_unstable_by(wanted, &compare);
    }
    rest[..wanted].sort_unstable_by(compare);
}

fn next_end(len: usize, ordered: usize) -> usize {
    len.min(256.max(4 * ordered))
}

/// Keeps the candidates whose weight is at least `min_p` of the largest one.
pub(super) fn keep_min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    // The largest weight is 1.
    candidates.retain(|candidate| candidate.weight >= f64::from(min_p));
}

/// The candidate in whose share of the weights `unit`, from 0 to below 1, falls.
pub(super) fn draw(candidates: &[Candidate], unit: f64) -> Result<Candidate, EngineError> {
    let mut left = unit * total(candidates);
    let mut chosen = Err(NOTHING_LEFT);
    for candidate in candidates.iter().filter(|candidate| candidate.weight > 0.0) {
        chosen = Ok(*candidate);
        left -= candidate.weight;
        if left < 0.0 {
            break;
        }
    }
    chosen
}

pub(super) const NOTHING_LEFT: EngineError = EngineError::NoCandidate {
    reason: "there are no logits, or each of them is minus infinity",
};

/// The largest logit, which is finite.
fn largest(logits: &[f32]) -> Result<f32, EngineError> {
    let bad = |logit: &f32| logit.is_nan() | (*logit == f32::INFINITY);
    if logits.iter().fold(false, |any, logit| any | bad(logit)) {
        let token = logits.iter().position(bad).unwrap_or_default();
        return Err(EngineError::InvalidLogit {
            token: token as u32,
            found: logits[token],
        });
    }
    const LANES: usize = 16;
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = logits.as_chunks::<LANES>();
    for block in blocks {
        for (lane, logit) in lanes.iter_mut().zip(block) {
            *lane = if *logit > *lane { *logit } else { *lane };
        }
    }
    let largest = lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, f32::max);
    if largest == f32::NEG_INFINITY {
        Err(NOTHING_LEFT)
    } else {
        Ok(largest)
    }
}

impl Candidate {
    fn new(token: u32, logit: f32) -> Self {
        Candidate {
            token,
            logit,
            weight: 0.0,
        }
    }
}

/// The better candidate is the smaller one, so that sorting puts the best first.
impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .logit
            .total_cmp(&self.logit)
            .then(self.token.cmp(&other.token))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}
