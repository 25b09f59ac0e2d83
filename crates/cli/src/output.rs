//! Answers on stdout: JSON for scripts, tables for people.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use serde::Serialize;

use crate::terminal::printable;

/// Writes one JSON value and a newline.
///
/// # Errors
/// stdout cannot be written to.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes one line.
///
/// # Errors
/// stdout cannot be written to.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Writes rows with aligned columns, two spaces apart, the last one ragged.
///
/// # Errors
/// stdout cannot be written to.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> Result<()> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = BufWriter::new(io::stdout().lock());
    for row in rows {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let cell = printable(cell);
            text.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    out.flush()?;
    Ok(())
}

/// A number of bytes in decimal units, as disks and downloads are sold: "98.4 MB".
pub(crate) fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}

/// A count with its digits in groups of three: "134,515,008".
pub(crate) fn count(number: u64) -> String {
    indicatif::HumanCount(number).to_string()
}
