//! One panel of quantized weights times quantized tokens.
//!
//! The kernels for many tokens see unpacked codes only, so that they are compiled per [`Shape`] and not per type.

use super::{FEW, MOST_PANELS, Sums, Task, Write};
use crate::activations::{Activations, CodedBlock};
use crate::panels::{Block, ROWS, Shape, Unit, adds_offset};
use crate::simd::{
    Kernel, Simd, Tile, TileKind, UNPACKED, UNPACKED_BLOCKS, Vector, VectorKernel, each,
};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, offset_of};

/// Bytes that a panel is asked for before they are read, into the second-level cache, which can wait for more lines than the first.
/// The processor's own prefetching ends with every 4 KiB.
const FAR: usize = 4096;
/// And into the first-level cache.
const NEAR: usize = 1024;

/// Multiplies and writes the results: any number of panels for up to [`FEW`] tokens, those of a tile for more.
pub(super) fn multiply<U: Unit>(tier: Tier, task: &Task<'_>) {
    let unit = PhantomData;
    match task.count {
        // Panels side by side share the reads of a token or two, and keep more sums in flight. They are streams of memory, too, and
        // the memory gives four of them more than one.
        1 => tier.run(Few::<U, 4, 1> { task: *task, unit }),
        2 => tier.run(Few::<U, 2, 2> { task: *task, unit }),
        3..=4 => few_on_two_panels::<U, 4>(tier, task),
        5..=FEW => few_on_two_panels::<U, FEW>(tier, task),
        _ => many::<U>(tier, task),
    }
}

fn panel_bytes<U: Unit>(input: &Activations) -> usize {
    input.blocks() / U::BLOCKS * U::BYTES
}

fn many<U: Unit>(tier: Tier, task: &Task<'_>) {
    let mut sums = Sums::new();
    let side_by_side = tier.run(TilePanels);
    let sums = sums.zeros(task.count * side_by_side);
    add::<U>(tier, task, sums);
    tier.run(Write {
        task,
        panels: task.panels.len() / panel_bytes::<U>(task.input),
        side_by_side,
        sums,
    });
}

/// Adds the products of up to [`Simd::TILE_PANELS`] panels with all tokens to their sums, `[tokens, TILE_PANELS]`.
pub(super) fn add<U: Unit>(tier: Tier, task: &Task<'_>, sums: &mut [[f32; ROWS]]) {
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let panel_bytes = panel_bytes::<U>(task.input);
    let panels = task.panels.len() / panel_bytes;
    // Stretches of about one length: a short one at the end costs almost as much as a whole one.
    let units = panel_bytes / U::BYTES;
    let stretches = (units * U::BLOCKS).div_ceil(UNPACKED_BLOCKS);
    let stretch_bytes = units.div_ceil(stretches) * U::BYTES;
    for start in (0..panel_bytes).step_by(stretch_bytes) {
        let bytes = stretch_bytes.min(panel_bytes - start);
        // What is unpacked next: the next stretch, or the first one of the next panels.
        let ahead = match start + bytes < panel_bytes {
            true => bytes,
            false => bytes + (panels - 1) * panel_bytes,
        };
        for (index, panel) in task.panels.chunks_exact(panel_bytes).enumerate() {
            tier.run(Unpack::<U> {
                units: &panel[start..][..bytes],
                ahead,
                panel: scratch.as_mut_ptr().cast::<u8>().wrapping_add(32 * index),
                unit: PhantomData,
            });
        }
        tier.run(Tiles::<U::Shape> {
            stretch: Stretch {
                scratch: scratch.as_ptr().cast(),
                panels,
                blocks: bytes / U::BYTES * U::BLOCKS,
                task,
                start: start / U::BYTES * U::BLOCKS,
            },
            sums,
            shape: PhantomData,
        });
    }
}

/// [`Simd::TILE_PANELS`] of a tier.
pub(super) struct TilePanels;

impl Kernel for TilePanels {
    type Output = usize;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::TILE_PANELS
    }
}

/// A token's quantized row, from some block on.
#[inline(always)]
fn row(input: &Activations, token: usize, block: usize) -> *const CodedBlock {
    input.coded[token * input.blocks() + block..].as_ptr()
}

/// `T` tokens straight from the packed panels, `P` vectors of them side by side. Where there are fewer tokens, the last one
/// fills up.
struct Few<'a, U, const P: usize, const T: usize> {
    task: Task<'a>,
    unit: PhantomData<U>,
}

/// Two panels at a time where the tier has such vectors: for so many tokens that arithmetic decides.
fn few_on_two_panels<'a, U: Unit, const T: usize>(tier: Tier, task: &Task<'a>) {
    let few = |task: Task<'a>| Few::<U, 1, T> {
        task,
        unit: PhantomData,
    };
    let bytes = panel_bytes::<U>(task.input);
    let (pairs, single) = task.split(task.panels.len() / bytes / 2 * 2, bytes);
    if let Err(few) = tier.run_on_two_panels(bytes, few(pairs)) {
        tier.run(few);
    }
    if !single.panels.is_empty() {
        tier.run(few(single));
    }
}

impl<U: Unit, const P: usize, const T: usize> Kernel for Few<'_, U, P, T> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        VectorKernel::run(self, s);
    }
}

impl<U: Unit, const P: usize, const T: usize> VectorKernel for Few<'_, U, P, T> {
    type Output = ();
    #[inline(always)]
    fn run<V: Vector>(self, v: V) {
        let task = &self.task;
        let mut rows = [row(task.input, task.first, 0); T];
        for t in 1..T {
            rows[t] = row(task.input, task.first + t.min(task.count - 1), 0);
        }
        let panel_bytes = panel_bytes::<U>(task.input);
        let panels = task.panels.len() / panel_bytes;
        let group = P * V::PANELS;
        let grouped = panels / group * group;
        for first in (0..grouped).step_by(group) {
            let group = &task.panels[first * panel_bytes..][..group * panel_bytes];
            group_of::<V, U, P, T>(v, task, first, group, &rows);
        }
        for first in (grouped..panels).step_by(V::PANELS) {
            let group = &task.panels[first * panel_bytes..][..V::PANELS * panel_bytes];
            group_of::<V, U, 1, T>(v, task, first, group, &rows);
        }
    }
}

/// `P` vectors of panels from number `first` on.
#[inline(always)]
fn group_of<V: Vector, U: Unit, const P: usize, const T: usize>(
    v: V,
    task: &Task<'_>,
    first: usize,
    group: &[u8],
    rows: &[*const CodedBlock; T],
) {
    let panels = P * V::PANELS;
    let panel_bytes = group.len() / panels;
    // What this thread reads next, a whole number of units ahead, is past the other panels of the group where the panel ends.
    let mut ahead = FAR.next_multiple_of(U::BYTES);
    let mut left = panel_bytes - ahead % panel_bytes;
    ahead += ahead / panel_bytes * (panels - 1) * panel_bytes;
    let mut acc = [[v.splat(0.0); T]; P];
    let mut n = 0;
    for at in (0..panel_bytes).step_by(U::BYTES) {
        if left == 0 {
            ahead += (panels - 1) * panel_bytes;
            left = panel_bytes;
        }
        left -= U::BYTES;
        for b in 0..U::BLOCKS {
            for p in 0..P {
                let unit = group.as_ptr().wrapping_add(p * panel_bytes + at);
                let from = b * U::BYTES / U::BLOCKS;
                for line in (from..from + U::BYTES / U::BLOCKS).step_by(64) {
                    v.prefetch_far(unit.wrapping_add(ahead + line));
                    v.prefetch(unit.wrapping_add(NEAR + line));
                }
                // SAFETY: the unit has `BYTES` bytes, in each panel of a vector; the rows have as many blocks as the panel.
                unsafe {
                    let block = U::block(v, unit, b);
                    accumulate::<V, U::Shape, T>(v, &block, rows, n, &mut acc[p]);
                }
            }
            n += 1;
        }
    }
    for p in 0..P {
        for t in 0..T.min(task.count) {
            task.out.write(v, t, first + p, acc[p][t]);
        }
    }
}

/// `acc += block x activations` for block `n` of each row. A half at a time for all rows: no more codes are in registers.
///
/// Where the halves of the weights share a scale, those of the activations are put together first.
///
/// # Safety
/// The rows have more than `n` blocks.
#[inline(always)]
#[allow(unsafe_op_in_unsafe_fn)]
unsafe fn accumulate<S: Vector, H: Shape, const T: usize>(
    s: S,
    block: &Block<S>,
    rows: &[*const CodedBlock; T],
    n: usize,
    acc: &mut [S::F; T],
) {
    let halves: [[S::B; 4]; 2] = [
        each!(4; j => block.codes[j]),
        each!(4; j => block.codes[4 + j]),
    ];
    let offset = adds_offset::<S, H>();
    let mut first = [s.splat(0.0); T];
    for h in 0..2 {
        for t in 0..T {
            let row = &*rows[t].add(n);
            let codes = row.codes.as_ptr().add(16 * h);
            let dot = if H::SIGNED {
                s.dot::<true, 1>(&halves[h], codes)
            } else if H::DEPTH == 4 {
                s.dot::<false, 4>(&halves[h], codes)
            } else {
                s.dot::<false, 2>(&halves[h], codes)
            };
            let scale = s.splat(row.scales[h]);
            let before = match (H::HALVES, h) {
                (true, _) => S::BIASED.then(|| s.splat(row.shifts[h])),
                (false, 0) => S::BIASED.then(|| s.splat(row.shifts[2])),
                (false, _) => Some(first[t]),
            };
            if H::HALVES {
                acc[t] = match before {
                    Some(shift) => s.fma(block.s[h], s.fma(dot, scale, shift), acc[t]),
                    None => s.fma(s.mul(block.s[h], scale), dot, acc[t]),
                };
                if offset {
                    acc[t] = s.fma(block.m[h], s.splat(row.sums[h]), acc[t]);
                }
                continue;
            }
            let dot = match before {
                Some(before) => s.fma(dot, scale, before),
                None => s.mul(dot, scale),
            };
            if h == 0 {
                first[t] = dot;
                continue;
            }
            acc[t] = s.fma(block.s[0], dot, acc[t]);
            if offset {
                acc[t] = s.fma(block.m[0], s.splat(row.sums[2]), acc[t]);
            }
        }
    }
}

/// Scales and offsets of a block.
const fn halves<H: Shape>() -> usize {
    if H::HALVES { 2 } else { 1 }
}

/// A stretch of the panels of a tile, unpacked side by side. With the rows of a tile it takes half of the first-level cache: 32 KiB
/// where two panels are unpacked, 48 KiB where four are.
#[repr(align(64))]
struct Scratch {
    _blocks: [u8; UNPACKED_BLOCKS * MOST_PANELS * UNPACKED],
}

/// Unpacks a stretch of a panel.
struct Unpack<'a, U> {
    units: &'a [u8],
    /// Bytes from these units to those that are unpacked next.
    ahead: usize,
    panel: *mut u8,
    unit: PhantomData<U>,
}

impl<U: Unit> Kernel for Unpack<'_, U> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // From one vector of this panel to the next.
        let step = 32 * S::TILE_PANELS;
        let mut n = 0;
        for unit in self.units.chunks_exact(U::BYTES) {
            for line in (0..U::BYTES).step_by(64) {
                s.prefetch(unit.as_ptr().wrapping_add(self.ahead + line));
            }
            for b in 0..U::BLOCKS {
                // SAFETY: at most `UNPACKED_BLOCKS` blocks are unpacked, which a panel of the scratch has room for.
                unsafe {
                    let block = U::block(s, unit.as_ptr(), b);
                    let codes = self.panel.add(n * S::TILE_PANELS * UNPACKED);
                    for j in 0..8 {
                        s.store_b(codes.add(step * j), block.codes[j]);
                    }
                    for h in 0..halves::<U::Shape>() {
                        s.store(codes.add(step * (8 + h)).cast(), block.s[h]);
                        if adds_offset::<S, U::Shape>() {
                            s.store(codes.add(step * (10 + h)).cast(), block.m[h]);
                        }
                    }
                }
                n += 1;
            }
        }
    }
}

/// An unpacked stretch of some panels, and the tokens to multiply it with.
struct Stretch<'a> {
    scratch: *const u8,
    panels: usize,
    blocks: usize,
    task: &'a Task<'a>,
    /// The stretch's first block in a row.
    start: usize,
}

/// Adds the products of a stretch with each token to its sums, `[tokens, TILE_PANELS]`.
struct Tiles<'a, H> {
    stretch: Stretch<'a>,
    sums: &'a mut [[f32; ROWS]],
    shape: PhantomData<H>,
}

impl<H: Shape> Kernel for Tiles<'_, H> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Tiles { stretch, sums, .. } = self;
        let tokens = sums.len() / S::TILE_PANELS;
        let tiled = match S::TILES && stretch.panels == S::TILE_PANELS {
            true => tokens / S::TILE * S::TILE,
            false => 0,
        };
        let (tiles, rest) = sums.split_at_mut(tiled * S::TILE_PANELS);
        for (tile, sums) in tiles.chunks_exact_mut(S::TILE * S::TILE_PANELS).enumerate() {
            stretch.tile::<S, H>(s, tile * S::TILE, sums);
        }
        for panel in 0..stretch.panels {
            stretch.by::<S, H, 4>(s, panel, tiled, rest);
        }
    }
}

impl Stretch<'_> {
    /// All panels times [`Simd::TILE`] tokens from `first` on, as the tier does it.
    #[inline(always)]
    fn tile<S: Simd, H: Shape>(&self, s: S, first: usize, sums: &mut [[f32; ROWS]]) {
        let offset = H::OFFSET;
        let kind = match (H::SIGNED, H::HALVES) {
            (true, _) => TileKind::Signed,
            (false, true) => TileKind::Halves { offset },
            (false, false) => TileKind::Whole { offset },
        };
        let input = self.task.input;
        let row = row(input, self.task.first + first, self.start);
        let stride = input.blocks() * size_of::<CodedBlock>();
        let tile = Tile {
            weights: self.scratch,
            blocks: self.blocks,
            codes: row.cast(),
            code_stride: stride,
            scales: row.wrapping_byte_add(offset_of!(CodedBlock, scales)).cast(),
            scale_stride: stride,
            sums: sums.as_mut_ptr().cast(),
        };
        // SAFETY: the scratch holds `blocks` blocks of all panels, each row has them from its start on, and there is a sum for
        // each.
        unsafe { s.tile(kind, &tile) };
    }

    /// One panel times `T` tokens at a time, from `first` on; where fewer are left, the last one fills up.
    #[inline(always)]
    fn by<S: Simd, H: Shape, const T: usize>(
        &self,
        s: S,
        panel: usize,
        first: usize,
        sums: &mut [[f32; ROWS]],
    ) {
        let input = self.task.input;
        let step = 32 * S::TILE_PANELS;
        let mut first = self.task.first + first;
        for sums in sums.chunks_mut(T * S::TILE_PANELS) {
            let count = sums.len() / S::TILE_PANELS;
            let mut rows = [row(input, first, self.start); T];
            let mut acc = [s.splat(0.0); T];
            for t in 0..T {
                let t_or_last = t.min(count - 1);
                rows[t] = row(input, first + t_or_last, self.start);
                // SAFETY: a sum has 8 elements.
                acc[t] = unsafe { s.load(sums[t_or_last * S::TILE_PANELS + panel].as_ptr()) };
            }
            for n in 0..self.blocks {
                // SAFETY: the scratch holds `blocks` blocks of each panel; each row has them from its start on.
                unsafe {
                    let codes = self.scratch.add(n * S::TILE_PANELS * UNPACKED + 32 * panel);
                    let mut block = Block {
                        codes: each!(8; j => s.load_b(codes.add(step * j))),
                        s: [s.splat(0.0); 2],
                        m: [s.splat(0.0); 2],
                    };
                    for h in 0..halves::<H>() {
                        block.s[h] = s.load(codes.add(step * (8 + h)).cast());
                        if adds_offset::<S, H>() {
                            block.m[h] = s.load(codes.add(step * (10 + h)).cast());
                        }
                    }
                    accumulate::<S, H, T>(s, &block, &rows, n, &mut acc);
                }
            }
            for t in 0..count {
                // SAFETY: as above.
                unsafe { s.store(sums[t * S::TILE_PANELS + panel].as_mut_ptr(), acc[t]) };
            }
            first += count;
        }
    }
}
