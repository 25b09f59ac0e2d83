//! Two rankings as one.

use std::collections::HashMap;

/// The constant of reciprocal rank fusion, as its authors chose it: it keeps the first ranks from deciding alone.
const K: f64 = 60.0;

/// Reciprocal rank fusion (Cormack, Clarke and Büttcher 2009): the score of a row is the sum of `weight / (60 + rank)` over the
/// rankings that it stands in, the first rank being 1. In no order.
pub(super) fn fuse(rankings: &[(f64, &[(usize, f64)])]) -> HashMap<usize, f64> {
    let mut scores = HashMap::new();
    for (weight, ranking) in rankings {
        for (place, (row, _)) in ranking.iter().enumerate() {
            *scores.entry(*row).or_insert(0.0) += weight / (K + (place + 1) as f64);
        }
    }
    scores
}

#[cfg(test)]
mod tests {
    use super::fuse;

    #[test]
    fn a_row_in_both_rankings_wins_over_the_first_of_one() {
        let (meaning, words) = ([(7, 0.9), (3, 0.8)], [(5, 11.0), (3, 10.0)]);
        let scores = fuse(&[(1.0, &meaning), (1.0, &words)]);
        let near = |row: usize, wanted: f64| (scores[&row] - wanted).abs() < 1e-12;
        assert!(near(3, 2.0 / 62.0) && near(7, 1.0 / 61.0) && near(5, 1.0 / 61.0));
        let scores = fuse(&[(0.0, &meaning), (2.0, &words)]);
        assert!(scores[&5] > scores[&3] && scores[&7] == 0.0);
    }
}
