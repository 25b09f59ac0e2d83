//! Token mixers with a state of fixed size: the short causal convolution and the gated delta rule.
//!
//! Both walk a sequence's tokens in order and carry a state from step to step. Their channels (or columns of the state) do
//! not see each other, so that is where the threads split the work.

use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd, exp};
use crate::tier::Tier;

/// The longest convolution: positions that an output sees, its own included.
pub const CONV_TAPS_MAX: usize = 8;
/// Columns of a state that are walked together: four vectors.
const COLUMNS: usize = 32;

/// A causal convolution over the tokens of one sequence, each channel with weights of its own, in place.
pub struct Conv<'a> {
    /// `[taps, channels]`; the last tap is for the token itself.
    pub weight: &'a [f32],
    /// Channels of a row.
    pub channels: usize,
    /// `[tokens, stride]`: the first `channels` of a row are read and overwritten.
    pub rows: &'a mut [f32],
    /// Elements from one row to the next, at least `channels`.
    pub stride: usize,
    /// `[taps - 1, channels]`: the inputs before the first token, oldest first; the last inputs afterwards.
    pub state: &'a mut [f32],
    /// Whether the result goes through SiLU.
    pub silu: bool,
}

/// Runs a convolution, spread over the pool by channels.
///
/// # Panics
/// If sizes do not agree, or there are no taps or more than [`CONV_TAPS_MAX`].
pub fn convolve(pool: &Pool, tier: Tier, job: Conv<'_>) {
    let Conv {
        weight,
        channels,
        rows,
        stride,
        state,
        silu,
    } = job;
    let taps = weight.len() / channels.max(1);
    assert!(
        (1..=CONV_TAPS_MAX).contains(&taps) && weight.len() == taps * channels,
        "one to {CONV_TAPS_MAX} taps"
    );
    assert!(
        stride >= channels && rows.len().is_multiple_of(stride),
        "whole rows"
    );
    assert!(state.len() == (taps - 1) * channels, "size of the state");
    let tokens = rows.len() / stride;
    let (rows, state) = (SendPtr(rows.as_mut_ptr()), SendPtr(state.as_mut_ptr()));
    pool.for_each(channels.div_ceil(8), 16, |item| {
        tier.run(ConvColumns {
            weight,
            channels,
            taps,
            tokens,
            stride,
            rows: rows.get(),
            state: state.get(),
            silu,
            first: item * 8,
        });
    });
}

struct ConvColumns<'a> {
    weight: &'a [f32],
    channels: usize,
    taps: usize,
    tokens: usize,
    stride: usize,
    rows: *mut f32,
    state: *mut f32,
    silu: bool,
    first: usize,
}

impl Kernel for ConvColumns<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = (self.channels - self.first).min(8);
        let past = self.taps - 1;
        let mut history = [s.splat(0.0); CONV_TAPS_MAX];
        let mut weights = [s.splat(0.0); CONV_TAPS_MAX];
        // SAFETY: `convolve` checked the sizes; columns `first..first + width` belong to this item alone.
        unsafe {
            for tap in 0..self.taps {
                let weight = self.weight.as_ptr().add(tap * self.channels + self.first);
                weights[tap] = load_some(s, weight, width);
            }
            for i in 0..past {
                history[i] = load_some(s, self.state.add(i * self.channels + self.first), width);
            }
            for token in 0..self.tokens {
                let at = self.rows.add(token * self.stride + self.first);
                let x = load_some(s, at, width);
                let mut y = s.mul(weights[past], x);
                for i in 0..past {
                    y = s.fma(weights[i], history[i], y);
                }
                for i in 1..past {
                    history[i - 1] = history[i];
                }
                if past > 0 {
                    history[past - 1] = x;
                }
                if self.silu {
                    let minus = s.sub(s.splat(0.0), y);
                    let [e, _] = s.halves(exp(s, s.join([minus; 2])));
                    y = s.div(y, s.add(s.splat(1.0), e));
                }
                store_some(s, at, y, width);
            }
            for i in 0..past {
                let at = self.state.add(i * self.channels + self.first);
                store_some(s, at, history[i], width);
            }
        }
    }
}

/// Reads up to 8 elements, the others are 0.
///
/// # Safety
/// `p` has `width` elements, at most 8.
#[inline(always)]
unsafe fn load_some<S: Simd>(s: S, p: *const f32, width: usize) -> S::F {
    // SAFETY: the caller's promise; the array has 8 elements.
    unsafe {
        if width == 8 {
            return s.load(p);
        }
        let mut lane = [0.0f32; 8];
        std::ptr::copy_nonoverlapping(p, lane.as_mut_ptr(), width);
        s.load(lane.as_ptr())
    }
}

/// Writes the first `width` of 8 elements.
///
/// # Safety
/// As [`load_some`].
#[inline(always)]
unsafe fn store_some<S: Simd>(s: S, p: *mut f32, x: S::F, width: usize) {
    // SAFETY: the caller's promise; the array has 8 elements.
    unsafe {
        if width == 8 {
            return s.store(p, x);
        }
        let mut lane = [0.0f32; 8];
        s.store(lane.as_mut_ptr(), x);
        std::ptr::copy_nonoverlapping(lane.as_ptr(), p, width);
    }
}

/// The gated delta rule over the tokens of one sequence (Yang et al. 2024, arXiv:2412.06464).
///
/// For each value head, with its state `S` (`[dim_k, dim_v]`) and key head `value head % key_heads`:
///
/// ```text
/// S = decay * S
/// S = S + k (beta * (v - k^T S))^T
/// out = q^T S
/// ```
pub struct DeltaNet<'a> {
    /// Heads of queries and keys.
    pub key_heads: usize,
    /// Heads of values, a multiple of `key_heads`.
    pub value_heads: usize,
    /// Length of a query and a key.
    pub dim_k: usize,
    /// Length of a value.
    pub dim_v: usize,
    /// `[tokens, key_heads * dim_k | key_heads * dim_k | value_heads * dim_v]`: queries (scaled), keys, values.
    pub mixed: &'a [f32],
    /// `[tokens, value_heads]`
    pub decay: &'a [f32],
    /// `[tokens, value_heads]`
    pub beta: &'a [f32],
    /// `[value_heads, dim_k * dim_v]`, updated. A head is stored by 32 columns, each part `[dim_k, columns]`.
    pub state: &'a mut [f32],
    /// `[tokens, value_heads * dim_v]`, overwritten.
    pub out: &'a mut [f32],
}

/// Runs the delta rule, spread over the pool by heads and columns of the state.
///
/// # Panics
/// If sizes do not agree.
pub fn delta_net(pool: &Pool, tier: Tier, job: DeltaNet<'_>) {
    let value_len = job.value_heads * job.dim_v;
    let mixed_len = 2 * job.key_heads * job.dim_k + value_len;
    let tokens = job.mixed.len() / mixed_len.max(1);
    assert!(
        job.key_heads > 0 && job.value_heads.is_multiple_of(job.key_heads),
        "value heads share key heads"
    );
    assert!(
        job.mixed.len() == tokens * mixed_len
            && job.decay.len() == tokens * job.value_heads
            && job.beta.len() == tokens * job.value_heads
            && job.state.len() == value_len * job.dim_k
            && job.out.len() == tokens * value_len,
        "sizes of the delta rule"
    );
    let parts = job.dim_v.div_ceil(COLUMNS);
    let (state, out) = (
        SendPtr(job.state.as_mut_ptr()),
        SendPtr(job.out.as_mut_ptr()),
    );
    pool.for_each(job.value_heads * parts, 1, |item| {
        let (head, part) = (item / parts, item % parts);
        let first = part * COLUMNS;
        let columns = COLUMNS.min(job.dim_v - first);
        let key_head = head % job.key_heads;
        // SAFETY: the offsets lie inside the slices, whose sizes were checked; each item has columns of its own.
        let (state, out) = unsafe {
            (
                state
                    .get()
                    .add(head * job.dim_k * job.dim_v + first * job.dim_k),
                out.get().add(head * job.dim_v + first),
            )
        };
        let walk = Walk {
            mixed: job.mixed,
            mixed_len,
            q_at: key_head * job.dim_k,
            k_at: (job.key_heads + key_head) * job.dim_k,
            v_at: 2 * job.key_heads * job.dim_k + head * job.dim_v + first,
            dim_k: job.dim_k,
            gates: (&job.decay[head..], &job.beta[head..]),
            gates_len: job.value_heads,
            tokens,
            stride: columns,
            state,
            out,
            out_len: value_len,
        };
        if columns == COLUMNS {
            return tier.run(WalkPart::<4>(&walk, 0, 8));
        }
        for at in (0..columns).step_by(8) {
            tier.run(WalkPart::<1>(&walk, at, (columns - at).min(8)));
        }
    });
}

/// Some columns of one head's state, and what they meet on their way through the tokens.
struct Walk<'a> {
    mixed: &'a [f32],
    mixed_len: usize,
    q_at: usize,
    k_at: usize,
    v_at: usize,
    dim_k: usize,
    gates: (&'a [f32], &'a [f32]),
    gates_len: usize,
    tokens: usize,
    /// Elements from one row of the state to the next.
    stride: usize,
    state: *mut f32,
    out: *mut f32,
    out_len: usize,
}

/// `N` vectors of columns from a column on, of which each holds as many as the last field says.
struct WalkPart<'a, const N: usize>(&'a Walk<'a>, usize, usize);

impl<const N: usize> Kernel for WalkPart<'_, N> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let WalkPart(walk, at, width) = self;
        for token in 0..walk.tokens {
            let row = &walk.mixed[token * walk.mixed_len..][..walk.mixed_len];
            let q = &row[walk.q_at..][..walk.dim_k];
            let k = &row[walk.k_at..][..walk.dim_k];
            let decay = s.splat(walk.gates.0[token * walk.gates_len]);
            let beta = s.splat(walk.gates.1[token * walk.gates_len]);
            // SAFETY: `delta_net` checked the sizes; a row of the state has `stride` columns, of which this part owns
            // `N` times `width` from `at` on.
            unsafe {
                let mut known = [s.splat(0.0); N];
                for (i, k) in k.iter().enumerate() {
                    let k = s.splat(*k);
                    let state = walk.state.add(i * walk.stride + at);
                    for n in 0..N {
                        known[n] = s.fma(k, load_some(s, state.add(8 * n), width), known[n]);
                    }
                }
                let mut delta = [s.splat(0.0); N];
                for n in 0..N {
                    let v = load_some(s, row.as_ptr().add(walk.v_at + at + 8 * n), width);
                    delta[n] = s.mul(beta, s.sub(v, s.mul(decay, known[n])));
                }
                let mut out = [s.splat(0.0); N];
                for (i, (q, k)) in q.iter().zip(k).enumerate() {
                    let (q, k) = (s.splat(*q), s.splat(*k));
                    let state = walk.state.add(i * walk.stride + at);
                    for n in 0..N {
                        let old = load_some(s, state.add(8 * n), width);
                        let new = s.fma(k, delta[n], s.mul(decay, old));
                        store_some(s, state.add(8 * n), new, width);
                        out[n] = s.fma(q, new, out[n]);
                    }
                }
                for n in 0..N {
                    let to = walk.out.add(token * walk.out_len + at + 8 * n);
                    store_some(s, to, out[n], width);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|i| (i as f32 * step).sin()).collect()
    }

    #[test]
    fn convolution_is_its_definition_however_the_tokens_are_cut() {
        let (channels, taps, tokens, stride) = (19, 4, 11, 23);
        let weight = wave(taps * channels, 0.37);
        let input = wave(tokens * stride, 0.11);
        let mut want = input.clone();
        for t in 0..tokens {
            for c in 0..channels {
                let y: f64 = (0..taps)
                    .filter(|tap| t + tap + 1 >= taps)
                    .map(|tap| {
                        let x = input[(t + tap + 1 - taps) * stride + c];
                        f64::from(x) * f64::from(weight[tap * channels + c])
                    })
                    .sum();
                want[t * stride + c] = (y / (1.0 + (-y).exp())) as f32;
            }
        }
        let pool = Pool::new(2).unwrap();
        for tier in Tier::available() {
            for cut in [tokens, 3, 1] {
                let mut got = input.clone();
                let mut state = vec![0.0; (taps - 1) * channels];
                for rows in got.chunks_mut(cut * stride) {
                    let job = Conv {
                        weight: &weight,
                        channels,
                        rows,
                        stride,
                        state: &mut state,
                        silu: true,
                    };
                    convolve(&pool, tier, job);
                }
                for (got, want) in got.iter().zip(&want) {
                    assert!((got - want).abs() < 1e-6, "{got} {want} {}", tier.name());
                }
            }
        }
    }

    #[test]
    fn delta_rule_is_its_definition_however_the_tokens_are_cut() {
        let pool = Pool::new(2).unwrap();
        for (key_heads, value_heads, dim_k, dim_v) in [(2, 4, 16, 16), (1, 3, 5, 77), (2, 2, 8, 64)]
        {
            let tokens = 9;
            let value_len = value_heads * dim_v;
            let mixed_len = 2 * key_heads * dim_k + value_len;
            let mixed: Vec<f32> = wave(tokens * mixed_len, 0.7)
                .iter()
                .map(|x| x * 0.4)
                .collect();
            let decay: Vec<f32> = wave(tokens * value_heads, 0.3)
                .iter()
                .map(|x| x.abs())
                .collect();
            let beta: Vec<f32> = wave(tokens * value_heads, 0.9)
                .iter()
                .map(|x| x.abs())
                .collect();
            let mut want = vec![0.0f64; tokens * value_len];
            for head in 0..value_heads {
                let mut state = vec![vec![0.0f64; dim_v]; dim_k];
                let key_head = head % key_heads;
                for t in 0..tokens {
                    let row: Vec<f64> = mixed[t * mixed_len..][..mixed_len]
                        .iter()
                        .map(|x| f64::from(*x))
                        .collect();
                    let q = &row[key_head * dim_k..][..dim_k];
                    let k = &row[(key_heads + key_head) * dim_k..][..dim_k];
                    let v = &row[2 * key_heads * dim_k + head * dim_v..][..dim_v];
                    let (decay, beta) = (
                        f64::from(decay[t * value_heads + head]),
                        f64::from(beta[t * value_heads + head]),
                    );
                    state.iter_mut().flatten().for_each(|x| *x *= decay);
                    for j in 0..dim_v {
                        let known: f64 = (0..dim_k).map(|i| k[i] * state[i][j]).sum();
                        let delta = beta * (v[j] - known);
                        for i in 0..dim_k {
                            state[i][j] += k[i] * delta;
                        }
                        want[t * value_len + head * dim_v + j] =
                            (0..dim_k).map(|i| q[i] * state[i][j]).sum();
                    }
                }
            }
            for tier in Tier::available() {
                for cut in [tokens, 4, 1] {
                    let mut state = vec![0.0; value_len * dim_k];
                    let mut out = vec![0.0; tokens * value_len];
                    for from in (0..tokens).step_by(cut) {
                        let to = (from + cut).min(tokens);
                        let job = DeltaNet {
                            key_heads,
                            value_heads,
                            dim_k,
                            dim_v,
                            mixed: &mixed[from * mixed_len..to * mixed_len],
                            decay: &decay[from * value_heads..to * value_heads],
                            beta: &beta[from * value_heads..to * value_heads],
                            state: &mut state,
                            out: &mut out[from * value_len..to * value_len],
                        };
                        delta_net(&pool, tier, job);
                    }
                    for (got, want) in out.iter().zip(&want) {
                        assert!(
                            (f64::from(*got) - want).abs() < 1e-5,
                            "{got} {want} on {}",
                            tier.name()
                        );
                    }
                }
            }
        }
    }
}
