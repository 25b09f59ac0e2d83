//! Values in Python's syntax and in Gemma 4's, turned into JSON as they come.

use super::{
    Step,
    json::{check_depth, unexpected},
    seek::Seeker,
};
use crate::tools::format::GEMMA_QUOTE;

/// The longest number or word, in characters; a double has at most 309 digits before its point.
const MAX_WORD: usize = 400;

/// How values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `"text"` or `'text'`, `True`, `None`, `[1, 2]`, `{"key": 1}`.
    Python,
    /// `<|"|>text<|"|>` without escapes, `true`, `None`, `[1,2]`, `{key:1}`.
    Gemma,
}

/// Reads one value and writes it as JSON. Python's and JSON's words for true, false and nothing are
/// both taken.
#[derive(Debug)]
pub(super) struct LiteralReader {
    dialect: Dialect,
    open: Vec<Open>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    is_object: bool,
    is_empty: bool,
}

#[derive(Debug)]
enum State {
    Value,
    Key,
    Colon,
    CommaOrEnd,
    Text {
        is_key: bool,
        quote: char,
    },
    Escape {
        is_key: bool,
        quote: char,
    },
    Hex {
        is_key: bool,
        quote: char,
        digits: String,
        length: usize,
    },
    OpeningQuote {
        is_key: bool,
        matched: usize,
    },
    Quoted {
        is_key: bool,
        end: Seeker,
    },
    BareKey(String),
    Word(String),
}

impl LiteralReader {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            open: Vec::new(),
            state: State::Value,
        }
    }

    /// Takes the next character and adds the JSON that is certain with it to `out`.
    ///
    /// # Errors
    ///
    /// What is wrong, for a character that cannot stand here and for too deep nesting.
    pub(super) fn push(&mut self, c: char, out: &mut String) -> Result<Step, String> {
        match &mut self.state {
            State::Text { is_key, quote } => {
                let (is_key, quote) = (*is_key, *quote);
                match c {
                    _ if c == quote => return Ok(self.end_text(is_key, out)),
                    '\\' => self.state = State::Escape { is_key, quote },
                    _ => push_json_char(c, out),
                }
                Ok(Step::More)
            }
            State::Escape { is_key, quote } => {
                let (is_key, quote) = (*is_key, *quote);
                self.state = State::Text { is_key, quote };
                let length = match c {
                    'n' => return more(out, "\\n"),
                    't' => return more(out, "\\t"),
                    'r' => return more(out, "\\r"),
                    'b' => return more(out, "\\b"),
                    'f' => return more(out, "\\f"),
                    '\\' | '\'' | '"' => {
                        push_json_char(c, out);
                        return Ok(Step::More);
                    }
                    'x' => 2,
                    'u' => 4,
                    'U' => 8,
                    'a' | 'v' | 'N' | '\n' | '0'..='7' => {
                        return Err(unexpected(c, "a common escape of a text"));
                    }
                    // Python keeps the backslash of an escape that it does not know.
                    _ => {
                        out.push_str("\\\\");
                        push_json_char(c, out);
                        return Ok(Step::More);
                    }
                };
                let digits = String::new();
                self.state = State::Hex {
                    is_key,
                    quote,
                    digits,
                    length,
                };
                Ok(Step::More)
            }
            State::Hex {
                is_key,
                quote,
                digits,
                length,
            } => {
                if !c.is_ascii_hexdigit() {
                    return Err(unexpected(c, "an escape of a text"));
                }
                digits.push(c);
                if digits.len() == *length {
                    push_code(digits, out)?;
                    self.state = State::Text {
                        is_key: *is_key,
                        quote: *quote,
                    };
                }
                Ok(Step::More)
            }
            State::OpeningQuote { is_key, matched } => {
                if !GEMMA_QUOTE[*matched..].starts_with(c) {
                    return Err(unexpected(c, GEMMA_QUOTE));
                }
                *matched += 1;
                if *matched == GEMMA_QUOTE.len() {
                    let is_key = *is_key;
                    let end = Seeker::new(GEMMA_QUOTE);
                    self.state = State::Quoted { is_key, end };
                }
                Ok(Step::More)
            }
            State::Quoted { is_key, end } => {
                let mut text = String::new();
                let ended = end.push(c, &mut text);
                text.chars().for_each(|c| push_json_char(c, out));
                match ended {
                    true => {
                        let is_key = *is_key;
                        Ok(self.end_text(is_key, out))
                    }
                    false => Ok(Step::More),
                }
            }
            State::BareKey(key) => match c {
                ':' => {
                    out.push_str("\": ");
                    self.state = State::Value;
                    Ok(Step::More)
                }
                '{' | '}' | '[' | ']' | ',' | '"' | '<' | '>' | '\n' => {
                    Err(unexpected(c, "a key or `:`"))
                }
                _ if key.len() >= MAX_WORD => {
                    Err(format!("a key is longer than {MAX_WORD} characters"))
                }
                _ => {
                    key.push(c);
                    push_json_char(c, out);
                    Ok(Step::More)
                }
            },
            State::Word(word) => {
                if c.is_alphanumeric() || matches!(c, '.' | '+' | '-' | '_') {
                    if word.len() >= MAX_WORD {
                        return Err(format!(
                            "a number or word is longer than {MAX_WORD} characters"
                        ));
                    }
                    word.push(c);
                    return Ok(Step::More);
                }
                out.push_str(json_word(word)?);
                match self.after_value() {
                    Step::More => self.push(c, out),
                    Step::Done | Step::DoneBefore => Ok(Step::DoneBefore),
                }
            }
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => Ok(Step::More),
            State::Value => self.value(c, out),
            State::Key => self.key(c, out),
            State::Colon if c == ':' => {
                out.push_str(": ");
                self.state = State::Value;
                Ok(Step::More)
            }
            State::Colon => Err(unexpected(c, "`:`")),
            State::CommaOrEnd => match (c, self.open.last()) {
                (',', Some(Open { is_object, .. })) => {
                    self.state = match is_object {
                        true => State::Key,
                        false => State::Value,
                    };
                    Ok(Step::More)
                }
                (']' | '}', _) => self.close(c, out),
                _ => Err(unexpected(c, "`,` or the end of a list or object")),
            },
        }
    }

    fn value(&mut self, c: char, out: &mut String) -> Result<Step, String> {
        if c == ']' {
            return self.close(c, out);
        }
        let starts_word = c.is_alphanumeric() || c == '-';
        let quotes = self.quotes(c);
        if !(matches!(c, '{' | '[') || starts_word || quotes) {
            return Err(unexpected(c, "a value"));
        }
        if self.open.last().is_some_and(|open| !open.is_object) {
            self.separate(out);
        }
        match c {
            '{' | '[' => {
                check_depth(self.open.len())?;
                let is_object = c == '{';
                self.open.push(Open {
                    is_object,
                    is_empty: true,
                });
                out.push(c);
                self.state = match is_object {
                    true => State::Key,
                    false => State::Value,
                };
            }
            _ if quotes => self.begin_text(c, false, out),
            _ => self.state = State::Word(c.to_string()),
        }
        Ok(Step::More)
    }

    fn key(&mut self, c: char, out: &mut String) -> Result<Step, String> {
        if c == '}' {
            return self.close(c, out);
        }
        let quotes = self.quotes(c);
        let bare = self.dialect == Dialect::Gemma && (c.is_alphanumeric() || "_$-.".contains(c));
        if !quotes && !bare {
            return Err(unexpected(c, "a key"));
        }
        self.separate(out);
        match quotes {
            true => self.begin_text(c, true, out),
            false => {
                out.push('"');
                push_json_char(c, out);
                self.state = State::BareKey(c.to_string());
            }
        }
        Ok(Step::More)
    }

    fn quotes(&self, c: char) -> bool {
        match self.dialect {
            Dialect::Python => matches!(c, '"' | '\''),
            Dialect::Gemma => c == '<',
        }
    }

    fn begin_text(&mut self, c: char, is_key: bool, out: &mut String) {
        out.push('"');
        self.state = match self.dialect {
            Dialect::Python => State::Text { is_key, quote: c },
            Dialect::Gemma => State::OpeningQuote { is_key, matched: 1 },
        };
    }

    fn end_text(&mut self, is_key: bool, out: &mut String) -> Step {
        out.push('"');
        match is_key {
            true => {
                self.state = State::Colon;
                Step::More
            }
            false => self.after_value(),
        }
    }

    /// Writes the comma before every entry but the first: Python allows one after the last.
    fn separate(&mut self, out: &mut String) {
        if let Some(open) = self.open.last_mut()
            && !std::mem::replace(&mut open.is_empty, false)
        {
            out.push_str(", ");
        }
    }

    fn close(&mut self, c: char, out: &mut String) -> Result<Step, String> {
        match self.open.last() {
            Some(open) if open.is_object == (c == '}') => {
                self.open.pop();
                out.push(c);
                Ok(self.after_value())
            }
            _ => Err(unexpected(c, "a value")),
        }
    }

    fn after_value(&mut self) -> Step {
        self.state = State::CommaOrEnd;
        match self.open.is_empty() {
            true => Step::Done,
            false => Step::More,
        }
    }
}

fn more(out: &mut String, text: &str) -> Result<Step, String> {
    out.push_str(text);
    Ok(Step::More)
}

/// A character inside a JSON text.
pub(super) fn push_json_char(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        _ => out.push(c),
    }
}

/// A character by its number. Halves of surrogate pairs go through as JSON's escape, which joins
/// them.
fn push_code(digits: &str, out: &mut String) -> Result<(), String> {
    let code = u32::from_str_radix(digits, 16).unwrap_or(u32::MAX);
    match char::from_u32(code) {
        Some(c) => push_json_char(c, out),
        None if digits.len() == 4 => out.push_str(&format!("\\u{digits}")),
        None => return Err(format!("the escape {digits} is no character")),
    }
    Ok(())
}

/// A number, or a word for true, false or nothing, as JSON has it.
pub(super) fn json_word(word: &str) -> Result<&str, String> {
    Ok(match word {
        "True" | "true" => "true",
        "False" | "false" => "false",
        "None" | "null" => "null",
        _ if serde_json::from_str::<serde_json::Number>(word).is_ok() => word,
        _ => return Err(format!("`{word}` is no value")),
    })
}
