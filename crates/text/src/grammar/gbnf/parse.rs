//! GBNF read.

use std::collections::HashMap;

use super::{Expression, Rules};
use crate::TextError;

/// Groups within groups.
const MAX_DEPTH: usize = 64;
/// Rules of a grammar; each may lead to the next, and they are followed by recursion.
const MAX_RULES: usize = 2000;
/// Repetitions that are written out by number.
const MAX_REPEAT: u32 = 10_000;

/// # Errors
/// [`TextError::Gbnf`] at the first mistake.
pub(super) fn rules(
    text: &str,
    token: &dyn Fn(&str) -> Option<String>,
) -> Result<Rules, TextError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        token,
        names: Vec::new(),
        numbers: HashMap::new(),
        mentions: Vec::new(),
        bodies: Vec::new(),
    };
    parser.skip_space(true);
    while parser.peek().is_some() {
        parser.rule()?;
        parser.skip_space(true);
    }
    let Some(&root) = parser.numbers.get("root") else {
        return Err(parser.mistake(0, "there is no rule `root`, where the answer begins"));
    };
    if let Some(missing) = parser.bodies.iter().position(Option::is_none) {
        let reason = format!("there is no rule `{}`", parser.names[missing]);
        return Err(parser.mistake(parser.mentions[missing], reason));
    }
    Ok(Rules {
        names: parser.names,
        bodies: parser.bodies.into_iter().flatten().collect(),
        root,
    })
}

struct Parser<'t> {
    text: &'t str,
    /// Byte of the text.
    at: usize,
    depth: usize,
    token: &'t dyn Fn(&str) -> Option<String>,
    names: Vec<String>,
    numbers: HashMap<String, usize>,
    /// Where each rule is named first.
    mentions: Vec<usize>,
    bodies: Vec<Option<Expression>>,
}

impl<'t> Parser<'t> {
    /// `name ::= choices`, up to the end of the line.
    fn rule(&mut self) -> Result<(), TextError> {
        let start = self.at;
        let number = self.name()?;
        self.skip_space(false);
        if !self.take("::=") {
            return Err(self.mistake(self.at, "`::=` must follow the name of a rule"));
        }
        self.skip_space(true);
        let body = self.choices()?;
        match self.peek() {
            None | Some('\n' | '\r') => {}
            Some(')') => return Err(self.mistake(self.at, "no group is open here")),
            Some(other) => {
                return Err(self.mistake(
                    self.at,
                    format!("{other:?} is nothing that a rule is made of"),
                ));
            }
        }
        if self.bodies[number].replace(body).is_some() {
            let reason = format!("there is a rule `{}` already", self.names[number]);
            return Err(self.mistake(start, reason));
        }
        Ok(())
    }

    fn choices(&mut self) -> Result<Expression, TextError> {
        let mut choices = vec![self.sequence()?];
        loop {
            let before = self.at;
            // A line may begin with the bar.
            self.skip_space(true);
            if !self.take("|") {
                self.at = before;
                break;
            }
            self.skip_space(true);
            choices.push(self.sequence()?);
        }
        Ok(match choices.len() {
            1 => choices.remove(0),
            _ => Expression::Choice(choices),
        })
    }

    fn sequence(&mut self) -> Result<Expression, TextError> {
        let mut parts = Vec::new();
        while let Some(part) = self.part()? {
            let part = self.repeated(part)?;
            parts.push(part);
            self.skip_space(self.depth > 0);
        }
        Ok(match parts.len() {
            1 => parts.remove(0),
            _ => Expression::Sequence(parts),
        })
    }

    fn part(&mut self) -> Result<Option<Expression>, TextError> {
        let start = self.at;
        Ok(Some(match self.peek() {
            Some('"') => self.literal()?,
            Some('[') => self.class()?,
            Some('.') => {
                self.at += 1;
                Expression::Class("(?s:.)".to_owned())
            }
            Some('(') => {
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    let reason =
                        format!("groups stand within each other more than {MAX_DEPTH} times");
                    return Err(self.mistake(start, reason));
                }
                self.at += 1;
                self.skip_space(true);
                let group = self.choices()?;
                self.skip_space(true);
                if !self.take(")") {
                    return Err(self.mistake(start, "this group is not closed"));
                }
                self.depth -= 1;
                group
            }
            Some('<') => self.token()?,
            Some('!') => {
                return Err(self.mistake(
                    start,
                    "tokens that must not come cannot be kept: name those that may",
                ));
            }
            Some(character) if is_name(character) => Expression::Rule(self.name()?),
            _ => return Ok(None),
        }))
    }

    /// What stands before `*`, `+`, `?` or `{m,n}`, with that.
    fn repeated(&mut self, mut body: Expression) -> Result<Expression, TextError> {
        loop {
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    let (least, most) = self.bounds()?;
                    body = repeat(body, least, most);
                    continue;
                }
                _ => return Ok(body),
            };
            self.at += 1;
            body = repeat(body, least, most);
        }
    }

    /// `{m}`, `{m,}`, `{,n}` or `{m,n}`.
    fn bounds(&mut self) -> Result<(u32, Option<u32>), TextError> {
        let start = self.at;
        let length = self.text[start..].find('}');
        let Some(length) = length else {
            return Err(self.mistake(start, "`}` is missing"));
        };
        let inner = &self.text[start + 1..start + length];
        self.at = start + length + 1;
        let number = |text: &str| {
            let number: u32 = text.trim().parse().ok()?;
            (number <= MAX_REPEAT).then_some(number)
        };
        let bounds = match inner.split_once(',') {
            None => number(inner).map(|times| (times, Some(times))),
            Some((least, most)) => {
                let least = if least.trim().is_empty() {
                    Some(0)
                } else {
                    number(least)
                };
                let most = if most.trim().is_empty() {
                    Some(None)
                } else {
                    number(most).map(Some)
                };
                least.zip(most)
            }
        };
        match bounds {
            Some((least, most)) if most.is_none_or(|most| least <= most) => Ok((least, most)),
            _ => {
                let reason = format!(
                    "{{{inner}}} is no number of repetitions: two whole numbers up to {MAX_REPEAT} are, the smaller first"
                );
                Err(self.mistake(start, reason))
            }
        }
    }

    fn literal(&mut self) -> Result<Expression, TextError> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.mistake(start, "this text is not closed")),
                Some('"') => break,
                Some(_) => text.push(self.character()?),
            }
        }
        self.at += 1;
        Ok(Expression::Literal(text))
    }

    fn class(&mut self) -> Result<Expression, TextError> {
        let start = self.at;
        self.at += 1;
        let mut class = String::from("[");
        if self.take("^") {
            class.push('^');
        }
        let empty = class.len();
        loop {
            match self.peek() {
                None | Some('\n') => return Err(self.mistake(start, "this class is not closed")),
                Some(']') => break,
                Some(_) => {}
            }
            let at = self.at;
            let first = self.character()?;
            push_in_class(&mut class, first);
            let is_range =
                self.text[self.at..].starts_with('-') && !self.text[self.at + 1..].starts_with(']');
            if is_range {
                self.at += 1;
                if self.peek().is_none() {
                    return Err(self.mistake(start, "this class is not closed"));
                }
                let last = self.character()?;
                if last < first {
                    let reason = format!("the range from {first:?} to {last:?} goes backwards");
                    return Err(self.mistake(at, reason));
                }
                class.push('-');
                push_in_class(&mut class, last);
            }
        }
        self.at += 1;
        if class.len() == empty {
            return Err(self.mistake(start, "this class has no character"));
        }
        class.push(']');
        Ok(Expression::Class(class))
    }

    /// One character, which may be escaped.
    fn character(&mut self) -> Result<char, TextError> {
        let start = self.at;
        let character = self.next();
        if character != Some('\\') {
            return character.ok_or_else(|| self.mistake(start, "the grammar ends here"));
        }
        let digits = match self.next() {
            Some('n') => return Ok('\n'),
            Some('r') => return Ok('\r'),
            Some('t') => return Ok('\t'),
            Some(same @ ('\\' | '"' | '[' | ']' | '-' | '^')) => return Ok(same),
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            _ => {
                let reason = "there are the escapes \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\^ \\xHH \\uHHHH \\UHHHHHHHH";
                return Err(self.mistake(start, reason));
            }
        };
        let hex = self.text.get(self.at..self.at + digits);
        let number = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        match number.and_then(char::from_u32) {
            Some(character) => {
                self.at += digits;
                Ok(character)
            }
            None => {
                let reason = format!("{digits} hexadecimal digits of a character must follow");
                Err(self.mistake(start, reason))
            }
        }
    }

    /// `<name>` or `<[number]>`.
    fn token(&mut self) -> Result<Expression, TextError> {
        let start = self.at;
        let rest = &self.text[start..];
        let Some(length) = rest.find('>').map(|end| end + 1) else {
            return Err(self.mistake(start, "`>` is missing"));
        };
        let name = &rest[..length];
        let number = name
            .strip_prefix("<[")
            .and_then(|name| name.strip_suffix("]>"))
            .and_then(|number| number.parse().ok());
        let written = match number {
            Some(number) => Some(crate::grammar::compile::lark_id(number)),
            None => (self.token)(name),
        };
        self.at += length;
        match written {
            Some(written) => Ok(Expression::Token(written)),
            None => Err(self.mistake(start, format!("the model has no token {name}"))),
        }
    }

    /// The number of the rule that is named here.
    fn name(&mut self) -> Result<usize, TextError> {
        let start = self.at;
        let rest = &self.text[start..];
        let length = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        if length == 0 {
            return Err(self.mistake(start, "the name of a rule must stand here"));
        }
        self.at += length;
        let name = &rest[..length];
        if let Some(number) = self.numbers.get(name) {
            return Ok(*number);
        }
        let number = self.names.len();
        if number == MAX_RULES {
            return Err(self.mistake(start, format!("there are more than {MAX_RULES} rules")));
        }
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), number);
        self.mentions.push(start);
        self.bodies.push(None);
        Ok(number)
    }

    /// Passes over white space and comments, over line ends where these may stand.
    fn skip_space(&mut self, over_lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t') => self.at += 1,
                Some('\n' | '\r') if over_lines => self.at += 1,
                Some('#') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find('\n').unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn take(&mut self, text: &str) -> bool {
        let is_here = self.text[self.at..].starts_with(text);
        if is_here {
            self.at += text.len();
        }
        is_here
    }

    fn mistake(&self, at: usize, reason: impl Into<String>) -> TextError {
        let before = &self.text[..at];
        let line = before.rfind('\n').map_or(0, |end| end + 1);
        TextError::Gbnf {
            line: before.matches('\n').count() + 1,
            column: before[line..].chars().count() + 1,
            reason: reason.into(),
        }
    }
}

fn repeat(body: Expression, least: u32, most: Option<u32>) -> Expression {
    Expression::Repeat {
        body: Box::new(body),
        least,
        most,
    }
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '-' || character == '_'
}

fn push_in_class(class: &mut String, character: char) {
    match character.is_ascii_alphanumeric() {
        true => class.push(character),
        false => class.push_str(&format!("\\x{{{:X}}}", character as u32)),
    }
}
