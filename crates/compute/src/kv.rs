//! The key-value cache.
//!
//! The cache is slabs, one for each layer, of blocks of [`POSITIONS_PER_BLOCK`] positions. In a block each head has its keys transposed,
//! `[head_dim_k, 32]`, so that scores of 32 positions come out as 4 vectors without sums across lanes, and its values as they
//! are, `[32, head_dim_v]`. A sequence is a list of block numbers; blocks can be shared.

mod coded;
pub(crate) mod element;
mod plain;
mod quantize;
mod rotation;
mod types;

use crate::memory::Memory;
use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use element::{Element, Head, Side, by_element};
pub(crate) use rotation::rotate;
use std::marker::PhantomData;
pub use types::{KvElement, KvElements};

/// Positions in a block of the cache.
pub const POSITIONS_PER_BLOCK: usize = 32;
/// Rows that one thread stores before the next are handed out.
const STORED_IN_TURN: usize = 16;
/// Bytes of a cache line: blocks begin at one.
pub(crate) const LINE: usize = 64;

/// The shape of a layer's keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvLayout {
    /// Key-value heads.
    pub heads: usize,
    /// Length of a key.
    pub head_dim_k: usize,
    /// Length of a value.
    pub head_dim_v: usize,
}

impl KvLayout {
    /// Bytes of a block of [`POSITIONS_PER_BLOCK`] positions.
    #[must_use]
    pub fn block_bytes(self, elements: impl Into<KvElements>) -> usize {
        self.heads * Head::new(self, elements.into()).bytes
    }

    /// Elements of a value that attention computes.
    pub(crate) fn padded_v(self) -> usize {
        padded(self.head_dim_v)
    }
}

/// Elements of a value in whole vectors of 16, the last filled up with zeros.
fn padded(dim: usize) -> usize {
    dim.next_multiple_of(16)
}

/// The cache of a model: blocks of keys and values of any number of sequences, each with a part for every slab (a layer, or layers that
/// share one). A block's parts lie together, so that a short sequence takes little memory, and that in a few large pages.
pub struct KvSlabs {
    slabs: Vec<Slab>,
    pub(crate) blocks: usize,
    /// Of all parts.
    pub(crate) block_bytes: usize,
    memory: Memory,
}

/// One slab.
#[derive(Clone, Copy)]
pub(crate) struct Slab {
    pub(crate) layout: KvLayout,
    /// A head's part of a block.
    pub(crate) head: Head,
    /// Where the slab's part of a block begins.
    pub(crate) offset: usize,
}

impl KvSlabs {
    /// Slabs of these layouts and number types with `blocks` blocks. The operating system gives the memory when it is first
    /// written.
    pub fn new(slabs: &[(KvLayout, KvElements)], blocks: usize) -> Self {
        let mut block_bytes = 0;
        let slabs = slabs.iter().map(|&(layout, elements)| {
            let offset = block_bytes;
            block_bytes += layout.block_bytes(elements);
            Slab {
                layout,
                head: Head::new(layout, elements),
                offset,
            }
        });
        KvSlabs {
            slabs: slabs.collect(),
            blocks,
            block_bytes,
            memory: Memory::zeroed(block_bytes * blocks),
        }
    }

    /// Takes all memory of the slabs now, and keeps the system from swapping it out.
    ///
    /// # Errors
    /// The process may not lock so much, or the system has no such call.
    pub fn lock(&self) -> std::io::Result<()> {
        self.memory.lock()
    }

    /// Copies the keys and values of a block into another one.
    ///
    /// # Panics
    /// If a block lies outside the slabs.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let (from, to) = (self.range(from), self.range(to));
        self.memory.copy_within(from, to.start);
    }

    /// Bytes of a block, of all its parts.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// The keys and values of a block as they lie in memory, in the machine's byte order.
    ///
    /// # Panics
    /// If the block lies outside the slabs.
    #[must_use]
    pub fn block(&self, block: u32) -> &[u8] {
        &self.memory[self.range(block)]
    }

    /// As [`KvSlabs::block`], to be written. Any bytes are sound: they are numbers, which may be none.
    ///
    /// # Panics
    /// If the block lies outside the slabs.
    pub fn block_mut(&mut self, block: u32) -> &mut [u8] {
        let range = self.range(block);
        &mut self.memory[range]
    }

    fn range(&self, block: u32) -> std::ops::Range<usize> {
        let start = block as usize * self.block_bytes;
        start..start + self.block_bytes
    }

    /// One of the slabs.
    ///
    /// # Panics
    /// If there is none of that number.
    pub(crate) fn slab(&self, index: usize) -> Slab {
        self.slabs[index]
    }

    /// All blocks, one after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory
    }
}

/// Writes one key and value row of a slab per place `(block, offset)`: `k` is `[places, heads * head_dim_k]`, `v` alike.
///
/// # Panics
/// If a place lies outside the slabs or is given twice, or the rows are too short.
pub fn store_kv(
    pool: &Pool,
    tier: Tier,
    slabs: &mut KvSlabs,
    slab: usize,
    places: &[(u32, u32)],
    k: &[f32],
    v: &[f32],
) {
    let Slab {
        layout,
        head,
        offset: part,
    } = slabs.slab(slab);
    let (k_len, v_len) = (
        layout.heads * layout.head_dim_k,
        layout.heads * layout.head_dim_v,
    );
    assert!(
        k.len() >= places.len() * k_len && v.len() >= places.len() * v_len,
        "a row for every place"
    );
    for &(block, offset) in places {
        assert!(
            (block as usize) < slabs.blocks && (offset as usize) < POSITIONS_PER_BLOCK,
            "a place in the slabs"
        );
    }
    if places.len() > STORED_IN_TURN {
        let twice = places
            .iter()
            .enumerate()
            .any(|(i, place)| places[..i].contains(place));
        assert!(!twice, "a place for every row");
    }
    let block_bytes = slabs.block_bytes;
    let out = SendPtr(slabs.memory.as_mut_ptr());
    pool.for_each(places.len(), STORED_IN_TURN, |i| {
        let (block, offset) = places[i];
        let (k, v) = (&k[i * k_len..][..k_len], &v[i * v_len..][..v_len]);
        // SAFETY: the place lies in the slab, and several threads get distinct ones.
        let block = unsafe { out.get().add(block as usize * block_bytes + part) };
        let heads = Heads {
            start: block,
            bytes: head.bytes,
            offset: offset as usize,
        };
        by_element!(head.keys.element, E => {
            tier.run(StoreKeys::<E>(heads, head.keys, k, PhantomData));
        });
        by_element!(head.values.element, E => {
            tier.run(StoreValues::<E>(heads, head.values, v, PhantomData));
        });
    });
}

/// The position `offset` of a block, in all heads.
#[derive(Clone, Copy)]
struct Heads {
    start: *mut u8,
    /// From head to head.
    bytes: usize,
    offset: usize,
}

impl Heads {
    /// Where a head has its numbers and its scales.
    ///
    /// # Safety
    /// There is such a head.
    #[inline(always)]
    unsafe fn side(self, index: usize, side: Side) -> (*mut u8, *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let head = self.start.add(index * self.bytes);
            (head.add(side.numbers), head.add(side.scales))
        }
    }
}

macro_rules! store {
    ($(#[$doc:meta])* $name:ident, $store:ident) => {
        $(#[$doc])*
        struct $name<'a, E>(Heads, Side, &'a [f32], PhantomData<E>);

        impl<E: Element> Kernel for $name<'_, E> {
            type Output = ();
            #[inline(always)]
            fn run<S: Simd>(self, s: S) {
                let $name(heads, side, rows, _) = self;
                for (index, row) in rows.chunks_exact(side.dim).enumerate() {
                    // SAFETY: the block has the heads, and the offset is below `POSITIONS_PER_BLOCK`.
                    unsafe {
                        let (numbers, scales) = heads.side(index, side);
                        E::$store(s, numbers, scales, heads.offset, row);
                    }
                }
            }
        }
    };
}
store!(
    /// Writes the keys of a position.
    StoreKeys,
    store_key
);
store!(
    /// Writes the values of a position.
    StoreValues,
    store_value
);
