//! Personal data that have a form of their own: found by it, and checked where they carry a check.

use std::net::IpAddr;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// A form, and what a text of this form must also fulfil.
struct Pattern {
    kind: &'static str,
    regex: LazyLock<Option<Regex>>,
    is_valid: fn(&str) -> bool,
}

/// In the order in which they are tried: what one has found, no later one finds again.
static PATTERNS: [Pattern; 6] = [
    Pattern {
        kind: "email",
        regex: LazyLock::new(|| {
            Regex::new(r"(?i)\b[a-z0-9._%+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}\b").ok()
        }),
        is_valid: |_| true,
    },
    Pattern {
        kind: "iban",
        regex: LazyLock::new(|| Regex::new(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}\b").ok()),
        is_valid: is_iban,
    },
    Pattern {
        kind: "card",
        regex: LazyLock::new(|| Regex::new(r"\b[0-9](?:[ -]?[0-9]){12,18}\b").ok()),
        is_valid: has_luhn_sum,
    },
    Pattern {
        kind: "ip_address",
        regex: LazyLock::new(|| {
            Regex::new(
                r"(?i)\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}\b|\b[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}\b",
            )
            .ok()
        }),
        is_valid: |text| text.parse::<IpAddr>().is_ok(),
    },
    Pattern {
        kind: "social_security_number",
        regex: LazyLock::new(|| Regex::new(r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b").ok()),
        is_valid: |text| {
            !text.starts_with("000") && !text.starts_with("666") && !text.starts_with('9')
        },
    },
    Pattern {
        kind: "phone",
        regex: LazyLock::new(|| Regex::new(r"(?:\+|\(|\b)[0-9][0-9 ()./-]{5,20}[0-9]\b").ok()),
        is_valid: is_phone,
    },
];

/// What has one of the forms, with its kind, in the order of the text.
pub(super) fn find(text: &str) -> Vec<(&'static str, Range<usize>)> {
    let mut found: Vec<(&'static str, Range<usize>)> = Vec::new();
    for pattern in &PATTERNS {
        let Some(regex) = pattern.regex.as_ref() else {
            continue;
        };
        for place in regex.find_iter(text) {
            let range = place.range();
            let is_free = found
                .iter()
                .all(|(_, other)| other.end <= range.start || range.end <= other.start);
            if is_free && (pattern.is_valid)(place.as_str()) {
                found.push((pattern.kind, range));
            }
        }
    }
    found.sort_by_key(|(_, range)| range.start);
    found
}

/// ISO 13616: the first four characters moved to the end, letters as 10 to 35, the number modulo 97 is 1.
fn is_iban(text: &str) -> bool {
    let text: Vec<char> = text.chars().filter(|c| *c != ' ').collect();
    let digits = text.iter().cycle().skip(4).take(text.len());
    let mut remainder = 0;
    for digit in digits.filter_map(|c| c.to_digit(36)) {
        remainder = (remainder * if digit > 9 { 100 } else { 10 } + digit) % 97;
    }
    (15..=34).contains(&text.len()) && remainder == 1
}

/// ISO/IEC 7812: every second digit from the right doubled, the sum of all digits is a multiple of 10.
fn has_luhn_sum(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match index % 2 {
            0 => *digit,
            _ => digit * 2 % 10 + digit * 2 / 10,
        })
        .sum();
    sum > 0 && sum.is_multiple_of(10)
}

/// E.164 has at most 15 digits. A number without a sign of a phone number (a plus, brackets, groups) might be any number, and one
/// that begins as a year and goes on as a date is one.
fn is_phone(text: &str) -> bool {
    let digits = text.chars().filter(char::is_ascii_digit).count();
    let groups: Vec<&str> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|group| !group.is_empty())
        .collect();
    let is_grouped = text.starts_with(['+', '(', '0']) || groups.len() > 1;
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_date = matches!(lengths[..], [4, 1..=2, 1..=2] | [1..=2, 1..=2, 2 | 4]);
    // Two years, a decimal fraction, four numbers with the form of an IP address.
    let is_other = matches!(lengths[..], [4, 4] | [1..=3, 1..=3, 1..=3, 1..=3])
        || (text.contains('.') && groups.len() == 2);
    (7..=15).contains(&digits) && is_grouped && !is_date && !is_other
}

#[cfg(test)]
mod tests {
    use super::{find, is_iban};

    fn kinds(text: &str) -> Vec<(&'static str, &str)> {
        find(text)
            .into_iter()
            .map(|(kind, range)| (kind, &text[range]))
            .collect()
    }

    /// Numbers that standards and their issuers publish as examples.
    #[test]
    fn data_are_found_by_their_form() {
        let text = "Write to jane.doe+x@mail.example.co.uk or call +44 20 7946 0958, (555) 010-9999 or 0171 555123. IBAN GB82 WEST 1234 \
                    5698 7654 32, card 4111 1111 1111 1111, hosts 192.0.2.7 and 2001:db8::1, SSN 123-45-6789.";
        assert_eq!(
            kinds(text),
            [
                ("email", "jane.doe+x@mail.example.co.uk"),
                ("phone", "+44 20 7946 0958"),
                ("phone", "(555) 010-9999"),
                ("phone", "0171 555123"),
                ("iban", "GB82 WEST 1234 5698 7654 32"),
                ("card", "4111 1111 1111 1111"),
                ("ip_address", "192.0.2.7"),
                ("ip_address", "2001:db8::1"),
                ("social_security_number", "123-45-6789"),
            ]
        );
    }

    #[test]
    fn other_numbers_are_left_alone() {
        for text in [
            "2026-11-29, 29.11.2026 and 1/2/2026",
            "1234567890 bytes, 3.14159265, version 1.2.3, from 1998-2004",
            "card 4111 1111 1111 1112",
            "at 12:30:45 o'clock, 999.999.999.999",
            "user@localhost",
        ] {
            assert_eq!(kinds(text), [], "{text}");
        }
        assert!(!is_iban("GB83 WEST 1234 5698 7654 32"));
    }
}
