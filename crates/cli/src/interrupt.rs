//! Ctrl-C: the first one asks the work at hand to stop, the second one ends the program.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// Exit code of a program that was ended by Ctrl-C (128 + SIGINT).
pub(crate) const EXIT_CODE: u8 = 130;

static WORK: Mutex<Option<Work>> = Mutex::new(None);

struct Work {
    stop: Box<dyn Fn() + Send>,
    interrupted: bool,
}

/// Catches Ctrl-C from here on. Where no work asked for it ([`begin`]), it ends the program at once.
///
/// # Errors
/// The operating system refuses the handler.
pub(crate) fn install() -> Result<()> {
    ctrlc::set_handler(|| match &mut *work() {
        Some(work) if !work.interrupted => {
            work.interrupted = true;
            (work.stop)();
        }
        _ => std::process::exit(i32::from(EXIT_CODE)),
    })
    .context("Ctrl-C cannot be caught")
}

/// Work that a Ctrl-C stops, until this is dropped.
#[must_use = "the work ends when this is dropped"]
pub(crate) struct Interruptible(());

/// Begins work that can be stopped: `stop` is called, on another thread, at the first Ctrl-C.
pub(crate) fn begin(stop: impl Fn() + Send + 'static) -> Interruptible {
    *work() = Some(Work {
        stop: Box::new(stop),
        interrupted: false,
    });
    Interruptible(())
}

impl Drop for Interruptible {
    fn drop(&mut self) {
        *work() = None;
    }
}

fn work() -> MutexGuard<'static, Option<Work>> {
    WORK.lock().unwrap_or_else(PoisonError::into_inner)
}
