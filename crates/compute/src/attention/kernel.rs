//! Attention of a tile: some tokens times some heads that share keys and values, over some segments of positions.
//!
//! A tile goes through a segment in phases: scores, weights, weighted values. Few rows read the cache as it is
//! ([`few`]); many rows convert a panel of it once and multiply it with all of them ([`many`]). Both do the same operations for
//! a row in the same order. Each phase is a kernel of its own, so that what does not depend on the cache's number type is
//! compiled once.

use super::sums::{Acc, Clear, Factors, Finish, RUN, Sums, Total, next_grain, partial_len};
use super::tile::SEGMENT;
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
    /// Of a run of segments.
    pub(super) run: Acc,
    /// Of all runs so far.
    pub(super) total: Acc,
    /// `[rows, SEGMENT]`
    pub(super) scores: *mut f32,
    pub(super) panel: *mut f32,
    /// Of the keys or the values of a segment's blocks.
    pub(super) scales: *mut f32,
    /// Of a segment.
    pub(super) sums: Sums,
    pub(super) factors: Factors,
}

impl Slot {
    /// Floats that a slot takes.
    pub(super) fn len(layout: KvLayout) -> usize {
        let lens = Self::lens(layout);
        lens.iter().sum::<usize>().next_multiple_of(16)
    }

    /// Scales are counted for the type that has the most. Keys are done with when values are opened.
    fn lens(layout: KvLayout) -> [usize; 8] {
        let acc = partial_len(layout, ROWS);
        let scales = BLOCKS * Q8::scales(layout.head_dim_k.max(layout.head_dim_v));
        [
            ROWS * layout.head_dim_k,
            acc,
            acc,
            ROWS * SEGMENT,
            many::PANEL * layout.head_dim_k.max(SEGMENT),
            scales,
            Sums::len(ROWS),
            Sums::len(ROWS),
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
        // SAFETY: the caller's promise.
        unsafe {
            Slot {
                q: start.add(offsets[0]),
                run: Acc::at(start.add(offsets[1]), ROWS, layout),
                total: Acc::at(start.add(offsets[2]), ROWS, layout),
                scores: start.add(offsets[3]),
                panel: start.add(offsets[4]),
                scales: start.add(offsets[5]),
                sums: Sums::at(start.add(offsets[6]), ROWS),
                factors: Factors::at(start.add(offsets[7]), ROWS),
            }
        }
    }
}

/// Where a tile's result goes.
#[derive(Clone, Copy)]
pub(super) enum Target {
    /// The first row of the output, and numbers from token to token.
    Out { out: *mut f32, stride: usize },
    /// A partial result for each `grain` segments, which is one of them or a whole [`RUN`].
    Partials { start: *mut f32, grain: usize },
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
    let whole = matches!(target, Target::Out { .. });
    tier.run(Begin { tile, slot, whole });
    let grain = match target {
        Target::Out { .. } => RUN,
        Target::Partials { grain, .. } => grain,
    };
    let (mut index, mut first) = (0, segments.start);
    while first < segments.end {
        let end = next_grain(first, grain).min(segments.end);
        let acc = match target {
            Target::Out { .. } => slot.run,
            // SAFETY: the caller's promise.
            Target::Partials { start, .. } => unsafe { Acc::partial(start, index, tile) },
        };
        tier.run(Clear { acc, tile });
        for segment in first..end {
            let part = Part {
                tile,
                slot,
                segment,
                acc,
            };
            // SAFETY: the caller's promise.
            unsafe {
                match tile.rows() <= FEW_ROWS {
                    true => few::attend(tier, &part),
                    false => many::attend(tier, &part),
                }
            }
        }
        if whole {
            tier.run(Total { tile, slot });
        }
        (index, first) = (index + 1, end);
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
    /// What it is folded into.
    pub(super) acc: Acc,
}

/// Packs the queries times the factor of the scores, which are to the base 2, rotated where the keys are. Clears the total where
/// the tile is computed as a whole.
struct Begin<'a> {
    tile: &'a Tile<'a>,
    slot: Slot,
    whole: bool,
}

impl Kernel for Begin<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Begin { tile, slot, whole } = self;
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
        if whole {
            // SAFETY: as above.
            unsafe { slot.total.clear(s, tile) };
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
const NOTHING: (*const u8, usize) = (std::ptr::null(), 0);

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
