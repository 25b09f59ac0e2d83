//! The functions, filters and tests in which transformers' Jinja differs from minijinja's.

use minijinja::{
    Environment, Error, ErrorKind, State, Value,
    value::{StringInput, Tuple, ValueKind, from_args},
};

use super::{Raised, python};

pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise_exception);
    environment.set_formatter(python::print);
    environment.add_filter("tojson", python::tojson);
    environment.add_filter("trim", trim);
    environment.add_test("sequence", is_sequence);
    environment.add_test("number", is_number);
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = message.to_string();
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// Whatever has a length and can be indexed: in Python that is a string and a dict, too.
fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined
    )
}

/// In Python truth values are numbers.
fn is_number(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Number | ValueKind::Bool)
}

/// Methods of Python's strings and dicts: those of `minijinja-contrib` and the ones it lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str()
        && let Some(result) = string_method(text, name, args)
    {
        return result;
    }
    if let Some(text) = value.as_str() {
        let bytes = most_bytes(state, text, name, args)?;
        state.consume_fuel(bytes / python::BYTES_PER_FUEL as u64)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The most that a method can write which makes much of little. The template engine has it paid for when it is written, and
/// then it can have filled the memory.
fn most_bytes(state: &State, text: &str, name: &str, args: &[Value]) -> Result<u64, Error> {
    let arg = |place: usize| args.get(place).and_then(Value::as_str).unwrap_or_default();
    Ok(match name {
        "format" => most_bytes_of_format(state, text, args)?,
        "replace" => text.matches(arg(0)).count() as u64 * arg(1).len() as u64,
        "join" => match args.first() {
            Some(parts) if parts.as_str().is_none() => {
                let mut bytes = 0;
                for part in parts.try_iter()? {
                    bytes += most_bytes_of(state, &part)? + text.len() as u64;
                }
                bytes
            }
            _ => arg(0).len() as u64 * text.len() as u64,
        },
        _ => 0,
    })
}

/// Widths (`{:>1000000000}`) and arguments that are named often.
fn most_bytes_of_format(state: &State, text: &str, args: &[Value]) -> Result<u64, Error> {
    let mut longest = 0;
    for arg in args {
        longest = longest.max(most_bytes_of(state, arg)?);
    }
    let places = text.matches('{').count() as u64;
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    let widths = numbers
        .filter(|digits| !digits.is_empty())
        // One with more digits than a number has is wider than all.
        .map(|digits| digits.parse().unwrap_or(u64::MAX));
    let wide = widths.fold(0, u64::saturating_add);
    Ok(places.saturating_mul(longest).saturating_add(wide))
}

/// The length of a value as text. Other values than texts are written for it, which is paid for on the way.
fn most_bytes_of(state: &State, value: &Value) -> Result<u64, Error> {
    let bytes = match value.as_str() {
        Some(text) => text.len(),
        None => python::repr(state, value)?.len(),
    };
    Ok(bytes as u64)
}

fn string_method(text: &str, name: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    Some(match name {
        "strip" if args.is_empty() => Ok(Value::from(text.trim_matches(is_space))),
        "lstrip" if args.is_empty() => Ok(Value::from(text.trim_start_matches(is_space))),
        "rstrip" if args.is_empty() => Ok(Value::from(text.trim_end_matches(is_space))),
        "removeprefix" => from_args(args)
            .map(|(prefix,): (&str,)| Value::from(text.strip_prefix(prefix).unwrap_or(text))),
        "removesuffix" => from_args(args)
            .map(|(suffix,): (&str,)| Value::from(text.strip_suffix(suffix).unwrap_or(text))),
        "partition" => from_args(args).map(|(separator,): (&str,)| {
            triple(match text.split_once(separator) {
                Some((before, after)) => [before, separator, after],
                None => [text, "", ""],
            })
        }),
        "rpartition" => from_args(args).map(|(separator,): (&str,)| {
            triple(match text.rsplit_once(separator) {
                Some((before, after)) => [before, separator, after],
                None => ["", "", text],
            })
        }),
        "rsplit" => from_args(args).map(|(separator, limit): (&str, Option<i64>)| {
            let pieces: Vec<&str> = match limit.and_then(|limit| usize::try_from(limit).ok()) {
                Some(limit) => text.rsplitn(limit.saturating_add(1), separator).collect(),
                None => text.rsplit(separator).collect(),
            };
            pieces.into_iter().rev().map(Value::from).collect()
        }),
        "casefold" => from_args(args).map(|()| Value::from(text.to_lowercase())),
        _ => return None,
    })
}

fn triple(pieces: [&str; 3]) -> Value {
    Value::from(Tuple::from(pieces.map(Value::from)))
}

/// What Python strips: white space and the separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn trim(text: StringInput<'_>, characters: Option<&str>) -> String {
    let text = text.as_str();
    match characters {
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
        None => text.trim_matches(is_space).to_owned(),
    }
}
