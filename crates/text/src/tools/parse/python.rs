//! A call in Python's syntax, `name(key="value", other=[1, 2])`.

use super::{
    Sink, Step,
    json::unexpected,
    literal::{Dialect, LiteralReader, push_json_char},
};

/// The longest name of a function or argument, in characters.
pub(super) const MAX_NAME: usize = 200;

/// Reads one call; arguments without a name are refused.
#[derive(Debug)]
pub(super) struct PythonCall {
    state: State,
    keys: Vec<String>,
}

#[derive(Debug)]
enum State {
    Name(String),
    KeyOrEnd,
    Key(String),
    Equals(String),
    Value(LiteralReader),
    CommaOrEnd,
}

impl PythonCall {
    pub(super) fn new() -> Self {
        Self {
            state: State::Name(String::new()),
            keys: Vec::new(),
        }
    }

    /// Takes the next character, of white space before the name, too. Done with the closing
    /// parenthesis.
    ///
    /// # Errors
    ///
    /// What is wrong with the call.
    pub(super) fn push(&mut self, c: char, sink: &mut Sink) -> Result<Step, String> {
        match &mut self.state {
            State::Name(name) => match c {
                '(' => {
                    // The built-in tools of Llama 3 are called by a method.
                    sink.start(name.strip_suffix(".call").unwrap_or(name))?;
                    sink.delta("{");
                    self.state = State::KeyOrEnd;
                }
                _ if c.is_whitespace() && name.is_empty() => {}
                _ => push_name(name, c, "the name of a tool or `(`")?,
            },
            State::Key(key) if c.is_whitespace() => {
                self.state = State::Equals(std::mem::take(key));
            }
            State::Equals(_) if c.is_whitespace() => {}
            State::Equals(_) if c != '=' => return Err(unexpected(c, "`=`")),
            State::Key(key) | State::Equals(key) => match c {
                '=' => {
                    let key = std::mem::take(key);
                    if self.keys.contains(&key) {
                        return Err(format!("the argument `{key}` stands there twice"));
                    }
                    let mut json = String::new();
                    if !self.keys.is_empty() {
                        json.push_str(", ");
                    }
                    json.push('"');
                    key.chars().for_each(|c| push_json_char(c, &mut json));
                    json.push_str("\": ");
                    sink.delta(&json);
                    self.keys.push(key);
                    self.state = State::Value(LiteralReader::new(Dialect::Python));
                }
                _ => push_name(key, c, "the name of an argument or `=`")?,
            },
            State::Value(value) => {
                let mut json = String::new();
                let step = value.push(c, &mut json)?;
                sink.delta(&json);
                if step != Step::More {
                    self.state = State::CommaOrEnd;
                }
                if step == Step::DoneBefore {
                    return self.push(c, sink);
                }
            }
            _ if c.is_whitespace() => {}
            State::KeyOrEnd | State::CommaOrEnd if c == ')' => {
                sink.delta("}");
                return Ok(Step::Done);
            }
            State::CommaOrEnd if c == ',' => self.state = State::KeyOrEnd,
            State::CommaOrEnd => return Err(unexpected(c, "`,` or `)`")),
            State::KeyOrEnd => {
                let mut key = String::new();
                push_name(&mut key, c, "the name of an argument")?;
                self.state = State::Key(key);
            }
        }
        Ok(Step::More)
    }
}

/// Adds a character to a name.
pub(super) fn push_name(name: &mut String, c: char, expected: &str) -> Result<(), String> {
    if !(c.is_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        return Err(unexpected(c, expected));
    }
    if name.len() >= MAX_NAME {
        return Err(format!("a name is longer than {MAX_NAME} characters"));
    }
    name.push(c);
    Ok(())
}
