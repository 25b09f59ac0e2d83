//! How many tokens it pays to guess.
//!
//! Two things decide: how often guesses turn out right, which this text shows, and what a step of several tokens costs, which
//! this machine and model show. Both are learned on the way. Guesses that were not made are judged, too, so that nothing has
//! to be tried in order to learn that it would work again.

/// Most tokens of a step that checks guesses: as many as have room for their scores at once.
pub(crate) const MOST_TOKENS: usize = dunlin_engine::SCORE_ROWS;

/// Sizes of steps whose costs are told apart; one between costs as much as the next larger, because kernels take tokens in
/// groups.
const SIZES: [usize; 6] = [1, 2, 4, 8, 12, MOST_TOKENS];
/// Costs of steps of these sizes before they are known, in steps of one token.
const USUAL_COSTS: [f64; SIZES.len()] = [1.0, 1.2, 1.5, 2.2, 3.0, 3.8];
/// Steps of one token after which the cost of others is no longer believed: a single bad measurement must not end it all.
const BELIEVED: u32 = 256;
/// Gain below which guessing is not worth its uncertainty.
const LEAST_GAIN: f64 = 1.05;

/// Seconds that steps take, by their number of tokens; learned over the life of a model.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepCosts {
    seconds: [Option<f64>; SIZES.len()],
    age: [u32; SIZES.len()],
}

impl StepCosts {
    /// Learns what a step took.
    pub(crate) fn learn(&mut self, tokens: usize, seconds: f64) {
        let Some(size) = SIZES.iter().position(|size| tokens <= *size) else {
            return;
        };
        let known = &mut self.seconds[size];
        *known = Some(match *known {
            // Something else may have had the processor: one step says little, a slow one less.
            Some(known) => known + (seconds.min(2.0 * known) - known) / 4.0,
            None => seconds,
        });
        self.age[size] = 0;
        if size == 0 {
            for (age, seconds) in self.age.iter_mut().zip(&mut self.seconds).skip(1) {
                *age += 1;
                if *age > BELIEVED {
                    *seconds = None;
                }
            }
        }
    }

    /// Seconds of a step of one token, where one was measured.
    pub(crate) fn one_token(&self) -> Option<f64> {
        self.seconds[0]
    }

    /// The cost of a step of this many tokens, in steps of one token.
    fn relative(&self, tokens: usize) -> f64 {
        let last = SIZES.len() - 1;
        let size = SIZES
            .iter()
            .position(|size| tokens <= *size)
            .unwrap_or(last);
        let (Some(one), true) = (self.seconds[0], size > 0) else {
            return USUAL_COSTS[size];
        };
        if let Some(seconds) = self.seconds[size] {
            return seconds / one;
        }
        // As much beyond the usual as the nearest size that is known.
        let nearest = (1..SIZES.len())
            .filter_map(|other| Some((size.abs_diff(other), other, self.seconds[other]?)))
            .min_by_key(|(distance, _, _)| *distance);
        let excess = nearest.map_or(1.0, |(_, other, seconds)| {
            (seconds / one - 1.0).max(0.0) / (USUAL_COSTS[other] - 1.0)
        });
        1.0 + (USUAL_COSTS[size] - 1.0) * excess
    }
}

/// Classes of guesses, from the least to the most likely ones.
pub(crate) const CLASSES: usize = 6;
/// Guesses that the chances count for that are assumed before any was judged.
const USUAL_WEIGHT: f64 = 4.0;
/// What is left of the weight of older guesses with each new one.
const MEMORY: f64 = 0.95;

/// How often guesses of each class were right.
#[derive(Clone, Debug)]
pub(crate) struct Rates {
    right: [f64; CLASSES],
    judged: [f64; CLASSES],
}

impl Rates {
    /// With the chances that are assumed before any guess was judged.
    pub(crate) fn new(usual: [f64; CLASSES]) -> Self {
        Rates {
            right: usual.map(|chance| chance * USUAL_WEIGHT),
            judged: [USUAL_WEIGHT; CLASSES],
        }
    }

    /// Learns whether a guess was right.
    pub(crate) fn learn(&mut self, class: usize, is_right: bool) {
        self.right[class] = self.right[class] * MEMORY + f64::from(u8::from(is_right));
        self.judged[class] = self.judged[class] * MEMORY + 1.0;
    }

    /// The chance that a guess is right.
    pub(crate) fn chance(&self, class: usize) -> f64 {
        self.right[class] / self.judged[class]
    }
}

/// How many guesses give the most tokens for their cost; 0 where a step without any does. `chances`: for each guess, that of
/// being right when those before it are. `own_cost`: what a guess itself takes, in steps of one token.
pub(crate) fn best_length(
    chances: impl Iterator<Item = f64>,
    own_cost: f64,
    costs: &StepCosts,
) -> usize {
    let (mut best, mut best_gain) = (0, LEAST_GAIN);
    // Chance that all guesses so far are right, and how many tokens are so on average.
    let (mut all, mut tokens) = (1.0, 1.0);
    for (length, chance) in (1..MOST_TOKENS).zip(chances) {
        all *= chance;
        tokens += all;
        let gain = tokens / (costs.relative(length + 1) + own_cost * length as f64);
        if gain > best_gain {
            (best, best_gain) = (length, gain);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which each further token of a step costs `share` of the first.
    fn costs(share: f64) -> StepCosts {
        let mut costs = StepCosts::default();
        for size in SIZES {
            costs.learn(size, 0.02 * (1.0 + share * (size as f64 - 1.0)));
        }
        costs
    }

    #[test]
    fn guesses_that_are_always_right_fill_the_step() {
        let best = |most| best_length([1.0; 100].into_iter().take(most), 0.0, &costs(0.1));
        assert_eq!((best(100), best(5)), (MOST_TOKENS - 1, 5));
    }

    #[test]
    fn guesses_that_are_never_right_end_and_begin_again_when_they_would_have_been() {
        let mut rates = Rates::new([0.9; CLASSES]);
        let best = |rates: &Rates| best_length([rates.chance(2); 15].into_iter(), 0.0, &costs(0.1));
        assert!(best(&rates) > 0);
        (0..30).for_each(|_| rates.learn(2, false));
        assert_eq!(best(&rates), 0);
        (0..30).for_each(|_| rates.learn(2, true));
        assert!(best(&rates) > 0);
    }

    #[test]
    fn nothing_is_guessed_where_a_token_costs_as_much_in_company_as_alone() {
        let best = |share, own| best_length([0.95; 15].into_iter(), own, &costs(share));
        assert_eq!(best(1.0, 0.0), 0);
        assert!(best(0.1, 0.0) > 4);
        // Nor where another model takes as long to guess.
        assert_eq!(best(0.1, 1.0), 0);
        assert!(best(0.1, 0.1) > 4);
    }

    #[test]
    fn what_a_size_costs_is_estimated_from_its_neighbour_and_forgotten_after_a_while() {
        let mut costs = StepCosts::default();
        assert_eq!(costs.relative(4), 1.5);
        costs.learn(1, 0.010);
        costs.learn(4, 0.020);
        assert_eq!(costs.relative(3), 2.0);
        // Twice the usual excess of 0.5, so twice that of 1.2.
        assert!((costs.relative(8) - 3.4).abs() < 1e-9);
        (0..=BELIEVED).for_each(|_| costs.learn(1, 0.010));
        assert_eq!(costs.relative(4), 1.5);
    }

    #[test]
    fn one_slow_step_is_not_believed() {
        let mut costs = costs(0.1);
        let before = costs.relative(4);
        costs.learn(4, 10.0);
        assert!(costs.relative(4) < 1.3 * before);
    }
}
