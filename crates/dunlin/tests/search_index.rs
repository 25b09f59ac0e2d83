//! Indexes: what they find, how they change, and their files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::collections::HashMap;
use std::fs;

use common::fixture_json;
use dunlin::Error;
use dunlin::search::{Document, Filter, SearchError, SearchMode, SearchOptions, SemanticIndex};
use serde_json::json;

/// Numbers of -1 to 1 that look random (Knuth's generator).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn vector(&mut self, width: usize) -> Vec<f32> {
        (0..width).map(|_| self.next()).collect()
    }
}

/// An index of random vectors with words and numbers.
fn random_index(count: usize, width: usize) -> SemanticIndex {
    let mut numbers = Numbers(3);
    let mut index = SemanticIndex::for_vectors(width).unwrap();
    for n in 0..count {
        let text = format!("word{} and word{}", n % 7, n % 11);
        let document = Document::new(format!("d{n:05}"), text).with("n", n);
        index.add_vector(document, &numbers.vector(width)).unwrap();
    }
    index
}

/// The nearest by loops of `f64`, with their cosines.
fn brute_force(index: &SemanticIndex, query: &[f32], count: usize) -> Vec<(String, f64)> {
    let length = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    let scored = index.iter().map(|(document, vector)| {
        let products = vector.iter().zip(query);
        let dot: f64 = products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        (document.id.clone(), dot / length(vector) / length(query))
    });
    let mut scored: Vec<_> = scored.collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    scored.truncate(count);
    scored
}

fn ids<'a>(hits: &[dunlin::search::Hit<'a>]) -> Vec<&'a str> {
    hits.iter().map(|hit| hit.id).collect()
}

#[test]
fn a_search_finds_what_brute_force_finds() {
    // The last one is searched by several threads.
    for (count, width) in [(1, 3), (900, 17), (3000, 384)] {
        let index = random_index(count, width);
        let mut numbers = Numbers(11);
        for _ in 0..5 {
            let query = numbers.vector(width);
            let hits = index.search_vector(&query, &SearchOptions::new()).unwrap();
            let wanted = brute_force(&index, &query, 10);
            assert_eq!(hits.len(), wanted.len());
            for (hit, (id, cosine)) in hits.iter().zip(&wanted) {
                assert_eq!(hit.id, id);
                assert!((hit.score - cosine).abs() < 1e-6 && hit.cosine == Some(hit.score));
            }
        }
    }
}

/// Cosines that `f32` sums cannot tell apart in a safe way: the order must be that of the exact ones.
#[test]
fn near_ties_are_put_in_their_exact_order() {
    let width = 384;
    let mut numbers = Numbers(5);
    let base = numbers.vector(width);
    let mut index = SemanticIndex::for_vectors(width).unwrap();
    for n in 0..2000 {
        let mut vector = base.clone();
        vector[n % width] *= 1.0 + 1e-6 * (n as f32);
        index
            .add_vector(Document::new(format!("{n}"), ""), &vector)
            .unwrap();
    }
    let query = numbers.vector(width);
    let hits = index.search_vector(&query, &SearchOptions::new().with_top_k(50));
    let hits = hits.unwrap();
    let wanted = brute_force(&index, &query, 50);
    let wanted: Vec<_> = wanted.iter().map(|(id, _)| &**id).collect();
    assert_eq!(ids(&hits), wanted);
}

#[test]
fn equal_documents_come_in_the_order_of_their_ids() {
    let mut index = SemanticIndex::for_vectors(2).unwrap();
    for id in ["c", "a", "d", "b"] {
        let document = Document::new(id, "cat");
        index.add_vector(document, &[1.0, 0.0]).unwrap();
    }
    let two = SearchOptions::new().with_top_k(2);
    assert_eq!(
        ids(&index.search_vector(&[1.0, 1.0], &two).unwrap()),
        ["a", "b"]
    );
    assert_eq!(ids(&index.search_words("cat", &two)), ["a", "b"]);
    let none = SearchOptions::new().with_top_k(0);
    assert!(index.search_vector(&[1.0, 1.0], &none).unwrap().is_empty());
    let all = SearchOptions::new().with_top_k(usize::MAX);
    assert_eq!(index.search_vector(&[1.0, 1.0], &all).unwrap().len(), 4);
    let hybrid = all.with_mode(SearchMode::Hybrid);
    assert_eq!(
        index
            .search_with(&[1.0, 1.0], "cat", &hybrid)
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn filters_leave_out_documents_before_the_best_are_chosen() {
    let index = random_index(500, 16);
    let query = Numbers(8).vector(16);
    let filter = Filter::from_condition("n<40").unwrap();
    let options = SearchOptions::new().with_filter(filter);
    let hits = index.search_vector(&query, &options).unwrap();
    let n = |id: &str| id[1..].parse::<usize>().unwrap();
    let wanted: Vec<_> = brute_force(&index, &query, 500)
        .into_iter()
        .filter(|(id, _)| n(id) < 40)
        .take(10)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(ids(&hits), wanted);
    let hits = index.search_words("word3", &options.with_top_k(100));
    // Of 0 to 39, those that are 3 modulo 7 or 11.
    assert_eq!(
        hits.len(),
        (0..40).filter(|n| n % 7 == 3 || n % 11 == 3).count()
    );
}

#[test]
fn a_changed_index_finds_what_a_fresh_one_does() {
    let mut changed = random_index(600, 24);
    // Builds the words, which then follow the changes.
    let hits = changed.search_words("word1", &SearchOptions::new());
    assert_eq!(hits.len(), 10);
    let mut numbers = Numbers(77);
    for n in (0..600).filter(|n| n % 3 != 0) {
        let id = format!("d{n:05}");
        let removed = changed.remove(&id).unwrap();
        assert_eq!(removed.metadata["n"], n);
        assert_eq!(changed.remove(&id), None);
    }
    for n in (0..600).step_by(30) {
        let document = Document::new(format!("d{n:05}"), "word3 anew").with("new", true);
        changed
            .update_vector(document, &numbers.vector(24))
            .unwrap();
    }
    let late = Document::new("late", "word1 word2");
    changed.add_vector(late, &numbers.vector(24)).unwrap();
    let mut fresh = SemanticIndex::for_vectors(24).unwrap();
    for (document, vector) in changed.iter() {
        fresh.add_vector(document.clone(), vector).unwrap();
    }
    assert_eq!((changed.len(), fresh.len()), (201, 201));
    assert_eq!(changed.get("d00030").unwrap().text, "word3 anew");
    assert!(changed.get("d00001").is_none());
    let options = SearchOptions::new().with_top_k(30);
    for words in ["word3", "anew word1", "word2 word10 and"] {
        let query = numbers.vector(24);
        for mode in [
            SearchMode::Semantic,
            SearchMode::Keyword,
            SearchMode::Hybrid,
        ] {
            let options = options.clone().with_mode(mode);
            let of = |index: &SemanticIndex| {
                let hits = index.search_with(&query, words, &options).unwrap();
                let hits = hits.iter().map(|hit| (hit.id.to_owned(), hit.score));
                hits.collect::<Vec<_>>()
            };
            let (changed, fresh) = (of(&changed), of(&fresh));
            assert_eq!(changed.len(), fresh.len());
            for (a, b) in changed.iter().zip(&fresh) {
                assert!(
                    a.0 == b.0 && (a.1 - b.1).abs() < 1e-6,
                    "{mode:?} {a:?} {b:?}"
                );
            }
        }
    }
}

#[test]
fn words_are_ranked_as_bm25s_ranks_them() {
    let reference = fixture_json("search.json");
    let keyword = &reference["keyword"];
    let mut index = SemanticIndex::for_vectors(1).unwrap();
    let documents = keyword["documents"].as_array().unwrap();
    for (n, text) in documents.iter().enumerate() {
        let document = Document::new(n.to_string(), text.as_str().unwrap());
        index.add_vector(document, &[1.0]).unwrap();
    }
    let options = SearchOptions::new().with_top_k(documents.len());
    for query in keyword["queries"].as_array().unwrap() {
        let words = query["query"].as_str().unwrap();
        let scores: Vec<f64> = serde_json::from_value(query["scores"].clone()).unwrap();
        let hits = index.search_words(words, &options);
        let found: HashMap<&str, f64> = hits.iter().map(|hit| (hit.id, hit.score)).collect();
        for (n, wanted) in scores.iter().enumerate() {
            let found = found.get(&*n.to_string()).copied().unwrap_or(0.0);
            assert!((found - wanted).abs() < 1e-9, "{words}: {found} {wanted}");
        }
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score));
    }
}

#[test]
fn documents_that_do_not_fit_are_refused_with_the_reason() {
    let mut index = SemanticIndex::for_vectors(2).unwrap();
    let document = Document::new("a", "cat");
    index.add_vector(document.clone(), &[3.0, 4.0]).unwrap();
    assert_eq!(index.iter().next().unwrap().1, [0.6, 0.8]);
    let is = |result: Result<(), Error>, check: fn(&SearchError) -> bool| match result {
        Err(Error::Search(error)) => assert!(check(&error), "{error:?}"),
        other => panic!("{other:?}"),
    };
    is(
        index.add_vector(document.clone(), &[1.0, 0.0]),
        |error| matches!(error, SearchError::DuplicateId { id } if id == "a"),
    );
    let other = Document::new("b", "");
    is(
        index.update_vector(other.clone(), &[1.0, 0.0]),
        |error| matches!(error, SearchError::UnknownId { id } if id == "b"),
    );
    is(index.add_vector(other.clone(), &[1.0]), |error| {
        matches!(
            error,
            SearchError::Width {
                found: 1,
                expected: 2
            }
        )
    });
    for vector in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
        is(
            index.add_vector(other.clone(), &vector),
            |error| matches!(error, SearchError::NoDirection { what } if what == "b"),
        );
    }
    let asked = index.search_vector(&[0.0, 0.0], &SearchOptions::new());
    is(asked.map(|_| ()), |error| {
        matches!(error, SearchError::NoDirection { .. })
    });
    let tiny = Document::new("tiny", "");
    index.add_vector(tiny, &[1e-30, 1e-30]).unwrap();
    assert_eq!(index.len(), 2);
    is(SemanticIndex::for_vectors(0).map(|_| ()), |error| {
        matches!(error, SearchError::Width { .. })
    });
}

#[test]
fn a_saved_index_comes_back_bit_by_bit() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a.index"), folder.path().join("b.index"));
    let mut index = random_index(300, 33);
    index.remove("d00007");
    index
        .attributes_mut()
        .insert("note".to_owned(), json!({"x": [1, 2.5, null]}));
    let strange = Document::new("ü \u{1f41f}\n\"", "text\0with\u{7}anything")
        .with("nested", json!({"a": [1, "é"]}));
    index.add_vector(strange, &Numbers(1).vector(33)).unwrap();
    index.save(&first).unwrap();
    let again = SemanticIndex::load(&first).unwrap();
    again.save(&second).unwrap();
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap());
    assert_eq!(again.attributes(), index.attributes());
    assert_eq!(again.len(), 300);
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for ((a, a_vector), (b, b_vector)) in index.iter().zip(again.iter()) {
        assert!(a == b && bits(a_vector) == bits(b_vector));
    }
    let query = Numbers(2).vector(33);
    for mode in [
        SearchMode::Semantic,
        SearchMode::Keyword,
        SearchMode::Hybrid,
    ] {
        let options = SearchOptions::new().with_mode(mode);
        let (a, b) = (
            index.search_with(&query, "word3 word4", &options).unwrap(),
            again.search_with(&query, "word3 word4", &options).unwrap(),
        );
        assert_eq!(a, b);
    }
    // Nothing but the two files is left.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let empty = SemanticIndex::for_vectors(5).unwrap();
    empty.save(&first).unwrap();
    let empty = SemanticIndex::load(&first).unwrap();
    assert_eq!((empty.len(), empty.dimensions()), (0, 5));
}

#[test]
fn damaged_files_are_errors_wherever_they_are_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.index");
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match SemanticIndex::load(&path) {
            Ok(_) => None,
            Err(Error::Search(error)) => Some(error),
            Err(other) => panic!("{other:?}"),
        }
    };
    random_index(5, 3).save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    assert!(load(&whole).is_none());
    for length in 0..whole.len() {
        let error = load(&whole[..length]).expect("a file that is cut off");
        match length {
            0..=11 => assert!(matches!(error, SearchError::NotAnIndex { .. }), "{error:?}"),
            _ => assert!(
                matches!(error, SearchError::Damaged { .. }),
                "{length}: {error:?}"
            ),
        }
    }
    // A single changed byte is found by the checksum at the latest.
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        let error = load(&bytes).expect("a file with another byte");
        match at {
            0..8 => assert!(matches!(error, SearchError::NotAnIndex { .. })),
            8..12 => assert!(matches!(error, SearchError::Version { .. })),
            _ => assert!(
                matches!(error, SearchError::Damaged { .. }),
                "{at}: {error:?}"
            ),
        }
    }
    let longer = [&whole[..], b"more"].concat();
    assert!(matches!(load(&longer), Some(SearchError::Damaged { .. })));
    let missing = SemanticIndex::load(&folder.path().join("none"))
        .err()
        .unwrap();
    assert!(matches!(missing, Error::Search(SearchError::Io { .. })));
}

/// Lengths that no file has must be found before memory is asked for.
#[test]
fn a_header_that_promises_too_much_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.index");
    let file = |header: &str, length: u64, rest: &[u8]| {
        let mut bytes = b"DUNLINDX".to_vec();
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(rest);
        fs::write(&path, &bytes).unwrap();
        SemanticIndex::load(&path).err().unwrap()
    };
    let damaged = |error: Error| match error {
        Error::Search(SearchError::Damaged { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(damaged(file("{}", u64::MAX, &[0; 64])).contains("18446744073709551615"));
    for (dimensions, documents) in [
        (1_u64, u64::MAX),
        (u64::MAX, 2),
        (u64::MAX / 2, 4),
        (0, 1),
        (0, u64::MAX),
        (1 << 40, 1),
        (384, 1 << 40),
    ] {
        let header = json!({"model": null, "dimensions": dimensions, "documents": documents, "attributes": {}});
        let header = header.to_string();
        let reason = damaged(file(&header, header.len() as u64, &[0; 64]));
        assert!(reason.contains("promises"), "{reason}");
    }
    // A vector that is there, and a text that is not.
    let header =
        json!({"model": null, "dimensions": 1, "documents": 1, "attributes": {}}).to_string();
    let mut rest = 1.0_f32.to_le_bytes().to_vec();
    rest.extend(u32::MAX.to_le_bytes());
    rest.extend([0; 16]);
    let reason = damaged(file(&header, header.len() as u64, &rest));
    assert!(reason.contains("4294967295"), "{reason}");
    // A vector of the wrong length would make scores wrong.
    let mut rest = 2.0_f32.to_le_bytes().to_vec();
    rest.extend([0; 24]);
    let reason = damaged(file(&header, header.len() as u64, &rest));
    assert!(reason.contains("length 2"), "{reason}");
}
