//! Where the hub keeps its files, whom it asks, and with which patience.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::error::HubError;

/// Settings of a [`Hub`](crate::Hub). [`HubConfig::from_env`] reads the environment once; nothing else does.
#[derive(Clone)]
#[non_exhaustive]
pub struct HubConfig {
    /// Folder of all that Dunlin keeps (`DUNLIN_HOME`, else the platform's cache folder).
    pub home: PathBuf,
    /// Folder shared with the Python hub (`HF_HUB_CACHE`, else `HF_HOME/hub`).
    pub hf_cache: PathBuf,
    /// Address of Hugging Face or of a mirror with the same paths (`HF_ENDPOINT`).
    pub hf_endpoint: String,
    /// Token for private and gated repositories (`HF_TOKEN`, else the file at `HF_TOKEN_PATH` or `HF_HOME/token`).
    pub hf_token: Option<String>,
    /// Nothing leaves the machine (`DUNLIN_OFFLINE`, `HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Proxy for all requests, such as `http://proxy:3128` (`HTTPS_PROXY`, `ALL_PROXY`, `HTTP_PROXY`).
    pub proxy: Option<String>,
    /// Hosts that are asked without the proxy, separated by commas (`NO_PROXY`).
    pub no_proxy: Option<String>,
    /// Command that runs pip (`DUNLIN_PIP`, split at spaces).
    pub pip_command: Vec<String>,
    /// Waiting times and retries.
    pub timing: Timing,
    /// Free bytes on the disk of a folder; a field so that a test can have a full disk.
    pub free_space: fn(&Path) -> io::Result<u64>,
    /// The clock for the note of when a model was fetched.
    pub now: fn() -> SystemTime,
}

/// Waiting times and retries of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Longest wait for a source's first byte, all its requests together, before the next source is tried.
    pub answer: Duration,
    /// Longest silence within a download before the connection is given up and taken up again.
    pub stall: Duration,
    /// Attempts in a row that bring nothing new before a download is given up.
    pub attempts: u32,
    /// Pause before the second attempt; doubles with each further one.
    pub backoff: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            attempts: 5,
            backoff: Duration::from_millis(500),
        }
    }
}

impl HubConfig {
    /// Settings that keep everything below `home` and read nothing from the environment.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        Self {
            hf_cache: home.join("huggingface"),
            home,
            hf_endpoint: "https://huggingface.co".to_owned(),
            hf_token: None,
            offline: false,
            proxy: None,
            no_proxy: None,
            pip_command: default_pip(),
            timing: Timing::default(),
            free_space: |path| fs4::available_space(path),
            now: SystemTime::now,
        }
    }

    /// Settings from the environment variables named at the fields.
    ///
    /// # Errors
    /// [`HubError::BadConfig`] when no cache folder can be made out or a variable cannot be used.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(&|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_variables(get: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let text = |name: &str| get(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| get(name).map(PathBuf::from);
        let first = |names: &[&str]| names.iter().find_map(|name| text(name));

        let user = path(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let dot_cache =
            path("XDG_CACHE_HOME").or_else(|| user.as_ref().map(|user| user.join(".cache")));
        let platform_cache = if cfg!(windows) {
            path("LOCALAPPDATA")
        } else if cfg!(target_os = "macos") {
            user.as_ref().map(|user| user.join("Library/Caches"))
        } else {
            dot_cache.clone()
        };
        let home = path("DUNLIN_HOME")
            .or_else(|| platform_cache.map(|cache| cache.join("dunlin")))
            .ok_or_else(|| HubError::BadConfig {
                what: "the cache folder".to_owned(),
                reason: "neither DUNLIN_HOME nor the home folder is set; set DUNLIN_HOME"
                    .to_owned(),
            })?;
        let mut config = Self::new(home);

        let hf_home = path("HF_HOME").or_else(|| dot_cache.map(|cache| cache.join("huggingface")));
        if let Some(cache) =
            path("HF_HUB_CACHE").or_else(|| hf_home.as_ref().map(|home| home.join("hub")))
        {
            config.hf_cache = cache;
        }
        if let Some(endpoint) = text("HF_ENDPOINT") {
            config.hf_endpoint = endpoint;
        }
        let token_file = path("HF_TOKEN_PATH").or_else(|| hf_home.map(|home| home.join("token")));
        config.hf_token = text("HF_TOKEN")
            .or_else(|| token_file.and_then(|file| std::fs::read_to_string(file).ok()))
            .map(|token| token.trim().to_owned())
            .filter(|token| !token.is_empty());
        config.offline = ["DUNLIN_OFFLINE", "HF_HUB_OFFLINE"]
            .iter()
            .any(|name| text(name).is_some_and(|v| is_true(&v)));
        config.proxy = first(&[
            "HTTPS_PROXY",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
            "HTTP_PROXY",
            "http_proxy",
        ]);
        config.no_proxy = first(&["NO_PROXY", "no_proxy"]);
        if let Some(pip) = text("DUNLIN_PIP") {
            config.pip_command = pip.split_whitespace().map(str::to_owned).collect();
        }
        Ok(config)
    }

    pub(crate) fn models_dir(&self) -> PathBuf {
        self.home.join("models")
    }

    /// Half-made files: never looked at by anything but the pull that makes them.
    pub(crate) fn partial_dir(&self) -> PathBuf {
        self.home.join("partial")
    }

    /// GGUF files made from folders of the user.
    pub(crate) fn imports_dir(&self) -> PathBuf {
        self.home.join("imports")
    }

    pub(crate) fn lock_path(&self, folder: &str) -> PathBuf {
        self.home.join("locks").join(format!("{folder}.lock"))
    }
}

impl fmt::Debug for HubConfig {
    /// Without the token and the proxy, which may carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubConfig")
            .field("home", &self.home)
            .field("hf_cache", &self.hf_cache)
            .field("hf_endpoint", &self.hf_endpoint)
            .field("hf_token", &self.hf_token.as_ref().map(|_| "(set)"))
            .field("offline", &self.offline)
            .field("proxy", &self.proxy.as_ref().map(|_| "(set)"))
            .field("pip_command", &self.pip_command)
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

fn default_pip() -> Vec<String> {
    let python = if cfg!(windows) { "python" } else { "python3" };
    [python, "-m", "pip"].map(str::to_owned).to_vec()
}

/// The Python hub's own reading of a switch.
fn is_true(value: &str) -> bool {
    matches!(
        value.to_ascii_lowercase().as_str(),
        "1" | "on" | "yes" | "true"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(variables: &[(&str, &str)]) -> HubConfig {
        HubConfig::from_variables(&|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        })
        .unwrap()
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_folders_follow_the_platform() {
        let plain = config(&[("HOME", "/h")]);
        assert_eq!(plain.home, Path::new("/h/.cache/dunlin"));
        assert_eq!(plain.hf_cache, Path::new("/h/.cache/huggingface/hub"));
        let xdg = config(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")]);
        assert_eq!(xdg.home, Path::new("/x/dunlin"));
        assert_eq!(xdg.hf_cache, Path::new("/x/huggingface/hub"));
        let named = config(&[("HOME", "/h"), ("DUNLIN_HOME", "/d"), ("HF_HOME", "/f")]);
        assert_eq!(named.home, Path::new("/d"));
        assert_eq!(named.hf_cache, Path::new("/f/hub"));
        assert_eq!(
            config(&[("HOME", "/h"), ("HF_HUB_CACHE", "/c")]).hf_cache,
            Path::new("/c")
        );
    }

    #[test]
    fn without_any_folder_the_error_says_what_to_set() {
        let error = HubConfig::from_variables(&|_| None).unwrap_err();
        assert!(error.to_string().contains("DUNLIN_HOME"), "{error}");
    }

    #[test]
    fn either_offline_switch_is_enough() {
        assert!(
            config(&[
                ("HOME", "/h"),
                ("LOCALAPPDATA", "/l"),
                ("HF_HUB_OFFLINE", "TRUE")
            ])
            .offline
        );
        assert!(
            config(&[
                ("HOME", "/h"),
                ("LOCALAPPDATA", "/l"),
                ("DUNLIN_OFFLINE", "1")
            ])
            .offline
        );
        assert!(
            !config(&[
                ("HOME", "/h"),
                ("LOCALAPPDATA", "/l"),
                ("DUNLIN_OFFLINE", "0")
            ])
            .offline
        );
    }

    #[test]
    fn the_token_is_read_from_its_file_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "hf_secret\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let config = config(&[
            ("DUNLIN_HOME", "/d"),
            ("HF_HOME", home),
            ("HTTPS_PROXY", "http://me:proxy-password@p:1"),
        ]);
        assert_eq!(config.hf_token.as_deref(), Some("hf_secret"));
        let shown = format!("{config:?}");
        assert!(
            !shown.contains("hf_secret") && !shown.contains("proxy-password"),
            "{shown}"
        );
    }
}
