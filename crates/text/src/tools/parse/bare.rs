//! Calls of Llama 3, which begin without a marker.

use crate::tools::Tool;

/// The most of an answer that is looked at, in bytes: space, a brace, and a name.
const MAX_BYTES: usize = 300;

/// The beginning of an answer that may be `{"name": "tool", "parameters": {`. With tools, their names
/// decide; without, the key that follows does. So an answer in JSON stays text.
#[derive(Debug, Default)]
pub(super) struct BareCall {
    text: String,
}

pub(super) enum Verdict {
    Possible,
    /// It is a call, and began with this.
    Call(String),
    /// It is none, and began with this.
    Text(String),
}

impl BareCall {
    pub(super) fn push(&mut self, c: char, tools: &[Tool]) -> Verdict {
        self.text.push(c);
        let verdict = match self.text.len() > MAX_BYTES {
            true => Some(false),
            false => is_call(&self.text, tools),
        };
        match verdict {
            None => Verdict::Possible,
            Some(true) => Verdict::Call(std::mem::take(&mut self.text)),
            Some(false) => Verdict::Text(std::mem::take(&mut self.text)),
        }
    }

    pub(super) fn beginning(&self) -> &str {
        &self.text
    }
}

/// `None` where the text is too short to tell.
fn is_call(text: &str, tools: &[Tool]) -> Option<bool> {
    let mut rest = Rest(text);
    for expected in ["{", "\"name\"", ":", "\""] {
        match rest.take(expected)? {
            true => {}
            false => return Some(false),
        }
    }
    let end = rest.0.find(['"', '\\', '\n']);
    let name = end.map_or(rest.0, |end| &rest.0[..end]);
    if !tools.is_empty() && !tools.iter().any(|tool| tool.name.starts_with(name)) {
        return Some(false);
    }
    rest.0 = rest.0[end?..].strip_prefix('"').map_or("\\", |rest| rest);
    if !tools.is_empty() {
        return Some(tools.iter().any(|tool| tool.name == name) && rest.0 != "\\");
    }
    if !rest.take(",")? {
        return Some(false);
    }
    let mut other = Rest(rest.0);
    match (rest.take("\"parameters\""), other.take("\"arguments\"")) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

struct Rest<'t>(&'t str);

impl Rest<'_> {
    /// Whether `expected` comes next, after white space. `None` where the text ends before.
    fn take(&mut self, expected: &str) -> Option<bool> {
        self.0 = self.0.trim_start();
        if let Some(rest) = self.0.strip_prefix(expected) {
            self.0 = rest;
            return Some(true);
        }
        match expected.starts_with(self.0) {
            true => None,
            false => Some(false),
        }
    }
}
