//! One panel of quantized weights times quantized tokens.
//!
//! The kernels for many tokens see unpacked codes only, so that they are compiled per [`Shape`] and not per type.

use super::{FEW, TOKEN_BLOCK, Task, Write};
use crate::activations::{Activations, SCALES};
use crate::panels::{BLOCK, Block, ROWS, Shape, Unit};
use crate::simd::{
    Kernel, Simd, Tile, TileKind, UNPACKED_BLOCK, UNPACKED_BLOCKS, UNPACKED_PANEL, each,
};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Bytes that a panel is asked for before they are read. Pages are 4 KiB, and the processor's own prefetching ends with each.
const AHEAD: usize = 2048;
/// Tokens of a tile that a tier brings itself.
const TILE_TOKENS: usize = 4;

/// Multiplies one or two panels with the same tokens and writes the results.
pub(super) fn multiply<U: Unit>(tier: Tier, tasks: &[Task<'_>]) {
    let Some(task) = tasks.first() else { return };
    if task.count <= FEW {
        return few::<U>(tier, tasks);
    }
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let mut sums = [[[0.0; ROWS]; 2]; TOKEN_BLOCK];
    let sums = &mut sums[..task.count];
    let stretch_bytes = UNPACKED_BLOCKS / U::BLOCKS * U::BYTES;
    for (stretch, units) in task.panel.chunks(stretch_bytes).enumerate() {
        for (index, task) in tasks.iter().enumerate() {
            let units = &task.panel[stretch * stretch_bytes..][..units.len()];
            tier.run(Unpack::<U> {
                units,
                panel: scratch
                    .as_mut_ptr()
                    .cast::<u8>()
                    .wrapping_add(index * UNPACKED_PANEL),
                unit: PhantomData,
            });
        }
        tier.run(Tiles::<U::Shape> {
            stretch: Stretch {
                scratch: scratch.as_ptr().cast(),
                panels: tasks.len(),
                blocks: units.len() / U::BYTES * U::BLOCKS,
                task,
                start: stretch * UNPACKED_BLOCKS,
            },
            sums,
            shape: PhantomData,
        });
    }
    tier.run(Write { tasks, sums });
}

/// Straight from the packed panels; two of them share the reads of one or two tokens, and keep twice as many sums in flight.
fn few<U: Unit>(tier: Tier, tasks: &[Task<'_>]) {
    match (tasks, tasks[0].count) {
        ([first, second], 1) => tier.run(Few::<U, 2, 1>::of([first, second])),
        ([first, second], 2) => tier.run(Few::<U, 2, 2>::of([first, second])),
        (_, 1) => tasks
            .iter()
            .for_each(|task| tier.run(Few::<U, 1, 1>::of([task]))),
        (_, 2) => tasks
            .iter()
            .for_each(|task| tier.run(Few::<U, 1, 2>::of([task]))),
        _ => tasks
            .iter()
            .for_each(|task| tier.run(Few::<U, 1, FEW>::of([task]))),
    }
}

/// The pointers of a token's quantized row, from some block on.
#[derive(Clone, Copy)]
struct Row {
    codes: *const i8,
    scales: *const f32,
}

#[inline(always)]
fn row(input: &Activations, token: usize, block: usize) -> Row {
    let at = token * input.blocks() + block;
    Row {
        codes: input.codes[at * BLOCK..].as_ptr(),
        scales: input.scales[at * SCALES..].as_ptr(),
    }
}

/// `T` tokens straight from `P` neighbouring packed panels. Where there are fewer tokens, the last one fills up.
struct Few<'a, U, const P: usize, const T: usize> {
    tasks: [&'a Task<'a>; P],
    unit: PhantomData<U>,
}

impl<'a, U, const P: usize, const T: usize> Few<'a, U, P, T> {
    fn of(tasks: [&'a Task<'a>; P]) -> Self {
        let unit = PhantomData;
        Few { tasks, unit }
    }
}

impl<U: Unit, const P: usize, const T: usize> Kernel for Few<'_, U, P, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let task = self.tasks[0];
        let mut rows = [row(task.input, task.first, 0); T];
        for t in 1..T {
            rows[t] = row(task.input, task.first + t.min(task.count - 1), 0);
        }
        let panel_bytes = task.panel.len();
        let mut acc = [[s.splat(0.0); T]; P];
        let mut n = 0;
        for at in (0..panel_bytes).step_by(U::BYTES) {
            // Past the end of a panel follows the next one that this thread reads.
            let ahead = match at + AHEAD < panel_bytes {
                true => at + AHEAD,
                false => at + AHEAD + (P - 1) * panel_bytes,
            };
            for b in 0..U::BLOCKS {
                for p in 0..P {
                    let panel = self.tasks[p].panel.as_ptr();
                    let from = b * U::BYTES / U::BLOCKS;
                    for line in (from..from + U::BYTES / U::BLOCKS).step_by(64) {
                        s.prefetch(panel.wrapping_add(ahead + line));
                    }
                    // SAFETY: the unit has `BYTES` bytes; the rows have as many blocks as the panel.
                    unsafe {
                        let block = U::block(s, panel.add(at), b);
                        for t in 0..T {
                            acc[p][t] = accumulate::<S, U::Shape>(s, &block, rows[t], n, acc[p][t]);
                        }
                    }
                }
                n += 1;
            }
        }
        for p in 0..P {
            for t in 0..T.min(task.count) {
                self.tasks[p].out.write(s, t, acc[p][t]);
            }
        }
    }
}

/// `acc + block x activations`, for block `n` of a row.
///
/// # Safety
/// The row has more than `n` blocks.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn accumulate<S: Simd, H: Shape>(
    s: S,
    block: &Block<S>,
    row: Row,
    n: usize,
    mut acc: S::F,
) -> S::F {
    let halves: [[S::B; 4]; 2] = [
        each!(4; j => block.codes[j]),
        each!(4; j => block.codes[4 + j]),
    ];
    for h in 0..2 {
        let codes = row.codes.add(n * BLOCK + 16 * h);
        let dot = if H::SIGNED && !S::BIASED {
            s.dot_signed(&halves[h], codes)
        } else if H::DEPTH == 4 {
            s.dot_unsigned::<4>(&halves[h], codes)
        } else {
            s.dot_unsigned::<2>(&halves[h], codes)
        };
        let scale = s.splat(*row.scales.add(SCALES * n + h));
        acc = s.fma(s.mul(block.s[h], scale), s.to_f32(dot), acc);
        if H::HALVES {
            acc = s.fma(
                block.m[h],
                s.splat(*row.scales.add(SCALES * n + 2 + h)),
                acc,
            );
        }
    }
    if !H::HALVES && (!H::SIGNED || S::BIASED) {
        acc = s.fma(block.m[0], s.splat(*row.scales.add(SCALES * n + 4)), acc);
    }
    acc
}

/// A stretch of two panels, unpacked: each block's codes, then `s` and `m` of both halves. With the rows of a tile it takes half
/// of a first-level cache of 32 KiB.
#[repr(align(64))]
struct Scratch {
    _panels: [u8; 2 * UNPACKED_PANEL],
}

/// Unpacks a stretch of a panel.
struct Unpack<'a, U> {
    units: &'a [u8],
    panel: *mut u8,
    unit: PhantomData<U>,
}

impl<U: Unit> Kernel for Unpack<'_, U> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut n = 0;
        for unit in self.units.chunks_exact(U::BYTES) {
            for b in 0..U::BLOCKS {
                // SAFETY: at most `UNPACKED_BLOCKS` blocks are unpacked, which a panel of the scratch has room for.
                unsafe {
                    let block = U::block(s, unit.as_ptr(), b);
                    let codes = self.panel.add(n * UNPACKED_BLOCK);
                    for j in 0..8 {
                        s.store_b(codes.add(32 * j), block.codes[j]);
                    }
                    let scales = codes.add(256).cast::<f32>();
                    for h in 0..2 {
                        s.store(scales.add(h * ROWS), block.s[h]);
                        s.store(scales.add((2 + h) * ROWS), block.m[h]);
                    }
                }
                n += 1;
            }
        }
    }
}

/// An unpacked stretch of one or two panels, and the tokens to multiply it with.
struct Stretch<'a> {
    scratch: *const u8,
    panels: usize,
    blocks: usize,
    task: &'a Task<'a>,
    /// The stretch's first block in a row.
    start: usize,
}

/// Adds the products of a stretch with each token to its sums.
struct Tiles<'a, H> {
    stretch: Stretch<'a>,
    sums: &'a mut [[[f32; ROWS]; 2]],
    shape: PhantomData<H>,
}

impl<H: Shape> Kernel for Tiles<'_, H> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Tiles { stretch, sums, .. } = self;
        let tiled = match S::TILES && stretch.panels == 2 {
            true => sums.len() / TILE_TOKENS * TILE_TOKENS,
            false => 0,
        };
        for (tile, sums) in sums[..tiled].chunks_exact_mut(TILE_TOKENS).enumerate() {
            stretch.tile::<S, H>(s, tile * TILE_TOKENS, sums);
        }
        for panel in 0..stretch.panels {
            if S::TILE == 8 {
                stretch.by::<S, H, 8>(s, panel, tiled, &mut sums[tiled..]);
            } else {
                stretch.by::<S, H, 4>(s, panel, tiled, &mut sums[tiled..]);
            }
        }
    }
}

impl Stretch<'_> {
    /// Both panels times 4 tokens from `first` on, as the tier does it.
    #[inline(always)]
    fn tile<S: Simd, H: Shape>(&self, s: S, first: usize, sums: &mut [[[f32; ROWS]; 2]]) {
        let kind = match (H::SIGNED, H::HALVES) {
            (true, _) => TileKind::Signed,
            (false, true) => TileKind::Halves,
            (false, false) => TileKind::Whole,
        };
        let input = self.task.input;
        let row = row(input, self.task.first + first, self.start);
        let tile = Tile {
            weights: self.scratch,
            blocks: self.blocks,
            codes: row.codes,
            code_stride: input.blocks() * BLOCK,
            scales: row.scales,
            scale_stride: input.blocks() * SCALES,
            sums: sums.as_mut_ptr().cast(),
        };
        // SAFETY: the scratch holds `blocks` blocks of both panels, each of the 4 rows has them from its start on, and there are
        // 4 sums.
        unsafe { s.tile(kind, &tile) };
    }

    /// One panel times `T` tokens at a time, from `first` on; where fewer are left, the last one fills up.
    #[inline(always)]
    fn by<S: Simd, H: Shape, const T: usize>(
        &self,
        s: S,
        panel: usize,
        first: usize,
        sums: &mut [[[f32; ROWS]; 2]],
    ) {
        let input = self.task.input;
        let mut first = self.task.first + first;
        for sums in sums.chunks_mut(T) {
            let count = sums.len();
            let mut rows = [row(input, first, self.start); T];
            let mut acc = [s.splat(0.0); T];
            for t in 0..T {
                rows[t] = row(input, first + t.min(count - 1), self.start);
                // SAFETY: a sum has 8 elements.
                acc[t] = unsafe { s.load(sums[t.min(count - 1)][panel].as_ptr()) };
            }
            for n in 0..self.blocks {
                // SAFETY: the scratch holds `blocks` blocks of each panel; each row has them from its start on.
                unsafe {
                    let codes = self
                        .scratch
                        .add(panel * UNPACKED_PANEL + n * UNPACKED_BLOCK);
                    let scales = codes.add(256).cast::<f32>();
                    let block = Block {
                        codes: each!(8; j => s.load_b(codes.add(32 * j))),
                        s: each!(2; h => s.load(scales.add(h * ROWS))),
                        m: each!(2; h => s.load(scales.add((2 + h) * ROWS))),
                    };
                    for t in 0..T {
                        acc[t] = accumulate::<S, H>(s, &block, rows[t], n, acc[t]);
                    }
                }
            }
            for t in 0..count {
                // SAFETY: as above.
                unsafe { s.store(sums[t][panel].as_mut_ptr(), acc[t]) };
            }
            first += count;
        }
    }
}
