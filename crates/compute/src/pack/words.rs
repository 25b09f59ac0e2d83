//! Rearranging the codes of 8 rows, a word of 4 columns of each row at a time.
//!
//! Eight words side by side are what a panel calls a step. Where codes are wider or narrower than a byte, the words of a row
//! are a matrix of bits, and a panel holds its transpose: all is done by exchanging masked halves of words (Warren, Hacker's
//! Delight, 7-3). Written without intrinsics: a loop over 8 words is one vector operation on every tier.

use crate::panels::ROWS;

/// A word of each row.
pub(super) type Words = [u32; ROWS];

/// One unit of each row of a panel, where the file has them. The rows that a matrix lacks are zeros.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) at: [*const u8; ROWS],
    /// Rows that the matrix has.
    pub(super) count: usize,
}

impl Rows {
    /// The 4 bytes at `at` of each row.
    ///
    /// # Safety
    /// Every row has `at + 4` bytes.
    #[inline(always)]
    pub(super) unsafe fn words(&self, at: usize) -> Words {
        let mut words = [0; ROWS];
        for r in 0..ROWS {
            // SAFETY: the caller's promise.
            words[r] = u32::from_le(unsafe { self.at[r].add(at).cast::<u32>().read_unaligned() });
        }
        words
    }

    /// The 2 bytes at `at` of each row, to 16 bytes at `out`.
    ///
    /// # Safety
    /// Every row has `at + 2` bytes, and `out` has 16.
    #[inline(always)]
    pub(super) unsafe fn copy_halves(&self, at: usize, out: *mut u8) {
        for r in 0..ROWS {
            // SAFETY: the caller's promise.
            unsafe {
                let half = self.at[r].add(at).cast::<u16>().read_unaligned();
                out.add(2 * r).cast::<u16>().write_unaligned(half);
            }
        }
    }

    /// The `N` bytes at `at` of a row.
    ///
    /// # Safety
    /// The row has `at + N` bytes.
    #[inline(always)]
    pub(super) unsafe fn bytes<const N: usize>(&self, row: usize, at: usize) -> [u8; N] {
        // SAFETY: the caller's promise.
        unsafe { self.at[row].add(at).cast::<[u8; N]>().read_unaligned() }
    }
}

/// Writes a step.
///
/// # Safety
/// `out` has 32 bytes.
#[inline(always)]
pub(super) unsafe fn store(out: *mut u8, words: Words) {
    for r in 0..ROWS {
        // SAFETY: the caller's promise.
        unsafe {
            out.add(4 * r)
                .cast::<u32>()
                .write_unaligned(words[r].to_le())
        };
    }
}

/// Exchanges the bits of `mask` in `a`, `shift` places further up, with those of `mask` in `b`.
#[inline(always)]
fn exchange(a: &mut Words, b: &mut Words, shift: u32, mask: u32) {
    for r in 0..ROWS {
        let differ = ((a[r] >> shift) ^ b[r]) & mask;
        b[r] ^= differ;
        a[r] ^= differ << shift;
    }
}

/// Of each byte of 8 words bit `j` goes to word `j`: as bit `i`, where it came from word `i`.
#[inline(always)]
pub(super) fn transpose_bits(words: &mut [Words; 8]) {
    for (distance, mask) in [(4, 0x0f0f_0f0f), (2, 0x3333_3333), (1, 0x5555_5555)] {
        for i in 0..8 {
            if i & distance == 0 {
                let (low, high) = words.split_at_mut(i + distance);
                exchange(&mut low[i], &mut high[0], distance as u32, mask);
            }
        }
    }
}

/// Of each byte of 4 words the 2-bit field `j` goes to word `j`: as field `i`, where it came from word `i`.
#[inline(always)]
pub(super) fn transpose_pairs(words: &mut [Words; 4]) {
    for (distance, mask) in [(2, 0x0f0f_0f0f), (1, 0x3333_3333)] {
        for i in 0..4 {
            if i & distance == 0 {
                let (low, high) = words.split_at_mut(i + distance);
                exchange(&mut low[i], &mut high[0], 2 * distance as u32, mask);
            }
        }
    }
}

/// Bit `4 s + k` of each word goes to bit `8 k + s`: of 32 columns the bits of one word become 4 bytes, one for each column
/// of a step.
#[inline(always)]
pub(super) fn spread_bits(words: &mut Words) {
    // The number of a bit is s2 s1 s0 k1 k0 and shall be k1 k0 s2 s1 s0: four exchanges of two digits each.
    for (shift, mask) in [
        (14, 0x0000_cccc),
        (7, 0x00aa_00aa),
        (2, 0x0c0c_0c0c),
        (1, 0x2222_2222),
    ] {
        for word in words.iter_mut() {
            let differ = ((*word >> shift) ^ *word) & mask;
            *word ^= differ ^ (differ << shift);
        }
    }
}
