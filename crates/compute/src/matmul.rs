//! Matrix products of packed weights with a batch of activations.
//!
//! A few tokens (decode): each panel is read once, unpacked block by block into registers and multiplied with up to
//! [`FEW`] tokens. Many (prefill): a stretch of a panel is unpacked once into the first-level cache and multiplied with a
//! register tile of tokens after the other; plain floats ([`float`]) and tokens in 16 bits ([`wide`]) have tiles of their own.
//! Types without a kernel are decoded to floats on the way ([`general`]).

mod float;
mod gated;
mod general;
mod low_rank;
mod quantized;
mod wide;

pub use gated::{Gated, matmul_gated};
pub use low_rank::{LOW_RANK_PRODUCTS, LowRank, add_low_rank};

use crate::activations::Activations;
use crate::panels::*;
use crate::pool::Pool;
use crate::simd::{Kernel, Simd, Vector};
use crate::tier::Tier;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Up to so many tokens a panel is multiplied straight from memory; four cost about as much as one there.
const FEW: usize = 8;
/// Tokens that pass over a panel before the next panel is unpacked: their codes stay in the second-level cache.
const TOKEN_BLOCK: usize = 256;

/// Panels in a register tile at most, and those that are handed out together.
const MOST_PANELS: usize = 4;

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
    matmul_rows(pool, tier, input, 0..input.tokens(), group);
}

/// As [`matmul`], of some rows of the input only; the outputs have as many.
///
/// # Panics
/// If sizes do not agree.
pub fn matmul_rows(
    pool: &Pool,
    tier: Tier,
    input: &Activations,
    rows: Range<usize>,
    group: &mut [Matmul<'_>],
) {
    assert!(rows.end <= input.tokens(), "rows of the input");
    let tokens = rows.len();
    let mut jobs = [const { None }; 8];
    let mut groups = 0;
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
            first_group: groups,
            out: product.out.as_mut_ptr(),
        });
        groups += weights.panels().div_ceil(MOST_PANELS);
    }
    let jobs = &jobs[..group.len()];
    for first in (0..tokens).step_by(TOKEN_BLOCK) {
        let count = TOKEN_BLOCK.min(tokens - first);
        // Few tokens: enough hand-outs to even out a busy neighbour, few enough that they cost nothing. Many: a group takes long.
        let hand_outs = match count {
            0..=FEW => 8,
            9..=32 => 16,
            _ => usize::MAX / pool.threads(),
        };
        let chunk = groups.div_ceil(pool.threads() * hand_outs);
        pool.for_each_chunk(groups, chunk, |groups| {
            for job in jobs.iter().flatten() {
                let end = job.first_group + job.weights.panels().div_ceil(MOST_PANELS);
                let (from, to) = (groups.start.max(job.first_group), groups.end.min(end));
                if from < to {
                    let groups = from - job.first_group..to - job.first_group;
                    multiply(tier, job, groups, input, rows.start, first, count);
                }
            }
        });
    }
}

struct Job<'a> {
    weights: &'a PackedMatrix,
    /// Of [`MOST_PANELS`] neighbouring panels.
    first_group: usize,
    out: *mut f32,
}
// SAFETY: each panel writes its own rows of the output only.
unsafe impl Sync for Job<'_> {}

/// Groups of neighbouring panels of a job times `count` tokens from `first` on, counted from row `start` of the input.
fn multiply(
    tier: Tier,
    job: &Job<'_>,
    groups: Range<usize>,
    input: &Activations,
    start: usize,
    first: usize,
    count: usize,
) {
    let weights = job.weights;
    let quantized = weights.format.is_quantized();
    let panels = MOST_PANELS * groups.start..(MOST_PANELS * groups.end).min(weights.panels());
    let task = |panels: &Range<usize>| Task {
        panels: &[],
        input,
        first: start + first,
        count,
        out: Out {
            // SAFETY: `matmul_rows` checked that the output has `tokens * rows` elements.
            p: unsafe { job.out.add(first * weights.rows + panels.start * ROWS) },
            stride: weights.rows,
            rows: weights.rows.min(panels.end * ROWS) - panels.start * ROWS,
        },
    };
    // Few tokens take all panels in one go, many those of a tile, and what is decoded on the way a panel at a time.
    let few = match quantized {
        true => input.wide().is_none() && count <= FEW,
        false => count == 1,
    };
    let step = match weights.format {
        PanelFormat::Blocks(_) => 1,
        _ if few => panels.len(),
        _ if quantized && input.wide().is_none() => tier.run(quantized::TilePanels),
        _ => 2,
    };
    let step = step.min(weights.panels_at_once());
    for start in panels.clone().step_by(step) {
        let panels = start..panels.end.min(start + step);
        weights.with_panels(panels.clone(), |bytes| {
            let task = Task {
                panels: bytes,
                ..task(&panels)
            };
            multiply_task(tier, weights.format, &task);
        });
    }
}

/// Calls with the unit of a quantized format as a type, or else does what is said for the other formats.
macro_rules! by_unit {
    ($format:expr, $unit:ident => $call:expr, $($others:tt)+) => {
        by_unit!(@ $format, $unit => $call, { $($others)+ },
            Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_XS)
    };
    (@ $format:expr, $unit:ident => $call:expr, { $($others:tt)+ }, $($name:ident)+) => {
        match $format {
            $(PanelFormat::$name => {
                type $unit = $name;
                $call
            })+
            $($others)+
        }
    };
}

use by_unit;

fn multiply_task(tier: Tier, format: PanelFormat, task: &Task<'_>) {
    by_unit!(format, U => multiply_unit::<U>(tier, task),
        PanelFormat::F32 => float::multiply::<float::F32>(tier, task),
        PanelFormat::F16 => float::multiply::<float::F16>(tier, task),
        PanelFormat::BF16 => float::multiply::<float::BF16>(tier, task),
        PanelFormat::Blocks(dtype) => general::multiply(tier, dtype, task),
    );
}

fn multiply_unit<U: Unit>(tier: Tier, task: &Task<'_>) {
    match task.input.wide() {
        Some(rows) => wide::multiply::<U>(tier, task, rows),
        None => quantized::multiply::<U>(tier, task),
    }
}

/// Neighbouring panels, the tokens they are multiplied with, and where the results go.
#[derive(Clone, Copy)]
struct Task<'a> {
    panels: &'a [u8],
    input: &'a Activations,
    first: usize,
    count: usize,
    out: Out,
}

impl Task<'_> {
    /// The first panels of so many bytes each, and the others.
    fn split(&self, panels: usize, bytes: usize) -> (Self, Self) {
        let (first, second) = self.panels.split_at(panels * bytes);
        let rows = self.out.rows.min(panels * ROWS);
        let with = |panels, from, rows| Task {
            panels,
            out: Out {
                // No more than one past the output.
                p: self.out.p.wrapping_add(from),
                rows,
                ..self.out
            },
            ..*self
        };
        (
            with(first, 0, rows),
            with(second, rows, self.out.rows - rows),
        )
    }
}

/// Where the results of some panels go: token `t`, row `r` at `p + t * stride + r`.
#[derive(Clone, Copy)]
struct Out {
    p: *mut f32,
    stride: usize,
    /// Rows of all panels.
    rows: usize,
}

impl Out {
    /// For products that are not written.
    const NOWHERE: Self = Out {
        p: std::ptr::null_mut(),
        stride: 0,
        rows: 0,
    };

    /// What stands where the results of a panel for a token go.
    #[inline(always)]
    fn read<S: Simd>(&self, s: S, token: usize, panel: usize) -> S::F {
        let first = panel * ROWS;
        // SAFETY: who made `p`, `stride` and `rows` made them so that these are elements of the output.
        unsafe {
            let at = self.p.add(token * self.stride + first);
            if first + ROWS <= self.rows {
                s.load(at)
            } else {
                let mut row = [0.0; ROWS];
                std::ptr::copy_nonoverlapping(at, row.as_mut_ptr(), self.rows - first);
                s.load(row.as_ptr())
            }
        }
    }

    /// Writes the results of the panels of a vector for a token.
    #[inline(always)]
    fn write<V: Vector>(&self, v: V, token: usize, panel: usize, value: V::F) {
        let first = panel * ROWS;
        // SAFETY: `multiply` made `p`, `stride` and `rows` so that these are elements of the output.
        unsafe {
            let at = self.p.add(token * self.stride + first);
            if first + V::PANELS * ROWS <= self.rows {
                v.store(at, value);
            } else {
                let rows = self.rows - first;
                let mut row = [0.0; 2 * ROWS];
                const { assert!(V::PANELS <= 2, "room for the rows of a vector") };
                v.store(row.as_mut_ptr(), value);
                std::ptr::copy_nonoverlapping(row.as_ptr(), at, rows);
            }
        }
    }
}

/// Memory for the sums of some panels with the tokens of a block.
#[repr(align(64))]
struct Sums([MaybeUninit<[f32; ROWS]>; MOST_PANELS * TOKEN_BLOCK]);

impl Sums {
    fn new() -> Self {
        Sums([const { MaybeUninit::uninit() }; MOST_PANELS * TOKEN_BLOCK])
    }

    /// So many sums, all zero.
    fn zeros(&mut self, count: usize) -> &mut [[f32; ROWS]] {
        let sums = &mut self.0[..count];
        // SAFETY: zero bytes are the number zero, and so each has been written.
        unsafe {
            sums.as_mut_ptr().write_bytes(0, count);
            &mut *(&raw mut *sums as *mut [[f32; ROWS]])
        }
    }
}

/// Writes the sums of some panels to the output.
struct Write<'a> {
    task: &'a Task<'a>,
    panels: usize,
    /// Panels that there are sums for: `[tokens, side_by_side]`.
    side_by_side: usize,
    sums: &'a [[f32; ROWS]],
}

impl Kernel for Write<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        assert!(
            self.panels <= self.side_by_side
                && self.task.count * self.side_by_side <= self.sums.len(),
            "sums of all panels and tokens"
        );
        let Task { out, count, .. } = *self.task;
        // Whole panels two at a time.
        let paired = out.rows.min(self.panels * ROWS) / (2 * ROWS) * 2;
        for t in 0..count {
            // SAFETY: there are such sums, of 8 elements each; `multiply` made `out` so that it has these elements.
            unsafe {
                let sums = self.sums.as_ptr().add(t * self.side_by_side);
                for panel in (0..paired).step_by(2) {
                    let to = out.p.add(t * out.stride + panel * ROWS);
                    s.store_16(to, s.load_16(sums.add(panel).cast()));
                }
                for panel in paired..self.panels {
                    out.write(s, t, panel, s.load(sums.add(panel).cast()));
                }
            }
        }
    }
}
