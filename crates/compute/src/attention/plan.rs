//! How the work of a call is cut for the threads, and the memory that it takes.

use super::Attention;
use super::kernel::{ROWS, Slot};
use super::sums::{RUN, partial_len};
use super::tile::SEGMENT;
use crate::kv::KvLayout;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Pieces that each thread has on average where tiles are split, and up to about twice as many of whole runs: so many that one that
/// is held up costs little.
const PIECES_PER_THREAD: usize = 8;
/// Rows that a tile has at least where there are so many.
const LEAST_ROWS: usize = 16;

/// The memory of attention, sized once: a tile's for each thread, the partial results of split tiles, and the plan.
pub struct AttentionScratch {
    threads: usize,
    slot_len: usize,
    slots: Vec<f32>,
    taken: Vec<AtomicBool>,
    partials: Vec<f32>,
    left: Vec<AtomicUsize>,
    pieces: Vec<Piece>,
}

/// Some tokens of a job, and the segments for which they are computed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) job: usize,
    /// Row of the job's first token in the call.
    pub(super) first_row: usize,
    /// Counted in the job.
    pub(super) first_token: usize,
    pub(super) tokens: usize,
    pub(super) first_segment: usize,
    pub(super) segments: usize,
    pub(super) split: Option<Split>,
}

/// A tile whose segments several pieces share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Split {
    pub(super) first_segment: usize,
    pub(super) segments: usize,
    /// Segments of a partial result.
    pub(super) grain: usize,
    /// Where the partial results of the first column begin, and the floats of a column.
    partials: usize,
    column_len: usize,
    /// The counter of the first column.
    counter: usize,
}

/// How heads are cut: each column is a key-value head and some of the query heads that share it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) tile_heads: usize,
    pub(super) head_tiles: usize,
    pub(super) columns: usize,
}

impl AttentionScratch {
    /// Memory for calls on pools of up to `threads` threads, with up to `tokens` tokens that see up to `positions` positions,
    /// in layers of these query heads and layouts.
    ///
    /// Calls that need more for their partial results or their plan are right, too: fewer tiles are split, and the plan grows.
    pub fn new(
        threads: usize,
        tokens: usize,
        positions: usize,
        layers: impl IntoIterator<Item = (usize, KvLayout)>,
    ) -> Self {
        let threads = threads.max(1);
        let (mut slot_len, mut partials) = (0, 0);
        for (heads, layout) in layers {
            slot_len = slot_len.max(Slot::len(layout));
            partials = partials.max(partials_len(positions, heads, layout));
        }
        if threads == 1 {
            partials = 0;
        }
        let splits = PIECES_PER_THREAD * threads;
        AttentionScratch {
            threads,
            slot_len,
            slots: vec![0.0; threads * slot_len],
            taken: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            partials: vec![0.0; partials],
            left: (0..splits).map(|_| AtomicUsize::new(0)).collect(),
            pieces: Vec::with_capacity(tokens + 2 * splits + 1),
        }
    }

    /// Bytes that [`AttentionScratch::new`] takes for the same layers.
    #[must_use]
    pub fn bytes(
        threads: usize,
        tokens: usize,
        positions: usize,
        layers: impl IntoIterator<Item = (usize, KvLayout)>,
    ) -> usize {
        let (mut slot_len, mut partials) = (0, 0);
        for (heads, layout) in layers {
            slot_len = slot_len.max(Slot::len(layout));
            partials = partials.max(partials_len(positions, heads, layout));
        }
        let partials = if threads > 1 { partials } else { 0 };
        let floats = partials.saturating_add(threads * slot_len);
        floats
            .saturating_mul(size_of::<f32>())
            .saturating_add(tokens.saturating_mul(size_of::<Piece>()))
    }

    pub(super) fn check(&self, threads: usize, layout: KvLayout) {
        assert!(
            threads <= self.threads && Slot::len(layout) <= self.slot_len,
            "scratch memory for threads and layout"
        );
    }

    /// Cuts the work of a call.
    pub(super) fn plan(&mut self, threads: usize, attention: &Attention<'_>) -> Shape {
        let layout = attention.layout();
        let group = attention.heads / layout.heads;
        let tokens: usize = attention.jobs.iter().map(|job| job.tokens).sum();
        let pieces = PIECES_PER_THREAD * threads;
        let rows = match threads {
            1 => ROWS,
            _ => (tokens * attention.heads / pieces).clamp(LEAST_ROWS, ROWS),
        };
        let mut tile_heads = group.min(ROWS);
        let tile_tokens = (rows / tile_heads).max(1);
        let mut units = 0;
        self.tiles(attention, tile_tokens, |_, segments| {
            units += segments * layout.heads
        });
        // Where even the segments are too few for the threads, the heads are cut; each part reads the same keys and values.
        if units < threads {
            tile_heads = group.div_ceil(threads.min(group));
        }
        let head_tiles = group.div_ceil(tile_heads);
        let shape = Shape {
            tile_heads,
            head_tiles,
            columns: layout.heads * head_tiles,
        };
        let most = match threads {
            1 => usize::MAX,
            _ => (units * head_tiles).div_ceil(pieces).max(1),
        };
        let grain = if most < RUN { 1 } else { RUN };
        self.taken
            .iter_mut()
            .for_each(|taken| *taken.get_mut() = false);
        let mut planned = std::mem::take(&mut self.pieces);
        planned.clear();
        let (mut partials, mut counter) = (0, 0);
        self.tiles(attention, tile_tokens, |piece, _| {
            let (first, segments) = (piece.first_segment, piece.segments);
            let grains = first / grain..(first + segments).div_ceil(grain);
            let column_len = grains.len() * partial_len(layout, piece.tokens * tile_heads);
            let floats = shape.columns * column_len;
            if segments <= most
                || partials + floats > self.partials.len()
                || counter + shape.columns > self.left.len()
            {
                planned.push(piece);
                return;
            }
            let split = Split {
                first_segment: first,
                segments,
                grain,
                partials,
                column_len,
                counter,
            };
            let parts = grains.len().div_ceil(most / grain);
            let bound = |part: usize| {
                let segment = (grains.start + part * grains.len() / parts) * grain;
                segment.clamp(first, first + segments)
            };
            for part in 0..parts {
                planned.push(Piece {
                    first_segment: bound(part),
                    segments: bound(part + 1) - bound(part),
                    split: Some(split),
                    ..piece
                });
            }
            for left in &self.left[counter..counter + shape.columns] {
                left.store(parts, Ordering::Relaxed);
            }
            partials += floats;
            counter += shape.columns;
        });
        self.pieces = planned;
        shape
    }

    /// All tiles of a call, unsplit, with the number of their segments. The last tokens of a job see the most: they go first,
    /// so that no long piece is left for the end.
    fn tiles(
        &self,
        attention: &Attention<'_>,
        tile_tokens: usize,
        mut visit: impl FnMut(Piece, usize),
    ) {
        let mut first_row = 0;
        for (index, job) in attention.jobs.iter().enumerate() {
            for tile in (0..job.tokens.div_ceil(tile_tokens)).rev() {
                let first_token = tile * tile_tokens;
                let tokens = tile_tokens.min(job.tokens - first_token);
                let sees = |token| {
                    attention
                        .sight
                        .from(job.first_position + token, job.length())
                };
                let from = sees(first_token).0 / SEGMENT;
                let segments = sees(first_token + tokens - 1).1.div_ceil(SEGMENT) - from;
                let piece = Piece {
                    job: index,
                    first_row,
                    first_token,
                    tokens,
                    first_segment: from,
                    segments,
                    split: None,
                };
                visit(piece, segments);
            }
            first_row += job.tokens;
        }
    }

    /// The memory of the slots, and of the partial results.
    pub(super) fn memory(&mut self) -> (*mut f32, *mut f32) {
        (self.slots.as_mut_ptr(), self.partials.as_mut_ptr())
    }

    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    pub(super) fn piece(&self, index: usize) -> &Piece {
        &self.pieces[index]
    }

    /// How many pieces of a column of a split tile are not done.
    pub(super) fn pieces_left(&self, split: Split, column: usize) -> &AtomicUsize {
        &self.left[split.counter + column]
    }

    /// Takes a slot that no other thread has. There is one for each thread.
    pub(super) fn take_slot(&self) -> usize {
        loop {
            let free = self.taken.iter().position(|taken| {
                taken
                    .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            });
            match free {
                Some(slot) => return slot,
                None => std::hint::spin_loop(),
            }
        }
    }

    pub(super) fn give_slot(&self, slot: usize) {
        self.taken[slot].store(false, Ordering::Release);
    }

    /// Where a slot begins in the memory of the slots.
    pub(super) fn slot_at(&self, slot: usize) -> usize {
        slot * self.slot_len
    }
}

impl Split {
    /// Where the partial results of a column begin.
    pub(super) fn at(&self, column: usize) -> usize {
        self.partials + column * self.column_len
    }
}

/// Floats of the partial results of a token that sees so many positions, where each key-value head is a column.
fn partials_len(positions: usize, heads: usize, layout: KvLayout) -> usize {
    let of_segment = layout.heads * partial_len(layout, heads / layout.heads.max(1));
    (positions.div_ceil(SEGMENT) + 1).saturating_mul(of_segment)
}
