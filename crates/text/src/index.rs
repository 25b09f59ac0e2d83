//! From the hash of a thing to its places in a list, for lists of hundreds of thousands of things that are read whenever a
//! model is loaded and of which a run looks up a few.
//!
//! So filling it is what has to be cheap: the places are sorted by a part of their hash (one pass to count, one to put them
//! down), and nothing is compared or moved. A look-up walks a handful of places.

/// Places with the same upper bits of the hash stand side by side, ascending.
pub(crate) struct Index {
    /// Where each bucket ends in `slots`; it starts where the one before it ends.
    ends: Vec<u32>,
    /// A place in the lower 24 bits, and above them further bits of the hash, which rule most others out.
    slots: Vec<u32>,
    /// Bits of the hash that number a bucket.
    bits: u32,
}

/// Bits of a place.
const PLACE_BITS: u32 = 24;

/// Places that an index can have.
pub(crate) const MAX_PLACES: usize = 1 << PLACE_BITS;

/// Places to a bucket, on average.
const PER_BUCKET: usize = 2;

impl Index {
    /// An index of the things with these hashes, whose places count from 0. At most [`MAX_PLACES`].
    pub(crate) fn of(hashes: impl ExactSizeIterator<Item = u64>) -> Self {
        let count = hashes.len().min(MAX_PLACES);
        let bits = (count / PER_BUCKET).max(2).next_power_of_two().ilog2();
        let mut ends = vec![0_u32; 1 << bits];
        // The upper 32 bits of a hash hold the bucket's number and the bits of a slot.
        let mut short = Vec::with_capacity(count);
        for hash in hashes.take(count) {
            let hash = (hash >> 32) as u32;
            ends[(hash >> (32 - bits)) as usize] += 1;
            short.push(hash);
        }
        let mut sum = 0;
        for end in &mut ends {
            // For now the start of the bucket, from which it is filled.
            sum += std::mem::replace(end, sum);
        }
        let mut slots = vec![0; count];
        for (place, hash) in (0..).zip(short) {
            let end = &mut ends[(hash >> (32 - bits)) as usize];
            slots[*end as usize] = tag(hash) | place;
            *end += 1;
        }
        Self { ends, slots, bits }
    }

    /// The places that a thing of this hash can have, ascending: all that it has, and seldom others.
    pub(crate) fn places(&self, hash: u64) -> impl DoubleEndedIterator<Item = u32> {
        let hash = (hash >> 32) as u32;
        let bucket = (hash >> (32 - self.bits)) as usize;
        let start = match bucket {
            0 => 0,
            _ => self.ends[bucket - 1],
        };
        let slots = &self.slots[start as usize..self.ends[bucket] as usize];
        let tag = tag(hash);
        slots
            .iter()
            .map(move |slot| slot ^ tag)
            .filter(|&place| place >> PLACE_BITS == 0)
    }
}

/// Bits of the hash that do not number the bucket of any but the largest lists.
fn tag(hash: u32) -> u32 {
    hash << PLACE_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_found_by_its_hash_and_those_of_one_hash_in_order() {
        for count in [0_u64, 1, 2, 7, 1000, 70_000] {
            // Every third hash comes again.
            let hash =
                |place: u64| (place % (count * 2 / 3 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let hashes: Vec<u64> = (0..count).map(hash).collect();
            let index = Index::of(hashes.iter().copied());
            for (place, &wanted) in hashes.iter().enumerate() {
                let found: Vec<u32> = index.places(wanted).collect();
                assert!(found.contains(&(place as u32)));
                assert!(found.is_sorted());
                assert!(found.len() < 20, "{} of {count}", found.len());
            }
            assert!(index.places(0x1234_5678_9abc_def0).count() < 20);
        }
    }
}
