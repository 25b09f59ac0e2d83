//! Pieces that the assembly of the register tiles is put together from.

/// A line of assembly: an instruction and its operands, the result first.
macro_rules! op {
    ($name:expr, $first:expr, $second:expr) => {
        concat!($name, " ", $first, ", ", $second, "\n")
    };
    ($name:expr, $first:expr, $second:expr, $third:expr) => {
        concat!($name, " ", $first, ", ", $second, ", ", $third, "\n")
    };
}
pub(super) use op;
