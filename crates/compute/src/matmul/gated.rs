//! What a feed-forward part does to many tokens between its products, done while their results are in the cache.
//!
//! 32 rows of the gate and of its other factor make a block of the next product's input, so that nothing else is written. The
//! operations are those of [`matmul`](super::matmul), [`gate`](crate::gate) or [`activate_in_place`](crate::activate_in_place)
//! and [`Activations::fill`], and so are the results, to the last bit.

use super::{FEW, MOST_PANELS, Out, Sums, TOKEN_BLOCK, Task, by_unit, quantized};
use crate::activations::{Activations, CodedBlock, GROUP, quantize};
use crate::elementwise::{Nonlinearity, activate};
use crate::panels::*;
use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::ops::Range;

/// `activation(gate x) * (up x + bias)`, or without a gate `activation(up x + bias)`.
#[derive(Clone, Copy)]
pub struct Gated<'a> {
    /// Weights `[rows, cols]` of the gate.
    pub gate: Option<&'a PackedMatrix>,
    /// Weights `[rows, cols]` of the other factor.
    pub up: &'a PackedMatrix,
    /// One number a row, or none.
    pub bias: &'a [f32],
    /// The activation.
    pub kind: Nonlinearity,
}

impl Gated<'_> {
    /// Whether [`matmul_gated`] can compute this: more than a few tokens, quantized weights with a kernel of their own and
    /// activations in 8 bits, and whole blocks of outputs.
    pub fn fits(&self, input: &Activations, out: &Activations) -> bool {
        let quantized = |weights: &PackedMatrix| weights.format.is_quantized();
        input.tokens() > FEW
            && input.wide().is_none()
            && out.wide().is_none()
            && out.cols().is_multiple_of(BLOCK)
            && quantized(self.up)
            && self.gate.is_none_or(quantized)
    }
}

/// The rows of `input` through a [`Gated`], quantized, in one parallel region; `out` has no rows in `f32` then.
///
/// # Panics
/// If sizes do not agree, or [`Gated::fits`] says no.
pub fn matmul_gated(
    pool: &Pool,
    tier: Tier,
    input: &Activations,
    gated: Gated<'_>,
    out: &mut Activations,
) {
    assert!(gated.fits(input, out), "a product that can be gated");
    let Gated {
        gate,
        up,
        bias,
        kind,
    } = gated;
    for weights in [Some(up), gate].into_iter().flatten() {
        assert!(
            weights.cols == input.cols() && weights.rows == out.cols(),
            "features"
        );
    }
    assert!(bias.is_empty() || bias.len() == up.rows, "a bias a row");
    let (tokens, blocks) = (input.tokens(), out.blocks());
    let coded = SendPtr(out.coded_mut(tokens).as_mut_ptr());
    for first in (0..tokens).step_by(TOKEN_BLOCK) {
        let count = TOKEN_BLOCK.min(tokens - first);
        pool.for_each(blocks, 1, |block| {
            let (mut gates, mut ups) = (Sums::new(), Sums::new());
            let tokens = first..first + count;
            let gates =
                gate.map(|gate| sums_of(tier, gate, block, input, tokens.clone(), &mut gates));
            let ups = sums_of(tier, up, block, input, tokens, &mut ups);
            let mut row = [0.0; BLOCK];
            if !bias.is_empty() {
                row.copy_from_slice(&bias[block * BLOCK..][..BLOCK]);
            }
            tier.run(Gate {
                kind,
                gates,
                ups,
                bias: row,
                // SAFETY: `coded` has `blocks` blocks for every token.
                coded: unsafe { coded.get().add(first * blocks + block) },
                stride: blocks,
                count,
            });
        });
    }
}

/// The products of panels `MOST_PANELS * block` and on with some tokens, `[MOST_PANELS / side by side, tokens, side by side]`.
fn sums_of<'a>(
    tier: Tier,
    weights: &PackedMatrix,
    block: usize,
    input: &Activations,
    tokens: Range<usize>,
    sums: &'a mut Sums,
) -> &'a [[f32; ROWS]] {
    let side_by_side = tier.run(quantized::TilePanels);
    let sums = sums.zeros(MOST_PANELS * tokens.len());
    let parts = sums.chunks_exact_mut(side_by_side * tokens.len());
    for (part, sums) in parts.enumerate() {
        let first = MOST_PANELS * block + part * side_by_side;
        weights.with_panels(first..first + side_by_side, |panels| {
            let task = Task {
                panels,
                input,
                first: tokens.start,
                count: tokens.len(),
                out: Out::NOWHERE,
            };
            by_unit!(weights.format, U => quantized::add::<U>(tier, &task, sums),
                _ => unreachable!("`fits` looked"),
            );
        });
    }
    sums
}

/// The gates of 32 rows and all tokens, quantized.
struct Gate<'a> {
    kind: Nonlinearity,
    gates: Option<&'a [[f32; ROWS]]>,
    ups: &'a [[f32; ROWS]],
    bias: [f32; BLOCK],
    /// The block of the first token, and blocks from one token to the next.
    coded: *mut CodedBlock,
    stride: usize,
    count: usize,
}

impl Kernel for Gate<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const TOKENS: usize = GROUP / BLOCK;
        let mut row = [0.0; GROUP];
        for first in (0..self.count).step_by(TOKENS) {
            let count = TOKENS.min(self.count - first);
            for token in first..first + count {
                for pair in 0..2 {
                    let at = match S::TILE_PANELS {
                        MOST_PANELS => MOST_PANELS * token + 2 * pair,
                        _ => 2 * (self.count * pair + token),
                    };
                    // SAFETY: both have the sums of 4 panels for each token; `row` has 32 numbers for each, and so has the bias.
                    unsafe {
                        let bias = s.load_16(self.bias.as_ptr().add(16 * pair));
                        let up = s.add_16(s.load_16(self.ups.as_ptr().add(at).cast()), bias);
                        let x = match self.gates {
                            Some(gates) => {
                                let gate = s.load_16(gates.as_ptr().add(at).cast());
                                s.mul_16(activate(s, self.kind, gate), up)
                            }
                            None => activate(s, self.kind, up),
                        };
                        let to = row.as_mut_ptr().add(BLOCK * (token - first) + 16 * pair);
                        s.store_16(to, x);
                    }
                }
            }
            // SAFETY: each token has this block, and nobody else writes it.
            unsafe {
                let coded = self.coded.add(first * self.stride);
                quantize(s, &row, coded, self.stride, count);
            }
        }
    }
}
