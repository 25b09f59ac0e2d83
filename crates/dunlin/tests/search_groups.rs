//! Groups of vectors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::HashMap;

use common::fixture_json;
use dunlin::search::cluster::{DbscanOptions, KMeansOptions, dbscan, k_means};

/// The groups of two runs are the same but for their numbers.
fn same_groups<T: Copy + Eq + std::hash::Hash, U: Copy + Eq>(a: &[T], b: &[U]) -> bool {
    let mut pairs = HashMap::new();
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| *pairs.entry(*a).or_insert(*b) == *b)
}

#[test]
fn groups_are_those_of_scikit_learn() {
    let reference = fixture_json("search.json");
    let cluster = &reference["cluster"];
    let points: Vec<Vec<f32>> = serde_json::from_value(cluster["points"].clone()).unwrap();
    let options = KMeansOptions::new(4).with_seed(1).with_starts(50);
    let found = k_means(&points, &options).unwrap();
    let inertia = cluster["inertia"].as_f64().unwrap();
    assert!(
        (found.inertia - inertia).abs() < 1e-6 * inertia,
        "{}",
        found.inertia
    );
    let wanted: Vec<i64> = serde_json::from_value(cluster["labels"].clone()).unwrap();
    assert!(same_groups(&found.labels, &wanted) && same_groups(&wanted, &found.labels));
    assert_eq!(
        found,
        k_means(&points, &options).unwrap(),
        "the seed decides"
    );
    for run in cluster["dbscan"].as_array().unwrap() {
        let options = DbscanOptions::new(run["radius"].as_f64().unwrap())
            .with_min_points(run["min_points"].as_u64().unwrap() as usize);
        let wanted: Vec<i64> = serde_json::from_value(run["labels"].clone()).unwrap();
        let found: Vec<i64> = dbscan(&points, &options)
            .unwrap()
            .iter()
            .map(|label| label.map_or(-1, |label| label as i64))
            .collect();
        // Both number the groups by their first cores.
        assert_eq!(found, wanted, "{options:?}");
    }
}

#[test]
fn groups_that_cannot_be_made_are_refused() {
    let points = vec![vec![0.0_f32, 1.0], vec![2.0, 3.0]];
    for clusters in [0, 3] {
        let error = k_means(&points, &KMeansOptions::new(clusters)).unwrap_err();
        assert!(error.to_string().contains("1 to 2"), "{error}");
    }
    let none: [[f32; 2]; 0] = [];
    assert!(k_means(&none, &KMeansOptions::new(1)).is_err());
    assert!(dbscan(&none, &DbscanOptions::new(1.0)).unwrap().is_empty());
    assert!(dbscan(&points, &DbscanOptions::new(f64::NAN)).is_err());
    assert!(dbscan(&points, &DbscanOptions::new(0.0)).is_err());
    assert!(k_means(&[vec![1.0_f32], vec![]], &KMeansOptions::new(1)).is_err());
    assert!(dbscan(&[[f32::NAN]], &DbscanOptions::new(1.0)).is_err());
    // Fewer vectors that differ than groups.
    let same = [[1.0_f32, 1.0]; 5];
    let found = k_means(&same, &KMeansOptions::new(3)).unwrap();
    assert_eq!(found.inertia, 0.0);
}
