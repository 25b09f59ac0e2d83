//! A fake hub on 127.0.0.1: plain HTTP over `TcpListener`, with the faults of real ones, and a log of what it served.
#![allow(dead_code, unreachable_pub)]

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dunlin_hub::{HubConfig, Progress, Timing};
use sha2::{Digest, Sha256};

/// One path of the server.
#[derive(Clone, Default)]
pub struct Page {
    pub body: Vec<u8>,
    pub status: Option<u16>,
    pub headers: Vec<(String, String)>,
    /// Target of a redirect.
    pub location: Option<String>,
    /// Successive answers end after that many bytes of body.
    pub cuts: VecDeque<usize>,
    /// First answers have these statuses instead.
    pub failures: VecDeque<u16>,
    pub ignores_ranges: bool,
    /// Pause before the head.
    pub delay: Duration,
    /// Pause after every 4 kB of the body.
    pub pace: Duration,
    /// Sends this many bytes and then nothing, with the connection open.
    pub stalls_at: Option<usize>,
}

impl Page {
    pub fn of(body: &[u8]) -> Self {
        Self {
            body: body.to_vec(),
            ..Self::default()
        }
        .with("ETag", &format!("\"{}\"", &sha256(body)[..16]))
    }

    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    pub fn redirect(target: &str) -> Self {
        Self {
            status: Some(302),
            location: Some(target.to_owned()),
            ..Self::default()
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Served {
    pub method: String,
    pub path: String,
    pub first_byte: usize,
    /// Bytes of body that were written.
    pub sent: usize,
    pub status: u16,
    pub authorization: Option<String>,
}

#[derive(Clone)]
pub struct FakeHub {
    port: u16,
    pages: Arc<Mutex<HashMap<String, Page>>>,
    log: Arc<Mutex<Vec<Served>>>,
}

impl FakeHub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = Self {
            port: listener.local_addr().unwrap().port(),
            pages: Arc::default(),
            log: Arc::default(),
        };
        let server = hub.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                thread::spawn(move || server.answer(&stream));
            }
        });
        hub
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn put(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// A repository file as Hugging Face serves it: a redirect that says what the file is, to a store elsewhere.
    pub fn put_large(&self, store: &FakeHub, repo: &str, file: &str, page: Page) {
        let digest = sha256(&page.body);
        let target = store.url(&format!("/store/{digest}"));
        let head = Page::redirect(&target)
            .with("X-Linked-Etag", &format!("\"{digest}\""))
            .with("X-Linked-Size", &page.body.len().to_string())
            .with("X-Repo-Commit", COMMIT);
        self.put(&format!("/{repo}/resolve/main/{file}"), head);
        store.put(&format!("/store/{digest}"), page);
    }

    /// The list of a repository's files.
    pub fn put_listing(&self, repo: &str, files: &[&str]) {
        let siblings: Vec<String> = files
            .iter()
            .map(|file| format!("{{\"rfilename\":\"{file}\"}}"))
            .collect();
        let json = format!(
            "{{\"sha\":\"{COMMIT}\",\"siblings\":[{}]}}",
            siblings.join(",")
        );
        self.put(
            &format!("/api/models/{repo}/revision/main"),
            Page::of(json.as_bytes()),
        );
    }

    pub fn log(&self) -> Vec<Served> {
        self.log.lock().unwrap().clone()
    }

    /// The requests that brought bytes of a file.
    pub fn downloads(&self) -> Vec<Served> {
        self.log()
            .into_iter()
            .filter(|served| served.method == "GET" && matches!(served.status, 200 | 206))
            .collect()
    }

    fn answer(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        // One request a connection: the answer says so.
        let Some((method, path, headers)) = read_head(&mut reader) else {
            return;
        };
        let header = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.clone())
        };
        let (page, cut, failure) = {
            let mut pages = self.pages.lock().unwrap();
            match pages.get_mut(&path) {
                None => (Page::status(404), None, None),
                Some(page) => {
                    let failure = page.failures.pop_front();
                    let cut = if method == "GET" && failure.is_none() {
                        page.cuts.pop_front()
                    } else {
                        None
                    };
                    (page.clone(), cut, failure)
                }
            }
        };
        thread::sleep(page.delay);
        let range: Option<usize> =
            header("range")
                .filter(|_| !page.ignores_ranges)
                .and_then(|range| {
                    range
                        .strip_prefix("bytes=")?
                        .trim_end_matches('-')
                        .parse()
                        .ok()
                });
        let changed = header("if-range")
            .is_some_and(|tag| !page.headers.iter().any(|(_, value)| *value == tag));
        let mut served = Served {
            method: method.clone(),
            path,
            first_byte: range.filter(|_| !changed).unwrap_or(0),
            sent: 0,
            status: failure.or(page.status).unwrap_or(200),
            authorization: header("authorization"),
        };
        let size = page.body.len();
        if served.status == 200 && range.is_some() && !changed {
            served.status = if served.first_byte < size { 206 } else { 416 };
        }
        let has_body = matches!(served.status, 200 | 206);
        let body = if has_body {
            &page.body[served.first_byte..]
        } else {
            &[][..]
        };
        let mut head = format!(
            "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n",
            served.status,
            body.len()
        );
        if served.status == 206 {
            head.push_str(&format!(
                "Content-Range: bytes {}-{}/{size}\r\n",
                served.first_byte,
                size - 1
            ));
        }
        if let Some(target) = &page.location {
            head.push_str(&format!("Location: {target}\r\n"));
        }
        for (name, value) in &page.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut stream = stream;
        let is_sent = stream.write_all(head.as_bytes()).is_ok();
        let body = if method == "HEAD" || !is_sent {
            &[][..]
        } else {
            body
        };
        let end = cut.unwrap_or(body.len()).min(body.len());
        let end = page.stalls_at.map_or(end, |at| at.min(end));
        let index = {
            let mut log = self.log.lock().unwrap();
            log.push(served);
            log.len() - 1
        };
        for chunk in body[..end].chunks(4096) {
            if stream.write_all(chunk).is_err() {
                return;
            }
            self.log.lock().unwrap()[index].sent += chunk.len();
            if !page.pace.is_zero() {
                thread::sleep(page.pace);
            }
        }
        if page.stalls_at.is_some() {
            thread::sleep(Duration::from_secs(20));
        }
    }
}

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

type Headers = Vec<(String, String)>;

fn read_head(reader: &mut impl BufRead) -> Option<(String, String, Headers)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => return Some((method, path, headers)),
        }
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Bytes that begin as a GGUF file does, look random from there, and are the same each time.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let noise = std::iter::repeat_with(|| (random.next() >> 32) as u8);
    b"GGUF".iter().copied().chain(noise).take(length).collect()
}

/// A linear congruential generator (Knuth's constants): the tests need variety, not secrecy.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 33) as usize % limit
    }
}

/// Settings for a test: its own folders, the fake hub, little patience.
pub fn config(home: &Path, hub: &FakeHub) -> HubConfig {
    let mut config = HubConfig::new(home);
    config.hf_endpoint = hub.url("");
    config.timing = Timing {
        answer: Duration::from_secs(2),
        stall: Duration::from_secs(1),
        attempts: 4,
        backoff: Duration::from_millis(10),
    };
    config
}

/// A callback that lets everything pass.
pub fn quiet(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// All files below a folder, sorted, as paths relative to it.
pub fn files_below(folder: &Path) -> Vec<String> {
    fn collect(folder: &Path, prefix: &str, names: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), &format!("{name}/"), names);
            } else {
                names.push(name);
            }
        }
    }
    let mut names = Vec::new();
    collect(folder, "", &mut names);
    names.sort();
    names
}
