//! Guesses out of the text itself: what followed where its end stood before.

use std::collections::HashMap;

use dunlin_text::TokenId;

use super::DraftLength;
use super::pace::{CLASSES, Rates, StepCosts, best_length};

/// Tokens that must agree.
const LEAST_AGREED: usize = 3;
/// Tokens that are compared at most.
const MOST_AGREED: usize = 32;
/// Places that are compared at most, the latest ones.
const PLACES: usize = 8;
/// No place.
const NONE: u32 = u32::MAX;
/// Numbers of agreeing tokens from which on the chance of a guess is told apart.
const AGREED: [usize; CLASSES] = [LEAST_AGREED, 4, 6, 9, 14, 24];
/// Chances before any guess was judged.
const USUAL_CHANCES: [f64; CLASSES] = [0.35, 0.5, 0.65, 0.8, 0.9, 0.95];

/// Guesses out of the text, and how often they were right.
pub(crate) struct LookupSpeculator {
    length: DraftLength,
    lookup: Lookup,
    rates: Rates,
    /// Tokens that agreed before the first guess.
    agreed: usize,
    /// The guesses; the first one also where none was made, to see whether it would have been right: so nothing has to be
    /// tried in order to learn that guessing would pay again.
    guesses: Vec<TokenId>,
}

impl LookupSpeculator {
    pub(super) fn new(length: DraftLength) -> Self {
        LookupSpeculator {
            length,
            lookup: Lookup::default(),
            rates: Rates::new(USUAL_CHANCES),
            agreed: 0,
            guesses: Vec::new(),
        }
    }

    pub(super) fn propose(&mut self, text: &mut Vec<TokenId>, limit: usize, costs: &StepCosts) {
        self.guesses.clear();
        let Some(found) = self.lookup.find(text) else {
            return;
        };
        self.agreed = found.agreed;
        let rates = &self.rates;
        let count = self.length.choose(limit, || {
            let chances = (found.agreed..).map(|agreed| rates.chance(class(agreed)));
            best_length(chances.take(limit), 0.0, costs)
        });
        let known = text.len();
        for place in (found.source..).take(count.max(1)) {
            // A source that reaches the end of the text goes on with the guesses: the text repeats itself.
            let token = match text.get(place) {
                Some(token) => *token,
                None => self.guesses[place - known],
            };
            self.guesses.push(token);
        }
        text.extend_from_slice(&self.guesses[..count]);
    }

    pub(super) fn learn(&mut self, chosen: impl Iterator<Item = TokenId>) {
        for ((agreed, guess), chosen) in (self.agreed..).zip(&self.guesses).zip(chosen) {
            self.rates.learn(class(agreed), *guess == chosen);
        }
    }
}

fn class(agreed: usize) -> usize {
    AGREED.iter().rposition(|from| *from <= agreed).unwrap_or(0)
}

/// An index of a text that grows at its end, so that a search takes the same time however long the text is.
#[derive(Default)]
struct Lookup {
    /// The latest position behind each run of [`LEAST_AGREED`] tokens.
    latest: HashMap<[TokenId; LEAST_AGREED], u32>,
    /// For each position, the one before behind the same run.
    before: Vec<u32>,
    /// Where the last search led, and the length of the text then.
    followed: Option<(usize, usize)>,
}

/// A place whose last tokens are those of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    /// Position of the token that followed there.
    source: usize,
    /// Tokens before it that agree, at most [`MOST_AGREED`].
    agreed: usize,
}

impl Lookup {
    /// The place with the most tokens before it that agree with the end of the text; of equal ones the continuation of the
    /// last, else the latest. The text must begin with the one given before.
    fn find(&mut self, text: &[TokenId]) -> Option<Found> {
        self.index(text);
        let end = text.len();
        let mut best = self.followed.and_then(|(source, length)| {
            // The text may have gone on as the last place did, which need not be among the latest ones.
            compare(text, source + (end - length))
        });
        let mut place = end.checked_sub(LEAST_AGREED).and_then(|start| {
            let run = text[start..].first_chunk::<LEAST_AGREED>()?;
            self.latest.get(run).copied()
        });
        for _ in 0..PLACES {
            let Some(position) = place.filter(|position| *position != NONE) else {
                break;
            };
            let found = compare(text, position as usize);
            if found.map(|found| found.agreed) > best.map(|best| best.agreed) {
                best = found;
            }
            place = self.before.get(position as usize).copied();
        }
        self.followed = best.map(|best| (best.source, end));
        best
    }

    /// Takes in what is new but for the last run, which would be found itself.
    fn index(&mut self, text: &[TokenId]) {
        for position in self.before.len()..text.len() {
            let run = position
                .checked_sub(LEAST_AGREED)
                .and_then(|start| text[start..].first_chunk::<LEAST_AGREED>());
            let before = run.and_then(|run| self.latest.insert(*run, position as u32));
            self.before.push(before.unwrap_or(NONE));
        }
    }
}

/// How far the text before `source` agrees with the end of the text.
fn compare(text: &[TokenId], source: usize) -> Option<Found> {
    let place = text.get(..source).filter(|_| source < text.len())?;
    let pairs = place.iter().rev().zip(text.iter().rev()).take(MOST_AGREED);
    let agreed = pairs.take_while(|(there, here)| there == here).count();
    (agreed >= LEAST_AGREED).then_some(Found { source, agreed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_is_found_in_a_text_that_does_not_repeat() {
        let text: Vec<u32> = (0..100).collect();
        let mut lookup = Lookup::default();
        assert!((0..=100).all(|end| lookup.find(&text[..end]).is_none()));
    }

    #[test]
    fn the_longest_agreement_wins_and_the_latest_of_equal_ones() {
        let text = [1, 2, 3, 4, 50, 9, 2, 3, 4, 60, 8, 2, 3, 4, 70, 1, 2, 3, 4];
        let found = Lookup::default().find(&text);
        let longest = Found {
            source: 4,
            agreed: 4,
        };
        assert_eq!(found, Some(longest));
        let found = Lookup::default().find(&[&text[..], &[5, 2, 3, 4]].concat());
        let latest = Found {
            source: 19,
            agreed: 3,
        };
        assert_eq!(found, Some(latest));
    }

    #[test]
    fn a_place_is_followed_even_when_many_later_ones_begin_alike() {
        let mut text: Vec<u32> = (100..200).collect();
        for filler in 0..20 {
            text.extend([120, 121, 122, 1000 + filler]);
        }
        text.extend(110..119);
        let mut lookup = Lookup::default();
        for next in 119..130 {
            let found = lookup.find(&text).unwrap();
            assert_eq!(text[found.source], next);
            text.push(next);
        }
    }

    proptest! {
        #[test]
        fn what_is_found_agrees_and_nothing_agrees_more(
            text in prop::collection::vec(0u32..4, 0..60),
            step in 1usize..4,
        ) {
            let mut lookup = Lookup::default();
            for end in (0..=text.len()).step_by(step) {
                let text = &text[..end];
                let places = (0..end).filter_map(|source| compare(text, source));
                let best = places.map(|found| found.agreed).max();
                let found = lookup.find(text);
                if let Some(found) = found {
                    prop_assert_eq!(compare(text, found.source), Some(found));
                }
                // Only the latest places are compared.
                prop_assert_eq!(found.is_some(), best.is_some());
                prop_assert!(found.map(|found| found.agreed) <= best);
            }
        }
    }
}
