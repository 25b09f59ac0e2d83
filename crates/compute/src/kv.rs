//! The key-value cache.
//!
//! The cache is slabs, one for each layer, of blocks of [`POSITIONS_PER_BLOCK`] positions. In a block each head has its keys transposed,
//! `[head_dim_k, 32]`, so that scores of 32 positions come out as 4 vectors without sums across lanes, and its values as they
//! are, `[32, head_dim_v]`. A sequence is a list of block numbers; blocks can be shared.

pub(crate) mod element;

use crate::memory::Memory;
use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;
use element::{Element, F16, F32, Q8};
use std::marker::PhantomData;

/// Positions in a block of the cache.
pub const POSITIONS_PER_BLOCK: usize = 32;
/// Rows that one thread stores before the next are handed out.
const STORED_IN_TURN: usize = 16;
/// Bytes of a cache line: blocks begin at one.
pub(crate) const LINE: usize = 64;

/// The number type of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvElement {
    /// IEEE half, the default.
    F16,
    /// Exact, for comparisons.
    F32,
    /// 8-bit codes with one half-precision scale for each 32 elements of a key or value, as GGUF's type of that name.
    Q8_0,
}

impl KvElement {
    /// Its name in the field.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            KvElement::F16 => "F16",
            KvElement::F32 => "F32",
            KvElement::Q8_0 => "Q8_0",
        }
    }

    /// Bytes of one key-value head's part of a block.
    pub(crate) fn head_bytes(self, layout: KvLayout) -> usize {
        match self {
            KvElement::F16 => F16::head_bytes(layout),
            KvElement::F32 => F32::head_bytes(layout),
            KvElement::Q8_0 => Q8::head_bytes(layout),
        }
    }
}

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
    pub fn block_bytes(self, element: KvElement) -> usize {
        self.heads * element.head_bytes(self)
    }

    /// Elements of a value in the cache: whole vectors of 16, the last filled up with zeros.
    pub(crate) fn padded_v(self) -> usize {
        self.head_dim_v.next_multiple_of(16)
    }
}

/// The cache of a model: blocks of keys and values of any number of sequences, each with a part for every slab (a layer, or layers that
/// share one). A block's parts lie together, so that a short sequence takes little memory, and that in a few large pages.
pub struct KvSlabs {
    slabs: Vec<Slab>,
    pub(crate) element: KvElement,
    pub(crate) blocks: usize,
    /// Of all parts.
    pub(crate) block_bytes: usize,
    memory: Memory,
}

/// One slab.
#[derive(Clone, Copy)]
pub(crate) struct Slab {
    pub(crate) layout: KvLayout,
    /// Where its part of a block begins.
    pub(crate) offset: usize,
}

impl KvSlabs {
    /// Slabs of these layouts with `blocks` blocks. The operating system gives the memory when it is first written.
    pub fn new(layouts: &[KvLayout], element: KvElement, blocks: usize) -> Self {
        let mut block_bytes = 0;
        let slabs = layouts.iter().map(|&layout| {
            let offset = block_bytes;
            block_bytes += layout.block_bytes(element);
            Slab { layout, offset }
        });
        KvSlabs {
            slabs: slabs.collect(),
            element,
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
    let element = slabs.element;
    pool.for_each(places.len(), STORED_IN_TURN, |i| {
        let (block, offset) = places[i];
        let (k, v) = (&k[i * k_len..][..k_len], &v[i * v_len..][..v_len]);
        // SAFETY: the place lies in the slab, and several threads get distinct ones.
        let block = unsafe { out.get().add(block as usize * block_bytes + part) };
        let offset = offset as usize;
        match element {
            KvElement::F16 => tier.run(Store::<F16>::new(layout, block, offset, k, v)),
            KvElement::F32 => tier.run(Store::<F32>::new(layout, block, offset, k, v)),
            KvElement::Q8_0 => tier.run(Store::<Q8>::new(layout, block, offset, k, v)),
        }
    });
}

/// Writes the keys and values of a position, of all heads.
struct Store<'a, E> {
    layout: KvLayout,
    block: *mut u8,
    offset: usize,
    k: &'a [f32],
    v: &'a [f32],
    element: PhantomData<E>,
}

impl<'a, E: Element> Store<'a, E> {
    fn new(layout: KvLayout, block: *mut u8, offset: usize, k: &'a [f32], v: &'a [f32]) -> Self {
        Store {
            layout,
            block,
            offset,
            k,
            v,
            element: PhantomData,
        }
    }
}

impl<E: Element> Kernel for Store<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let layout = self.layout;
        let keys = self.k.chunks_exact(layout.head_dim_k);
        let values = self.v.chunks_exact(layout.head_dim_v);
        for (h, (k, v)) in keys.zip(values).enumerate() {
            // SAFETY: the head lies in the block, and the offset is below `POSITIONS_PER_BLOCK`.
            unsafe {
                let head = self.block.add(h * E::head_bytes(layout));
                E::store(s, head, layout, self.offset, k, v);
            }
        }
    }
}
