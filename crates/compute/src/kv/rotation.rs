//! The rotation of keys and values that become 4-bit codes.
//!
//! Some elements of keys are many times larger than the others in every position, and 16 codes cannot hold both. A rotation leaves the
//! products of keys with queries as they are if both are rotated, and a rotated value is rotated back after the sum over the
//! positions. That by a Hadamard matrix is sums and differences only, and it spreads a large element over all elements (Ashkboos et
//! al. 2024, QuaRot; Tseng et al. 2024, QuIP#).

/// Elements that are rotated together at most.
pub(crate) const LONGEST: usize = 256;

/// Multiplies with the Hadamard matrix over the square root of its size, which is its own inverse. A length that is no power of
/// two is cut into such, the longest first, none longer than [`LONGEST`].
///
/// Only sums, differences and one product for each element, in one order: equal to the last bit on every tier.
#[inline(always)]
pub(crate) fn rotate(x: &mut [f32]) {
    let mut rest = x;
    while !rest.is_empty() {
        let len = LONGEST.min(1 << rest.len().ilog2());
        let (piece, others) = rest.split_at_mut(len);
        hadamard(piece);
        rest = others;
    }
}

/// As [`rotate`], of a power of two elements.
#[inline(always)]
fn hadamard(x: &mut [f32]) {
    let mut half = 1;
    while half < x.len() {
        for pair in x.chunks_exact_mut(2 * half) {
            let (first, second) = pair.split_at_mut(half);
            for (a, b) in first.iter_mut().zip(second) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let factor = 1.0 / (x.len() as f32).sqrt();
    for x in x {
        *x *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Element `(i, j)` of a Hadamard matrix has the sign of the bits that both indices have (Sylvester).
    fn definition(x: &[f32]) -> Vec<f64> {
        let norm = (x.len() as f64).sqrt();
        let row = |i: usize| {
            let signed = x
                .iter()
                .enumerate()
                .map(|(j, x)| match (i & j).count_ones() % 2 {
                    0 => f64::from(*x),
                    _ => -f64::from(*x),
                });
            signed.sum::<f64>() / norm
        };
        (0..x.len()).map(row).collect()
    }

    #[test]
    fn a_rotation_is_the_product_with_a_hadamard_matrix_and_its_own_inverse() {
        for pieces in [
            &[1][..],
            &[2],
            &[8],
            &[16, 4],
            &[64],
            &[64, 16],
            &[64, 32],
            &[128],
            &[256],
            &[256, 256],
            &[256, 256, 64],
        ] {
            let len = pieces.iter().sum();
            let x: Vec<f32> = (0..len).map(|i| (i as f32 * 0.7).sin()).collect();
            let mut rotated = x.clone();
            rotate(&mut rotated);
            let (mut rest, mut want) = (&x[..], Vec::new());
            for &piece in pieces {
                let this;
                (this, rest) = rest.split_at(piece);
                want.extend(definition(this));
            }
            let differs = |a: f32, b: f64| (f64::from(a) - b).abs() > 2e-6;
            assert!(
                !rotated.iter().zip(&want).any(|(a, b)| differs(*a, *b)),
                "{pieces:?}"
            );
            rotate(&mut rotated);
            assert!(
                !rotated
                    .iter()
                    .zip(&x)
                    .any(|(a, b)| differs(*a, f64::from(*b))),
                "{pieces:?}"
            );
        }
    }
}
