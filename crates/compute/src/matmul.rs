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
    let mut pairs = 0;
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
            first_pair: pairs,
            out: product.out.as_mut_ptr(),
        });
        pairs += weights.panels().div_ceil(2);
    }
    let jobs = &jobs[..group.len()];
    let token_blocks = tokens.div_ceil(TOKEN_BLOCK);
    for block in 0..token_blocks {
        let first = block * TOKEN_BLOCK;
        let count = TOKEN_BLOCK.min(tokens - first);
        pool.for_each(pairs, 1, |pair| {
            let owner = jobs
                .iter()
                .flatten()
                .rev()
                .find(|job| job.first_pair <= pair);
            if let Some(job) = owner {
                multiply(tier, job, pair - job.first_pair, input, first, count);
            }
        });
    }
}

struct Job<'a> {
    weights: &'a PackedMatrix,
    first_pair: usize,
    out: *mut f32,
}
// SAFETY: each panel writes its own rows of the output only.
unsafe impl Sync for Job<'_> {}

/// A pair of neighbouring panels of a job, or the last one alone, times `count` tokens from `first` on.
fn multiply(
    tier: Tier,
    job: &Job<'_>,
    pair: usize,
    input: &Activations,
    first: usize,
    count: usize,
) {
    let weights = job.weights;
    let task = |panel: usize| Task {
        panel: weights.panel(panel),
        input,
        first,
        count,
        out: Out {
            // SAFETY: `matmul` checked that the output has `tokens * rows` elements.
            p: unsafe { job.out.add(first * weights.rows + panel * ROWS) },
            stride: weights.rows,
            rows: ROWS.min(weights.rows - panel * ROWS),
            add: false,
        },
    };
    let mut tasks = [task(2 * pair); 2];
    let tasks = match 2 * pair + 1 < weights.panels() {
        true => {
            tasks[1] = task(2 * pair + 1);
            &mut tasks[..]
        }
        false => &mut tasks[..1],
    };
    let passes = if weights.format.is_quantized() { 2 } else { 1 };
    for (pass, rows) in input.passes().take(passes).enumerate() {
        for task in tasks.iter_mut() {
            task.first = rows + first;
            task.out.add = pass > 0;
        }
        multiply_pass(tier, weights.format, tasks);
    }
}

fn multiply_pass(tier: Tier, format: PanelFormat, tasks: &[Task<'_>]) {
    let each = |multiply: fn(Tier, &Task<'_>)| tasks.iter().for_each(|task| multiply(tier, task));
    match format {
        PanelFormat::F32 => each(float::multiply::<float::F32>),
        PanelFormat::F16 => each(float::multiply::<float::F16>),
        PanelFormat::BF16 => each(float::multiply::<float::BF16>),
        PanelFormat::Q4_0 => quantized::multiply::<Q4_0>(tier, tasks),
        PanelFormat::Q4_1 => quantized::multiply::<Q4_1>(tier, tasks),
        PanelFormat::Q5_0 => quantized::multiply::<Q5_0>(tier, tasks),
        PanelFormat::Q5_1 => quantized::multiply::<Q5_1>(tier, tasks),
        PanelFormat::Q8_0 => quantized::multiply::<Q8_0>(tier, tasks),
        PanelFormat::IQ4_NL => quantized::multiply::<IQ4_NL>(tier, tasks),
        PanelFormat::Q2_K => quantized::multiply::<Q2_K>(tier, tasks),
        PanelFormat::Q3_K => quantized::multiply::<Q3_K>(tier, tasks),
        PanelFormat::Q4_K => quantized::multiply::<Q4_K>(tier, tasks),
        PanelFormat::Q5_K => quantized::multiply::<Q5_K>(tier, tasks),
        PanelFormat::Q6_K => quantized::multiply::<Q6_K>(tier, tasks),
        PanelFormat::IQ4_XS => quantized::multiply::<IQ4_XS>(tier, tasks),
        PanelFormat::Blocks(dtype) => {
            tasks
                .iter()
                .for_each(|task| general::multiply(tier, dtype, task));
        }
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

/// Writes the sums of one or two panels to the output.
struct Write<'a> {
    tasks: &'a [Task<'a>],
    sums: &'a [[[f32; ROWS]; 2]],
}

impl Kernel for Write<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (t, sums) in self.sums.iter().enumerate() {
            for (task, sum) in self.tasks.iter().zip(sums) {
                // SAFETY: a sum has 8 elements.
                task.out.write(s, t, unsafe { s.load(sum.as_ptr()) });
            }
        }
    }
}
