//! What happens to a row between matrix products: norm, rotation, gating, addition.

use crate::simd::{Kernel, Simd, exp};
use crate::tier::Tier;

/// The nonlinearity of a gated feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh form, `x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
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

/// `gate = activation(gate) * up`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn gate(tier: Tier, kind: Gate, gate: &[f32], up: &[f32], out: &mut [f32]) {
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
    kind: Gate,
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for GateKernel<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let whole = self.out.len() / 8 * 8;
        for at in (0..whole).step_by(8) {
            // SAFETY: `at + 8 <= whole`, and the three slices have one length.
            unsafe {
                let x = activate(s, self.kind, s.load(self.gate.as_ptr().add(at)));
                s.store(
                    self.out.as_mut_ptr().add(at),
                    s.mul(x, s.load(self.up.as_ptr().add(at))),
                );
            }
        }
        for at in whole..self.out.len() {
            let mut lane = [0.0; 8];
            // SAFETY: the array has 8 elements.
            unsafe {
                s.store(
                    lane.as_mut_ptr(),
                    activate(s, self.kind, s.splat(self.gate[at])),
                )
            };
            self.out[at] = lane[0] * self.up[at];
        }
    }
}

#[inline(always)]
fn activate<S: Simd>(s: S, kind: Gate, x: S::F) -> S::F {
    // Both are `x * sigmoid(y)`: y = x for SiLU, twice the argument of tanh for GELU.
    let minus_y = match kind {
        Gate::Silu => s.sub(s.splat(0.0), x),
        Gate::GeluTanh => {
            let inner = s.fma(s.mul(x, x), s.splat(0.044_715), s.splat(1.0));
            s.mul(s.mul(x, inner), s.splat(-1.595_769))
        }
    };
    s.div(x, s.add(s.splat(1.0), exp(s, minus_y)))
}

/// `x += y`.
pub fn add_assign(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
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
pub fn rope_in_place(row: &mut [f32], head_dim: usize, table: &[(f32, f32)], interleaved: bool) {
    let half = table.len();
    for head in row.chunks_exact_mut(head_dim) {
        if interleaved {
            for (pair, (cos, sin)) in head.chunks_exact_mut(2).zip(table) {
                (pair[0], pair[1]) = (pair[0] * cos - pair[1] * sin, pair[0] * sin + pair[1] * cos);
            }
        } else {
            let (first, second) = head.split_at_mut(half);
            for ((a, b), (cos, sin)) in first.iter_mut().zip(second).zip(table) {
                (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
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
            for kind in [Gate::Silu, Gate::GeluTanh] {
                let mut out = vec![0.0; x.len()];
                gate(tier, kind, &x, &up, &mut out);
                for (&x, &got) in x.iter().zip(&out) {
                    let x = f64::from(x);
                    let want = match kind {
                        Gate::Silu => x / (1.0 + (-x).exp()),
                        Gate::GeluTanh => {
                            0.5 * x
                                * (1.0
                                    + ((2.0 / std::f64::consts::PI).sqrt()
                                        * (x + 0.044715 * x.powi(3)))
                                    .tanh())
                        }
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
        rope_in_place(&mut interleaved, 5, &table, true);
        let mut halves = [1.0, 3.0, 2.0, 4.0, 9.0];
        rope_in_place(&mut halves, 5, &table, false);
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
