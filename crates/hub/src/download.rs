//! One file over HTTP, resumable at any byte.
//!
//! The bytes go to a part file beside the destination, with a small note of which file they belong to. After a kill,
//! a cancel or a broken connection the part is hashed and the download goes on behind its last byte; if the file at
//! the source has changed meanwhile, it starts anew. The destination's name appears only when size and sha256 are
//! right.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ureq::http::Method;

use crate::config::HubConfig;
use crate::error::HubError;
use crate::files::{
    self, hash_into, hex, human_bytes, remove_if_there, rename_durably, require_space,
};
use crate::http::{Answer, Ask, Client, Patience, Trouble, is_passing, no_answer};
use crate::progress::{Progress, Reporter};

/// The first bytes of every GGUF file.
const GGUF_MAGIC: &[u8; 4] = b"GGUF";

/// What is to be fetched, and where to.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) url: &'a str,
    pub(crate) token: Option<&'a str>,
    /// Page where the licence of a gated repository is accepted, for the error message.
    pub(crate) repo_page: Option<&'a str>,
    /// Name in messages.
    pub(crate) label: &'a str,
    pub(crate) part: &'a Path,
    pub(crate) destination: &'a Path,
    pub(crate) size: Option<u64>,
    pub(crate) sha256: Option<&'a str>,
    /// Whether a file that does not begin as GGUF does is refused, as soon as its first bytes are here.
    pub(crate) must_be_gguf: bool,
}

/// What has arrived and been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) size: u64,
    pub(crate) sha256: String,
}

/// Which file a part belongs to.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct PartNote {
    url: String,
    tag: Option<String>,
    size: Option<u64>,
    sha256: Option<String>,
}

/// The part on disk and the hash of all its bytes.
struct Part<'a> {
    job: &'a Job<'a>,
    note: PartNote,
    file: File,
    hasher: Sha256,
    done: u64,
}

/// How one request ended.
enum Outcome {
    Complete,
    /// Broke off; asking again goes on behind the last byte.
    Broken(String),
    /// There is no way to the source at present.
    Unreachable(String),
    /// The source has an error that may pass.
    Passing(u16),
}

/// Fetches the file, taking up an earlier attempt, and returns when it stands at its destination.
pub(crate) fn download(
    client: &Client,
    config: &HubConfig,
    job: &Job<'_>,
    patience: &mut Patience,
    reporter: &mut Reporter<'_>,
) -> Result<Fetched, HubError> {
    let mut part = Part::open(job, reporter)?;
    let start = part.done;
    let mut pause = client.timing.backoff;
    let mut attempts = 0;
    while !part.is_whole() {
        let before = part.done;
        let outcome = match part.request(client, config, patience, reporter) {
            Ok(Outcome::Complete) => break,
            Ok(outcome) => outcome,
            Err(error) => {
                // What reached the file stays for the next attempt.
                let _ = part.file.sync_all();
                return Err(error);
            }
        };
        if part.done > before {
            attempts = 0;
            pause = client.timing.backoff;
        }
        if part.done > start {
            // The source has answered; what it must now do is not fall silent.
            patience.renew(client.timing.stall);
        }
        attempts += 1;
        let has_no_way = matches!(outcome, Outcome::Unreachable(_));
        let never_answered = part.done == start && (patience.is_spent() || has_no_way);
        if attempts >= client.timing.attempts || never_answered {
            return Err(give_up(job, part.done, start, attempts, outcome, patience));
        }
        patience.sleep(pause, reporter)?;
        pause *= 2;
    }
    part.finish()
}

impl<'a> Part<'a> {
    /// Opens the part of an earlier attempt if it belongs to the same file, else an empty one.
    fn open(job: &'a Job<'a>, reporter: &mut Reporter<'_>) -> Result<Self, HubError> {
        if let Some(parent) = job.part.parent() {
            files::create_dir(parent)?;
        }
        let note = read_note(job.part)
            .filter(|note| note.belongs_to(job))
            .unwrap_or_default();
        let is_new = note == PartNote::default();
        let file = OpenOptions::new()
            .create(true)
            .truncate(is_new)
            .append(!is_new)
            .write(true)
            .open(job.part)
            .map_err(|source| HubError::io("open", job.part, source))?;
        let mut done = file
            .metadata()
            .map_err(|source| HubError::io("read", job.part, source))?
            .len();
        let mut part = Self {
            job,
            note,
            file,
            hasher: Sha256::new(),
            done,
        };
        if job.size.is_some_and(|size| done > size) {
            part.restart()?;
            done = 0;
        }
        if done > 0 {
            reporter.notice(format!(
                "{} is taken up again at {}",
                job.label,
                human_bytes(done)
            ))?;
            hash_into(&mut part.hasher, job.part, done, reporter)?;
        }
        Ok(part)
    }

    fn is_whole(&self) -> bool {
        self.done > 0 && Some(self.done) == self.job.size.or(self.note.size)
    }

    /// Asks for what is missing and writes what comes.
    fn request(
        &mut self,
        client: &Client,
        config: &HubConfig,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<Outcome, HubError> {
        let tag = self
            .note
            .tag
            .clone()
            .filter(|tag| !tag.starts_with("W/") && self.job.sha256.is_none());
        let ask = Ask {
            method: Method::GET,
            url: self.job.url,
            token: self.job.token,
            from: (self.done > 0).then_some((self.done, tag.as_deref())),
            stop_at: None,
        };
        let answer = match client.ask(&ask, patience, reporter) {
            Ok(answer) => answer,
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Broken(reason)) => return Ok(Outcome::Broken(reason)),
            Err(Trouble::Unreachable(reason)) => return Ok(Outcome::Unreachable(reason)),
            Err(Trouble::Silence(time)) => {
                return Ok(Outcome::Broken(format!(
                    "nothing came within {} seconds",
                    time.as_secs_f32()
                )));
            }
        };
        let total = match answer.status {
            206 => match self.total_of_partial(&answer)? {
                Some(total) => total,
                None => {
                    return Ok(Outcome::Broken(
                        "the source sent another range than asked for".to_owned(),
                    ));
                }
            },
            200 => {
                if self.done > 0 {
                    reporter.notice(format!(
                        "{} has changed at its source, or the source cannot continue a download: it starts anew",
                        self.job.label
                    ))?;
                    self.restart()?;
                }
                answer.number("content-length")
            }
            416 => {
                // The part is not a beginning of what the source has now.
                self.restart()?;
                return Ok(Outcome::Broken(
                    "the source has no bytes behind the part".to_owned(),
                ));
            }
            status if is_passing(status) => return Ok(Outcome::Passing(status)),
            _ => {
                return Err(status_error(
                    &answer,
                    self.job.token.is_some(),
                    self.job.repo_page,
                ));
            }
        };
        if let (Some(expected), Some(found)) = (self.job.size, total)
            && expected != found
        {
            self.discard()?;
            return Err(HubError::SizeMismatch {
                file: self.job.label.to_owned(),
                expected,
                found,
            });
        }
        self.note_down(&answer, total)?;
        if let Some(total) = total {
            let folder = self.job.part.parent().unwrap_or(self.job.part);
            require_space(folder, total.saturating_sub(self.done), config.free_space)?;
        }
        self.receive(&answer, total, client, patience, reporter)
    }

    fn receive(
        &mut self,
        answer: &Answer,
        total: Option<u64>,
        client: &Client,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<Outcome, HubError> {
        reporter.report(Progress::Downloading {
            done: self.done,
            total,
        })?;
        loop {
            let chunk = match answer.next_chunk(patience, reporter) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Broken(reason) | Trouble::Unreachable(reason)) => {
                    return Ok(Outcome::Broken(reason));
                }
                Err(Trouble::Silence(time)) => {
                    return Ok(Outcome::Broken(format!(
                        "silence for {} seconds",
                        time.as_secs_f32()
                    )));
                }
            };
            patience.renew(client.timing.stall);
            if total.is_some_and(|total| self.done + chunk.len() as u64 > total) {
                self.discard()?;
                let reason = "it sent more bytes than it announced".to_owned();
                return Err(HubError::BadResponse {
                    url: answer.url.clone(),
                    reason,
                });
            }
            self.file
                .write_all(&chunk)
                .map_err(|source| HubError::io("write", self.job.part, source))?;
            self.hasher.update(&chunk);
            let before = self.done;
            self.done += chunk.len() as u64;
            if before < GGUF_MAGIC.len() as u64 {
                self.check_start()?;
            }
            reporter.count(Progress::Downloading {
                done: self.done,
                total,
            })?;
        }
        match total {
            Some(total) if self.done < total => {
                Ok(Outcome::Broken("the connection ended early".to_owned()))
            }
            _ => {
                reporter.report(Progress::Downloading {
                    done: self.done,
                    total,
                })?;
                Ok(Outcome::Complete)
            }
        }
    }

    /// The length of the whole file from a partial answer, if that answer is what was asked for. `Some(None)` where
    /// the source does not know the length itself.
    fn total_of_partial(&self, answer: &Answer) -> Result<Option<Option<u64>>, HubError> {
        let range = answer.header("content-range").unwrap_or_default();
        let Some((span, total)) = range
            .strip_prefix("bytes ")
            .and_then(|range| range.split_once('/'))
        else {
            return Ok(None);
        };
        let first: Option<u64> = span
            .split_once('-')
            .and_then(|(first, _)| first.trim().parse().ok());
        if first != Some(self.done) {
            return Ok(None);
        }
        Ok(Some(total.trim().parse().ok()))
    }

    fn note_down(&mut self, answer: &Answer, total: Option<u64>) -> Result<(), HubError> {
        let note = PartNote {
            url: self.job.url.to_owned(),
            tag: answer.header("etag").map(str::to_owned),
            size: total,
            sha256: self.job.sha256.map(str::to_owned),
        };
        if note != self.note {
            let json = serde_json::to_vec(&note).unwrap_or_default();
            files::write_atomically(&note_path(self.job.part), &json)?;
            self.note = note;
        }
        Ok(())
    }

    /// Refuses what is no GGUF file, where it must be one, as far as its bytes are here.
    fn check_start(&self) -> Result<(), HubError> {
        const SHOWN: u64 = 16;
        if !self.job.must_be_gguf {
            return Ok(());
        }
        let mut start = Vec::new();
        File::open(self.job.part)
            .and_then(|file| file.take(SHOWN).read_to_end(&mut start))
            .map_err(|source| HubError::io("read", self.job.part, source))?;
        let compared = start.len().min(GGUF_MAGIC.len());
        if start[..compared] == GGUF_MAGIC[..compared] {
            return Ok(());
        }
        self.discard()?;
        Err(HubError::NotGguf {
            url: self.job.url.to_owned(),
            start: String::from_utf8_lossy(&start).into_owned(),
        })
    }

    /// Checks the whole file and gives it its name.
    fn finish(mut self) -> Result<Fetched, HubError> {
        if self.done < GGUF_MAGIC.len() as u64 && self.job.must_be_gguf {
            self.discard()?;
            return Err(HubError::NotGguf {
                url: self.job.url.to_owned(),
                start: format!("{} bytes in all", self.done),
            });
        }
        self.file
            .flush()
            .and_then(|()| self.file.sync_all())
            .map_err(|source| HubError::io("write", self.job.part, source))?;
        let sha256 = hex(std::mem::take(&mut self.hasher));
        if let Some(expected) = self.job.size
            && expected != self.done
        {
            self.discard()?;
            return Err(HubError::SizeMismatch {
                file: self.job.label.to_owned(),
                expected,
                found: self.done,
            });
        }
        if let Some(expected) = self.job.sha256
            && !expected.eq_ignore_ascii_case(&sha256)
        {
            self.discard()?;
            let file = self.job.label.to_owned();
            return Err(HubError::HashMismatch {
                file,
                expected: expected.to_ascii_lowercase(),
                found: sha256,
            });
        }
        rename_durably(self.job.part, self.job.destination)?;
        remove_if_there(&note_path(self.job.part))?;
        Ok(Fetched {
            size: self.done,
            sha256,
        })
    }

    fn restart(&mut self) -> Result<(), HubError> {
        self.file
            .set_len(0)
            .map_err(|source| HubError::io("empty", self.job.part, source))?;
        // A file opened for appending writes at its end; one opened for writing must be led back to its start.
        std::io::Seek::rewind(&mut self.file)
            .map_err(|source| HubError::io("empty", self.job.part, source))?;
        self.hasher = Sha256::new();
        self.done = 0;
        Ok(())
    }

    fn discard(&self) -> Result<(), HubError> {
        remove_if_there(self.job.part)?;
        remove_if_there(&note_path(self.job.part))
    }
}

impl PartNote {
    /// The same content by its hash; or, where nobody promises one, the same address (the entity tag then decides at
    /// the source).
    fn belongs_to(&self, job: &Job<'_>) -> bool {
        match (job.sha256, &self.sha256) {
            (Some(wanted), Some(noted)) => wanted.eq_ignore_ascii_case(noted),
            (None, None) => {
                self.url == job.url
                    && self.tag.is_some()
                    && (job.size.is_none() || job.size == self.size)
            }
            _ => false,
        }
    }
}

/// The error for a status that is no success.
pub(crate) fn status_error(answer: &Answer, token_sent: bool, repo_page: Option<&str>) -> HubError {
    let url = answer.url.clone();
    let words = [
        answer.header("x-error-code"),
        answer.header("x-error-message"),
    ];
    let message = words.into_iter().flatten().collect::<Vec<_>>().join(": ");
    match answer.status {
        status @ (401 | 403) => HubError::Unauthorized {
            url,
            status,
            message,
            repo_page: repo_page.map(str::to_owned),
            token_sent,
        },
        404 | 410 => HubError::NotFound { url, message },
        status => HubError::Status {
            url,
            status,
            message,
        },
    }
}

fn give_up(
    job: &Job<'_>,
    done: u64,
    start: u64,
    attempts: u32,
    outcome: Outcome,
    patience: &Patience,
) -> HubError {
    let url = job.url.to_owned();
    let reason = match outcome {
        Outcome::Passing(status) if done == start => {
            return HubError::Status {
                url,
                status,
                message: format!("{attempts} times in a row"),
            };
        }
        Outcome::Passing(status) => format!("status {status}"),
        Outcome::Broken(reason) | Outcome::Unreachable(reason) => reason,
        Outcome::Complete => String::new(),
    };
    if done == start {
        return no_answer(job.url, Trouble::Broken(reason), patience);
    }
    HubError::Interrupted {
        url,
        done,
        attempts,
        reason,
    }
}

fn note_path(part: &Path) -> PathBuf {
    let mut path = part.as_os_str().to_owned();
    path.push(".json");
    PathBuf::from(path)
}

fn read_note(part: &Path) -> Option<PartNote> {
    serde_json::from_slice(&fs::read(note_path(part)).ok()?).ok()
}
