//! Products with a matrix of few columns, added to what is there: the second half of a low-rank change of weights
//! (Hu et al. 2021, arXiv:2106.09685). The first half is a [`matmul_rows`](super::matmul_rows).

use super::Out;
use super::float::{BF16, F16, F32, Plain};
use crate::panels::*;
use crate::pool::Pool;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::ops::Range;

/// Products that share their input: queries, keys, values and a gate.
pub const LOW_RANK_PRODUCTS: usize = 4;

/// Tokens in a register tile.
const TILE: usize = 4;

/// One product of a group: `out += scale * (input x weights^T)`.
pub struct LowRank<'a> {
    /// The weights `[rows, rank]`, plain floats.
    pub weights: &'a PackedMatrix,
    /// The first of the columns of the input that it reads.
    pub first: usize,
    /// Factor on what is added.
    pub scale: f32,
    /// `[tokens, rows]`, added to.
    pub out: &'a mut [f32],
}

/// Adds to the outputs of the group, in one parallel region. `input` is `[tokens, width]`. A token gets the same bits alone and
/// among others.
///
/// # Panics
/// If sizes do not agree, or weights are no plain floats.
pub fn add_low_rank(
    pool: &Pool,
    tier: Tier,
    tokens: usize,
    input: &[f32],
    group: &mut [Option<LowRank<'_>>; LOW_RANK_PRODUCTS],
) {
    if tokens == 0 {
        return;
    }
    assert!(input.len().is_multiple_of(tokens), "whole rows");
    let width = input.len() / tokens;
    let mut jobs = [const { None }; LOW_RANK_PRODUCTS];
    let mut panels = 0;
    for (job, product) in jobs.iter_mut().zip(group.iter_mut()) {
        let Some(product) = product else { continue };
        let weights = product.weights;
        assert!(
            matches!(
                weights.format,
                PanelFormat::F32 | PanelFormat::F16 | PanelFormat::BF16
            ),
            "plain floats"
        );
        assert!(
            product.first + weights.cols <= width,
            "columns of the input"
        );
        assert!(
            product.out.len() >= tokens * weights.rows,
            "room for the output"
        );
        *job = Some(Job {
            weights,
            first_panel: panels,
            input: &input[product.first..],
            width,
            scale: product.scale,
            tokens,
            out: product.out.as_mut_ptr(),
        });
        panels += weights.panels();
    }
    let chunk = panels.div_ceil(pool.threads() * 4).max(1);
    pool.for_each_chunk(panels, chunk, |panels| {
        for job in jobs.iter().flatten() {
            let end = job.first_panel + job.weights.panels();
            let (from, to) = (panels.start.max(job.first_panel), panels.end.min(end));
            if from < to {
                add(tier, job, from - job.first_panel..to - job.first_panel);
            }
        }
    });
}

struct Job<'a> {
    weights: &'a PackedMatrix,
    first_panel: usize,
    input: &'a [f32],
    width: usize,
    scale: f32,
    tokens: usize,
    out: *mut f32,
}
// SAFETY: each panel writes its own rows of the output only.
unsafe impl Sync for Job<'_> {}

fn add(tier: Tier, job: &Job<'_>, panels: Range<usize>) {
    let (rows, first_row) = (job.weights.rows, panels.start * ROWS);
    let out = Out {
        // SAFETY: `add_low_rank` checked that the output has `tokens * rows` elements.
        p: unsafe { job.out.add(first_row) },
        stride: rows,
        rows: rows.min(panels.end * ROWS) - first_row,
    };
    job.weights.with_panels(panels, |panels| {
        match job.weights.format {
            PanelFormat::F32 => tier.run(Add::<F32>::new(job, panels, out)),
            PanelFormat::F16 => tier.run(Add::<F16>::new(job, panels, out)),
            PanelFormat::BF16 => tier.run(Add::<BF16>::new(job, panels, out)),
            _ => unreachable!("`add_low_rank` looked"),
        };
    });
}

struct Add<'a, P> {
    job: &'a Job<'a>,
    panels: &'a [u8],
    out: Out,
    plain: PhantomData<P>,
}

impl<'a, P: Plain> Add<'a, P> {
    fn new(job: &'a Job<'a>, panels: &'a [u8], out: Out) -> Self {
        Add {
            job,
            panels,
            out,
            plain: PhantomData,
        }
    }
}

impl<P: Plain> Kernel for Add<'_, P> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let panel_bytes = self.job.weights.cols * P::BYTES * ROWS;
        for (index, panel) in self.panels.chunks_exact(panel_bytes).enumerate() {
            let mut at = 0;
            while at + TILE <= self.job.tokens {
                self.tile::<S, TILE>(s, index, panel, at);
                at += TILE;
            }
            while at < self.job.tokens {
                self.tile::<S, 1>(s, index, panel, at);
                at += 1;
            }
        }
    }
}

impl<P: Plain> Add<'_, P> {
    /// A panel times `T` tokens from `at` on. Each sum is a single chain, so that its bits do not depend on `T`.
    #[inline(always)]
    fn tile<S: Simd, const T: usize>(&self, s: S, index: usize, panel: &[u8], at: usize) {
        let job = self.job;
        let rank = job.weights.cols;
        let mut tokens = [job.input.as_ptr(); T];
        for t in 0..T {
            tokens[t] = job.input[(at + t) * job.width..][..rank].as_ptr();
        }
        let mut sums = [s.splat(0.0); T];
        for k in 0..rank {
            // SAFETY: a panel has `rank` columns of 8 elements, and each token as many.
            unsafe {
                let w = P::load(s, panel.as_ptr().add(k * P::BYTES * ROWS));
                for t in 0..T {
                    sums[t] = s.fma(w, s.splat(*tokens[t].add(k)), sums[t]);
                }
            }
        }
        let scale = s.splat(job.scale);
        for t in 0..T {
            let before = self.out.read(s, at + t, index);
            let after = s.fma(scale, sums[t], before);
            self.out.write(s, at + t, index, after);
        }
    }
}
