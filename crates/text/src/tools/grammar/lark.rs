//! Lark text, written rule by rule.

use crate::TokenId;

/// A grammar at work.
pub(super) struct Lark<'m> {
    text: String,
    markers: &'m [(&'m str, TokenId)],
}

impl<'m> Lark<'m> {
    pub(super) fn new(markers: &'m [(&'m str, TokenId)]) -> Self {
        Self {
            text: String::new(),
            markers,
        }
    }

    pub(super) fn rule(&mut self, name: &str, body: &str) {
        let body = match body {
            "" => "\"\"",
            body => body,
        };
        self.text.push_str(&format!("{name}: {body}\n"));
    }

    pub(super) fn terminal(&mut self, name: &str, body: &str) {
        self.rule(name, body);
    }

    /// Whether a terminal of this name stands already.
    pub(super) fn has(&self, name: &str) -> bool {
        let head = format!("{name}: ");
        self.text.lines().any(|line| line.starts_with(&head))
    }

    pub(super) fn is_control(&self, marker: &str) -> bool {
        self.markers.iter().any(|(text, _)| *text == marker)
    }

    /// A marker: a token by its id, or text.
    pub(super) fn marker(&self, marker: &str) -> String {
        match self.markers.iter().find(|(text, _)| *text == marker) {
            Some((_, id)) => format!("<[{id}]>"),
            None => quoted(marker),
        }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// A text as a literal: JSON's syntax, which serves here as well.
pub(super) fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace('\x7f', "\\u007f")
}

/// A text inside a regular expression.
pub(super) fn regex(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_alphanumeric() && c != '_' {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// The end of a terminal, ` & ~(..)`, that takes out texts which contain `text`.
pub(super) fn without(text: &str) -> String {
    format!(" & ~(/(?s:.*)/ {} /(?s:.*)/)", quoted(text))
}
