//! JSON checked one character at a time.

use super::Step;
use crate::tools::MAX_ARGUMENT_DEPTH;

/// Checks one JSON value (RFC 8259) as its characters come, and tells where it ends.
#[derive(Debug)]
pub(super) struct JsonScanner {
    open: Vec<Container>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Text { is_key: bool },
    Escape { is_key: bool },
    Hex { is_key: bool, left: u8 },
    Number(Number),
    Word(&'static str),
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl JsonScanner {
    pub(super) fn new() -> Self {
        Self {
            open: Vec::new(),
            state: State::Value,
        }
    }

    /// Takes the next character. White space before the value is part of it.
    ///
    /// # Errors
    ///
    /// What is wrong, for a character that cannot stand here and for too deep nesting.
    pub(super) fn push(&mut self, c: char) -> Result<Step, String> {
        match self.state {
            State::Text { is_key } => {
                match c {
                    '"' if is_key => self.state = State::Colon,
                    '"' => return Ok(self.after_value()),
                    '\\' => self.state = State::Escape { is_key },
                    '\0'..='\x1f' => return Err(unexpected(c, "a text")),
                    _ => {}
                }
                Ok(Step::More)
            }
            State::Escape { is_key } => {
                self.state = match c {
                    '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => State::Text { is_key },
                    'u' => State::Hex { is_key, left: 4 },
                    _ => return Err(unexpected(c, "an escape of a text")),
                };
                Ok(Step::More)
            }
            State::Hex { is_key, left } => {
                if !c.is_ascii_hexdigit() {
                    return Err(unexpected(c, "an escape of a text"));
                }
                self.state = match left {
                    1 => State::Text { is_key },
                    _ => State::Hex {
                        is_key,
                        left: left - 1,
                    },
                };
                Ok(Step::More)
            }
            State::Word(rest) => match rest.strip_prefix(c) {
                Some("") => Ok(self.after_value()),
                Some(rest) => {
                    self.state = State::Word(rest);
                    Ok(Step::More)
                }
                None => Err(unexpected(c, "`true`, `false` or `null`")),
            },
            State::Number(number) => match number.next(c) {
                Some(number) => {
                    self.state = State::Number(number);
                    Ok(Step::More)
                }
                None if !number.is_complete() => Err(unexpected(c, "a number")),
                None => match self.after_value() {
                    Step::More => self.push(c),
                    Step::Done | Step::DoneBefore => Ok(Step::DoneBefore),
                },
            },
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => Ok(Step::More),
            State::ValueOrEnd | State::CommaOrEnd
                if c == ']' && self.open.last() == Some(&Container::Array) =>
            {
                Ok(self.close())
            }
            State::KeyOrEnd | State::CommaOrEnd
                if c == '}' && self.open.last() == Some(&Container::Object) =>
            {
                Ok(self.close())
            }
            State::Value | State::ValueOrEnd => self.begin(c),
            State::Key | State::KeyOrEnd if c == '"' => {
                self.state = State::Text { is_key: true };
                Ok(Step::More)
            }
            State::Key | State::KeyOrEnd => Err(unexpected(c, "a key in quotes")),
            State::Colon if c == ':' => {
                self.state = State::Value;
                Ok(Step::More)
            }
            State::Colon => Err(unexpected(c, "`:`")),
            State::CommaOrEnd if c == ',' => {
                self.state = match self.open.last() {
                    Some(Container::Object) => State::Key,
                    _ => State::Value,
                };
                Ok(Step::More)
            }
            State::CommaOrEnd => Err(unexpected(c, "`,` or the end of a list or object")),
        }
    }

    fn begin(&mut self, c: char) -> Result<Step, String> {
        self.state = match c {
            '{' => self.enter(Container::Object, State::KeyOrEnd)?,
            '[' => self.enter(Container::Array, State::ValueOrEnd)?,
            '"' => State::Text { is_key: false },
            '-' => State::Number(Number::Minus),
            '0' => State::Number(Number::Zero),
            '1'..='9' => State::Number(Number::Integer),
            't' => State::Word("rue"),
            'f' => State::Word("alse"),
            'n' => State::Word("ull"),
            _ => return Err(unexpected(c, "a value")),
        };
        Ok(Step::More)
    }

    fn enter(&mut self, container: Container, state: State) -> Result<State, String> {
        check_depth(self.open.len())?;
        self.open.push(container);
        Ok(state)
    }

    fn close(&mut self) -> Step {
        self.open.pop();
        self.after_value()
    }

    fn after_value(&mut self) -> Step {
        self.state = State::CommaOrEnd;
        match self.open.is_empty() {
            true => Step::Done,
            false => Step::More,
        }
    }
}

impl Number {
    fn next(self, c: char) -> Option<Self> {
        Some(match (self, c) {
            (Self::Minus, '0') => Self::Zero,
            (Self::Minus, '1'..='9') | (Self::Integer, '0'..='9') => Self::Integer,
            (Self::Zero | Self::Integer, '.') => Self::Point,
            (Self::Point | Self::Fraction, '0'..='9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, 'e' | 'E') => Self::Exponent,
            (Self::Exponent, '+' | '-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, '0'..='9') => {
                Self::ExponentDigits
            }
            _ => return None,
        })
    }

    fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits
        )
    }
}

pub(super) fn unexpected(c: char, expected: &str) -> String {
    format!("{c:?} stands where {expected} was expected")
}

/// Whether one more list or object may be opened inside `open` of them.
pub(super) fn check_depth(open: usize) -> Result<(), String> {
    match open < MAX_ARGUMENT_DEPTH {
        true => Ok(()),
        false => Err(format!(
            "it is nested deeper than {MAX_ARGUMENT_DEPTH} levels"
        )),
    }
}
