//! Stop strings: what comes out is the text up to the stop, however the text was cut into pieces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dunlin_engine::{EngineError, StopMatcher};
use proptest::prelude::*;

/// Everything given out for these pieces, and the stop string that ended it.
fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<usize>) {
    let mut matcher = StopMatcher::new(stops).unwrap();
    let mut text = String::new();
    let mut stop = None;
    for piece in pieces {
        let released = matcher.push(piece);
        text.push_str(&released.text);
        stop = released.stop;
    }
    text.push_str(&matcher.finish());
    (text, stop)
}

#[test]
fn a_stop_string_across_pieces_ends_the_text_before_it() {
    assert_eq!(
        run(&["\n\n"], &["one\n", "\ntwo"]),
        ("one".to_owned(), Some(0))
    );
    assert_eq!(
        run(&["</answer>"], &["42 <", "/ans", "wer", "> more"]),
        ("42 ".to_owned(), Some(0))
    );
}

#[test]
fn text_that_cannot_become_a_stop_string_comes_out_at_once() {
    let mut matcher = StopMatcher::new(["STOP"]).unwrap();
    assert_eq!(matcher.push("say ST").text, "say ");
    assert_eq!(matcher.push("A").text, "STA");
    assert_eq!(matcher.push("xSTO").text, "x");
    assert_eq!(matcher.finish(), "STO");
}

#[test]
fn only_the_longest_possible_beginning_is_held_back() {
    let mut matcher = StopMatcher::new(["aab"]).unwrap();
    assert_eq!(matcher.push("aaaa").text, "aa");
    let released = matcher.push("b!");
    assert_eq!((released.text.as_str(), released.stop), ("", Some(0)));
}

#[test]
fn the_stop_string_that_is_complete_first_ends_the_text() {
    assert_eq!(run(&["abcd", "bc"], &["xabcd"]), ("xa".to_owned(), Some(1)));
    assert_eq!(
        run(&["c", "bc", "abc"], &["xabcd"]),
        ("x".to_owned(), Some(2))
    );
}

#[test]
fn characters_of_several_bytes_stay_whole() {
    assert_eq!(
        run(&["über"], &["ü", "b", "üb", "er"]),
        ("üb".to_owned(), Some(0))
    );
    // Both begin with the byte 0xC3.
    assert_eq!(run(&["ö"], &["aü", "ö"]), ("aü".to_owned(), Some(0)));
}

#[test]
fn nothing_comes_out_after_a_stop() {
    let mut matcher = StopMatcher::new(["."]).unwrap();
    assert_eq!(matcher.push("a.b").text, "a");
    let released = matcher.push("c");
    assert_eq!((released.text.as_str(), released.stop), ("", Some(0)));
    assert_eq!(matcher.finish(), "");
}

#[test]
fn without_stop_strings_all_text_comes_out_at_once() {
    let mut matcher = StopMatcher::new::<&str>([]).unwrap();
    assert_eq!(matcher.push("all of it").text, "all of it");
}

#[test]
fn an_empty_stop_string_is_an_error() {
    let error = StopMatcher::new(["a", ""]).unwrap_err();
    assert!(
        matches!(error, EngineError::InvalidSampling { field: "stop", .. }),
        "{error}"
    );
}

/// The first place at which a stop string ends; of those that end there, the longest.
fn cut(text: &str, stops: &[String]) -> String {
    for end in 0..=text.len() {
        let found = stops
            .iter()
            .filter(|stop| text.as_bytes()[..end].ends_with(stop.as_bytes()));
        if let Some(length) = found.map(String::len).max() {
            return text[..end - length].to_owned();
        }
    }
    text.to_owned()
}

proptest! {
    /// Three letters, one of them of two bytes, make stop strings that overlap themselves, each other and the cuts.
    #[test]
    fn the_text_ends_before_the_first_stop_string(
        pieces in proptest::collection::vec("[abä]{0,4}", 0..16),
        stops in proptest::collection::vec("[abä]{1,5}", 0..4),
    ) {
        let stop_refs: Vec<&str> = stops.iter().map(String::as_str).collect();
        let piece_refs: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let text = pieces.concat();
        let (released, stop) = run(&stop_refs, &piece_refs);
        prop_assert_eq!(&released, &cut(&text, &stops));
        prop_assert_eq!(stop.is_some(), released.len() < text.len());
    }

    /// What is held back is always a beginning of a stop string, and the longest that the text ends with.
    #[test]
    fn no_more_is_held_back_than_could_become_a_stop_string(
        text in "[abä]{0,40}",
        stop in "[abä]{2,6}",
    ) {
        let mut matcher = StopMatcher::new([&stop]).unwrap();
        let released = matcher.push(&text);
        if released.stop.is_none() {
            let beginnings = stop.char_indices().map(|(end, _)| &stop[..end]);
            let longest = beginnings.filter(|beginning| text.ends_with(beginning)).map(str::len).max();
            prop_assert_eq!(text.len() - released.text.len(), longest.unwrap());
        }
    }
}
