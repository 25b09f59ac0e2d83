//! The search for scales and codes of K-quants: weighted least squares over candidates.
//!
//! A block is 256 weights in groups of 16 or 32. A group's weights are `scale x code - offset`, where scale and offset are
//! small whole numbers times two F16 that the block has in common. Codes that are given make scale and offset a linear least
//! squares problem, and a scale that is given makes the codes a matter of rounding. So first, for each group by itself, codes
//! are rounded at a few scales around the one that spans its range, and the solution with the smallest error is kept; then
//! scale and offset become multiples of the common ones, where their neighbours are tried with the codes that fit them, and
//! the common ones are solved for in turn.
//!
//! The error of a weight counts the more, the larger the weight: by its magnitude plus the root mean square of its group. A
//! weight of a trained model that is far from zero matters more, and this is all that is known without running the model.
//!
//! Eight groups are searched side by side, one in each lane, without a branch between them.

use half::f16;

use super::lanes::{LANES, Lanes};

/// Weights of a block.
pub(super) const BLOCK: usize = 256;
/// Groups of a block at most.
pub(super) const GROUPS: usize = 16;

/// Scales that are tried for a group lie around the one that spans its range: the range in codes, 0.1 more or less a step.
const STEPS: std::ops::RangeInclusive<i8> = -10..=10;
/// Times that codes are rounded anew with the scale that fits them best.
const REFINEMENTS: usize = 2;
/// Times that the common scales of a block are solved for.
const SOLUTIONS: usize = 2;

/// Groups of `LEN` weights, a group in each lane.
struct Set<const LEN: usize> {
    values: [Lanes; LEN],
    /// How much an error at each of the values counts.
    weights: [Lanes; LEN],
    /// Sums of weight, weight x value and weight x value² over each group.
    weight: Lanes,
    first: Lanes,
    second: Lanes,
}

/// Sums over the codes of each group: weight x code, weight x code², weight x code x value.
struct Moments {
    code: Lanes,
    square: Lanes,
    product: Lanes,
}

impl<const LEN: usize> Set<LEN> {
    /// `values` are 8 groups, one after the other.
    fn of(values: &[f32]) -> Self {
        let values: [Lanes; LEN] = std::array::from_fn(|index| {
            Lanes(std::array::from_fn(|group| values[group * LEN + index]))
        });
        let squares = values.iter().fold(Lanes::ZERO, |sum, x| sum + *x * *x);
        let root_mean_square = (squares * Lanes::splat(1.0 / LEN as f32)).sqrt();
        let weights = values.map(|x| root_mean_square + x.abs());
        let mut set = Set {
            values,
            weights,
            weight: Lanes::ZERO,
            first: Lanes::ZERO,
            second: Lanes::ZERO,
        };
        for (x, w) in values.iter().zip(weights) {
            set.weight = set.weight + w;
            set.first = set.first + w * *x;
            set.second = set.second + w * *x * *x;
        }
        set
    }

    /// The codes at `inverse` codes for a unit, `offset` below zero.
    #[inline(always)]
    fn moments(&self, inverse: Lanes, offset: Lanes, low: f32, high: f32) -> Moments {
        let mut moments = Moments {
            code: Lanes::ZERO,
            square: Lanes::ZERO,
            product: Lanes::ZERO,
        };
        for (x, w) in self.values.iter().zip(&self.weights) {
            let code = ((*x + offset) * inverse).round_within(low, high);
            let weighted = *w * code;
            moments.code = moments.code + weighted;
            moments.square = moments.square + weighted * code;
            moments.product = moments.product + weighted * *x;
        }
        moments
    }

    /// The weighted squared error with this scale and offset and the codes that fit them.
    #[inline(always)]
    fn error(&self, scale: Lanes, offset: Lanes, low: f32, high: f32) -> Lanes {
        let inverse = Lanes::splat(1.0).over(scale);
        let mut sum = Lanes::ZERO;
        for (x, w) in self.values.iter().zip(&self.weights) {
            let shifted = *x + offset;
            let code = (shifted * inverse).round_within(low, high);
            let error = shifted - scale * code;
            sum = sum + *w * error * error;
        }
        sum
    }
}

/// A block whose weights are `scale x code - offset`.
pub(super) struct OffsetBlock {
    /// What the scales of the groups are multiplied with.
    pub(super) scale: f16,
    /// What the offsets of the groups are multiplied with.
    pub(super) offset: f16,
    pub(super) scales: [u8; GROUPS],
    pub(super) offsets: [u8; GROUPS],
    pub(super) codes: [u8; BLOCK],
}

/// Finds scales and offsets of 0 to `levels` and codes of 0 to `top` for the groups of `LEN` weights of a block, which are
/// `SETS` times eight.
pub(super) fn with_offset<const LEN: usize, const SETS: usize>(
    values: &[f32],
    top: f32,
    levels: f32,
) -> OffsetBlock {
    const { assert!(LEN * SETS * LANES == BLOCK) };
    let sets: [Set<LEN>; SETS] =
        std::array::from_fn(|set| Set::of(&values[set * LEN * LANES..][..LEN * LANES]));
    let wanted: [(Lanes, Lanes); SETS] =
        std::array::from_fn(|set| best_with_offset(&sets[set], top));
    let largest = |part: fn(&(Lanes, Lanes)) -> Lanes| {
        let most = wanted.iter().map(part).fold(Lanes::ZERO, Lanes::max);
        most.extreme()
    };
    let mut common = [largest(|w| w.0) / levels, largest(|w| w.1) / levels].map(nearest);
    let mut best = OffsetChoice::of(&sets, &wanted, common, top, levels);
    for _ in 0..SOLUTIONS {
        common = best.solve(&sets, top).map(nearest);
        let choice = OffsetChoice::of(&sets, &wanted, common, top, levels);
        if choice.error >= best.error {
            break;
        }
        best = choice;
    }
    best.block(&sets, top)
}

/// Scale and offset of each group by itself.
fn best_with_offset<const LEN: usize>(set: &Set<LEN>, top: f32) -> (Lanes, Lanes) {
    let low = set.values.iter().fold(Lanes::ZERO, |low, x| low.min(*x));
    let high = set.values.iter().fold(low, |high, x| high.max(*x));
    let lowered = Lanes::ZERO - low;
    let span = high - low;
    let mut best = (span * Lanes::splat(1.0 / top), lowered);
    let mut least = Lanes::splat(f32::INFINITY);
    let consider = |best: &mut (Lanes, Lanes), least: &mut Lanes, inverse, offset| {
        let moments = set.moments(inverse, offset, 0.0, top);
        let (scale, offset, error) = solve_with_offset(set, &moments);
        best.0 = scale.where_less(error, *least, best.0);
        best.1 = offset.where_less(error, *least, best.1);
        *least = error.min(*least);
    };
    for step in STEPS {
        let inverse = Lanes::splat(top + 0.1 * f32::from(step)).over(span);
        consider(&mut best, &mut least, inverse, lowered);
    }
    for _ in 0..REFINEMENTS {
        let inverse = Lanes::splat(1.0).over(best.0);
        let offset = best.1;
        consider(&mut best, &mut least, inverse, offset);
    }
    best
}

/// The scale and the offset, not below zero, with the smallest error for codes with these moments, and the error.
#[inline(always)]
fn solve_with_offset<const LEN: usize>(set: &Set<LEN>, moments: &Moments) -> (Lanes, Lanes, Lanes) {
    /// A determinant is nothing but rounding below this part of what it is a difference of: all codes are alike.
    const SINGULAR: f32 = 1e-6;
    let Moments {
        code,
        square,
        product,
    } = moments;
    let (both, zero, two) = (set.weight * *square, Lanes::ZERO, Lanes::splat(2.0));
    let determinant = both - *code * *code;
    let free_scale = (set.weight * *product - set.first * *code) / determinant;
    let free_offset = (*code * *product - *square * set.first) / determinant;
    let plain_scale = product.over(*square);
    let singular = both * Lanes::splat(SINGULAR);
    let free_offset =
        free_offset
            .where_less(zero, free_offset, zero)
            .where_less(singular, determinant, zero);
    let scale = free_scale.where_less(zero, free_offset, plain_scale);
    let scale = scale.max(zero);
    // Where all codes are zero there is nothing but the offset.
    let mean = set.first.over(set.weight);
    let offset = free_offset.where_less(zero, *square, (zero - mean).max(zero));
    let error =
        set.second - two * scale * *product + two * offset * set.first + scale * scale * *square
            - two * scale * offset * *code
            + offset * offset * set.weight;
    (scale, offset, error)
}

/// Scales and offsets of all groups as multiples of common ones.
struct OffsetChoice<const SETS: usize> {
    common: [f32; 2],
    scales: [Lanes; SETS],
    offsets: [Lanes; SETS],
    error: f32,
}

impl<const SETS: usize> OffsetChoice<SETS> {
    /// The best multiples next to the scales and offsets that are wanted.
    fn of<const LEN: usize>(
        sets: &[Set<LEN>; SETS],
        wanted: &[(Lanes, Lanes); SETS],
        common: [f32; 2],
        top: f32,
        levels: f32,
    ) -> Self {
        let [unit, offset_unit] = common.map(Lanes::splat);
        let mut choice = OffsetChoice {
            common,
            scales: [Lanes::ZERO; SETS],
            offsets: [Lanes::ZERO; SETS],
            error: 0.0,
        };
        for (index, (set, wanted)) in sets.iter().zip(wanted).enumerate() {
            let scale = wanted.0.over(unit).round_within(0.0, levels);
            let offset = wanted.1.over(offset_unit).round_within(0.0, levels);
            let mut best = (scale, offset);
            let mut least = Lanes::splat(f32::INFINITY);
            for by in NEIGHBOURS {
                let scale = (scale + Lanes::splat(by)).round_within(0.0, levels);
                for by in NEIGHBOURS {
                    let offset = (offset + Lanes::splat(by)).round_within(0.0, levels);
                    let error = set.error(unit * scale, offset_unit * offset, 0.0, top);
                    best.0 = scale.where_less(error, least, best.0);
                    best.1 = offset.where_less(error, least, best.1);
                    least = error.min(least);
                }
            }
            (choice.scales[index], choice.offsets[index]) = best;
            choice.error += least.sum();
        }
        choice
    }

    /// The common scale and offset with the smallest error for the codes of this choice.
    fn solve<const LEN: usize>(&self, sets: &[Set<LEN>; SETS], top: f32) -> [f32; 2] {
        let [unit, offset_unit] = self.common.map(Lanes::splat);
        // Normal equations of value = x * (scale * code) - y * offset.
        let (mut aa, mut ab, mut bb) = (Lanes::ZERO, Lanes::ZERO, Lanes::ZERO);
        let (mut ax, mut bx) = (Lanes::ZERO, Lanes::ZERO);
        for (index, set) in sets.iter().enumerate() {
            let (scale, offset) = (self.scales[index], self.offsets[index]);
            let inverse = Lanes::splat(1.0).over(unit * scale);
            let moments = set.moments(inverse, offset_unit * offset, 0.0, top);
            aa = aa + scale * scale * moments.square;
            ab = ab + scale * offset * moments.code;
            bb = bb + offset * offset * set.weight;
            ax = ax + scale * moments.product;
            bx = bx + offset * set.first;
        }
        let sums = [aa, ab, bb, ax, bx].map(|sum| f64::from(sum.sum()));
        let [aa, ab, bb, ax, bx] = sums;
        let determinant = aa * bb - ab * ab;
        let solution = [
            (ax * bb - ab * bx) / determinant,
            (ab * ax - aa * bx) / determinant,
        ];
        match solution.iter().all(|x| x.is_finite() && *x >= 0.0) {
            true => solution.map(|x| x as f32),
            // No offsets, or nothing else.
            false => self.common,
        }
    }

    fn block<const LEN: usize>(&self, sets: &[Set<LEN>; SETS], top: f32) -> OffsetBlock {
        let [unit, offset_unit] = self.common.map(Lanes::splat);
        let mut block = OffsetBlock {
            scale: f16::from_f32(self.common[0]),
            offset: f16::from_f32(self.common[1]),
            scales: [0; GROUPS],
            offsets: [0; GROUPS],
            codes: [0; BLOCK],
        };
        for (index, set) in sets.iter().enumerate() {
            let (scales, offsets) = (self.scales[index], self.offsets[index]);
            let inverse = Lanes::splat(1.0).over(unit * scales);
            for lane in 0..LANES {
                block.scales[index * LANES + lane] = scales.0[lane] as u8;
                block.offsets[index * LANES + lane] = offsets.0[lane] as u8;
            }
            for (at, x) in set.values.iter().enumerate() {
                let codes = ((*x + offset_unit * offsets) * inverse).round_within(0.0, top);
                for (lane, code) in codes.0.iter().enumerate() {
                    block.codes[(index * LANES + lane) * LEN + at] = *code as u8;
                }
            }
        }
        block
    }
}

/// Multiples that are tried: the nearest one, and those next to it.
const NEIGHBOURS: [f32; 3] = [0.0, -1.0, 1.0];

/// A block whose weights are `scale x code`.
pub(super) struct SignedBlock {
    /// What the scales of the groups are multiplied with.
    pub(super) scale: f16,
    pub(super) scales: [i8; GROUPS],
    /// From 0 on: the lowest code is 0.
    pub(super) codes: [u8; BLOCK],
}

/// Finds scales of `-levels` to `levels - 1` and codes of `-half` to `half - 1` for the 16 groups of a block.
pub(super) fn signed(values: &[f32], half: f32, levels: f32) -> SignedBlock {
    const LEN: usize = BLOCK / GROUPS;
    const SETS: usize = GROUPS / LANES;
    let sets: [Set<LEN>; SETS] =
        std::array::from_fn(|set| Set::of(&values[set * LEN * LANES..][..LEN * LANES]));
    let wanted: [Lanes; SETS] = std::array::from_fn(|set| best_signed(&sets[set], half));
    let larger = |best: f32, next: f32| if next.abs() > best.abs() { next } else { best };
    let extreme = wanted.iter().map(|scales| scales.extreme());
    // The lowest multiple is the one of the largest magnitude.
    let mut common = nearest(extreme.fold(0.0, larger) / -levels);
    let mut best = SignedChoice::of(&sets, &wanted, common, half, levels);
    for _ in 0..SOLUTIONS {
        common = nearest(best.solve(&sets, half));
        let choice = SignedChoice::of(&sets, &wanted, common, half, levels);
        if choice.error >= best.error {
            break;
        }
        best = choice;
    }
    best.block(&sets, half)
}

/// The scale of each group by itself.
fn best_signed<const LEN: usize>(set: &Set<LEN>, half: f32) -> Lanes {
    let extreme = set.values.iter().fold(Lanes::ZERO, |extreme, x| {
        x.where_less(extreme.abs(), x.abs(), extreme)
    });
    let mut best = extreme * Lanes::splat(-1.0 / half);
    let mut least = Lanes::splat(f32::INFINITY);
    let consider = |best: &mut Lanes, least: &mut Lanes, inverse| {
        let moments = set.moments(inverse, Lanes::ZERO, -half, half - 1.0);
        let scale = moments.product.over(moments.square);
        let error = set.second - scale * moments.product;
        *best = scale.where_less(error, *least, *best);
        *least = error.min(*least);
    };
    for step in STEPS {
        let codes = Lanes::splat(-half - 0.1 * f32::from(step));
        consider(&mut best, &mut least, codes.over(extreme));
    }
    for _ in 0..REFINEMENTS {
        let inverse = Lanes::splat(1.0).over(best);
        consider(&mut best, &mut least, inverse);
    }
    best
}

/// Scales of all groups as multiples of a common one.
struct SignedChoice<const SETS: usize> {
    common: f32,
    scales: [Lanes; SETS],
    error: f32,
}

impl<const SETS: usize> SignedChoice<SETS> {
    /// The best multiples next to the scales that are wanted.
    fn of<const LEN: usize>(
        sets: &[Set<LEN>; SETS],
        wanted: &[Lanes; SETS],
        common: f32,
        half: f32,
        levels: f32,
    ) -> Self {
        let unit = Lanes::splat(common);
        let mut choice = SignedChoice {
            common,
            scales: [Lanes::ZERO; SETS],
            error: 0.0,
        };
        for (index, (set, wanted)) in sets.iter().zip(wanted).enumerate() {
            let scale = wanted.over(unit).round_within(-levels, levels - 1.0);
            let mut best = scale;
            let mut least = Lanes::splat(f32::INFINITY);
            for by in NEIGHBOURS {
                let scale = (scale + Lanes::splat(by)).round_within(-levels, levels - 1.0);
                let error = set.error(unit * scale, Lanes::ZERO, -half, half - 1.0);
                best = scale.where_less(error, least, best);
                least = error.min(least);
            }
            choice.scales[index] = best;
            choice.error += least.sum();
        }
        choice
    }

    /// The common scale with the smallest error for the codes of this choice.
    fn solve<const LEN: usize>(&self, sets: &[Set<LEN>; SETS], half: f32) -> f32 {
        let unit = Lanes::splat(self.common);
        let (mut aa, mut ax) = (Lanes::ZERO, Lanes::ZERO);
        for (set, scale) in sets.iter().zip(self.scales) {
            let inverse = Lanes::splat(1.0).over(unit * scale);
            let moments = set.moments(inverse, Lanes::ZERO, -half, half - 1.0);
            aa = aa + scale * scale * moments.square;
            ax = ax + scale * moments.product;
        }
        let solution = ax.sum() / aa.sum();
        match solution.is_finite() {
            true => solution,
            false => self.common,
        }
    }

    fn block<const LEN: usize>(&self, sets: &[Set<LEN>; SETS], half: f32) -> SignedBlock {
        let unit = Lanes::splat(self.common);
        let mut block = SignedBlock {
            scale: f16::from_f32(self.common),
            scales: [0; GROUPS],
            codes: [0; BLOCK],
        };
        for (index, (set, scales)) in sets.iter().zip(self.scales).enumerate() {
            let inverse = Lanes::splat(1.0).over(unit * scales);
            for lane in 0..LANES {
                block.scales[index * LANES + lane] = scales.0[lane] as i8;
            }
            for (at, x) in set.values.iter().enumerate() {
                let codes = (*x * inverse).round_within(-half, half - 1.0) + Lanes::splat(half);
                for (lane, code) in codes.0.iter().enumerate() {
                    block.codes[(index * LANES + lane) * LEN + at] = *code as u8;
                }
            }
        }
        block
    }
}

/// What a number is once it was kept as F16; the largest where it is beyond that.
fn nearest(value: f32) -> f32 {
    let limit = f16::MAX.to_f32();
    f16::from_f32(value.clamp(-limit, limit)).to_f32()
}
