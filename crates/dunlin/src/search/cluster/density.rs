//! Groups where vectors lie close together.

use super::{check, squared_distance};
use crate::search::SearchError;

/// What counts as close together.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DbscanOptions {
    /// Vectors at most this far from each other are neighbours.
    pub radius: f64,
    /// Neighbours, itself included, that make a vector the core of a group.
    pub min_points: usize,
}

impl DbscanOptions {
    /// This radius, and 5 neighbours.
    #[must_use]
    pub fn new(radius: f64) -> Self {
        DbscanOptions {
            radius,
            min_points: 5,
        }
    }

    /// With this many neighbours.
    #[must_use]
    pub fn with_min_points(mut self, min_points: usize) -> Self {
        self.min_points = min_points;
        self
    }
}

/// The group of each vector, from 0 in the order of their first cores; `None` for vectors that belong to none (DBSCAN, Ester,
/// Kriegel, Sander and Xu 1996). All pairs of vectors are compared: the time grows with the square of their number.
///
/// # Errors
/// [`SearchError::Cluster`] for a radius that is no positive number, vectors of several lengths, or with what is no number.
pub fn dbscan(
    vectors: &[impl AsRef<[f32]>],
    options: &DbscanOptions,
) -> Result<Vec<Option<usize>>, SearchError> {
    check(vectors)?;
    if !(options.radius > 0.0 && options.radius.is_finite()) {
        let reason = format!("{} is no radius: give a positive number", options.radius);
        return Err(SearchError::Cluster(reason));
    }
    let vectors: Vec<&[f32]> = vectors.iter().map(AsRef::as_ref).collect();
    let square = options.radius * options.radius;
    let neighbours = |index: usize| -> Vec<usize> {
        let near = |other: &[f32]| {
            let own = vectors[index].iter().copied().map(f64::from);
            squared_distance(own, other) <= square
        };
        (0..vectors.len())
            .filter(|other| near(vectors[*other]))
            .collect()
    };
    let mut labels = vec![None; vectors.len()];
    let mut groups = 0;
    for first in 0..vectors.len() {
        if labels[first].is_some() {
            continue;
        }
        // The first group that reaches a vector has it. One without enough neighbours may yet be reached by a later group.
        let mut waiting = vec![first];
        while let Some(next) = waiting.pop() {
            let near = neighbours(next);
            if near.len() < options.min_points {
                continue;
            }
            for other in near {
                if labels[other].is_none() {
                    labels[other] = Some(groups);
                    waiting.push(other);
                }
            }
        }
        groups += usize::from(labels[first].is_some());
    }
    Ok(labels)
}
