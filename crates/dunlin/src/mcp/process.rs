//! A server that is a program of this machine.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use process_wrap::tokio::{ChildWrapper, CommandWrap, KillOnDrop};
use tokio::io::AsyncReadExt as _;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::{McpError, McpOptions};

/// How long a program may take to end by itself, and once more after it was told to.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the exit status of a program that has closed its output is waited for.
const STATUS: Duration = Duration::from_millis(500);
/// Bytes of stderr that are kept for messages.
const STDERR_BYTES: usize = 1024;

/// A program at work, and the end of what it wrote to stderr.
pub(super) struct Process {
    child: Box<dyn ChildWrapper>,
    stderr: Arc<Mutex<VecDeque<u8>>>,
}

/// Where a program reads and writes messages.
pub(super) struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
}

impl Process {
    /// Starts a program in a process group of its own: a Ctrl-C in the terminal is not meant for it.
    pub(super) fn start(
        program: &OsStr,
        arguments: &[OsString],
        options: &McpOptions,
    ) -> Result<(Self, Pipes), McpError> {
        let failed = |reason: String| McpError::Start {
            server: label(program),
            reason,
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .envs(
                options
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut command = CommandWrap::from(command);
        command.wrap(KillOnDrop);
        #[cfg(unix)]
        command.wrap(process_wrap::tokio::ProcessGroup::leader());
        #[cfg(windows)]
        command.wrap(process_wrap::tokio::JobObject);
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let pipes = (
            child.stdin().take(),
            child.stdout().take(),
            child.stderr().take(),
        );
        let (Some(stdin), Some(stdout), Some(source)) = pipes else {
            return Err(failed("it has no standard input and output".to_owned()));
        };
        let stderr = Arc::default();
        tokio::spawn(keep_end(source, Arc::clone(&stderr)));
        Ok((Process { child, stderr }, Pipes { stdin, stdout }))
    }

    /// How the program ended, and what it wrote last, for the end of a message.
    pub(super) async fn last_words(&mut self) -> String {
        let status = timeout(STATUS, self.child.wait()).await;
        let mut words = match status {
            Ok(Ok(status)) => format!("; the program ended ({status})"),
            _ => String::new(),
        };
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        let stderr: Vec<u8> = stderr.iter().copied().collect();
        let stderr = String::from_utf8_lossy(&stderr);
        if !stderr.trim().is_empty() {
            words.push_str("; it wrote to stderr: ");
            words.push_str(stderr.trim());
        }
        words
    }

    /// Waits until the program has ended, now that its input is closed; tells it to where it does not, and makes it at last.
    /// Nothing of it is left.
    pub(super) async fn stop(mut self) {
        if timeout(PATIENCE, self.child.wait()).await.is_ok() {
            return;
        }
        #[cfg(unix)]
        {
            const SIGTERM: i32 = 15;
            // Where it has ended meanwhile, the next wait says so.
            let _ = self.child.signal(SIGTERM);
            if timeout(PATIENCE, self.child.wait()).await.is_ok() {
                return;
            }
        }
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }
}

/// How a program is named in messages: its arguments may hold secrets.
pub(super) fn label(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

/// Reads stderr, so that the program does not wait for it, and keeps the end.
async fn keep_end(mut source: ChildStderr, end: Arc<Mutex<VecDeque<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = source.read(&mut buffer).await {
        let mut end = end.lock().unwrap_or_else(PoisonError::into_inner);
        end.extend(&buffer[..count]);
        let surplus = end.len().saturating_sub(STDERR_BYTES);
        end.drain(..surplus);
    }
}
