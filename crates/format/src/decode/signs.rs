//! A bit for each of eight codes, eight codes at a time in the bytes of a word.

const ONES: u64 = 0x0101_0101_0101_0101;

/// For eight bits, lowest first, eight bytes: all ones where the bit is set.
static MASKS: [u64; 256] = masks();

/// Eight codes, none of them zero, negative where the bit is set.
#[inline(always)]
pub(super) fn signed(codes: u64, bits: u8) -> [i8; 8] {
    let mask = MASKS[usize::from(bits)];
    // Two's complement in each byte: the complement of a code that is not zero is below 255, so that adding one carries
    // nothing into the next byte.
    to_codes((codes ^ mask) + (mask & ONES))
}

/// 1 where the bit is set, else -1.
#[inline(always)]
pub(super) fn plus_or_minus_one(bits: u8) -> [i8; 8] {
    to_codes(!MASKS[usize::from(bits)] | ONES)
}

/// Eight signs out of seven bits: the eighth makes their number even.
#[inline(always)]
pub(super) fn even(bits: u32) -> u8 {
    static EVEN: [u8; 128] = even_signs();
    EVEN[(bits & 127) as usize]
}

#[inline(always)]
fn to_codes(word: u64) -> [i8; 8] {
    word.to_le_bytes().map(|code| code as i8)
}

const fn masks() -> [u64; 256] {
    let mut out = [0; 256];
    let mut bits = 0;
    while bits < 256 {
        let mut i = 0;
        while i < 8 {
            if bits >> i & 1 == 1 {
                out[bits] |= 0xff << (8 * i);
            }
            i += 1;
        }
        bits += 1;
    }
    out
}

const fn even_signs() -> [u8; 128] {
    let mut out = [0; 128];
    let mut bits = 0u8;
    while bits < 128 {
        out[bits as usize] = bits | (bits.count_ones() as u8 & 1) << 7;
        bits += 1;
    }
    out
}
