//! Vectors in groups: [`k_means`] where the number of groups is known, [`dbscan`] where it is not.
//!
//! Distances are Euclidean. For vectors of length 1, such as an embedder gives, the squared distance is `2 - 2 cosine`: a
//! radius of 0.8 means a cosine of at least 0.68.

mod density;
mod means;

pub use density::{DbscanOptions, dbscan};
pub use means::{Clusters, KMeansOptions, k_means};

use super::SearchError;

/// # Errors
/// [`SearchError::Cluster`] for vectors of several lengths, or with what is no finite number.
fn check(vectors: &[impl AsRef<[f32]>]) -> Result<(), SearchError> {
    let width = vectors.first().map_or(0, |vector| vector.as_ref().len());
    for (index, vector) in vectors.iter().enumerate() {
        let vector = vector.as_ref();
        if vector.len() != width {
            let reason = format!(
                "vector {index} has {} numbers and the first one {width}: they must have one length",
                vector.len()
            );
            return Err(SearchError::Cluster(reason));
        }
        if !vector.iter().all(|number| number.is_finite()) {
            let reason = format!("vector {index} holds what is not a finite number");
            return Err(SearchError::Cluster(reason));
        }
    }
    Ok(())
}

/// The square of the distance of two vectors.
fn squared_distance(a: impl Iterator<Item = f64>, b: &[f32]) -> f64 {
    let differences = a.zip(b).map(|(a, b)| a - f64::from(*b));
    differences.map(|difference| difference * difference).sum()
}
