//! `format`: as patterns where texts are meant, as bounds where numbers are.

use serde_json::{Map, Value as Json, json};

use super::Place;
use crate::TextError;

/// Formats of texts that llguidance knows in full.
const KNOWN: [&str; 6] = ["duration", "email", "ipv4", "ipv6", "uuid", "uri"];

/// A leap year too: every fourth year but the centuries, of which every fourth is one.
const DATE: &str = "((\\d{4}-(0[13578]|1[02])-(0[1-9]|[12]\\d|3[01]))\
|(\\d{4}-(0[469]|11)-(0[1-9]|[12]\\d|30))\
|(\\d{4}-02-(0[1-9]|1\\d|2[0-8]))\
|((\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29))";
/// Without leap seconds, which only some days have.
const TIME: &str =
    "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,9})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
const HOST_LABEL: &str = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?";
/// Characters of a host's name.
const MAX_HOST: u64 = 253;

/// Sized integers as schema generators name them.
const INTEGERS: [(&str, i64, i64); 12] = [
    ("int8", i8::MIN as i64, i8::MAX as i64),
    ("int16", i16::MIN as i64, i16::MAX as i64),
    ("int32", i32::MIN as i64, i32::MAX as i64),
    ("int64", -super::MAX_INTEGER, super::MAX_INTEGER),
    ("int128", -super::MAX_INTEGER, super::MAX_INTEGER),
    ("int", -super::MAX_INTEGER, super::MAX_INTEGER),
    ("uint8", 0, u8::MAX as i64),
    ("uint16", 0, u16::MAX as i64),
    ("uint32", 0, u32::MAX as i64),
    ("uint64", 0, super::MAX_INTEGER),
    ("uint128", 0, super::MAX_INTEGER),
    ("uint", 0, super::MAX_INTEGER),
];
/// Numbers with a fraction: any that JSON can write.
const FLOATS: [&str; 2] = ["float", "double"];

/// Works the format into the schema.
///
/// # Errors
/// [`TextError::Schema`] for a format that is not known.
pub(super) fn apply(
    schema: &Map<String, Json>,
    format: &str,
    place: &Place,
    out: &mut Map<String, Json>,
) -> Result<(), TextError> {
    if FLOATS.contains(&format) {
        return Ok(());
    }
    if let Some((_, least, most)) = INTEGERS.iter().find(|(name, ..)| *name == format) {
        return match schema.get("type") {
            Some(_) => {
                add(out, json!({"minimum": least, "maximum": most}));
                Ok(())
            }
            None => Err(place.refuse("say `type` with it: it bounds integers only")),
        };
    }
    let part = match format {
        "date" => json!({"pattern": format!("^{DATE}$")}),
        "time" => json!({"pattern": format!("^{TIME}$")}),
        "date-time" => json!({"pattern": format!("^{DATE}T{TIME}$")}),
        "hostname" => {
            let pattern = format!("^{HOST_LABEL}(\\.{HOST_LABEL})*$");
            json!({"pattern": pattern, "maxLength": MAX_HOST})
        }
        _ if KNOWN.contains(&format) => json!({"format": format}),
        _ => {
            return Err(place.refuse(format!(
                "the format {format:?} is not known; for texts date, time, date-time, hostname, {} are. \
                 Write a `pattern`",
                KNOWN.join(", ")
            )));
        }
    };
    add(out, part);
    Ok(())
}

/// Adds a schema that must hold, too: two parts may have the same keyword.
pub(super) fn add(out: &mut Map<String, Json>, part: Json) {
    let parts = out.entry("allOf").or_insert_with(|| json!([]));
    if let Json::Array(parts) = parts {
        parts.push(part);
    }
}
