//! The values of keywords: whether they are of the kind that the keyword wants, and within what can be written.

use serde_json::Value as Json;

use super::{KIND, MAX_INTEGER, MAX_PROPERTIES, Place};
use crate::TextError;
use crate::grammar::compile::within;

/// Largest bound of a length or a number of items.
const MAX_LENGTH: u64 = 100_000;

pub(super) fn types(value: &Json, place: &Place) -> Result<Json, TextError> {
    const TYPES: [&str; 7] = [
        "null", "boolean", "integer", "number", "string", "array", "object",
    ];
    let is_type = |value: &Json| value.as_str().is_some_and(|name| TYPES.contains(&name));
    let is_good = match value {
        Json::Array(types) => !types.is_empty() && types.iter().all(is_type),
        _ => is_type(value),
    };
    match is_good {
        true => Ok(value.clone()),
        false => Err(place.refuse(format!("{value} is none of {}", TYPES.join(", ")))),
    }
}

/// Whether a value can be written exactly.
pub(super) fn check_instance(value: &Json, place: &Place) -> Result<(), TextError> {
    match value {
        Json::Number(number) => match number.as_f64() {
            Some(float) if float.abs() <= MAX_INTEGER as f64 => Ok(()),
            _ => Err(place.refuse(format!(
                "{number} is beyond ±{MAX_INTEGER}, where numbers are not exact any more"
            ))),
        },
        Json::String(text) => check_text(text, place),
        Json::Array(values) => values
            .iter()
            .try_for_each(|value| check_instance(value, place)),
        Json::Object(members) => members
            .values()
            .try_for_each(|value| check_instance(value, place)),
        Json::Null | Json::Bool(_) => Ok(()),
    }
}

/// Whether a text can be written without escapes by number.
fn check_text(text: &str, place: &Place) -> Result<(), TextError> {
    let is_bad = |character: &char| {
        character.is_ascii_control() && !['\n', '\r', '\t', '\x08', '\x0c'].contains(character)
    };
    match text.chars().find(is_bad) {
        Some(character) => Err(place.refuse(format!(
            "the control character {character:?} cannot be written"
        ))),
        None => Ok(()),
    }
}

pub(super) fn string<'v>(value: &'v Json, place: &Place) -> Result<&'v str, TextError> {
    value
        .as_str()
        .ok_or_else(|| place.refuse(format!("{value} is no string")))
}

pub(super) fn array<'v>(value: &'v Json, place: &Place) -> Result<&'v Vec<Json>, TextError> {
    value
        .as_array()
        .filter(|values| !values.is_empty())
        .ok_or_else(|| place.refuse("an array that is not empty is needed"))
}

/// A length, which drafts allow to be written as `2.0`.
pub(super) fn length(value: &Json, place: &Place) -> Result<Json, TextError> {
    let length = value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0)?;
        (0.0..=MAX_LENGTH as f64)
            .contains(&float)
            .then_some(float as u64)
    });
    match length.filter(|length| *length <= MAX_LENGTH) {
        Some(length) => Ok(length.into()),
        None => Err(place.refuse(format!("{value} is no whole number from 0 to {MAX_LENGTH}"))),
    }
}

pub(super) fn number(value: &Json, place: &Place) -> Result<Json, TextError> {
    // Bounds are made of the digits of 64-bit integers.
    const LARGEST: f64 = 1e15;
    match value.as_f64().filter(|float| float.abs() <= LARGEST) {
        Some(_) => Ok(value.clone()),
        None => Err(place.refuse(format!("{value} is no number from -1e15 to 1e15"))),
    }
}

pub(super) fn required(value: &Json, place: &Place) -> Result<Json, TextError> {
    let names = value
        .as_array()
        .filter(|names| names.iter().all(Json::is_string))
        .ok_or_else(|| place.refuse("an array of names is needed"))?;
    within(
        KIND,
        "required properties in an object",
        names.len(),
        MAX_PROPERTIES,
    )?;
    Ok(value.clone())
}

/// A pointer as it stands behind the `#` of an address.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| (byte as char).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                (16 * high + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
