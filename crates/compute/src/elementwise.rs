//! What happens to a row between matrix products: norm, rotation, gating, addition.

use crate::simd::{Kernel, Simd, erf, exp};
use crate::tier::Tier;

/// The nonlinearity of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonlinearity {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh form, `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// GELU as it was defined, `x / 2 * (1 + erf(x / sqrt(2)))` (Hendrycks and Gimpel 2016).
    Gelu,
}

/// `out = x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019), on one row.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm(tier: Tier, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(
        x.len() == weight.len() && x.len() == out.len(),
        "one length"
    );
    tier.run(RmsNorm {
        x,
        weight,
        eps,
        out,
    });
}

/// [`rms_norm`] of a row onto itself.
///
/// # Panics
/// If the lengths differ.
pub fn rms_norm_in_place(tier: Tier, x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(x.len() == weight.len(), "one length");
    let scale = tier.run(RmsScale { x, eps });
    for (x, w) in x.iter_mut().zip(weight) {
        *x = *x * scale * w;
    }
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

/// `1 / sqrt(mean(x^2) + eps)`.
struct RmsScale<'a> {
    x: &'a [f32],
    eps: f32,
}

impl Kernel for RmsScale<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut sums = [s.splat(0.0); 2];
        let chunks = self.x.chunks_exact(8);
        let mut sum: f32 = chunks.remainder().iter().map(|x| x * x).sum();
        for (i, x) in chunks.enumerate() {
            // SAFETY: a chunk has 8 elements.
            let x = unsafe { s.load(x.as_ptr()) };
            sums[i % 2] = s.fma(x, x, sums[i % 2]);
        }
        sum += s.sum(s.add(sums[0], sums[1]));
        1.0 / (sum / self.x.len() as f32 + self.eps).sqrt()
    }
}

impl Kernel for RmsNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let scale = RmsScale {
            x: self.x,
            eps: self.eps,
        }
        .run(s);
        for ((out, x), w) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * scale * w;
        }
    }
}

/// `out = (x - mean(x)) / sqrt(variance(x) + eps) * weight + bias` (Ba et al. 2016), on one row.
///
/// # Panics
/// If the lengths differ.
pub fn layer_norm(
    tier: Tier,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    out.copy_from_slice(x);
    layer_norm_in_place(tier, out, weight, bias, eps);
}

/// [`layer_norm`] of a row onto itself.
///
/// # Panics
/// If the lengths differ.
pub fn layer_norm_in_place(
    tier: Tier,
    x: &mut [f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    eps: f32,
) {
    assert!(
        x.len() == weight.len() && bias.is_none_or(|bias| bias.len() == x.len()),
        "one length"
    );
    tier.run(LayerNorm {
        x,
        weight,
        bias,
        eps,
    });
}

struct LayerNorm<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    bias: Option<&'a [f32]>,
    eps: f32,
}

impl Kernel for LayerNorm<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let count = self.x.len() as f32;
        let mean = sum_of(s, self.x, |x| x, |x| x) / count;
        // The variance is that of the differences, which does not cancel.
        let centre = s.splat(mean);
        let squares = |x: S::F| {
            let x = s.sub(x, centre);
            s.mul(x, x)
        };
        let variance = sum_of(s, self.x, squares, |x| (x - mean) * (x - mean)) / count;
        let scale = 1.0 / (variance + self.eps).sqrt();
        let whole = self.x.len() / 8 * 8;
        for at in (0..whole).step_by(8) {
            // SAFETY: `at + 8 <= whole`, and the slices have one length.
            unsafe {
                let x = self.x.as_mut_ptr().add(at);
                let factor = s.mul(s.splat(scale), s.load(self.weight.as_ptr().add(at)));
                let bias = match self.bias {
                    Some(bias) => s.load(bias.as_ptr().add(at)),
                    None => s.splat(0.0),
                };
                s.store(x, s.fma(s.sub(s.load(x), centre), factor, bias));
            }
        }
        for at in whole..self.x.len() {
            let bias = self.bias.map_or(0.0, |bias| bias[at]);
            self.x[at] = (self.x[at] - mean) * (scale * self.weight[at]) + bias;
        }
    }
}

/// The sum of `f` of every element, with four vectors of sums side by side; `last` is the same function for what is left.
#[inline(always)]
fn sum_of<S: Simd>(s: S, x: &[f32], f: impl Fn(S::F) -> S::F, last: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = x.as_chunks::<8>();
    let mut sums = [s.splat(0.0); 4];
    for (i, x) in whole.iter().enumerate() {
        // SAFETY: a chunk has 8 elements.
        let x = unsafe { s.load(x.as_ptr()) };
        sums[i % 4] = s.add(sums[i % 4], f(x));
    }
    let whole = s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])));
    rest.iter().fold(whole, |sum, x| sum + last(*x))
}

/// `x = activation(x)`, element by element.
pub fn activate_in_place(tier: Tier, kind: Nonlinearity, x: &mut [f32]) {
    tier.run(ActivateKernel { kind, x });
}

struct ActivateKernel<'a> {
    kind: Nonlinearity,
    x: &'a mut [f32],
}

impl Kernel for ActivateKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (whole, rest) = self.x.as_chunks_mut::<16>();
        for x in whole {
            // SAFETY: a chunk has 16 elements.
            unsafe {
                let y = activate(s, self.kind, s.load_16(x.as_ptr()));
                s.store_16(x.as_mut_ptr(), y);
            }
        }
        let mut last = [0.0; 16];
        last[..rest.len()].copy_from_slice(rest);
        // SAFETY: the array has 16 elements.
        unsafe {
            let y = activate(s, self.kind, s.load_16(last.as_ptr()));
            s.store_16(last.as_mut_ptr(), y);
        }
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// `x *= sigmoid(gate)`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn sigmoid_gate(tier: Tier, x: &mut [f32], gate: &[f32]) {
    assert!(x.len() == gate.len(), "one length");
    tier.run(SigmoidGate { x, gate });
}

struct SigmoidGate<'a> {
    x: &'a mut [f32],
    gate: &'a [f32],
}

impl Kernel for SigmoidGate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = self.x.len() / 16 * 16;
        for at in (0..whole).step_by(16) {
            // SAFETY: `at + 16 <= whole`, and the slices have one length.
            unsafe {
                let gate = s.load_16(self.gate.as_ptr().add(at));
                let denominator =
                    s.add_16(s.splat_16(1.0), exp(s, s.sub_16(s.splat_16(0.0), gate)));
                let x = self.x.as_mut_ptr().add(at);
                s.store_16(x, s.div_16(s.load_16(x), denominator));
            }
        }
        for (x, gate) in self.x[whole..].iter_mut().zip(&self.gate[whole..]) {
            *x /= 1.0 + (-gate).exp();
        }
    }
}

/// `gate = activation(gate) * up`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn gate(tier: Tier, kind: Nonlinearity, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(
        gate.len() == up.len() && gate.len() == out.len(),
        "one length"
    );
    tier.run(GateKernel {
        kind,
        gate,
        up,
        out,
    });
}

struct GateKernel<'a> {
    kind: Nonlinearity,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for GateKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = self.out.len() / 16 * 16;
        let (gate, up) = (self.gate.as_ptr(), self.up.as_ptr());
        for at in (0..whole).step_by(16) {
            // SAFETY: `at + 16 <= whole`, and the three slices have one length.
            unsafe {
                let x = activate(s, self.kind, s.load_16(gate.add(at)));
                let x = s.mul_16(x, s.load_16(up.add(at)));
                s.store_16(self.out.as_mut_ptr().add(at), x);
            }
        }
        let mut rest = [0.0; 16];
        let count = self.out.len() - whole;
        rest[..count].copy_from_slice(&self.gate[whole..]);
        // SAFETY: the array has 16 elements.
        unsafe {
            let x = activate(s, self.kind, s.load_16(rest.as_ptr()));
            s.store_16(rest.as_mut_ptr(), x);
        }
        for at in whole..self.out.len() {
            self.out[at] = rest[at - whole] * self.up[at];
        }
    }
}

#[inline(always)]
pub(crate) fn activate<S: Simd>(s: S, kind: Nonlinearity, x: S::W) -> S::W {
    if kind == Nonlinearity::Gelu {
        let half = s.mul_16(x, s.splat_16(0.5));
        let erf = erf(s, s.mul_16(x, s.splat_16(std::f32::consts::FRAC_1_SQRT_2)));
        return s.fma_16(half, erf, half);
    }
    // The others are `x * sigmoid(y)`: y = x for SiLU, twice the argument of tanh for GELU.
    let minus_y = match kind {
        Nonlinearity::Silu => s.sub_16(s.splat_16(0.0), x),
        Nonlinearity::GeluTanh => {
            let inner = s.fma_16(s.mul_16(x, x), s.splat_16(0.044_715), s.splat_16(1.0));
            s.mul_16(s.mul_16(x, inner), s.splat_16(-1.595_769))
        }
        Nonlinearity::Gelu => x,
    };
    s.div_16(x, s.add_16(s.splat_16(1.0), exp(s, minus_y)))
}

/// `x += y`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// `x += y + z`.
pub fn add_sum_assign(x: &mut [f32], y: &[f32], z: &[f32]) {
    for ((x, y), z) in x.iter_mut().zip(y).zip(z) {
        *x += y + z;
    }
}

/// `x *= factor`.
pub fn scale_in_place(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// The cosines and sines of one position: `out[i] = (cos, sin)(position * inverse_frequencies[i]) * magnitude`.
///
/// The angle is rounded to `f32` before its cosine is taken, as the reference implementations do.
pub fn rope_table(
    position: u32,
    inverse_frequencies: &[f32],
    magnitude: f32,
    out: &mut [(f32, f32)],
) {
    for (out, frequency) in out.iter_mut().zip(inverse_frequencies) {
        let angle = f64::from(position as f32 * frequency);
        *out = (
            angle.cos() as f32 * magnitude,
            angle.sin() as f32 * magnitude,
        );
    }
}

/// Rotates each head of a row `[heads, head_dim]` by rotary position embedding (Su et al. 2021).
///
/// `table` has half as many pairs as dimensions are rotated. Pair `i` is dimensions `(2 i, 2 i + 1)` where `interleaved`
/// (the original form), else `(i, i + table.len())` (the GPT-NeoX form); dimensions past the rotated ones stay.
pub fn rope_in_place(
    tier: Tier,
    row: &mut [f32],
    head_dim: usize,
    table: &[(f32, f32)],
    interleaved: bool,
) {
    tier.run(Rope {
        row,
        head_dim,
        table,
        interleaved,
    });
}

struct Rope<'a> {
    row: &'a mut [f32],
    head_dim: usize,
    table: &'a [(f32, f32)],
    interleaved: bool,
}

impl Kernel for Rope<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // Plain loops, which the compiler makes vectors of the tier of.
        let half = self.table.len();
        for head in self.row.chunks_exact_mut(self.head_dim) {
            if self.interleaved {
                let (pairs, _) = head.as_chunks_mut::<2>();
                let count = half.min(pairs.len());
                let (pairs, table) = (&mut pairs[..count], &self.table[..count]);
                for i in 0..count {
                    let ([a, b], (cos, sin)) = (pairs[i], table[i]);
                    pairs[i] = [a * cos - b * sin, a * sin + b * cos];
                }
            } else {
                let (first, second) = head.split_at_mut(half);
                let second = &mut second[..half];
                for i in 0..half {
                    let (a, b, (cos, sin)) = (first[i], second[i], self.table[i]);
                    first[i] = a * cos - b * sin;
                    second[i] = a * sin + b * cos;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_follow_their_definitions_far_and_near() {
        let x: Vec<f32> = (-2000..=2000)
            .map(|i| i as f32 * 0.05)
            .chain([0.0, 1e-20, -1e-20])
            .collect();
        let up = vec![1.0; x.len()];
        for tier in Tier::available() {
            for kind in [Nonlinearity::Silu, Nonlinearity::GeluTanh] {
                let mut out = vec![0.0; x.len()];
                gate(tier, kind, &x, &up, &mut out);
                let mut alone = x.clone();
                activate_in_place(tier, kind, &mut alone);
                assert_eq!(alone, out);
                for (&x, &got) in x.iter().zip(&out) {
                    let x = f64::from(x);
                    let want = match kind {
                        Nonlinearity::Silu => x / (1.0 + (-x).exp()),
                        Nonlinearity::GeluTanh => {
                            0.5 * x
                                * (1.0
                                    + ((2.0 / std::f64::consts::PI).sqrt()
                                        * (x + 0.044715 * x.powi(3)))
                                    .tanh())
                        }
                        Nonlinearity::Gelu => unreachable!("tested below"),
                    };
                    let error = (f64::from(got) - want).abs();
                    assert!(
                        error <= 1e-6 * want.abs() + 1e-7,
                        "{kind:?}({x}) = {got}, not {want}, on {}",
                        tier.name()
                    );
                }
            }
        }
    }

    /// The first number of each pair is `x`, the second `math.erf` of Python 3 put into the definition of GELU.
    #[test]
    fn exact_gelu_is_its_definition() {
        let table = [
            (-6.0, -5.919525869479969e-09),
            (-3.0, -0.00404969409489031),
            (-1.5, -0.10021080190328713),
            (-0.5, -0.15426876936299344),
            (-0.001, -0.000499601057786089),
            (0.0, 0.0),
            (0.0001, 5.000398942279737e-05),
            (0.25, 0.14967658142073093),
            (0.75, 0.5800294857173488),
            (1.0, 0.8413447460685429),
            (2.0, 1.9544997361036416),
            (4.0, 3.9998733150326675),
            (7.0, 6.999999999991041),
            (11.0, 11.0),
            (13.0, 13.0),
            (-13.0, -0.0),
        ];
        for tier in Tier::available() {
            for (x, want) in table {
                let mut y = [x as f32];
                activate_in_place(tier, Nonlinearity::Gelu, &mut y);
                assert!(
                    (f64::from(y[0]) - want).abs() < 1e-6,
                    "gelu({x}) = {}",
                    y[0]
                );
            }
        }
    }

    #[test]
    fn layer_norm_has_mean_and_variance_of_its_weight_and_bias() {
        for tier in Tier::available() {
            for len in [577, 64, 7] {
                let wave = |i: usize| (i as f32 * 0.7).sin() * 3.0 + 5.0;
                let mut x = Vec::from_iter((0..len).map(wave));
                let (weight, bias) = (vec![2.0; len], vec![0.5; len]);
                layer_norm_in_place(tier, &mut x, &weight, Some(&bias), 0.0);
                let numbers = x.iter().map(|x| f64::from(*x));
                let mean = numbers.clone().sum::<f64>() / len as f64;
                let squares = numbers.map(|x| (x - mean).powi(2));
                let variance = squares.sum::<f64>() / len as f64;
                assert!((mean - 0.5).abs() < 1e-5, "{mean} on {}", tier.name());
                assert!((variance - 4.0).abs() < 1e-4, "{variance}");
            }
        }
    }

    #[test]
    fn norm_has_unit_mean_square() {
        let x: Vec<f32> = (0..577).map(|i| (i as f32 * 0.7).sin() * 3.0).collect();
        let weight = vec![1.0; x.len()];
        for tier in Tier::available() {
            let mut out = vec![0.0; x.len()];
            rms_norm(tier, &x, &weight, 0.0, &mut out);
            let mean = out.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 577.0;
            assert!((mean - 1.0).abs() < 1e-5, "{mean} on {}", tier.name());
        }
    }

    #[test]
    fn both_rope_forms_rotate_the_same_pairs() {
        let mut table = [(0.0, 0.0); 2];
        rope_table(3, &[1.0, 0.1], 1.0, &mut table);
        let mut interleaved = [1.0, 2.0, 3.0, 4.0, 9.0];
        rope_in_place(Tier::detect(), &mut interleaved, 5, &table, true);
        let mut halves = [1.0, 3.0, 2.0, 4.0, 9.0];
        rope_in_place(Tier::detect(), &mut halves, 5, &table, false);
        assert_eq!(
            interleaved,
            [halves[0], halves[2], halves[1], halves[3], 9.0]
        );
        let want = (
            3.0f32.cos() - 2.0 * 3.0f32.sin(),
            3.0f32.sin() + 2.0 * 3.0f32.cos(),
        );
        assert!((interleaved[0] - want.0).abs() < 1e-6 && (interleaved[1] - want.1).abs() < 1e-6);
    }
}
