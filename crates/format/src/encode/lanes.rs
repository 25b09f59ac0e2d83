//! Eight numbers side by side, on which the search of scales works: one group of weights in each.

use std::array::from_fn;
use std::ops::{Add, Div, Mul, Sub};

pub(super) const LANES: usize = 8;

/// Eight numbers. The operations go lane by lane, without a branch, so that the compiler makes vector instructions of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lanes(pub(super) [f32; LANES]);

/// Added and taken away again, it rounds to the nearest whole number, ties to even: above it floats have no fractions. For
/// numbers of less than 2^22.
const WHOLE: f32 = 12_582_912.0;

impl Lanes {
    pub(super) const ZERO: Self = Lanes([0.0; LANES]);

    #[inline(always)]
    pub(super) fn splat(value: f32) -> Self {
        Lanes([value; LANES])
    }

    /// The smaller of each two; the other one where `self` is no number.
    #[inline(always)]
    pub(super) fn min(self, other: Self) -> Self {
        self.select_if(other, |a, b| a < b)
    }

    /// The larger of each two; the other one where `self` is no number.
    #[inline(always)]
    pub(super) fn max(self, other: Self) -> Self {
        self.select_if(other, |a, b| a > b)
    }

    #[inline(always)]
    pub(super) fn abs(self) -> Self {
        Lanes(from_fn(|lane| self.0[lane].abs()))
    }

    #[inline(always)]
    pub(super) fn sqrt(self) -> Self {
        Lanes(from_fn(|lane| self.0[lane].sqrt()))
    }

    /// The nearest whole number within `low` and `high`.
    #[inline(always)]
    pub(super) fn round_within(self, low: f32, high: f32) -> Self {
        let within = self.max(Self::splat(low)).min(Self::splat(high));
        Lanes(from_fn(|lane| (within.0[lane] + WHOLE) - WHOLE))
    }

    /// `self` divided by `divisor`, and zero where that is zero.
    #[inline(always)]
    pub(super) fn over(self, divisor: Self) -> Self {
        (self / divisor).where_less(Self::ZERO, divisor.abs(), Self::ZERO)
    }

    /// `self` in the lanes where `a` is less than `b`, `otherwise` in the others.
    #[inline(always)]
    pub(super) fn where_less(self, a: Self, b: Self, otherwise: Self) -> Self {
        Lanes(from_fn(|lane| {
            if a.0[lane] < b.0[lane] {
                self.0[lane]
            } else {
                otherwise.0[lane]
            }
        }))
    }

    #[inline(always)]
    fn select_if(self, other: Self, keep: impl Fn(f32, f32) -> bool) -> Self {
        Lanes(from_fn(|lane| {
            let (own, other) = (self.0[lane], other.0[lane]);
            if keep(own, other) { own } else { other }
        }))
    }

    /// The number of the largest magnitude, with its sign.
    pub(super) fn extreme(self) -> f32 {
        let larger = |best: f32, &next: &f32| if next.abs() > best.abs() { next } else { best };
        self.0.iter().fold(0.0, larger)
    }

    pub(super) fn sum(self) -> f32 {
        self.0.iter().sum()
    }
}

impl Add for Lanes {
    type Output = Self;
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Lanes(from_fn(|lane| self.0[lane] + other.0[lane]))
    }
}

impl Sub for Lanes {
    type Output = Self;
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Lanes(from_fn(|lane| self.0[lane] - other.0[lane]))
    }
}

impl Mul for Lanes {
    type Output = Self;
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Lanes(from_fn(|lane| self.0[lane] * other.0[lane]))
    }
}

impl Div for Lanes {
    type Output = Self;
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Lanes(from_fn(|lane| self.0[lane] / other.0[lane]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_to_the_nearest_even_within_the_bounds() {
        let values = Lanes([-3.0, -0.5, 0.5, 1.5, 2.49, 14.7, 99.0, f32::NAN]);
        let rounded = values.round_within(0.0, 15.0);
        assert_eq!(rounded.0, [0.0, 0.0, 0.0, 2.0, 2.0, 15.0, 15.0, 0.0]);
    }

    #[test]
    fn nothing_over_nothing_is_nothing() {
        let over = Lanes::splat(3.0).over(Lanes([0.0, 1.0, -2.0, 0.0, 3.0, 1.5, -0.0, 6.0]));
        assert_eq!(over.0, [0.0, 3.0, -1.5, 0.0, 1.0, 2.0, 0.0, 0.5]);
    }
}
