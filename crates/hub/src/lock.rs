//! Locks between processes: who pulls a model, and who waits for the result.
//!
//! A lock is an advisory lock of the operating system on a small file, so a killed process releases it.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::error::HubError;
use crate::files::create_dir;
use crate::progress::{Progress, Reporter};

/// A held lock; dropping it lets the next one in.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

const ASK_EVERY: Duration = Duration::from_millis(100);

/// Takes the lock, waiting for another holder and saying so. The flag tells whether there was one.
pub(crate) fn wait(path: &Path, reporter: &mut Reporter<'_>) -> Result<(Lock, bool), HubError> {
    let mut waited = false;
    loop {
        if let Some(lock) = try_take(path)? {
            return Ok((lock, waited));
        }
        if waited {
            reporter.alive()?;
        } else {
            reporter.report(Progress::Waiting)?;
            waited = true;
        }
        thread::sleep(ASK_EVERY);
    }
}

/// Takes the lock if nobody holds it.
pub(crate) fn try_take(path: &Path) -> Result<Option<Lock>, HubError> {
    if let Some(parent) = path.parent() {
        create_dir(parent)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|source| HubError::io("open the lock", path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(HubError::io("lock", path, source)),
    }
}
