//! Stop strings in streamed text.

use crate::EngineError;

/// Finds stop strings in text that comes in pieces, and holds back what could become one.
///
/// The text ends where the first stop string is complete, and is cut before that string's beginning (before the
/// longest, where several end at the same place). How the text was cut into pieces makes no difference.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Vec<Stop>,
    /// Text that is not given out yet: a beginning of a stop string.
    held: String,
    /// The stop string that ended the text.
    hit: Option<usize>,
}

/// What [`StopMatcher::push`] gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Text that belongs to the answer for certain.
    pub text: String,
    /// The index of the stop string that ended the answer.
    pub stop: Option<usize>,
}

/// A stop string with the automaton of Knuth, Morris and Pratt (1977): one step a byte, whatever the text.
#[derive(Debug, Clone)]
struct Stop {
    bytes: Box<[u8]>,
    /// `fallback[n]`: the length of the longest beginning of `bytes`, shorter than `n`, that ends its first `n` bytes.
    fallback: Box<[usize]>,
    /// How many bytes at the end of the text so far are a beginning of `bytes`.
    matched: usize,
}

impl StopMatcher {
    /// Prepares the search for any of `stops`; none at all is fine.
    ///
    /// # Errors
    ///
    /// [`EngineError::InvalidSampling`] for an empty stop string, which would end every answer before its first letter.
    pub fn new<S: AsRef<str>>(stops: impl IntoIterator<Item = S>) -> Result<Self, EngineError> {
        let stops = stops
            .into_iter()
            .map(|stop| Stop::new(stop.as_ref()))
            .collect::<Result<_, _>>()?;
        Ok(StopMatcher {
            stops,
            held: String::new(),
            hit: None,
        })
    }

    /// Takes the next piece of text and gives out what cannot belong to a stop string any more.
    ///
    /// After a stop string was found, nothing comes out.
    pub fn push(&mut self, text: &str) -> Released {
        if self.hit.is_some() {
            return Released {
                text: String::new(),
                stop: self.hit,
            };
        }
        for (index, byte) in text.bytes().enumerate() {
            for stop in &mut self.stops {
                stop.step(byte);
            }
            if let Some(hit) = longest_complete(&self.stops) {
                // The bytes up to and with a stop string's last one end a character.
                self.held.push_str(&text[..=index]);
                self.held
                    .truncate(self.held.len() - self.stops[hit].bytes.len());
                self.hit = Some(hit);
                return Released {
                    text: std::mem::take(&mut self.held),
                    stop: self.hit,
                };
            }
        }
        self.held.push_str(text);
        let open = self
            .stops
            .iter()
            .map(|stop| stop.matched)
            .max()
            .unwrap_or(0);
        let kept = self.held.split_off(self.held.len() - open);
        Released {
            text: std::mem::replace(&mut self.held, kept),
            stop: None,
        }
    }

    /// The text ends here: gives out what was held back, unless a stop string was found.
    pub fn finish(&mut self) -> String {
        for stop in &mut self.stops {
            stop.matched = 0;
        }
        std::mem::take(&mut self.held)
    }
}

fn longest_complete(stops: &[Stop]) -> Option<usize> {
    let complete = |index: &usize| stops[*index].matched == stops[*index].bytes.len();
    (0..stops.len())
        .rev()
        .filter(complete)
        .max_by_key(|index| stops[*index].bytes.len())
}

impl Stop {
    fn new(text: &str) -> Result<Self, EngineError> {
        if text.is_empty() {
            return Err(EngineError::InvalidSampling {
                field: "stop",
                found: "an empty string".to_owned(),
                allowed: "strings of at least one character",
            });
        }
        let bytes: Box<[u8]> = text.as_bytes().into();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut matched = 0;
        for end in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[end] {
                matched = fallback[matched];
            }
            matched += usize::from(bytes[matched] == bytes[end]);
            fallback[end + 1] = matched;
        }
        Ok(Stop {
            bytes,
            fallback: fallback.into(),
            matched: 0,
        })
    }

    /// Only to be called while incomplete.
    fn step(&mut self, byte: u8) {
        while self.matched > 0 && self.bytes[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(self.bytes[self.matched] == byte);
    }
}
