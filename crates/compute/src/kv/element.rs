//! What attention needs of a number type of the cache, and where a block has its numbers.

use super::coded::{Bits4, Bits8, Coded};
use super::plain::Plain;
use super::{KvElement, KvElements, KvLayout};
use crate::simd::Simd;

/// A number type that keys or values can have. A value of such a type is the keys or the values of one head in a block, ready to
/// be read.
pub(crate) trait Element: Copy {
    /// Bytes of the keys of a block, of so many elements each.
    fn key_bytes(dim: usize) -> usize;

    /// Bytes of the values of a block.
    fn value_bytes(dim: usize) -> usize;

    /// Scales of the keys or of the values of a block, as halves in the block and as floats once it is open.
    fn scales(dim: usize) -> usize;

    /// Makes keys or values readable.
    ///
    /// # Safety
    /// `numbers` has the bytes of keys or values of `dim` elements, `scales` has [`Element::scales`] halves, `opened` as many floats;
    /// all of them outlive the result.
    unsafe fn open<S: Simd>(
        s: S,
        numbers: *const u8,
        scales: *const u8,
        dim: usize,
        opened: *mut f32,
    ) -> Self;

    /// Element `d` of the keys of positions `16 * i..16 * i + 16`.
    ///
    /// # Safety
    /// These are keys, and have those.
    unsafe fn key<S: Simd>(self, s: S, d: usize, i: usize) -> S::W;

    /// Elements `16 * i..16 * i + 16` of the value of position `p`, zeros behind its end.
    ///
    /// # Safety
    /// These are values, and have those.
    unsafe fn value<S: Simd>(self, s: S, p: usize, i: usize) -> S::W;

    /// Writes the key of the position `offset` of a block.
    ///
    /// # Safety
    /// As [`Element::open`] for keys as long as `key`; `offset` is below [`POSITIONS_PER_BLOCK`](super::POSITIONS_PER_BLOCK).
    unsafe fn store_key<S: Simd>(
        s: S,
        numbers: *mut u8,
        scales: *mut u8,
        offset: usize,
        key: &[f32],
    );

    /// Writes a value, as [`Element::store_key`] a key.
    ///
    /// # Safety
    /// As [`Element::store_key`].
    unsafe fn store_value<S: Simd>(
        s: S,
        numbers: *mut u8,
        scales: *mut u8,
        offset: usize,
        value: &[f32],
    );
}

/// IEEE halves.
pub(crate) type F16 = Plain<u16>;
/// Single precision.
pub(crate) type F32 = Plain<f32>;
/// 8-bit codes.
pub(crate) type Q8 = Coded<Bits8>;
/// 4-bit codes.
pub(crate) type Q4 = Coded<Bits4>;

/// An expression of the type that a [`KvElement`] names.
macro_rules! by_element {
    ($element:expr, $type:ident => $call:expr) => {
        match $element {
            $crate::kv::KvElement::F16 => {
                type $type = $crate::kv::element::F16;
                $call
            }
            $crate::kv::KvElement::F32 => {
                type $type = $crate::kv::element::F32;
                $call
            }
            $crate::kv::KvElement::Q8_0 => {
                type $type = $crate::kv::element::Q8;
                $call
            }
            $crate::kv::KvElement::Q4_0 => {
                type $type = $crate::kv::element::Q4;
                $call
            }
        }
    };
}
pub(crate) use by_element;

/// The keys or the values in a head's part of a block.
#[derive(Clone, Copy)]
pub(crate) struct Side {
    pub(crate) element: KvElement,
    /// Elements of a key or value.
    pub(crate) dim: usize,
    /// Where the numbers begin.
    pub(crate) numbers: usize,
    /// Where the scales begin, one for each position of a group of elements.
    pub(crate) scales: usize,
}

/// A key-value head's part of a block: its keys, its values, the scales of the keys and those of the values.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) keys: Side,
    pub(crate) values: Side,
    pub(crate) bytes: usize,
}

impl Head {
    pub(crate) fn new(layout: KvLayout, elements: KvElements) -> Self {
        let KvElements { keys, values } = elements;
        let (dim_k, dim_v) = (layout.head_dim_k, layout.head_dim_v);
        let values_at = by_element!(keys, E => E::key_bytes(dim_k));
        let key_scales_at = values_at + by_element!(values, E => E::value_bytes(dim_v));
        let value_scales_at = key_scales_at + by_element!(keys, E => scale_bytes::<E>(dim_k));
        Head {
            keys: Side {
                element: keys,
                dim: dim_k,
                numbers: 0,
                scales: key_scales_at,
            },
            values: Side {
                element: values,
                dim: dim_v,
                numbers: values_at,
                scales: value_scales_at,
            },
            bytes: value_scales_at + by_element!(values, E => scale_bytes::<E>(dim_v)),
        }
    }
}

fn scale_bytes<E: Element>(dim: usize) -> usize {
    E::scales(dim) * size_of::<u16>()
}
