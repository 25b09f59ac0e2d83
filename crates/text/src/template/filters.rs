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
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
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
