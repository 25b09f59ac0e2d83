//! GBNF, llama.cpp's notation of grammars, rewritten as Lark.
//!
//! GBNF describes characters, Lark terminals (matched as long as they can be) and rules over them. So whatever does not refer to
//! itself becomes one terminal, in which every choice stays open; only where rules recur does the text fall into pieces.

mod parse;
mod write;

use crate::TextError;

/// A grammar: its rules, in the order of their first mention.
#[derive(Debug)]
struct Rules {
    names: Vec<String>,
    bodies: Vec<Expression>,
    root: usize,
}

/// What stands on the right of a rule.
#[derive(Clone, Debug, PartialEq)]
enum Expression {
    Literal(String),
    /// A regular expression for one character.
    Class(String),
    /// A token, as Lark writes it.
    Token(String),
    Rule(usize),
    Sequence(Vec<Expression>),
    Choice(Vec<Expression>),
    Repeat {
        body: Box<Expression>,
        least: u32,
        most: Option<u32>,
    },
}

/// The Lark text of a GBNF grammar. `token` writes the token of a name in angle brackets.
///
/// # Errors
/// [`TextError::Gbnf`].
pub(super) fn to_lark(
    text: &str,
    token: impl Fn(&str) -> Option<String>,
) -> Result<String, TextError> {
    Ok(write::lark(&parse::rules(text, &token)?))
}

#[cfg(test)]
mod tests;
