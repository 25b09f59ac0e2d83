//! Zeroed memory that is read all through for every token: weights, keys and values.

use memmap2::MmapMut;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a cache line: the memory begins at one.
const LINE: usize = 64;
/// What the places of matrices in shared memory are multiples of: a pair of lines, which processors fetch together.
const PLACE: usize = 2 * LINE;
/// Bytes from which memory is mapped by itself, so that the system has it back when it is dropped. An allocator would keep it.
const MAPPED: usize = 1 << 16;

/// Zeroed bytes that begin at a cache line. The operating system gives them when they are first written, in large pages where it has
/// such: each saves the processor 512 look-ups of addresses.
pub(crate) struct Memory(Kind);

enum Kind {
    Mapped(MmapMut),
    /// A part of a mapping, from this byte on, of this length. No two parts of a mapping overlap.
    Part(Arc<Mapping>, usize, usize),
    /// With the place of the first line.
    Heap(Vec<u8>, usize),
}

/// A mapping that is read and written through its parts only.
#[cfg_attr(not(unix), allow(dead_code, reason = "memory is locked on Unix only"))]
struct Mapping {
    map: MmapMut,
    start: *mut u8,
    locked: AtomicBool,
}
// SAFETY: the parts, which do not overlap, own its bytes; each is an ordinary owner of plain numbers.
unsafe impl Send for Mapping {}
// SAFETY: as above; through a shared mapping nothing is reached but the calls that lock it.
unsafe impl Sync for Mapping {}

/// Memory for all the weights of a model, one matrix after the other.
///
/// Large pages are some megabytes long, and many matrices are shorter, or end in the middle of one. With a mapping each, a fourth
/// of the weights of a model of a billion weights lay in small pages, which are read a sixth slower. In one mapping all but its ends
/// lie in large ones.
#[derive(Default)]
pub struct WeightMemory {
    mapping: Option<Arc<Mapping>>,
    capacity: usize,
    used: usize,
}

impl WeightMemory {
    /// Room for so many bytes in all. They are addresses only: the system gives memory when it is written. Matrices that
    /// find no room get memory of their own, as all do where the system refuses so many addresses.
    pub fn with_capacity(bytes: usize) -> Self {
        if bytes < MAPPED {
            return WeightMemory::default();
        }
        let Ok(mut map) = MmapMut::map_anon(bytes) else {
            return WeightMemory::default();
        };
        advise(&map);
        let start = map.as_mut_ptr();
        WeightMemory {
            mapping: Some(Arc::new(Mapping {
                map,
                start,
                locked: AtomicBool::new(false),
            })),
            capacity: bytes,
            used: 0,
        }
    }

    /// What a matrix takes of the capacity at most.
    pub fn room_for(bytes: usize) -> usize {
        bytes.saturating_add(PLACE - 1)
    }

    /// Zeroed memory for a matrix.
    pub(crate) fn take(&mut self, len: usize) -> Memory {
        let start = self.used.next_multiple_of(PLACE);
        match &self.mapping {
            Some(mapping) if start <= self.capacity && len <= self.capacity - start => {
                self.used = start + len;
                Memory(Kind::Part(Arc::clone(mapping), start, len))
            }
            _ => Memory::zeroed(len),
        }
    }
}

/// Asks for large pages.
fn advise(map: &MmapMut) {
    // Advice: where it is not taken, nothing is lost.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}

impl Memory {
    pub(crate) fn zeroed(len: usize) -> Self {
        if len >= MAPPED
            && let Ok(map) = MmapMut::map_anon(len)
        {
            advise(&map);
            return Memory(Kind::Mapped(map));
        }
        let bytes = vec![0; len + LINE];
        let start = bytes.as_ptr().align_offset(LINE);
        Memory(Kind::Heap(bytes, start))
    }

    /// Takes the memory now and keeps the system from swapping it out, as long as this value lives; a part, all of its mapping.
    /// Little memory shares its pages with the heap and is left alone.
    ///
    /// # Errors
    /// The process may not lock so much, or the system has no such call.
    pub(crate) fn lock(&self) -> io::Result<()> {
        match &self.0 {
            #[cfg(unix)]
            Kind::Mapped(map) => map.lock(),
            #[cfg(unix)]
            Kind::Part(mapping, ..) => {
                if !mapping.locked.load(Ordering::Relaxed) {
                    mapping.map.lock()?;
                    mapping.locked.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            #[cfg(not(unix))]
            Kind::Mapped(_) | Kind::Part(..) => Err(io::ErrorKind::Unsupported.into()),
            Kind::Heap(..) => Ok(()),
        }
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::Mapped(map) => map,
            // SAFETY: `take` gave out bytes of the mapping, which `Mapping` keeps alive; they are zeroed or written, and
            // no other part has them.
            Kind::Part(mapping, start, len) => unsafe {
                std::slice::from_raw_parts(mapping.start.add(*start), *len)
            },
            Kind::Heap(bytes, start) => &bytes[*start..bytes.len() - LINE + start],
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.0 {
            Kind::Mapped(map) => map,
            // SAFETY: as in `deref`; `self` is borrowed for this one slice.
            Kind::Part(mapping, start, len) => unsafe {
                std::slice::from_raw_parts_mut(mapping.start.add(*start), *len)
            },
            Kind::Heap(bytes, start) => {
                let end = bytes.len() - LINE + *start;
                &mut bytes[*start..end]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_any_size_is_zero_and_begins_at_a_line() {
        for len in [0, 1, 63, 64, 4096, MAPPED - 1, MAPPED, MAPPED + 1] {
            let mut memory = Memory::zeroed(len);
            assert_eq!(memory.len(), len);
            assert!(memory.iter().all(|byte| *byte == 0));
            assert!(memory.as_ptr().addr().is_multiple_of(LINE));
            memory.fill(7);
            if cfg!(unix) && len <= 4096 {
                assert!(memory.lock().is_ok());
            }
            assert!(memory.iter().all(|byte| *byte == 7));
        }
    }
    #[test]
    fn matrices_share_a_mapping_without_overlap_as_long_as_there_is_room() {
        let lengths = [1, 4096, 127, 0, 128, MAPPED];
        let capacity = lengths.map(WeightMemory::room_for).iter().sum();
        let mut memory = WeightMemory::with_capacity(capacity);
        let mut parts = lengths.map(|len| memory.take(len));
        let own = memory.take(4096);
        assert!(matches!(own.0, Kind::Heap(..)), "there is no more room");
        drop(memory);
        for (index, part) in parts.iter_mut().enumerate() {
            assert!(matches!(part.0, Kind::Part(..)));
            assert_eq!(part.len(), lengths[index]);
            assert!(part.as_ptr().addr().is_multiple_of(PLACE));
            assert!(part.iter().all(|byte| *byte == 0));
            part.fill(index as u8 + 1);
        }
        for (index, part) in parts.iter().enumerate() {
            assert!(part.iter().all(|byte| *byte == index as u8 + 1));
        }
        assert!(own.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn more_addresses_than_there_are_leave_each_matrix_memory_of_its_own() {
        let mut memory = WeightMemory::with_capacity(usize::MAX / 2);
        assert!(memory.take(100).iter().all(|byte| *byte == 0));
    }
}
