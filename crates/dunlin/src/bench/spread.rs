//! A measured figure and how far its runs lie apart.

/// Spread beyond which figures are not to be trusted, as a part of the median.
pub const NOISY: f64 = 0.1;

/// Median, least and most of several runs, and the runs themselves in their order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Spread {
    /// The one in the middle; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// All of them.
    pub samples: Vec<f64>,
}

impl Spread {
    /// Of at least one run; of none, all figures are NaN.
    #[must_use]
    pub fn of(samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = |back: usize| sorted.get(back).copied().unwrap_or(f64::NAN);
        let count = sorted.len();
        Spread {
            median: (middle(count.saturating_sub(1) / 2) + middle(count / 2)) / 2.0,
            min: middle(0),
            max: middle(count.saturating_sub(1)),
            samples,
        }
    }

    /// Whether the runs lie further apart than [`NOISY`]: something else used the machine.
    #[must_use]
    pub fn is_noisy(&self) -> bool {
        self.max - self.min > NOISY * self.median
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((spread.median, spread.min, spread.max), (2.0, 1.0, 3.0));
        assert_eq!(spread.samples, [3.0, 1.0, 2.0]);
        assert_eq!(Spread::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of(vec![7.0]).median, 7.0);
    }

    #[test]
    fn runs_a_tenth_apart_are_noisy() {
        assert!(!Spread::of(vec![100.0, 109.0, 105.0]).is_noisy());
        assert!(Spread::of(vec![100.0, 112.0, 105.0]).is_noisy());
        assert!(!Spread::of(vec![100.0]).is_noisy());
    }
}
