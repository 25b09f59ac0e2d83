//! The time of a whole program, from its start to its end.

use std::ops::ControlFlow;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::Spread;
use crate::Error;

/// Seconds that a program takes which loads a model, writes one token and ends: what a person waits for who asks a model
/// that is on the disk. `command` makes the program anew for each run; it gets an empty stdin. One run more than `runs` goes
/// before them and is not counted: it brings the file into memory. `progress` is told how many of all runs are done.
///
/// # Errors
/// [`Error::ColdStart`] where the program cannot be started or does not end well, [`Error::Cancelled`].
pub fn cold_start(
    runs: usize,
    mut command: impl FnMut() -> Command,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Spread, Error> {
    let runs = runs.max(1);
    let mut seconds = Vec::new();
    for run in 0..=runs {
        if progress(run, runs.saturating_add(1)).is_break() {
            return Err(Error::Cancelled);
        }
        let mut command = command();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let start = Instant::now();
        let output = command.output();
        let time = start.elapsed();
        let reason = match output {
            Ok(output) if output.status.success() => {
                if run > 0 {
                    seconds.push(time.as_secs_f64());
                }
                continue;
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                format!("it ended with {}: {}", output.status, said.trim())
            }
            Err(error) => error.to_string(),
        };
        // Ctrl-C reaches all programs of a terminal.
        if progress(run, runs.saturating_add(1)).is_break() {
            return Err(Error::Cancelled);
        }
        let program = command.get_program().to_string_lossy().into_owned();
        return Err(Error::ColdStart { program, reason });
    }
    Ok(Spread::of(seconds))
}
