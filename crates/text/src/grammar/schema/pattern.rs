//! Patterns in the dialect of JSON Schema (ECMA-262) as the regular expressions of Rust, which llguidance reads.
//!
//! What is written the same way in both and means something else is rewritten; what Rust's dialect lacks it refuses itself.

use super::super::compile::check_repetitions;

/// What a dot is: no line end.
const DOT: &str = r"[^\n\r\x{2028}\x{2029}]";
/// White space that both dialects count as such.
const SPACE: &str = r"[ \t\n\r\f\v]";

/// # Errors
/// What has no counterpart, in words.
pub(super) fn to_rust(pattern: &str) -> Result<String, String> {
    check_repetitions(pattern).map_err(|error| error.to_string())?;
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(character) = rest.next() {
        match character {
            '\\' => {
                let Some(escaped) = rest.next() else {
                    return Err("the pattern ends with a backslash".to_owned());
                };
                match escaped {
                    's' => out.push_str(SPACE),
                    '/' | '_' | '"' | '\'' | ',' | ':' | ';' | '@' | '=' | '!' | '%' | '`' => {
                        out.push(escaped);
                    }
                    '0' => out.push_str("\\x00"),
                    'u' => out.push_str(&code_point(&mut rest)?),
                    'c' => return Err("control characters as `\\cX` are not known".to_owned()),
                    'b' if in_class => out.push_str("\\x08"),
                    'b' | 'B' | '1'..='9' | 'k' | 'A' | 'z' | 'Z' => {
                        return Err(format!(
                            "`\\{escaped}` cannot be kept while a text is written"
                        ));
                    }
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
            }
            '[' if in_class => out.push_str("\\["),
            '[' => {
                let is_negated = rest.next_if_eq(&'^').is_some();
                match (rest.peek() == Some(&']'), is_negated) {
                    (true, false) => return Err("the class `[]` has no character".to_owned()),
                    (true, true) => {
                        rest.next();
                        out.push_str("(?s:.)");
                    }
                    (false, _) => {
                        in_class = true;
                        out.push_str(if is_negated { "[^" } else { "[" });
                    }
                }
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            // Operations between classes in Rust, characters here.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(character);
            }
            '-' if in_class && rest.peek() == Some(&'-') => {
                return Err("write a `-` in a class as `\\-`".to_owned());
            }
            '.' if !in_class => out.push_str(DOT),
            _ => out.push(character),
        }
    }
    match in_class {
        true => Err("a class is not closed".to_owned()),
        false => Ok(out),
    }
}

/// `XXXX` or `{X...}`.
fn code_point(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, String> {
    let digits: String = match rest.next_if_eq(&'{') {
        Some(_) => rest.by_ref().take_while(|digit| *digit != '}').collect(),
        None => rest.by_ref().take(4).collect(),
    };
    let number = u32::from_str_radix(&digits, 16).ok();
    match number.and_then(char::from_u32) {
        Some(character) => Ok(format!("\\x{{{:X}}}", character as u32)),
        None => Err(format!("`\\u{digits}` is no character")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_else_is_rewritten() {
        for (pattern, wanted) in [
            (r"^\d+\/\w$", r"^\d+/\w$"),
            (r"[[a&&b]", r"[\[a\&\&b]"),
            (r"\u00e9\u{1F600}", r"\x{E9}\x{1F600}"),
            (r"[^]", "(?s:.)"),
            (r"[\b]", r"[\x08]"),
            (r"a[.]", "a[.]"),
        ] {
            assert_eq!(to_rust(pattern).unwrap(), wanted);
        }
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for pattern in [
            r"\bword", r"(a)\1", "[]", r"\cA", r"\ud800", "a\\", "[a", "[a--z]",
        ] {
            assert!(to_rust(pattern).is_err(), "{pattern}");
        }
    }
}
