//! Search by words: BM25 over an inverted index.

use std::collections::HashMap;

use unicode_segmentation::UnicodeSegmentation as _;

/// How soon the tenth mention of a word counts no more than the third.
const K1: f64 = 1.2;
/// How much long documents are held against their length.
const B: f64 = 0.75;

/// Which words stand in which rows. Rows of documents that were removed stay in the lists until they are left out together.
#[derive(Default)]
pub(super) struct KeywordIndex {
    terms: HashMap<String, Term>,
    /// Words of each row; 0 for rows that are removed.
    lengths: Vec<u32>,
    documents: usize,
    words: u64,
}

#[derive(Default)]
struct Term {
    /// Documents that have it.
    documents: usize,
    /// Rows with their counts, by row.
    postings: Vec<(u32, u32)>,
}

impl KeywordIndex {
    /// Adds the text of the next row. An empty text counts as a document of no words.
    pub(super) fn push(&mut self, text: &str) {
        let row = self.lengths.len();
        self.lengths.push(0);
        self.insert(row, text);
    }

    /// Gives a row without text one.
    pub(super) fn insert(&mut self, row: usize, text: &str) {
        let counts = counts(text);
        let length = counts.values().sum();
        for (word, count) in counts {
            let term = self.terms.entry(word).or_default();
            term.documents += 1;
            let posting = (row as u32, count);
            match term
                .postings
                .binary_search_by_key(&posting.0, |(row, _)| *row)
            {
                Ok(at) => term.postings[at] = posting,
                Err(at) => term.postings.insert(at, posting),
            }
        }
        self.lengths[row] = length;
        self.documents += 1;
        self.words += u64::from(length);
    }

    /// Takes the text of a row out.
    pub(super) fn remove(&mut self, row: usize, text: &str) {
        for word in counts(text).into_keys() {
            if let Some(term) = self.terms.get_mut(&word) {
                term.documents -= 1;
                if let Ok(at) = term
                    .postings
                    .binary_search_by_key(&(row as u32), |(row, _)| *row)
                {
                    // Only marked: taking it out would move all behind it.
                    term.postings[at].1 = 0;
                }
            }
        }
        self.documents -= 1;
        self.words -= u64::from(self.lengths[row]);
        self.lengths[row] = 0;
    }

    /// The allowed rows that have a word of the query, with their scores, in no order. A word that the query has twice counts
    /// twice.
    ///
    /// The score is the sum of `idf * tf / (tf + k1 * (1 - b + b * length / mean length))` over the words, with
    /// `idf = ln(1 + (N - n + 0.5) / (n + 0.5))` for `n` of `N` documents: the weight of Robertson and Spärck Jones (1976)
    /// without relevance information, 1 added so that a word in most documents counts little instead of against.
    pub(super) fn search(&self, query: &str, allowed: impl Fn(usize) -> bool) -> Vec<(usize, f64)> {
        let mean_length = self.words as f64 / self.documents.max(1) as f64;
        let mut scores: HashMap<u32, f64> = HashMap::new();
        let mut words: Vec<_> = counts(query).into_iter().collect();
        // Sums of floats depend on their order.
        words.sort();
        for (word, times) in words {
            let Some(term) = self.terms.get(&word) else {
                continue;
            };
            let (all, with) = (self.documents as f64, term.documents as f64);
            let idf = (1.0 + (all - with + 0.5) / (with + 0.5)).ln() * f64::from(times);
            for &(row, count) in &term.postings {
                if count == 0 || !allowed(row as usize) {
                    continue;
                }
                let length = f64::from(self.lengths[row as usize]) / mean_length;
                let count = f64::from(count);
                let weight = count / (count + K1 * (1.0 - B + B * length));
                *scores.entry(row).or_insert(0.0) += idf * weight;
            }
        }
        let rows = scores.into_iter();
        rows.map(|(row, score)| (row as usize, score)).collect()
    }
}

/// The words of a text by the rules of Unicode (UAX 29), in small letters, with how often each occurs.
fn counts(text: &str) -> HashMap<String, u32> {
    let mut counts = HashMap::new();
    for word in text.unicode_words() {
        let count = counts.entry(word.to_lowercase()).or_insert(0_u32);
        *count = count.saturating_add(1);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(texts: &[&str]) -> KeywordIndex {
        let mut index = KeywordIndex::default();
        texts.iter().for_each(|text| index.push(text));
        index
    }

    fn scores(index: &KeywordIndex, query: &str) -> Vec<(usize, f64)> {
        let mut scores = index.search(query, |_| true);
        scores.sort_by_key(|(row, _)| *row);
        scores
    }

    /// By hand: 3 documents of 2, 3 and 4 words, "cat" in two of them.
    #[test]
    fn scores_are_those_of_the_formula() {
        let index = index(&["A cat", "the cat's cat", "dogs bark at night"]);
        let found = scores(&index, "CAT");
        // "cat's" is one word by UAX 29.
        let idf = (1.0_f64 + (3.0 - 2.0 + 0.5) / 2.5).ln();
        let weight = |length: f64| 1.0 / (1.0 + 1.2 * (0.25 + 0.75 * length / 3.0));
        let wanted = [(0, idf * weight(2.0)), (1, idf * weight(3.0))];
        for (found, wanted) in found.iter().zip(wanted) {
            assert!(found.0 == wanted.0 && (found.1 - wanted.1).abs() < 1e-12);
        }
        assert_eq!(found.len(), 2);
        assert!(scores(&index, "bird").is_empty());
    }

    #[test]
    fn words_of_any_script_are_found_in_small_letters() {
        let index = index(&["Größe der ÄPFEL", "Яблоко упало", "naïve café"]);
        for (query, row) in [("äpfel", 0), ("ЯБЛОКО", 1), ("CAFÉ", 2)] {
            assert_eq!(scores(&index, query)[0].0, row, "{query}");
        }
    }

    #[test]
    fn a_removed_row_leaves_no_trace_in_the_scores() {
        let mut changed = index(&["cat and dog", "cat", "bird sings", "dog dog"]);
        changed.remove(0, "cat and dog");
        changed.remove(2, "bird sings");
        changed.insert(2, "cat dog bird");
        let fresh = index(&["cat", "cat dog bird", "dog dog"]);
        for query in ["cat", "dog bird", "and", "sings cat cat"] {
            let rows = [1, 2, 3];
            let fresh: Vec<_> = scores(&fresh, query)
                .into_iter()
                .map(|(row, score)| (rows[row], score))
                .collect();
            assert_eq!(scores(&changed, query), fresh, "{query}");
        }
    }
}
