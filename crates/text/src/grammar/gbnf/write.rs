//! GBNF written as Lark.

use std::fmt::Write as _;

use super::{Expression, Rules};
use crate::grammar::lark;

/// Rules become `r0-name` and terminals `T0`, whatever they were called: Lark tells the two apart by their letters.
pub(super) fn lark(rules: &Rules) -> String {
    let mut writer = Writer {
        rules,
        is_terminal: terminals(rules),
        text: String::new(),
        pieces: 0,
    };
    let start = writer.reference(rules.root);
    writer.text = format!("start: {start}\n");
    for (number, body) in rules.bodies.iter().enumerate() {
        let name = writer.reference(number);
        let body = match writer.is_terminal[number] {
            true => writer.terminal(body),
            false => writer.rule(body),
        };
        writer.line(&name, &body);
    }
    writer.text
}

/// The rules that never lead back to themselves and name no token: each is one terminal.
fn terminals(rules: &Rules) -> Vec<bool> {
    let mut is_terminal = vec![false; rules.bodies.len()];
    loop {
        let mut has_changed = false;
        for (number, body) in rules.bodies.iter().enumerate() {
            if !is_terminal[number] && is_regular(body, &is_terminal) {
                is_terminal[number] = true;
                has_changed = true;
            }
        }
        if !has_changed {
            return is_terminal;
        }
    }
}

fn is_regular(expression: &Expression, is_terminal: &[bool]) -> bool {
    match expression {
        Expression::Literal(_) | Expression::Class(_) => true,
        Expression::Token(_) => false,
        Expression::Rule(number) => is_terminal[*number],
        Expression::Sequence(parts) | Expression::Choice(parts) => {
            parts.iter().all(|part| is_regular(part, is_terminal))
        }
        Expression::Repeat { body, .. } => is_regular(body, is_terminal),
    }
}

struct Writer<'r> {
    rules: &'r Rules,
    is_terminal: Vec<bool>,
    text: String,
    /// Terminals made for pieces of rules.
    pieces: usize,
}

impl Writer<'_> {
    fn line(&mut self, name: &str, body: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{name}: {body}");
    }

    fn reference(&self, number: usize) -> String {
        match self.is_terminal[number] {
            true => format!("T{number}"),
            false => format!(
                "r{number}-{}",
                self.rules.names[number].to_ascii_lowercase()
            ),
        }
    }

    /// The right side of a terminal.
    fn terminal(&self, expression: &Expression) -> String {
        let all = |parts: &[Expression], between: &str| {
            let parts: Vec<String> = parts.iter().map(|part| self.terminal(part)).collect();
            format!("({})", parts.join(between))
        };
        match expression {
            Expression::Literal(text) => lark::literal(text),
            Expression::Class(class) => format!("/{class}/"),
            Expression::Token(token) => token.clone(),
            Expression::Rule(number) => self.reference(*number),
            Expression::Sequence(parts) if parts.is_empty() => "\"\"".to_owned(),
            Expression::Sequence(parts) => all(parts, " "),
            Expression::Choice(parts) => all(parts, " | "),
            Expression::Repeat { body, least, most } => {
                repeated(&self.terminal(body), *least, *most)
            }
        }
    }

    /// The right side of a rule, in which everything regular is a terminal of its own.
    fn rule(&mut self, expression: &Expression) -> String {
        if is_regular(expression, &self.is_terminal) {
            return self.piece(std::slice::from_ref(expression));
        }
        match expression {
            Expression::Sequence(parts) => {
                let mut written = Vec::new();
                let runs: Vec<&[Expression]> = parts
                    .chunk_by(|a, b| self.is_regular(a) && self.is_regular(b))
                    .collect();
                for run in runs {
                    written.push(match run {
                        [part] => self.rule(part),
                        _ => self.piece(run),
                    });
                }
                format!("({})", written.join(" "))
            }
            Expression::Choice(parts) => {
                let written: Vec<String> = parts.iter().map(|part| self.rule(part)).collect();
                format!("({})", written.join(" | "))
            }
            Expression::Repeat { body, least, most } => repeated(&self.rule(body), *least, *most),
            _ => self.terminal(expression),
        }
    }

    fn is_regular(&self, expression: &Expression) -> bool {
        is_regular(expression, &self.is_terminal)
    }

    /// A terminal for neighbours.
    fn piece(&mut self, parts: &[Expression]) -> String {
        match parts {
            [Expression::Rule(number)] => return self.reference(*number),
            [Expression::Sequence(none)] if none.is_empty() => return "\"\"".to_owned(),
            _ => {}
        }
        let parts: Vec<String> = parts.iter().map(|part| self.terminal(part)).collect();
        let name = format!("P{}", self.pieces);
        self.pieces += 1;
        self.line(&name, &parts.join(" "));
        name
    }
}

fn repeated(body: &str, least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => format!("({body})*"),
        (1, None) => format!("({body})+"),
        (0, Some(1)) => format!("({body})?"),
        (least, None) => format!("({body}){{{least},}}"),
        (least, Some(most)) => format!("({body}){{{least},{most}}}"),
    }
}
