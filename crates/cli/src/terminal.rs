//! What a person sees: notices on stderr, and text that cannot steer the terminal.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use crate::output;

/// The three standard streams, and how much is to be said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Whether notices are left out.
    pub(crate) quiet: bool,
    /// Whether a person types the input.
    pub(crate) stdin: bool,
    /// Whether a person reads the answer.
    pub(crate) stdout: bool,
    /// Whether a person reads the notices.
    pub(crate) stderr: bool,
}

impl Terminal {
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            quiet,
            stdin: io::stdin().is_terminal(),
            stdout: io::stdout().is_terminal(),
            stderr: io::stderr().is_terminal(),
        }
    }

    /// Says something beside the answer.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// Says something that `--quiet` does not suppress.
    pub(crate) fn say(&self, text: impl Display) {
        let text = text.to_string();
        let text = if self.stderr {
            printable(&text)
        } else {
            Cow::Borrowed(text.as_str())
        };
        // Nobody is left to be told that stderr is closed.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// Writes a piece of what stands beside the answer, dimmed where a person reads it, unless `--quiet` suppresses it.
    pub(crate) fn dimmed(&self, text: &str) {
        if self.quiet {
            return;
        }
        let text = match self.stderr {
            true => format!("\u{1b}[2m{}\u{1b}[0m", printable(text)),
            false => text.to_owned(),
        };
        // Nobody is left to be told that stderr is closed.
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// A text of unknown origin as it may be written to stdout.
    pub(crate) fn shown<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.stdout {
            printable(text)
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Writes a piece of the answer, at once.
    ///
    /// # Errors
    /// stdout cannot be written to; a closed pipe ends the program quietly.
    pub(crate) fn answer(&self, text: &str) -> io::Result<()> {
        let text = self.shown(text);
        output::to_stdout(|out| out.write_all(text.as_bytes()))
    }
}

/// The text without characters that move the cursor, change colours or title, or write to the clipboard: a model (or a
/// file's metadata) can produce any of them.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let shown = text.chars().map(|c| {
        if steers(c) {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    });
    Cow::Owned(shown.collect())
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn escape_sequences_lose_their_escape() {
        assert_eq!(
            printable("a\u{1b}[31mb\u{9b}c\u{7}"),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}"
        );
        assert_eq!(printable("plain\n\ttext é 🐟"), "plain\n\ttext é 🐟");
    }
}
