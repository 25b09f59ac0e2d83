//! Attention over the cache.
//!
//! Keys and values are read once for a tile of query rows (the heads that share them, times some tokens), with the softmax
//! computed on the way (Milakov and Gimelshein 2018; Dao et al. 2022). Positions that no row of a tile sees are not read but
//! for the rest of their block.
//!
//! The softmax goes in segments of a fixed number of positions, whose results are put together in their order, and runs of a fixed
//! number of segments likewise. Where the tiles are too few for the threads, the segments of a tile are shared out; since that
//! changes neither them nor their order, a row comes out the same to the last bit whatever is computed with it and by however many
//! threads.

mod few;
mod kernel;
mod many;
mod plan;
mod softmax;
mod sums;
mod tile;

pub use plan::AttentionScratch;

use crate::kv::{KvLayout, KvSlabs, POSITIONS_PER_BLOCK, Slab};
use crate::pool::{Pool, SendPtr};
use crate::tier::Tier;
use kernel::{Slot, Target, Tile};
use plan::{Piece, Shape};
use std::sync::atomic::Ordering;
use sums::Merge;

/// Attention of one layer for the tokens of a step, over a cache that already holds their own keys and values.
pub struct Attention<'a> {
    /// The cache.
    pub slabs: &'a KvSlabs,
    /// Number of the layer's slab.
    pub slab: usize,
    /// The blocks of all jobs.
    pub blocks: &'a [u32],
    /// The tokens, in the order of the rows of `q` and `out`.
    pub jobs: &'a [AttentionJob],
    /// Query heads; a multiple of the slab's heads.
    pub heads: usize,
    /// Which positions a token sees.
    pub sight: Sight,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// `cap * tanh(score / cap)` on the scaled scores (Gemma 2).
    pub softcap: Option<f32>,
    /// Queries `[tokens, heads * head_dim_k]`.
    pub q: &'a [f32],
    /// Output `[tokens, heads * head_dim_v]`, overwritten.
    pub out: &'a mut [f32],
}

impl Attention<'_> {
    fn layout(&self) -> KvLayout {
        self.slabs.slab(self.slab).layout
    }
}

/// Consecutive tokens of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionJob {
    /// How many they are.
    pub tokens: usize,
    /// Position of the first one in its sequence.
    pub first_position: usize,
    /// Where the sequence's blocks begin in [`Attention::blocks`]; they follow one another, as many as its positions need.
    pub first_block: usize,
}

impl AttentionJob {
    /// Positions of the sequence up to the last token.
    fn length(&self) -> usize {
        self.first_position + self.tokens
    }
}

/// Which positions a token at position `p` sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Itself and those before it: all of them, or the `window - 1` nearest.
    Causal {
        /// Positions seen at most, its own included.
        window: Option<usize>,
    },
    /// Those on both sides up to the end of the job's tokens: all of them, or `window / 2` to each side.
    Both {
        /// Twice the distance of the farthest position seen.
        window: Option<usize>,
    },
}

impl Sight {
    /// The positions seen from `position` in a sequence of `length` positions, `from..to`.
    #[inline(always)]
    fn from(self, position: usize, length: usize) -> (usize, usize) {
        match self {
            Sight::Causal { window: None } => (0, position + 1),
            Sight::Causal {
                window: Some(window),
            } => ((position + 1).saturating_sub(window), position + 1),
            Sight::Both { window: None } => (0, length),
            Sight::Both {
                window: Some(window),
            } => (
                position.saturating_sub(window / 2),
                (position + window / 2 + 1).min(length),
            ),
        }
    }
}

/// Computes the attention of all jobs, spread over the pool in one parallel region.
///
/// # Panics
/// If sizes do not agree, the blocks of a job do not reach its last token, or the scratch memory was made for fewer threads or
/// shorter heads.
pub fn attend(pool: &Pool, tier: Tier, scratch: &mut AttentionScratch, attention: Attention<'_>) {
    let out = SendPtr(attention.out.as_mut_ptr());
    let Attention {
        slabs,
        blocks,
        jobs,
        heads,
        ..
    } = attention;
    let layout = slabs.slab(attention.slab).layout;
    let tokens: usize = jobs.iter().map(|job| job.tokens).sum();
    assert!(
        heads.is_multiple_of(layout.heads)
            && attention.q.len() >= tokens * heads * layout.head_dim_k
            && attention.out.len() >= tokens * heads * layout.head_dim_v,
        "sizes of queries and output"
    );
    for job in jobs {
        let count = job.length().div_ceil(POSITIONS_PER_BLOCK);
        assert!(
            blocks[job.first_block..][..count]
                .iter()
                .all(|&block| (block as usize) < slabs.blocks),
            "blocks of the slabs for every token"
        );
    }
    scratch.check(pool.threads(), layout);
    let shape = scratch.plan(pool.threads(), &attention);
    let (slots, partials) = scratch.memory();
    let work = Work {
        tier,
        scratch,
        attention: &attention,
        shape,
        out,
        slots: SendPtr(slots),
        partials: SendPtr(partials),
    };
    let items = work.scratch.pieces() * shape.columns;
    pool.for_each(items, 1, |item| work.run(item));
}

/// What the threads share.
struct Work<'a> {
    tier: Tier,
    scratch: &'a AttentionScratch,
    attention: &'a Attention<'a>,
    shape: Shape,
    out: SendPtr<f32>,
    slots: SendPtr<f32>,
    partials: SendPtr<f32>,
}

impl Work<'_> {
    /// Computes a piece of the plan for some of the heads, and if it is the last piece of a tile, puts them together.
    fn run(&self, item: usize) {
        let layout = self.attention.layout();
        // A thread stays with a column, and finds its next keys in its cache.
        let pieces = self.scratch.pieces();
        let (column, piece) = (item / pieces, item % pieces);
        let piece = self.scratch.piece(piece);
        let (tile, out) = self.tile(piece, column);
        let out_stride = self.attention.heads * layout.head_dim_v;
        let slot = self.scratch.take_slot();
        let partial_len = sums::partial_len(layout, tile.rows());
        // SAFETY: the slot is this thread's until it is given back, and large enough for the layout; the partial results of a
        // split tile lie in the memory that the plan found large enough.
        let (memory, target) = unsafe {
            let start = self.slots.get().add(self.scratch.slot_at(slot));
            let target = match piece.split {
                None => Target::Out {
                    out,
                    stride: out_stride,
                },
                Some(split) => {
                    let grain = split.grain;
                    let before = piece.first_segment / grain - split.first_segment / grain;
                    let at = split.at(column) + before * partial_len;
                    let start = self.partials.get().add(at);
                    Target::Partials { start, grain }
                }
            };
            (Slot::at(start, layout), target)
        };
        let segments = piece.first_segment..piece.first_segment + piece.segments;
        // SAFETY: as above; `attend` checked queries, blocks and output.
        unsafe { kernel::attend(self.tier, &tile, memory, segments, target) };
        if let Some(split) = piece.split {
            let left = self.scratch.pieces_left(split, column);
            // What the others wrote is there once the count says so.
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                // SAFETY: as above.
                let partials = unsafe { self.partials.get().add(split.at(column)) };
                self.tier.run(Merge {
                    tile,
                    slot: memory,
                    partials,
                    grain: split.grain,
                    first_segment: split.first_segment,
                    segments: split.segments,
                    out,
                    out_stride,
                });
            }
        }
        self.scratch.give_slot(slot);
    }

    /// The tile of a piece and a column, and the first row of its output.
    fn tile(&self, piece: &Piece, column: usize) -> (Tile<'_>, *mut f32) {
        let Attention {
            slabs,
            blocks,
            jobs,
            heads,
            ..
        } = *self.attention;
        let Slab {
            layout,
            head: parts,
            offset,
        } = slabs.slab(self.attention.slab);
        let shape = self.shape;
        let job = &jobs[piece.job];
        let group = heads / layout.heads;
        let (kv_head, head_tile) = (column / shape.head_tiles, column % shape.head_tiles);
        let first_head = head_tile * shape.tile_heads;
        let head = kv_head * group + first_head;
        let row = piece.first_row + piece.first_token;
        let q = &self.attention.q[(row * heads + head) * layout.head_dim_k..];
        let count = job.length().div_ceil(POSITIONS_PER_BLOCK);
        let tile = Tile {
            layout,
            parts,
            head: slabs.bytes()[offset + kv_head * parts.bytes..].as_ptr(),
            block_bytes: slabs.block_bytes,
            blocks: &blocks[job.first_block..][..count],
            q: q.as_ptr(),
            q_stride: heads * layout.head_dim_k,
            heads: shape.tile_heads.min(group - first_head),
            tokens: piece.tokens,
            position: job.first_position + piece.first_token,
            length: job.length(),
            sight: self.attention.sight,
            scale: self.attention.scale,
            softcap: self.attention.softcap,
        };
        let at = (row * heads + head) * layout.head_dim_v;
        // SAFETY: the output has a row for every token of every job.
        (tile, unsafe { self.out.get().add(at) })
    }
}
