//! Answers on stdout: JSON for scripts, tables for people.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use serde::Serialize;

use crate::terminal::printable;

/// Runs what writes to stdout, through a buffer that is empty afterwards.
///
/// # Errors
/// stdout cannot be written to; the error's kind is the system's.
pub(crate) fn to_stdout(
    write: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(|error| {
        let message = format!("the answer cannot be written to stdout: {error}");
        io::Error::new(error.kind(), message)
    })
}

/// Writes one JSON value and a newline.
///
/// # Errors
/// stdout cannot be written to.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    to_stdout(|out| {
        serde_json::to_writer(&mut *out, value)?;
        out.write_all(b"\n")
    })?;
    Ok(())
}

/// Writes one line.
///
/// # Errors
/// stdout cannot be written to.
pub(crate) fn line(text: &str) -> Result<()> {
    to_stdout(|out| writeln!(out, "{text}"))?;
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
    to_stdout(|out| {
        for row in rows {
            let mut text = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let cell = printable(cell);
                text.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        Ok(())
    })?;
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
