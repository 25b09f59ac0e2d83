//! Two products of one input for many tokens, put together and quantized while they are in the cache: the gate of a feed-forward part.
//!
//! 32 rows of both make a block of the next product's input, so that nothing else is written. The operations are those of
//! [`matmul`](super::matmul), [`gate`](crate::gate) and [`Activations::fill`], and so are the results, to the last bit.

use super::{FEW, MOST_PANELS, Out, Sums, TOKEN_BLOCK, Task, by_unit, quantized};
use crate::activations::{Activations, CodedBlock, GROUP, quantize};
use crate::elementwise::{Nonlinearity, activate};
use crate::panels::*;
use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::ops::Range;

/// Whether [`matmul_gated`] can compute this: more than a few tokens, quantized weights with a kernel of their own and activations in
/// 8 bits, and whole blocks of outputs.
pub fn can_gate(input: &Activations, weights: [&PackedMatrix; 2], out: &Activations) -> bool {
    let narrow = |rows: &Activations| rows.wide.is_none();
    input.tokens() > FEW
        && narrow(input)
        && narrow(out)
        && out.cols().is_multiple_of(BLOCK)
        && weights.iter().all(|weights| weights.format.is_quantized())
}

/// `out = activation(input x gate^T) * (input x up^T)`, quantized, in one parallel region; `out` has no rows in `f32` then.
///
/// # Panics
/// If sizes do not agree, or [`can_gate`] says no.
pub fn matmul_gated(
    pool: &Pool,
    tier: Tier,
    input: &Activations,
    [gate, up]: [&PackedMatrix; 2],
    kind: Nonlinearity,
    out: &mut Activations,
) {
    assert!(
        can_gate(input, [gate, up], out),
        "a product that can be gated"
    );
    for weights in [gate, up] {
        assert!(
            weights.cols == input.cols() && weights.rows == out.cols(),
            "features"
        );
    }
    let (tokens, blocks) = (input.tokens(), out.blocks());
    let coded = SendPtr(out.coded_mut(tokens).as_mut_ptr());
    for first in (0..tokens).step_by(TOKEN_BLOCK) {
        let count = TOKEN_BLOCK.min(tokens - first);
        pool.for_each(blocks, 1, |block| {
            let (mut gates, mut ups) = (Sums::new(), Sums::new());
            let gates = sums_of(tier, gate, block, input, first..first + count, &mut gates);
            let ups = sums_of(tier, up, block, input, first..first + count, &mut ups);
            tier.run(Gate {
                kind,
                gates,
                ups,
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
                _ => unreachable!("`can_gate` looked"),
            );
        });
    }
    sums
}

/// `activation(gate) * up` of 32 rows and all tokens, quantized.
struct Gate<'a> {
    kind: Nonlinearity,
    gates: &'a [[f32; ROWS]],
    ups: &'a [[f32; ROWS]],
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
        let (gates, ups) = (self.gates.as_ptr(), self.ups.as_ptr());
        let mut row = [0.0; GROUP];
        for first in (0..self.count).step_by(TOKENS) {
            let tokens = first..self.count.min(first + TOKENS);
            for token in tokens.clone() {
                for pair in 0..2 {
                    let at = match S::TILE_PANELS {
                        MOST_PANELS => MOST_PANELS * token + 2 * pair,
                        _ => 2 * (self.count * pair + token),
                    };
                    // SAFETY: both have the sums of 4 panels for each token; `row` has 32 numbers for each.
                    unsafe {
                        let gate = activate(s, self.kind, s.load_16(gates.add(at).cast()));
                        let x = s.mul_16(gate, s.load_16(ups.add(at).cast()));
                        let to = row.as_mut_ptr().add(BLOCK * (token - first) + 16 * pair);
                        s.store_16(to, x);
                    }
                }
            }
            // SAFETY: each token has this block, and nobody else writes it.
            let coded = tokens.map(|token| unsafe { &mut *self.coded.add(token * self.stride) });
            quantize(s, &row, coded);
        }
    }
}
