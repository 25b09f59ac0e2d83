//! Penalties on going on with a repetition ("don't repeat yourself", p-e-w 2024, as in llama.cpp).
//!
//! The end of the history is looked for in what comes before it. Where it stands there, the token that followed would make
//! the repetition longer by one.

use std::collections::HashMap;

use super::SamplerConfig;
use super::selection::Selection;
use crate::EngineError;

/// Largest penalty: no power of the base, but minus infinity would forbid the token.
const LARGEST: f64 = 1e30;

/// The breakers by their first token, and buffers that are used again for each token.
#[derive(Debug, Clone, Default)]
pub(super) struct Dry {
    /// What follows the first token of a breaker.
    breakers: HashMap<u32, Vec<Vec<u32>>>,
    /// For each place, counted from the end, how many tokens before it are those of the end.
    lengths: Vec<u32>,
    /// Tokens that would go on with a repetition, and its length.
    repeats: Vec<(u32, u32)>,
}

impl Dry {
    pub(super) fn new(config: &SamplerConfig) -> Self {
        let mut breakers: HashMap<u32, Vec<Vec<u32>>> = HashMap::new();
        for breaker in &config.dry_breakers {
            if let Some((head, tail)) = breaker.split_first() {
                breakers.entry(*head).or_default().push(tail.to_vec());
            }
        }
        Dry {
            breakers,
            ..Dry::default()
        }
    }

    pub(super) fn apply(
        &mut self,
        selection: &mut Selection,
        logits: &mut [f32],
        history: &[u32],
        config: &SamplerConfig,
    ) -> Result<(), EngineError> {
        let from = history.len().saturating_sub(config.dry_window);
        self.find_repeats(&history[from..], config.dry_allowed_length);
        let multiplier = f64::from(config.dry_multiplier);
        let base = f64::from(config.dry_base);
        let allowed = config.dry_allowed_length;
        selection.change(logits, &self.repeats, |logit, length| {
            let excess = length as usize - allowed;
            let penalty = multiplier * base.powf(excess as f64);
            logit - penalty.min(LARGEST) as f32
        })
    }

    /// Fills `repeats`, in the order of tokens.
    fn find_repeats(&mut self, text: &[u32], allowed_length: usize) {
        self.repeats.clear();
        if text.len() <= allowed_length {
            return;
        }
        let limit = self.length_since_breaker(text);
        if limit < allowed_length {
            return;
        }
        self.measure(text);
        let last = text.len() - 1;
        for (back, length) in self.lengths.iter().enumerate().skip(1) {
            let length = (*length as usize).min(limit);
            // The token that followed.
            let next = text[last + 1 - back];
            if length >= allowed_length && !self.is_breaker(next) {
                self.repeats.push((next, length as u32));
            }
        }
        self.repeats
            .sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        // The longest one of each token comes first.
        self.repeats.dedup_by_key(|(token, _)| *token);
    }

    /// Tokens behind the last breaker. Where several begin at a token, the longest counts.
    fn length_since_breaker(&self, text: &[u32]) -> usize {
        for (after, place) in (0..text.len()).rev().enumerate() {
            let Some(tails) = self.breakers.get(&text[place]) else {
                continue;
            };
            let rest = &text[place + 1..];
            let complete = tails.iter().filter(|tail| rest.starts_with(tail));
            if let Some(longest) = complete.map(Vec::len).max() {
                return after - longest;
            }
        }
        text.len()
    }

    fn is_breaker(&self, token: u32) -> bool {
        let tails = self.breakers.get(&token);
        tails.is_some_and(|tails| tails.iter().any(Vec::is_empty))
    }

    /// How many tokens agree with the end of the text at each place, counted from the end, in time proportional to its length
    /// (the Z-algorithm of Gusfield 1997, section 1.4, on the text read backwards).
    fn measure(&mut self, text: &[u32]) {
        let count = text.len();
        let back = |index: usize| text[count - 1 - index];
        let lengths = &mut self.lengths;
        lengths.clear();
        lengths.resize(count, 0);
        // The stretch of text behind `end` that was found to agree with the beginning from `start` on.
        let (mut start, mut end) = (0, 0);
        for place in 1..count {
            let known = match place < end {
                true => (lengths[place - start] as usize).min(end - place),
                false => 0,
            };
            let mut length = known;
            while place + length < count && back(length) == back(place + length) {
                length += 1;
            }
            lengths[place] = length as u32;
            if place + length > end {
                (start, end) = (place, place + length);
            }
        }
    }
}
