//! Attention of a tile: some tokens times some heads that share keys and values, over some segments of positions.
//!
//! A tile goes through a segment in phases: scores, weights, weighted values. Few rows read the cache as it is
//! ([`few`]); many rows convert a panel of it once and multiply it with all of them ([`many`]). Both do the same operations for
//! a row in the same order. Each phase is a kernel of its own, so that what does not depend on the cache's number type is
//! compiled once.

use super::tile::{SEGMENT, Sink, Sums, softmax};
use super::{Sight, few, many};
use crate::kv::element::{Element, Head, Q8, Side};
use crate::kv::{KvLayout, LINE, POSITIONS_PER_BLOCK, rotate};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of a tile at most: so many that converting a panel is a small part, and few enough for the second-level cache.
pub(super) const ROWS: usize = 96;
/// Rows up to which converting a panel does not pay.
const FEW_ROWS: usize = 16;
/// Blocks of a segment.
pub(super) const BLOCKS: usize = SEGMENT / POSITIONS_PER_BLOCK;

/// Calls with the rows of a group as a constant, up to those of the tier's register tile.
macro_rules! by_rows_of_tier {
    ($tier:ident, $count:expr, $rows:ident => $call:expr) => {
        by_rows_of_tier!(@ $tier, $count, $rows => $call, 1 2 3 4 5 6, 7 8 9 10 11 12)
    };
    (@ $tier:ident, $count:expr, $rows:ident => $call:expr, $($few:literal)+, $($many:literal)+) => {
        match $count {
            $($few => {
                const $rows: usize = $few;
                $call
            })+
            $($many if $tier::ROWS == 12 => {
                const $rows: usize = $many;
                $call
            })+
            _ => {}
        }
    };
}
pub(super) use by_rows_of_tier;

/// What a tile reads.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    pub(super) layout: KvLayout,
    /// What a head's part of a block has where.
    pub(super) parts: Head,
    /// The key-value head's part of the first block, and bytes from block to block.
    pub(super) head: *const u8,
    pub(super) block_bytes: usize,
    /// The sequence's blocks.
    pub(super) blocks: &'a [u32],
    /// The first row of queries, and numbers from token to token; heads follow one another.
    pub(super) q: *const f32,
    pub(super) q_stride: usize,
    pub(super) heads: usize,
    pub(super) tokens: usize,
    /// Position of the first token.
    pub(super) position: usize,
    /// Positions of the sequence.
    pub(super) length: usize,
    pub(super) sight: Sight,
    pub(super) scale: f32,
    pub(super) softcap: Option<f32>,
}

impl Tile<'_> {
    pub(super) fn rows(&self) -> usize {
        self.tokens * self.heads
    }

    /// The positions that `count` rows from `first` on see together.
    #[inline(always)]
    fn sees(&self, first: usize, count: usize) -> (usize, usize) {
        let (first, last) = (first / self.heads, (first + count - 1) / self.heads);
        let of = |token| self.sight.from(self.position + token, self.length);
        (of(first).0, of(last).1)
    }

    /// The part of a segment that rows see, counted from its beginning.
    #[inline(always)]
    pub(super) fn sees_in(&self, segment: usize, first: usize, count: usize) -> (usize, usize) {
        let (from, to) = self.sees(first, count);
        let within = |position: usize| position.saturating_sub(segment * SEGMENT).min(SEGMENT);
        (within(from), within(to))
    }

    /// The head's part of the block with the segment's `index`th 32 positions.
    ///
    /// # Safety
    /// The sequence has such a block.
    #[inline(always)]
    pub(super) unsafe fn block(&self, segment: usize, index: usize) -> *const u8 {
        let block = self.blocks[segment * BLOCKS + index] as usize;
        // SAFETY: the caller checked that blocks lie in the slabs.
        unsafe { self.head.add(block * self.block_bytes) }
    }
}

/// Memory of a thread for one tile at a time.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// `[rows, head_dim_k]`, scaled.
    pub(super) q: *mut f32,
    /// `[rows, padded_v]`
    pub(super) acc: *mut f32,
    /// `[rows, SEGMENT]`
    pub(super) scores: *mut f32,
    pub(super) panel: *mut f32,
    /// Of the keys or the values of a segment's blocks.
    pub(super) scales: *mut f32,
    pub(super) sums: *mut Sums,
    pub(super) factors: *mut (f32, f32),
}

impl Slot {
    /// Floats that a slot takes.
    pub(super) fn len(layout: KvLayout) -> usize {
        let lens = Self::lens(layout);
        lens.iter().sum::<usize>().next_multiple_of(16)
    }

    /// Scales are counted for the type that has the most. Keys are done with when values are opened.
    fn lens(layout: KvLayout) -> [usize; 7] {
        let scales = BLOCKS * Q8::scales(layout.head_dim_k.max(layout.head_dim_v));
        [
            ROWS * layout.head_dim_k,
            ROWS * layout.padded_v(),
            ROWS * SEGMENT,
            many::PANEL * layout.head_dim_k.max(SEGMENT),
            scales,
            2 * ROWS,
            2 * ROWS,
        ]
    }

    /// # Safety
    /// `start` has [`Slot::len`] floats.
    pub(super) unsafe fn at(start: *mut f32, layout: KvLayout) -> Self {
        let mut at = 0;
        let offsets = Self::lens(layout).map(|len| {
            at += len;
            at - len
        });
        // SAFETY: the caller's promise. Pairs of floats are aligned as floats.
        unsafe {
            Slot {
                q: start.add(offsets[0]),
                acc: start.add(offsets[1]),
                scores: start.add(offsets[2]),
                panel: start.add(offsets[3]),
                scales: start.add(offsets[4]),
                sums: start.add(offsets[5]).cast(),
                factors: start.add(offsets[6]).cast(),
            }
        }
    }
}

/// Where a tile's result goes.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// The first row of the output, and numbers from token to token.
    Out { out: *mut f32, stride: usize },
    /// For each segment its weighted values `[rows, padded_v]`, then its sums `[rows, 2]`.
    Partials(*mut f32),
}

/// Floats of a segment's partial result.
pub(super) fn partial_len(layout: KvLayout, rows: usize) -> usize {
    rows * (layout.padded_v() + 2)
}

/// Computes some segments of a tile.
///
/// # Safety
/// The slot is this thread's, made for the tile's layout; the tile's queries, blocks and target exist.
pub(super) unsafe fn attend(
    tier: Tier,
    tile: &Tile<'_>,
    slot: Slot,
    segments: Range<usize>,
    target: Target,
) {
    let (rows, stride) = (tile.rows(), tile.layout.padded_v());
    let clear = matches!(target, Target::Out { .. });
    tier.run(Begin { tile, slot, clear });
    for (index, segment) in segments.enumerate() {
        let fold = Sink::Fold {
            acc: slot.acc,
            factors: slot.factors,
        };
        let (sums, sink) = match target {
            Target::Out { .. } => (None, fold),
            Target::Partials(start) => {
                // SAFETY: the caller's promise.
                let (acc, sums) = unsafe {
                    let acc = start.add(index * partial_len(tile.layout, rows));
                    (acc, acc.add(rows * stride))
                };
                (Some(sums.cast()), Sink::Store { acc })
            }
        };
        let part = Part {
            tile,
            slot,
            segment,
            sums,
            sink,
        };
        // SAFETY: the caller's promise.
        unsafe {
            match rows <= FEW_ROWS {
                true => few::attend(tier, &part),
                false => many::attend(tier, &part),
            }
        }
    }
    if let Target::Out { out, stride } = target {
        let (tile, out_stride) = (*tile, stride);
        tier.run(Finish {
            tile,
            slot,
            out,
            out_stride,
        });
    }
}

/// A segment of a tile.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) tile: &'a Tile<'a>,
    pub(super) slot: Slot,
    pub(super) segment: usize,
    /// Where the sums of the rows go, where they are not folded into those of the segments before.
    pub(super) sums: Option<*mut Sums>,
    pub(super) sink: Sink,
}

/// Puts the partial results of a tile's segments together.
pub(super) struct Merge<'a> {
    pub(super) tile: Tile<'a>,
    pub(super) slot: Slot,
    pub(super) partials: *const f32,
    pub(super) segments: usize,
    pub(super) out: *mut f32,
    pub(super) out_stride: usize,
}

impl Kernel for Merge<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Merge { tile, slot, .. } = self;
        let (rows, stride) = (tile.rows(), tile.layout.padded_v());
        // SAFETY: the slot is this thread's; all partial results are there, as `Attend` wrote them.
        unsafe {
            clear_sums(s, slot, rows, stride);
            for index in 0..self.segments {
                let part = self.partials.add(index * partial_len(tile.layout, rows));
                let sums = part.add(rows * stride).cast::<Sums>();
                for r in 0..rows {
                    *slot.factors.add(r) = (*slot.sums.add(r)).fold(*sums.add(r));
                    let sink = Sink::Fold {
                        acc: slot.acc.add(r * stride),
                        factors: slot.factors.add(r),
                    };
                    for at in (0..stride).step_by(16) {
                        sink.put(s, stride, at, &[[s.load_16(part.add(r * stride + at))]]);
                    }
                }
            }
            finish(&tile, slot, self.out, self.out_stride);
        }
    }
}

/// Packs the queries times the factor of the scores, which are to the base 2, rotated where the keys are, and clears the sums.
struct Begin<'a> {
    tile: &'a Tile<'a>,
    slot: Slot,
    clear: bool,
}

impl Kernel for Begin<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Begin { tile, slot, clear } = self;
        let factor = match tile.softcap {
            Some(cap) => tile.scale / cap,
            None => tile.scale * std::f32::consts::LOG2_E,
        };
        let dim = tile.layout.head_dim_k;
        for r in 0..tile.rows() {
            let (token, head) = (r / tile.heads, r % tile.heads);
            // SAFETY: the promise of who made the tile.
            unsafe {
                let from = tile.q.add(token * tile.q_stride + head * dim);
                let to = slot.q.add(r * dim);
                let mut d = 0;
                while d + 8 <= dim {
                    s.store(to.add(d), s.mul(s.load(from.add(d)), s.splat(factor)));
                    d += 8;
                }
                for d in d..dim {
                    *to.add(d) = *from.add(d) * factor;
                }
                if tile.parts.keys.element.is_rotated() {
                    rotate(std::slice::from_raw_parts_mut(to, dim));
                }
            }
        }
        if clear {
            // SAFETY: as above.
            unsafe { clear_sums(s, slot, tile.rows(), tile.layout.padded_v()) };
        }
    }
}

/// # Safety
/// The slot has so many rows.
#[inline(always)]
unsafe fn clear_sums<S: Simd>(s: S, slot: Slot, rows: usize, stride: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        for at in (0..rows * stride).step_by(16) {
            s.store_16(slot.acc.add(at), s.splat_16(0.0));
        }
        for r in 0..rows {
            *slot.sums.add(r) = Sums::NONE;
        }
    }
}

struct Finish<'a> {
    tile: Tile<'a>,
    slot: Slot,
    out: *mut f32,
    out_stride: usize,
}

impl Kernel for Finish<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // SAFETY: the promise of who made the tile.
        unsafe { finish(&self.tile, self.slot, self.out, self.out_stride) }
    }
}

/// Writes the weighted values over the sum of the weights, rotated back where the values are rotated.
///
/// # Safety
/// The output has the tile's rows, which belong to it alone.
#[inline(always)]
unsafe fn finish(tile: &Tile<'_>, slot: Slot, out: *mut f32, out_stride: usize) {
    let (dim, stride) = (tile.layout.head_dim_v, tile.layout.padded_v());
    for r in 0..tile.rows() {
        let (token, head) = (r / tile.heads, r % tile.heads);
        // SAFETY: the caller's promise.
        unsafe {
            let inverse = 1.0 / (*slot.sums.add(r)).total;
            let to = out.add(token * out_stride + head * dim);
            let to = std::slice::from_raw_parts_mut(to, dim);
            let from = std::slice::from_raw_parts(slot.acc.add(r * stride), dim);
            for (to, from) in to.iter_mut().zip(from) {
                *to = from * inverse;
            }
            if tile.parts.values.element.is_rotated() {
                rotate(to);
            }
        }
    }
}

/// The `index`th of the groups of rows that make up a tile, none larger than `most`: its first row and its length.
#[inline(always)]
pub(super) fn group(rows: usize, most: usize, index: usize) -> (usize, usize) {
    let groups = rows.div_ceil(most);
    let first = index * rows / groups;
    (first, (index + 1) * rows / groups - first)
}

/// The softmax of a tile's rows, of which groups for one register tile have their scores for all vectors of `granule` positions
/// around what they see.
pub(super) struct Weights<'a> {
    pub(super) part: &'a Part<'a>,
    pub(super) granule: usize,
}

impl Kernel for Weights<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Part {
            tile,
            slot,
            segment,
            sums,
            ..
        } = *self.part;
        let cap = tile.softcap.map(|cap| cap * std::f32::consts::LOG2_E);
        let rows = tile.rows();
        for index in 0..rows.div_ceil(S::ROWS) {
            let (first, count) = group(rows, S::ROWS, index);
            let computed = around(tile.sees_in(segment, first, count), self.granule);
            for r in first..first + count {
                let seen = tile.sees_in(segment, r, 1);
                // SAFETY: the promise of who made the tile.
                unsafe {
                    let row = softmax(s, slot.scores.add(r * SEGMENT), computed, seen, cap);
                    match sums {
                        Some(sums) => *sums.add(r) = row,
                        None => *slot.factors.add(r) = (*slot.sums.add(r)).fold(row),
                    }
                }
            }
        }
    }
}

/// What a range is in multiples of `granule`.
#[inline(always)]
pub(super) fn around((from, to): (usize, usize), granule: usize) -> (usize, usize) {
    match from < to {
        true => (from / granule * granule, to.next_multiple_of(granule)),
        false => (from, from),
    }
}

/// The keys or the values of a segment's blocks `first..end`, ready to be read; the others must not be.
pub(super) struct Open<'a, E> {
    pub(super) part: &'a Part<'a>,
    pub(super) side: Side,
    pub(super) blocks: Range<usize>,
    pub(super) element: PhantomData<E>,
}

impl<E: Element> Kernel for Open<'_, E> {
    type Output = [E; BLOCKS];
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [E; BLOCKS] {
        let Open {
            part, side, blocks, ..
        } = self;
        // SAFETY: the promise of who made the tile.
        unsafe {
            let mut opened = [open::<S, E>(s, part, side, blocks.start); BLOCKS];
            for index in blocks.start + 1..blocks.end {
                opened[index] = open::<S, E>(s, part, side, index);
            }
            opened
        }
    }
}

/// # Safety
/// The segment has such a block.
#[inline(always)]
unsafe fn open<S: Simd, E: Element>(s: S, part: &Part<'_>, side: Side, index: usize) -> E {
    // SAFETY: the caller's promise; the slot has room for the scales of all blocks.
    unsafe {
        let head = part.tile.block(part.segment, index);
        let opened = part.slot.scales.add(index * E::scales(side.dim));
        let (numbers, scales) = (head.add(side.numbers), head.add(side.scales));
        E::open(s, numbers, scales, side.dim, opened)
    }
}

/// No bytes to be asked for.
pub(super) const NOTHING: (*const u8, usize) = (std::ptr::null(), 0);

/// The keys of the `index`th block from the beginning of the segment on, or none where the tile does not see it: where they begin
/// and their bytes, to be asked for ahead.
#[inline(always)]
pub(super) fn keys_of(part: &Part<'_>, index: usize) -> (*const u8, usize) {
    let Part { tile, segment, .. } = *part;
    let (_, to) = tile.sees(0, tile.rows());
    match (segment * BLOCKS + index) * POSITIONS_PER_BLOCK < to {
        // SAFETY: the tile sees the block.
        true => unsafe { (tile.block(segment, index), tile.parts.values.numbers) },
        false => NOTHING,
    }
}

/// The values of a block, and all scales, as [`keys_of`] its keys.
#[inline(always)]
pub(super) fn values_of(part: &Part<'_>, index: usize) -> (*const u8, usize) {
    match keys_of(part, index) {
        (keys, 0) => (keys, 0),
        (keys, len) => (keys.wrapping_add(len), part.tile.parts.bytes - len),
    }
}

/// Asks for the lines of the `part`th of `parts` parts of some bytes of the cache.
#[inline(always)]
pub(super) fn prefetch((start, len): (*const u8, usize), part: usize, parts: usize) {
    let lines = len.div_ceil(LINE);
    for line in part * lines / parts..(part + 1) * lines / parts {
        prefetch_line(start.wrapping_add(LINE * line));
    }
}

/// Asks for the line at `p`, which may be any address, on processors where that was measured.
#[inline(always)]
fn prefetch_line(p: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}
