//! Matrix products of packed weights with a batch of activations.
//!
//! A few tokens (decode): each panel is read once, unpacked block by block into registers and multiplied with up to
//! [`FEW`] tokens. Many (prefill): a stretch of a panel is unpacked once into the first-level cache and multiplied with a
//! register tile of tokens after the other.

use crate::activations::Activations;
use crate::panels::*;
use crate::pool::Pool;
use crate::simd::{Kernel, Simd, each};
use crate::tier::Tier;

/// Up to so many tokens a panel is multiplied straight from memory; four cost about as much as one there.
const FEW: usize = 4;
/// Columns unpacked at a time: 8 KiB of codes and at most 4 KiB of scales, which with a tile of tokens fits 32 KiB.
const STRETCH: usize = 1024;
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
/// Quantized weights use the quantized rows of `input`, plain floats the `f32` ones.
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
            tier.run(Panels {
                input,
                jobs,
                panels: (index * chunk, panels.min((index + 1) * chunk)),
                first,
                count,
            });
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

/// A run of panels times a block of tokens.
struct Panels<'a> {
    input: &'a Activations,
    jobs: &'a [Option<Job<'a>>],
    panels: (usize, usize),
    first: usize,
    count: usize,
}

impl Kernel for Panels<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for index in self.panels.0..self.panels.1 {
            let Some(job) = self
                .jobs
                .iter()
                .flatten()
                .rev()
                .find(|job| job.first_panel <= index)
            else {
                continue;
            };
            let weights = job.weights;
            let panel = index - job.first_panel;
            let rows = ROWS.min(weights.rows - panel * ROWS);
            // SAFETY: `matmul` checked that the output has `tokens * rows` elements.
            let out = Out {
                p: unsafe { job.out.add(self.first * weights.rows + panel * ROWS) },
                stride: weights.rows,
                rows,
            };
            let data = weights.panel(panel);
            let (input, first, count) = (self.input, self.first, self.count);
            match weights.format {
                PanelFormat::F32 => float::<S, F32>(s, data, input, first, count, &out),
                PanelFormat::F16 => float::<S, F16>(s, data, input, first, count, &out),
                PanelFormat::BF16 => float::<S, BF16>(s, data, input, first, count, &out),
                PanelFormat::Q4_0 => quantized::<S, Q4_0>(s, data, input, first, count, &out),
                PanelFormat::Q4_1 => quantized::<S, Q4_1>(s, data, input, first, count, &out),
                PanelFormat::Q5_0 => quantized::<S, Q5_0>(s, data, input, first, count, &out),
                PanelFormat::Q5_1 => quantized::<S, Q5_1>(s, data, input, first, count, &out),
                PanelFormat::Q8_0 => quantized::<S, Q8_0>(s, data, input, first, count, &out),
                PanelFormat::IQ4_NL => quantized::<S, IQ4_NL>(s, data, input, first, count, &out),
                PanelFormat::Q2_K => quantized::<S, Q2_K>(s, data, input, first, count, &out),
                PanelFormat::Q3_K => quantized::<S, Q3_K>(s, data, input, first, count, &out),
                PanelFormat::Q4_K => quantized::<S, Q4_K>(s, data, input, first, count, &out),
                PanelFormat::Q5_K => quantized::<S, Q5_K>(s, data, input, first, count, &out),
                PanelFormat::Q6_K => quantized::<S, Q6_K>(s, data, input, first, count, &out),
                PanelFormat::IQ4_XS => quantized::<S, IQ4_XS>(s, data, input, first, count, &out),
            }
        }
    }
}

/// Where a panel's results go: token `t`, row `r` at `p + t * stride + r`.
struct Out {
    p: *mut f32,
    stride: usize,
    rows: usize,
}

impl Out {
    #[inline(always)]
    fn write<S: Simd>(&self, s: S, token: usize, value: S::F) {
        // SAFETY: `Panels` made `p`, `stride` and `rows` so that these are elements of the output.
        unsafe {
            let at = self.p.add(token * self.stride);
            if self.rows == ROWS {
                s.store(at, value);
            } else {
                let mut row = [0.0; ROWS];
                s.store(row.as_mut_ptr(), value);
                std::ptr::copy_nonoverlapping(row.as_ptr(), at, self.rows);
            }
        }
    }
}

#[inline(always)]
fn quantized<S: Simd, U: Unit>(
    s: S,
    panel: &[u8],
    input: &Activations,
    first: usize,
    count: usize,
    out: &Out,
) {
    if count <= FEW {
        match count {
            1 => few::<S, U, 1>(s, panel, input, first, 0, out),
            2 => few::<S, U, 2>(s, panel, input, first, 0, out),
            3 => few::<S, U, 3>(s, panel, input, first, 0, out),
            _ => few::<S, U, 4>(s, panel, input, first, 0, out),
        }
    } else {
        many::<S, U>(s, panel, input, first, count, out);
    }
}

/// The three pointers of a token's quantized row, from block `block` on.
#[derive(Clone, Copy)]
struct Row {
    codes: *const i8,
    scales: *const f32,
    sums: *const f32,
}

#[inline(always)]
fn row(input: &Activations, token: usize, block: usize) -> Row {
    let at = token * input.blocks() + block;
    Row {
        codes: input.codes[at * BLOCK..].as_ptr(),
        scales: input.scales[at..].as_ptr(),
        sums: input.sums[at * 3..].as_ptr(),
    }
}

/// One panel times `T` tokens, straight from memory.
#[inline(always)]
fn few<S: Simd, U: Unit, const T: usize>(
    s: S,
    panel: &[u8],
    input: &Activations,
    first: usize,
    at: usize,
    out: &Out,
) {
    let rows: [Row; T] = std::array::from_fn(|t| row(input, first + at + t, 0));
    let mut acc = [s.splat(0.0); T];
    for (unit, data) in panel.chunks_exact(U::BYTES).enumerate() {
        for b in 0..U::BLOCKS {
            // SAFETY: the unit has `BYTES` bytes; the rows have as many blocks as the panel.
            unsafe {
                let block = U::block(s, data.as_ptr(), b);
                let n = unit * U::BLOCKS + b;
                for t in 0..T {
                    acc[t] = accumulate::<S, U>(s, &block, rows[t], n, acc[t]);
                }
            }
        }
    }
    for (t, acc) in acc.into_iter().enumerate() {
        out.write(s, at + t, acc);
    }
}

/// `acc + block x activations`, for block `n` of a row.
///
/// # Safety
/// The row has more than `n` blocks.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn accumulate<S: Simd, U: Unit>(
    s: S,
    block: &Block<S>,
    row: Row,
    n: usize,
    mut acc: S::F,
) -> S::F {
    let codes = row.codes.add(n * BLOCK);
    let scale = s.splat(*row.scales.add(n));
    if U::HALVES {
        for h in 0..2 {
            let w: [S::B; 4] = each!(4; j => block.codes[4 * h + j]);
            let dot = s.to_f32(s.dot_unsigned::<4, 2>(&w, codes.add(16 * h)));
            acc = s.fma(s.mul(block.s[h], scale), dot, acc);
            acc = s.fma(block.m[h], s.splat(*row.sums.add(3 * n + h)), acc);
        }
        return acc;
    }
    let dot = if U::SIGNED && !S::BIASED {
        s.dot_signed(&block.codes, codes)
    } else {
        match U::DEPTH {
            8 => s.dot_unsigned::<8, 8>(&block.codes, codes),
            4 => s.dot_unsigned::<8, 4>(&block.codes, codes),
            _ => s.dot_unsigned::<8, 2>(&block.codes, codes),
        }
    };
    acc = s.fma(s.mul(block.s[0], scale), s.to_f32(dot), acc);
    if U::OFFSET || (U::SIGNED && S::BIASED) {
        acc = s.fma(block.m[0], s.splat(*row.sums.add(3 * n + 2)), acc);
    }
    acc
}

/// A stretch of a panel, unpacked.
#[repr(align(64))]
struct Scratch {
    codes: [u8; STRETCH * ROWS],
    /// `s` and `m` of each block, both halves.
    scales: [f32; STRETCH / BLOCK * 4 * ROWS],
}

/// One panel times a block of tokens.
#[inline(always)]
fn many<S: Simd, U: Unit>(
    s: S,
    panel: &[u8],
    input: &Activations,
    first: usize,
    count: usize,
    out: &Out,
) {
    let mut scratch = std::mem::MaybeUninit::<Scratch>::uninit();
    let p = scratch.as_mut_ptr();
    let units = STRETCH / (U::BLOCKS * BLOCK);
    let mut sums = [[0.0; ROWS]; TOKEN_BLOCK];
    for (stretch, data) in panel.chunks(units * U::BYTES).enumerate() {
        let mut blocks = 0;
        for unit in data.chunks_exact(U::BYTES) {
            for b in 0..U::BLOCKS {
                // SAFETY: at most `STRETCH` columns are unpacked, which the scratch has room for.
                unsafe {
                    let block = U::block(s, unit.as_ptr(), b);
                    let codes = (&raw mut (*p).codes)
                        .cast::<u8>()
                        .add(blocks * BLOCK * ROWS);
                    for (j, &w) in block.codes.iter().enumerate() {
                        s.store_b(codes.add(32 * j), w);
                    }
                    let scales = (&raw mut (*p).scales).cast::<f32>().add(blocks * 4 * ROWS);
                    s.store(scales, block.s[0]);
                    s.store(scales.add(ROWS), block.m[0]);
                    if U::HALVES {
                        s.store(scales.add(2 * ROWS), block.s[1]);
                        s.store(scales.add(3 * ROWS), block.m[1]);
                    }
                }
                blocks += 1;
            }
        }
        let start = stretch * STRETCH / BLOCK;
        let sums = &mut sums[..count];
        if S::TILE == 8 {
            tiles::<S, U, 8>(s, p, blocks, input, first, start, sums);
        } else {
            tiles::<S, U, 4>(s, p, blocks, input, first, start, sums);
        }
    }
    for (t, sum) in sums[..count].iter().enumerate() {
        // SAFETY: a sum has 8 elements.
        out.write(s, t, unsafe { s.load(sum.as_ptr()) });
    }
}

/// Adds the product of an unpacked stretch with each token to its sums.
#[inline(always)]
fn tiles<S: Simd, U: Unit, const T: usize>(
    s: S,
    p: *const Scratch,
    blocks: usize,
    input: &Activations,
    first: usize,
    start: usize,
    sums: &mut [[f32; ROWS]],
) {
    let whole = sums.len() / T * T;
    for (i, sums) in sums[..whole].chunks_exact_mut(T).enumerate() {
        tile::<S, U, T>(
            s,
            p,
            blocks,
            std::array::from_fn(|t| row(input, first + i * T + t, start)),
            sums,
        );
    }
    for (i, sums) in sums[whole..].chunks_exact_mut(1).enumerate() {
        tile::<S, U, 1>(s, p, blocks, [row(input, first + whole + i, start)], sums);
    }
}

/// An unpacked stretch times `T` tokens. The tokens go inside the steps, so that each vector of codes is loaded once.
#[inline(always)]
fn tile<S: Simd, U: Unit, const T: usize>(
    s: S,
    p: *const Scratch,
    blocks: usize,
    rows: [Row; T],
    sums: &mut [[f32; ROWS]],
) {
    // SAFETY: `many` unpacked `blocks` blocks; each row has them from its start on; sums have 8 elements.
    unsafe {
        let mut acc = [s.splat(0.0); T];
        for t in 0..T {
            acc[t] = s.load(sums[t].as_ptr());
        }
        for n in 0..blocks {
            let codes = (&raw const (*p).codes).cast::<u8>().add(n * BLOCK * ROWS);
            let scales = (&raw const (*p).scales).cast::<f32>().add(n * 4 * ROWS);
            let block = Block {
                codes: each!(8; j => s.load_b(codes.add(32 * j))),
                s: [
                    s.load(scales),
                    if U::HALVES {
                        s.load(scales.add(2 * ROWS))
                    } else {
                        s.load(scales)
                    },
                ],
                m: [
                    s.load(scales.add(ROWS)),
                    if U::HALVES {
                        s.load(scales.add(3 * ROWS))
                    } else {
                        s.load(scales.add(ROWS))
                    },
                ],
            };
            for t in 0..T {
                acc[t] = accumulate::<S, U>(s, &block, rows[t], n, acc[t]);
            }
        }
        for t in 0..T {
            s.store(sums[t].as_mut_ptr(), acc[t]);
        }
    }
}

/// A plain float type of weights.
trait Plain {
    const BYTES: usize;
    /// # Safety
    /// `p` has 8 elements.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F;
}
struct F32;
struct F16;
struct BF16;
impl Plain for F32 {
    const BYTES: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: the caller's promise; so in the two below.
        unsafe { s.load(p.cast()) }
    }
}
impl Plain for F16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: see above.
        unsafe { s.load_f16(p.cast()) }
    }
}
impl Plain for BF16 {
    const BYTES: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F {
        // SAFETY: see above.
        unsafe { s.load_bf16(p.cast()) }
    }
}

/// One panel of plain floats times a block of tokens, four at a time.
#[inline(always)]
fn float<S: Simd, P: Plain>(
    s: S,
    panel: &[u8],
    input: &Activations,
    first: usize,
    count: usize,
    out: &Out,
) {
    let mut t = 0;
    while t + 4 <= count {
        float_tile::<S, P, 4>(s, panel, input, first, t, out);
        t += 4;
    }
    while t < count {
        float_tile::<S, P, 1>(s, panel, input, first, t, out);
        t += 1;
    }
}

#[inline(always)]
fn float_tile<S: Simd, P: Plain, const T: usize>(
    s: S,
    panel: &[u8],
    input: &Activations,
    first: usize,
    at: usize,
    out: &Out,
) {
    let cols = input.cols();
    let x: [&[f32]; T] = std::array::from_fn(|t| &input.rows()[(first + at + t) * cols..][..cols]);
    // Two sums per token: an FMA takes four cycles, and two can start in each.
    let mut acc = [[s.splat(0.0); 2]; T];
    for (k, w) in panel.chunks_exact(P::BYTES * ROWS).enumerate() {
        // SAFETY: `w` has 8 elements, each row of `x` has one for every column.
        let w = unsafe { P::load(s, w.as_ptr()) };
        for t in 0..T {
            let x = s.splat(unsafe { *x[t].get_unchecked(k) });
            acc[t][k % 2] = s.fma(w, x, acc[t][k % 2]);
        }
    }
    for (t, acc) in acc.into_iter().enumerate() {
        out.write(s, at + t, s.add(acc[0], acc[1]));
    }
}
