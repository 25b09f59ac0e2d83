//! The key-value cache of a layer.
//!
//! The cache is a slab of blocks of [`POSITIONS_PER_BLOCK`] positions. In a block each head has its keys transposed,
//! `[head_dim_k, 32]`, so that scores of 32 positions come out as 4 vectors without sums across lanes, and its values as they
//! are, `[32, head_dim_v]`. A sequence is a list of block numbers; blocks can be shared.

use crate::pool::{Pool, SendPtr};
use crate::simd::{Kernel, Simd};
use crate::tier::Tier;

/// Positions in a block of the cache.
pub const POSITIONS_PER_BLOCK: usize = 32;
/// Rows that one thread stores before the next are handed out.
const STORED_IN_TURN: usize = 16;

/// The number type of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvElement {
    /// IEEE half, the default.
    F16,
    /// Exact, for comparisons.
    F32,
}

impl KvElement {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            KvElement::F16 => 2,
            KvElement::F32 => 4,
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
    pub(crate) fn head_len(self) -> usize {
        POSITIONS_PER_BLOCK * (self.head_dim_k + self.head_dim_v)
    }

    /// Numbers in a block.
    pub fn block_len(self) -> usize {
        self.heads * self.head_len()
    }
}

/// The cache of one layer: blocks of keys and values of any number of sequences.
pub struct KvSlab {
    pub(crate) layout: KvLayout,
    pub(crate) blocks: usize,
    pub(crate) data: Data,
}

pub(crate) enum Data {
    F16(Vec<u16>),
    F32(Vec<f32>),
}

impl KvSlab {
    /// A slab of `blocks` blocks. The operating system gives the memory when it is first written.
    pub fn new(layout: KvLayout, element: KvElement, blocks: usize) -> Self {
        let len = layout.block_len() * blocks;
        let data = match element {
            KvElement::F16 => Data::F16(vec![0; len]),
            KvElement::F32 => Data::F32(vec![0.0; len]),
        };
        KvSlab {
            layout,
            blocks,
            data,
        }
    }

    /// Copies the keys and values of a block into another one.
    ///
    /// # Panics
    /// If a block lies outside the slab.
    pub fn copy_block(&mut self, from: u32, to: u32) {
        let len = self.layout.block_len();
        let from = from as usize * len..(from as usize + 1) * len;
        let to = to as usize * len;
        match &mut self.data {
            Data::F16(data) => data.copy_within(from, to),
            Data::F32(data) => data.copy_within(from, to),
        }
    }

    /// The shape of its keys and values.
    pub fn layout(&self) -> KvLayout {
        self.layout
    }
}

/// Writes one key and value row per place `(block, offset)`: `k` is `[places, heads * head_dim_k]`, `v` alike.
///
/// # Panics
/// If a place lies outside the slab or is given twice, or the rows are too short.
pub fn store_kv(
    pool: &Pool,
    tier: Tier,
    slab: &mut KvSlab,
    places: &[(u32, u32)],
    k: &[f32],
    v: &[f32],
) {
    let layout = slab.layout;
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
            (block as usize) < slab.blocks && (offset as usize) < POSITIONS_PER_BLOCK,
            "a place in the slab"
        );
    }
    if places.len() > STORED_IN_TURN {
        let twice = places
            .iter()
            .enumerate()
            .any(|(i, place)| places[..i].contains(place));
        assert!(!twice, "a place for every row");
    }
    match &mut slab.data {
        Data::F16(data) => store_all(pool, tier, layout, data, places, k, v),
        Data::F32(data) => store_all(pool, tier, layout, data, places, k, v),
    }
}

fn store_all<E: Element>(
    pool: &Pool,
    tier: Tier,
    layout: KvLayout,
    data: &mut [E],
    places: &[(u32, u32)],
    k: &[f32],
    v: &[f32],
) {
    let (k_len, v_len) = (
        layout.heads * layout.head_dim_k,
        layout.heads * layout.head_dim_v,
    );
    let out = SendPtr(data.as_mut_ptr());
    pool.for_each(places.len(), STORED_IN_TURN, |i| {
        let (block, offset) = places[i];
        // SAFETY: `store_kv` checked that the place lies in the slab, and that several threads get distinct ones.
        let block = unsafe { out.get().add(block as usize * layout.block_len()) };
        let (k, v) = (&k[i * k_len..][..k_len], &v[i * v_len..][..v_len]);
        tier.run(Store {
            layout,
            block,
            offset: offset as usize,
            k,
            v,
        });
    });
}

struct Store<'a, E> {
    layout: KvLayout,
    block: *mut E,
    offset: usize,
    k: &'a [f32],
    v: &'a [f32],
}

impl<E: Element> Kernel for Store<'_, E> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let KvLayout {
            head_dim_k,
            head_dim_v,
            ..
        } = self.layout;
        for (h, (k, v)) in self
            .k
            .chunks_exact(head_dim_k)
            .zip(self.v.chunks_exact(head_dim_v))
            .enumerate()
        {
            // SAFETY: the head lies in the block, and the offset is below `POSITIONS_PER_BLOCK`.
            unsafe {
                let keys = self.block.add(h * self.layout.head_len());
                let values = keys.add(POSITIONS_PER_BLOCK * head_dim_k);
                for (at, x) in k.chunks(8).enumerate() {
                    for (d, x) in E::convert(s, x).into_iter().take(x.len()).enumerate() {
                        *keys.add((8 * at + d) * POSITIONS_PER_BLOCK + self.offset) = x;
                    }
                }
                for (at, x) in v.chunks(8).enumerate() {
                    let converted = E::convert(s, x);
                    let target = values.add(self.offset * head_dim_v + 8 * at);
                    std::ptr::copy_nonoverlapping(converted.as_ptr(), target, x.len());
                }
            }
        }
    }
}

/// A number type that a cache can have.
pub(crate) trait Element: Copy + Send + Sync {
    fn convert<S: Simd>(s: S, x: &[f32]) -> [Self; 8];
    /// # Safety
    /// `p` has 8 elements.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F;
    fn to_f32(self) -> f32;
}

#[inline(always)]
fn padded(x: &[f32]) -> [f32; 8] {
    let mut out = [0.0; 8];
    out[..x.len()].copy_from_slice(x);
    out
}

impl Element for u16 {
    #[inline(always)]
    fn convert<S: Simd>(s: S, x: &[f32]) -> [u16; 8] {
        let mut out = [0; 8];
        // SAFETY: both arrays have 8 elements.
        unsafe { s.store_f16(out.as_mut_ptr(), s.load(padded(x).as_ptr())) };
        out
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const u16) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load_f16(p) }
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        half::f16::from_bits(self).to_f32()
    }
}

impl Element for f32 {
    #[inline(always)]
    fn convert<S: Simd>(_: S, x: &[f32]) -> [f32; 8] {
        padded(x)
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::F {
        // SAFETY: the caller's promise.
        unsafe { s.load(p) }
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
}
