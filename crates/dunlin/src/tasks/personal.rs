//! Personal data: found, listed, masked.

use std::ops::Range;

use super::spans::SpanSearch;
use super::{TaskUsage, ask, patterns};
use crate::{Error, GenerateOptions, Lm};

/// What the model is told before the text.
const INSTRUCTION: &str = "List the names of persons and the postal addresses in the text, one a line, exactly as they stand in the text, \
like this:\nperson: Jane Doe\naddress: 12 Station Road, Springfield";
/// What only a reader recognizes.
const KINDS: [&str; 2] = ["person", "address"];

/// Finds personal data in texts of any length.
///
/// What has a form of its own is found by it, without any model: e-mail addresses, phone numbers, IBANs and card numbers (with their check
/// sums), IP addresses, US social security numbers. Persons and postal addresses are found by a model where there is one, which may
/// miss some: a text that must not leak is to be read by a person, too.
pub struct PersonalDataFinder {
    lm: Option<Lm>,
    piece_tokens: Option<usize>,
    options: GenerateOptions,
}

impl PersonalDataFinder {
    /// By form and by a model.
    #[must_use]
    pub fn new(lm: &Lm) -> Self {
        PersonalDataFinder {
            lm: Some(lm.clone()),
            ..Self::by_form()
        }
    }

    /// By form alone.
    #[must_use]
    pub fn by_form() -> Self {
        PersonalDataFinder {
            lm: None,
            piece_tokens: None,
            options: ask::faithful(),
        }
    }

    /// Works in pieces of at most this many tokens [default: 256, or what the context has room for].
    #[must_use]
    pub fn with_piece_tokens(mut self, tokens: usize) -> Self {
        self.piece_tokens = Some(tokens);
        self
    }

    super::ask::with_answer_options!();

    /// The personal data of a text, in its order. What a model names once is found at all its places.
    ///
    /// # Errors
    /// [`TaskError`](super::TaskError) for a context that is too short and pieces that do not fit it; [`Error::Cancelled`]; as
    /// [`Lm::generate`].
    pub fn find(&self, text: &str) -> Result<Vec<PersonalData>, Error> {
        Ok(self.mask(text)?.found)
    }

    /// The text with all personal data replaced by their kinds: `[EMAIL]`, `[PERSON]`.
    ///
    /// # Errors
    /// As [`PersonalDataFinder::find`].
    pub fn mask(&self, text: &str) -> Result<MaskedText, Error> {
        let mut found: Vec<(String, Range<usize>)> = patterns::find(text)
            .into_iter()
            .map(|(kind, range)| (kind.to_owned(), range))
            .collect();
        let (mut usage, mut full_pieces) = (TaskUsage::default(), 0);
        if let Some(lm) = self.lm.as_ref().filter(|_| !text.trim().is_empty()) {
            let search = SpanSearch {
                lm,
                instruction: INSTRUCTION,
                kinds: &KINDS.map(str::to_owned),
                piece_tokens: self.piece_tokens,
                options: &self.options,
                task: "find personal data in",
            };
            let named = search.run(text)?;
            (usage, full_pieces) = (named.usage, named.full_pieces);
            for span in named.spans {
                found.extend(
                    span.places
                        .into_iter()
                        .map(|place| (span.kind.clone(), place)),
                );
            }
        }
        let found = without_overlaps(found);
        let mut masked = String::with_capacity(text.len());
        let mut end = 0;
        for (kind, place) in &found {
            masked.push_str(&text[end..place.start]);
            masked.push_str(&format!("[{}]", kind.to_uppercase()));
            end = place.end;
        }
        masked.push_str(&text[end..]);
        let found = found.into_iter().map(|(kind, place)| PersonalData {
            kind,
            text: text[place.clone()].to_owned(),
            place,
        });
        Ok(MaskedText {
            text: masked,
            found: found.collect(),
            full_pieces,
            usage,
        })
    }
}

/// One of a person's data.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PersonalData {
    /// What it is: `email`, `phone`, `iban`, `card`, `ip_address`, `social_security_number`, `person`, `address`.
    pub kind: String,
    /// How it stands in the text.
    pub text: String,
    /// Where it stands, in bytes.
    pub place: Range<usize>,
}

/// A text without its personal data.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct MaskedText {
    /// The text, with kinds in place of data.
    pub text: String,
    /// What was masked, in the order of the text.
    pub found: Vec<PersonalData>,
    /// Pieces in which the model's list reached its greatest length (32 lines), so that there may be more.
    pub full_pieces: usize,
    /// What it took.
    pub usage: TaskUsage,
}

/// In the order of the text; of two that overlap the one that begins first goes on to the end of both, so that nothing of either shows.
fn without_overlaps(mut found: Vec<(String, Range<usize>)>) -> Vec<(String, Range<usize>)> {
    found.sort_by_key(|(_, place)| (place.start, std::cmp::Reverse(place.end)));
    let mut apart: Vec<(String, Range<usize>)> = Vec::with_capacity(found.len());
    for (kind, place) in found {
        match apart.last_mut() {
            Some((_, last)) if place.start < last.end => last.end = last.end.max(place.end),
            _ => apart.push((kind, place)),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_masked_in_their_places() {
        let masked = PersonalDataFinder::by_form()
            .mask("Mail a@b.de, then a@b.de or +49 30 1234567!")
            .unwrap();
        assert_eq!(masked.text, "Mail [EMAIL], then [EMAIL] or [PHONE]!");
        assert_eq!(masked.found[1].place, 18..24);
    }

    #[test]
    fn nothing_of_two_that_overlap_shows() {
        let found = [("a", 5..9), ("b", 0..6), ("c", 9..10), ("d", 1..2)];
        let found = found.map(|(kind, place)| (kind.to_owned(), place)).to_vec();
        let apart = without_overlaps(found);
        assert_eq!(apart, [("b".to_owned(), 0..9), ("c".to_owned(), 9..10)]);
    }
}
