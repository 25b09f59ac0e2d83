//! Fixed texts found in text that comes in pieces.

use super::json::unexpected;

/// Looks for a marker, and holds back what may be its beginning.
#[derive(Clone, Debug)]
pub(super) struct Seeker {
    marker: &'static str,
    held: String,
}

impl Seeker {
    pub(super) fn new(marker: &'static str) -> Self {
        Self {
            marker,
            held: String::new(),
        }
    }

    /// Takes the next character. What cannot belong to the marker any more goes to `out`. True when
    /// the marker is complete; then nothing is held back.
    pub(super) fn push(&mut self, c: char, out: &mut String) -> bool {
        self.held.push(c);
        while !self.marker.starts_with(&self.held) {
            out.push(self.held.remove(0));
        }
        let found = self.held == self.marker;
        if found {
            self.held.clear();
        }
        found
    }

    /// What is held back.
    pub(super) fn release(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

/// Expects a fixed text, after white space if there is any.
#[derive(Clone, Debug)]
pub(super) struct Expect {
    text: &'static str,
    matched: usize,
}

impl Expect {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, matched: 0 }
    }

    /// Takes the next character. True when the text is complete.
    ///
    /// # Errors
    ///
    /// What is wrong, for any other character.
    pub(super) fn push(&mut self, c: char) -> Result<bool, String> {
        if self.matched == 0 && c.is_whitespace() {
            return Ok(false);
        }
        if !self.text[self.matched..].starts_with(c) {
            return Err(unexpected(c, &format!("`{}`", self.text)));
        }
        self.matched += c.len_utf8();
        Ok(self.matched == self.text.len())
    }

    /// Whether none of it has come.
    pub(super) fn is_untouched(&self) -> bool {
        self.matched == 0
    }
}
