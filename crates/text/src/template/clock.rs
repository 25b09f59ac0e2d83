//! The moment that `strftime_now` shows: passed in by the caller, never read from a clock here.

use std::str::FromStr;

use crate::TextError;

/// A calendar moment without a time zone, as templates print it (`strftime_now('%d %b %Y')`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Years since the year 0 of the Gregorian calendar.
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

impl DateTime {
    /// The moment that many seconds after 1970-01-01 00:00:00 (add the offset of a time zone, in
    /// seconds, for local time).
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        // Civil-from-days by Howard Hinnant ("chrono-compatible low-level date algorithms"); the
        // clamp keeps the year within the range of its type.
        let seconds = seconds.clamp(-62_135_596_800, 253_402_300_799);
        let days = seconds.div_euclid(86_400);
        let rest = seconds.rem_euclid(86_400);
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            year: year as i32,
            month: month as u8,
            day: day as u8,
            hour: (rest / 3600) as u8,
            minute: (rest / 60 % 60) as u8,
            second: (rest % 60) as u8,
        }
    }

    /// The moment in the form of C's `strftime` in the C locale, with the directives that Python
    /// documents (and `%-d` and the like of glibc); anything else stays as it is written.
    #[must_use]
    pub fn strftime(&self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() + 16);
        let mut rest = format.chars();
        while let Some(c) = rest.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut ahead = rest.clone();
            let mut directive = ahead.next();
            let unpadded = directive == Some('-');
            if unpadded {
                directive = ahead.next();
            }
            match directive.and_then(|directive| self.directive(directive, unpadded)) {
                Some(text) => {
                    out.push_str(&text);
                    rest = ahead;
                }
                None => out.push('%'),
            }
        }
        out
    }

    fn directive(&self, directive: char, unpadded: bool) -> Option<String> {
        let padded = |number: i64, width: usize| {
            if unpadded {
                number.to_string()
            } else {
                format!("{number:0width$}")
            }
        };
        let spaced = |number: i64| {
            if unpadded {
                number.to_string()
            } else {
                format!("{number:2}")
            }
        };
        let hour = i64::from(self.hour);
        let hour_of_twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        let month = MONTHS
            .get(usize::from(self.month).wrapping_sub(1))
            .copied()
            .unwrap_or("?");
        let weekday = WEEKDAYS[self.weekday()];
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => padded(i64::from(self.year.rem_euclid(100)), 2),
            'm' => padded(i64::from(self.month), 2),
            'd' => padded(i64::from(self.day), 2),
            'e' => spaced(i64::from(self.day)),
            'H' => padded(hour, 2),
            'I' => padded(hour_of_twelve, 2),
            'M' => padded(i64::from(self.minute), 2),
            'S' => padded(i64::from(self.second), 2),
            'f' => "000000".to_owned(),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'B' => month.to_owned(),
            'b' | 'h' => month.chars().take(3).collect(),
            'A' => weekday.to_owned(),
            'a' => weekday.chars().take(3).collect(),
            'w' => self.weekday().to_string(),
            'u' => (if self.weekday() == 0 {
                7
            } else {
                self.weekday()
            })
            .to_string(),
            'j' => padded(self.day_of_year(), 3),
            'F' => self.strftime("%Y-%m-%d"),
            'T' | 'X' => self.strftime("%H:%M:%S"),
            'R' => self.strftime("%H:%M"),
            'D' | 'x' => self.strftime("%m/%d/%y"),
            'c' => self.strftime("%a %b %e %H:%M:%S %Y"),
            // A moment without a zone has neither name nor offset, as in Python.
            'Z' | 'z' => String::new(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }

    /// 0 is Sunday.
    fn weekday(&self) -> usize {
        (self.days_since_1970() + 4).rem_euclid(7) as usize
    }

    fn day_of_year(&self) -> i64 {
        let new_year = Self {
            month: 1,
            day: 1,
            ..*self
        };
        self.days_since_1970() - new_year.days_since_1970() + 1
    }

    fn days_since_1970(&self) -> i64 {
        let month = i64::from(self.month);
        let year = i64::from(self.year) - i64::from(month <= 2);
        let year_of_era = year.rem_euclid(400);
        let month_from_march = (month + 9) % 12;
        let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(self.day) - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        year.div_euclid(400) * 146_097 + day_of_era - 719_468
    }
}

impl FromStr for DateTime {
    type Err = TextError;

    /// Reads ISO 8601: `2026-01-15`, `2026-01-15T09:30` or `2026-01-15T09:30:00` (a space may stand
    /// for the `T`; fractions of a second and a zone at the end are ignored).
    fn from_str(text: &str) -> Result<Self, TextError> {
        parse(text).ok_or_else(|| TextError::InvalidDateTime {
            text: text.to_owned(),
        })
    }
}

fn parse(text: &str) -> Option<DateTime> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut date = date.splitn(3, '-').map(|part| part.parse::<u16>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = [0_u8; 3];
    if let Some(time) = time {
        let time = time.split(['.', 'Z', '+', '-']).next()?;
        let mut parts = time.splitn(3, ':').map(|part| part.parse::<u8>().ok());
        clock[0] = parts.next()??;
        clock[1] = parts.next()??;
        if let Some(second) = parts.next() {
            clock[2] = second?;
        }
    }
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u16::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    let valid = (1..=days).contains(&day) && clock[0] < 24 && clock[1] < 60 && clock[2] < 60;
    valid.then_some(DateTime {
        year: i32::from(year),
        month: month as u8,
        day: day as u8,
        hour: clock[0],
        minute: clock[1],
        second: clock[2],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // Expected: Python 3.11 `datetime(2026, 1, 5, 9, 30, 7).strftime(..)`.
    #[test]
    fn strftime_prints_what_python_prints() {
        let moment: DateTime = "2026-01-05T09:30:07".parse().unwrap();
        for (format, expected) in [
            ("%d %b %Y", "05 Jan 2026"),
            ("%Y-%m-%d", "2026-01-05"),
            ("%B %d, %Y", "January 05, 2026"),
            ("%A %a %w", "Monday Mon 1"),
            ("%-d/%-m/%y", "5/1/26"),
            ("%e|%j|%H:%M:%S", " 5|005|09:30:07"),
            ("%I:%M %p", "09:30 AM"),
            ("100%% %", "100% %"),
        ] {
            assert_eq!(moment.strftime(format), expected, "{format}");
        }
    }

    #[test]
    fn unix_seconds_and_dates_agree() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_768_469_400, "2026-01-15T09:30:00"),
            (-1, "1969-12-31T23:59:59"),
        ] {
            assert_eq!(
                DateTime::from_unix_seconds(seconds),
                text.parse().unwrap(),
                "{text}"
            );
        }
        let _ = DateTime::from_unix_seconds(i64::MIN).strftime("%c");
        let _ = DateTime::from_unix_seconds(i64::MAX).strftime("%c");
    }

    #[test]
    fn rejects_dates_that_do_not_exist() {
        for text in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "2026-01-01T24:00",
            "20a6-01-01",
        ] {
            assert!(text.parse::<DateTime>().is_err(), "{text}");
        }
    }
}
