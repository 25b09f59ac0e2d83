//! Matrix products of packed weights with a batch of activations.
//!
//! A few tokens (decode): each panel is read once, unpacked block by block into registers and multiplied with up to
//! [`FEW`] tokens. Many (prefill): a stretch of a panel is unpacked once into the first-level cache and multiplied with a
//! register tile of tokens after the other. Types without a kernel are decoded to floats on the way ([`general`]).

mod float;
mod general;
mod quantized;

use crate::activations::Activations;
use crate::panels::*;
use crate::pool::Pool;
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;

/// Up to so many tokens a panel is multiplied straight from memory; four cost about as much as one there.
const FEW: usize = 4;
/// Tokens that pass over a panel before the next panel is unpacked: their codes stay in the second-level cache.
const TOKEN_BLOCK: usize = 128;

/// One product of a group that shares its input.
pub struct Matmul<'a> {
    /// The weights `[rows, cols]`.
    pub weights: &'a PackedMatrix,
    /// The output `[tokens, rows]`, overwritten.
    pub out: &'a mut [f32],
}

/// `out = activations x weights^T` for each product of the group, in one parallel region.
///
/// Quantized weights with a kernel of their own use the quantized rows of `input`, all others the `f32` ones
/// ([`PanelFormat::is_quantized`]).
///
/// # Panics
/// If sizes do not agree.
pub fn matmul(pool: &Pool, tier: Tier, input: &Activations, group: &mut [Matmul<'_>]) {
    let tokens = input.tokens();
    let mut jobs = [const { None }; 8];
    let mut panels = 0;
    assert!(
        group.len() <= jobs.len(),
        "at most {} products share an input",
        jobs.len()
    );
    for (job, product) in jobs.iter_mut().zip(group.iter_mut()) {
        let weights = product.weights;
        assert_eq!(weights.cols, input.cols(), "input features");
        assert!(
            product.out.len() >= tokens * weights.rows,
            "room for the output"
        );
        *job = Some(Job {
            weights,
            first_panel: panels,
            out: product.out.as_mut_ptr(),
        });
        panels += weights.panels();
    }
    let jobs = &jobs[..group.len()];
    let token_blocks = tokens.div_ceil(TOKEN_BLOCK);
    // About 16 hand-outs a thread: enough to even out a busy neighbour, few enough to keep streams long.
    let chunk = (panels / (pool.threads() * 16)).max(1);
    for block in 0..token_blocks {
        let first = block * TOKEN_BLOCK;
        let count = TOKEN_BLOCK.min(tokens - first);
        pool.for_each(panels.div_ceil(chunk), 1, |index| {
            for panel in index * chunk..panels.min((index + 1) * chunk) {
                let owner = jobs
                    .iter()
                    .flatten()
                    .rev()
                    .find(|job| job.first_panel <= panel);
                if let Some(job) = owner {
                    multiply(tier, job, panel - job.first_panel, input, first, count);
                }
            }
        });
    }
}

struct Job<'a> {
    weights: &'a PackedMatrix,
    first_panel: usize,
    out: *mut f32,
}
// SAFETY: each panel writes its own rows of the output only.
unsafe impl Sync for Job<'_> {}

/// One panel of a job times `count` tokens from `first` on.
fn multiply(
    tier: Tier,
    job: &Job<'_>,
    panel: usize,
    input: &Activations,
    first: usize,
    count: usize,
) {
    let weights = job.weights;
    // SAFETY: `matmul` checked that the output has `tokens * rows` elements.
    let p = unsafe { job.out.add(first * weights.rows + panel * ROWS) };
    let out = Out {
        p,
        stride: weights.rows,
        rows: ROWS.min(weights.rows - panel * ROWS),
        add: false,
    };
    let task = Task {
        panel: weights.panel(panel),
        input,
        first,
        count,
        out,
    };
    let quantized = weights.format.is_quantized();
    for (pass, rows) in input
        .passes()
        .take(if quantized { 2 } else { 1 })
        .enumerate()
    {
        let task = Task {
            first: rows + first,
            out: Out {
                add: pass > 0,
                ..task.out
            },
            ..task
        };
        multiply_pass(tier, weights.format, &task);
    }
}

fn multiply_pass(tier: Tier, format: PanelFormat, task: &Task<'_>) {
    match format {
        PanelFormat::F32 => float::multiply::<float::F32>(tier, task),
        PanelFormat::F16 => float::multiply::<float::F16>(tier, task),
        PanelFormat::BF16 => float::multiply::<float::BF16>(tier, task),
        PanelFormat::Q4_0 => quantized::multiply::<Q4_0>(tier, task),
        PanelFormat::Q4_1 => quantized::multiply::<Q4_1>(tier, task),
        PanelFormat::Q5_0 => quantized::multiply::<Q5_0>(tier, task),
        PanelFormat::Q5_1 => quantized::multiply::<Q5_1>(tier, task),
        PanelFormat::Q8_0 => quantized::multiply::<Q8_0>(tier, task),
        PanelFormat::IQ4_NL => quantized::multiply::<IQ4_NL>(tier, task),
        PanelFormat::Q2_K => quantized::multiply::<Q2_K>(tier, task),
        PanelFormat::Q3_K => quantized::multiply::<Q3_K>(tier, task),
        PanelFormat::Q4_K => quantized::multiply::<Q4_K>(tier, task),
        PanelFormat::Q5_K => quantized::multiply::<Q5_K>(tier, task),
        PanelFormat::Q6_K => quantized::multiply::<Q6_K>(tier, task),
        PanelFormat::IQ4_XS => quantized::multiply::<IQ4_XS>(tier, task),
        PanelFormat::Blocks(dtype) => general::multiply(tier, dtype, task),
    }
}

/// A panel, the tokens it is multiplied with, and where the results go.
#[derive(Clone, Copy)]
struct Task<'a> {
    panel: &'a [u8],
    input: &'a Activations,
    first: usize,
    count: usize,
    out: Out,
}

/// Where a panel's results go: token `t`, row `r` at `p + t * stride + r`.
#[derive(Clone, Copy)]
struct Out {
    p: *mut f32,
    stride: usize,
    rows: usize,
    /// Results are added to what is there.
    add: bool,
}

impl Out {
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, token: usize, value: S::F) {
        // SAFETY: `multiply` made `p`, `stride` and `rows` so that these are elements of the output.
        unsafe {
            let at = self.p.add(token * self.stride);
            if self.rows == ROWS {
                let value = if self.add {
                    s.add(s.load(at), value)
                } else {
                    value
                };
                s.store(at, value);
            } else {
                let mut row = [0.0; ROWS];
                s.store(row.as_mut_ptr(), value);
                if self.add {
                    for r in 0..self.rows {
                        row[r] += *at.add(r);
                    }
                }
                std::ptr::copy_nonoverlapping(row.as_ptr(), at, self.rows);
            }
        }
    }
}

/// Writes the sums of all tokens to the output.
struct Write<'a> {
    task: &'a Task<'a>,
    sums: &'a [[f32; ROWS]],
}

impl Kernel for Write<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (t, sum) in self.sums.iter().enumerate() {
            // SAFETY: a sum has 8 elements.
            self.task.out.write(s, t, unsafe { s.load(sum.as_ptr()) });
        }
    }
}
