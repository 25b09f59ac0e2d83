//! How Python prints what templates print: numbers and JSON.

use std::fmt::Write;

use minijinja::{
    Error, ErrorKind, Output, State, Value, escape_formatter,
    value::{Kwargs, Rest, Tuple, ValueKind},
};

/// Values nested deeper than this are refused; Python's own limit is near 1000, real tools stay
/// under 20.
const MAX_DEPTH: usize = 128;
/// What minijinja charges for its own conversions of lists and maps to text.
pub(super) const BYTES_PER_FUEL: usize = 4;

/// The `tojson` filter of transformers: `json.dumps` with `ensure_ascii=False`, and neither HTML
/// escapes nor a space less than Python writes. Takes `ensure_ascii`, `indent`, `separators` and
/// `sort_keys`, by name or in this order.
///
/// # Errors
///
/// For values that Python's `json.dumps` refuses (undefined ones) and when the template's fuel is
/// used up.
pub(super) fn tojson(
    state: &mut State,
    value: &Value,
    positional: Rest<Value>,
    named: Kwargs,
) -> Result<Value, Error> {
    let argument = |place: usize, name: &str| -> Result<Option<Value>, Error> {
        let found = match positional.get(place) {
            Some(value) => Some(value.clone()),
            None => named.get::<Option<Value>>(name)?,
        };
        Ok(found.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ensure_ascii = argument(0, "ensure_ascii")?.is_some_and(|value| value.is_true());
    let indent = argument(1, "indent")?
        .map(|value| indent_text(&value))
        .transpose()?;
    let separators = argument(2, "separators")?
        .map(|value| separator_pair(&value))
        .transpose()?;
    let sort_keys = argument(3, "sort_keys")?.is_some_and(|value| value.is_true());
    named.assert_all_used()?;
    let (item, key) = separators.unwrap_or_else(|| {
        (
            if indent.is_some() { "," } else { ", " }.to_owned(),
            ": ".to_owned(),
        )
    });
    let mut writer = JsonWriter {
        state,
        out: String::new(),
        charged: 0,
        ensure_ascii,
        sort_keys,
        indent,
        item,
        key,
    };
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

fn indent_text(value: &Value) -> Result<String, Error> {
    if let Some(text) = value.as_str() {
        return Ok(text.to_owned());
    }
    let width = i64::try_from(value.clone())?;
    // Wider than any page: a template that asks for it means harm.
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX).min(256);
    Ok(" ".repeat(width))
}

fn separator_pair(value: &Value) -> Result<(String, String), Error> {
    let pair: Vec<Value> = value.try_iter()?.take(3).collect();
    match pair.as_slice() {
        [item, key] => Ok((item.to_string(), key.to_string())),
        _ => Err(Error::new(
            ErrorKind::InvalidOperation,
            "`separators` of tojson needs two strings, for example (',', ':')",
        )),
    }
}

struct JsonWriter<'a, 'template, 'environment> {
    state: &'a mut State<'template, 'environment>,
    out: String,
    charged: usize,
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<String>,
    item: String,
    key: String,
}

impl JsonWriter<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                format!("tojson: values nested deeper than {MAX_DEPTH}"),
            ));
        }
        charge(self.state, &self.out, &mut self.charged)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self
                .out
                .push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            kind => {
                return Err(Error::new(
                    ErrorKind::BadSerialization,
                    format!("tojson: a value of kind {kind} is not JSON serializable"),
                ));
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut empty = true;
        for entry in value.try_iter()? {
            if !empty {
                self.out.push_str(&self.item);
            }
            empty = false;
            self.line_break(depth + 1);
            self.value(&entry, depth + 1)?;
        }
        if !empty {
            self.line_break(depth);
        }
        self.out.push(']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sort_keys {
            keys.sort();
        }
        self.out.push('{');
        let mut empty = true;
        for key in keys {
            if !empty {
                self.out.push_str(&self.item);
            }
            empty = false;
            self.line_break(depth + 1);
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                ValueKind::Number => {
                    let text = number(&key);
                    self.string(&text);
                }
                ValueKind::Bool => self.string(if key.is_true() { "true" } else { "false" }),
                ValueKind::None => self.string("null"),
                kind => {
                    return Err(Error::new(
                        ErrorKind::BadSerialization,
                        format!("tojson: a key of kind {kind} is not allowed in JSON"),
                    ));
                }
            }
            self.out.push_str(&self.key);
            let entry = value.get_item(&key)?;
            self.value(&entry, depth + 1)?;
        }
        if !empty {
            self.line_break(depth);
        }
        self.out.push('}');
        Ok(())
    }

    fn line_break(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// A small list can hold the same large one many times over, so its text is paid for as it grows,
/// not when it is done.
fn charge(state: &State, out: &str, charged: &mut usize) -> Result<(), Error> {
    let fuel = (out.len() - *charged) / BYTES_PER_FUEL;
    *charged += fuel * BYTES_PER_FUEL;
    state.consume_fuel(fuel as u64)
}

/// A number as Python's `repr` and `json.dumps` write it.
fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    f64::try_from(value.clone()).map_or_else(|_| value.to_string(), float)
}

/// Prints a value as Python's `str`. Lists and maps are written here, not by minijinja, which pays
/// for them only when all is written: a few lines of template can describe a list of 2^60 entries.
pub(super) fn print(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let fraction = value.kind() == ValueKind::Number && !value.is_integer();
    if fraction || matches!(value.kind(), ValueKind::Seq | ValueKind::Map) {
        return out.write_str(&repr(state, value)?).map_err(Error::from);
    }
    escape_formatter(out, state, value)
}

/// A value as Python's `repr` writes it.
pub(super) fn repr(state: &State, value: &Value) -> Result<String, Error> {
    let mut writer = ReprWriter {
        state,
        out: String::new(),
        charged: 0,
    };
    writer.value(value, 0)?;
    Ok(writer.out)
}

struct ReprWriter<'a, 'template, 'environment> {
    state: &'a State<'template, 'environment>,
    out: String,
    charged: usize,
}

impl ReprWriter<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            let detail = format!("cannot print values nested deeper than {MAX_DEPTH}");
            return Err(Error::new(ErrorKind::InvalidOperation, detail));
        }
        charge(self.state, &self.out, &mut self.charged)?;
        match value.kind() {
            ValueKind::Number => match number(value).as_str() {
                "NaN" => self.out.push_str("nan"),
                "Infinity" => self.out.push_str("inf"),
                "-Infinity" => self.out.push_str("-inf"),
                text => self.out.push_str(text),
            },
            ValueKind::Seq => {
                let is_tuple = value.downcast_object_ref::<Tuple>().is_some();
                self.out.push(if is_tuple { '(' } else { '[' });
                let mut count = 0;
                for entry in value.try_iter()? {
                    self.out.push_str(if count > 0 { ", " } else { "" });
                    self.value(&entry, depth + 1)?;
                    count += 1;
                }
                match (is_tuple, count) {
                    (true, 1) => self.out.push_str(",)"),
                    (true, _) => self.out.push(')'),
                    (false, _) => self.out.push(']'),
                }
            }
            ValueKind::Map => {
                self.out.push('{');
                for (index, key) in value.try_iter()?.enumerate() {
                    self.out.push_str(if index > 0 { ", " } else { "" });
                    self.value(&key, depth + 1)?;
                    self.out.push_str(": ");
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.out.push('}');
            }
            _ => {
                // Writing to a string cannot fail.
                let _ = write!(self.out, "{value:?}");
            }
        }
        Ok(())
    }
}

/// A number as Python's `repr` writes it.
pub(crate) fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    // Where Python's repr changes to the form with an exponent.
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::float;

    // Expected: Python 3.11 `repr`.
    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (0.1, "0.1"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e20, "1.25e+20"),
            (123456789.125, "123456789.125"),
            (5e-324, "5e-324"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(float(value), expected);
        }
    }
}
