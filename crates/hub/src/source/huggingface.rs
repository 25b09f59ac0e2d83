//! Hugging Face repositories, and the cache that all their readers on a machine share.
//!
//! Layout of the shared cache, as the Python hub documents it:
//! `models--owner--name/blobs/<etag>` holds the bytes, `snapshots/<commit>/<file>` points to them, and
//! `refs/<revision>` holds the commit. The etag of a large file is its sha256.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use ureq::http::Method;

use super::folder::{self, FolderFiles, Weights};
use super::snapshot::{blob_sha256, names_below, point_to};
use super::{Context, Delivery, Wanted, pick};
use crate::address;
use crate::card::{Layout, ModelFile};
use crate::download::{Job, download, status_error};
use crate::error::HubError;
use crate::files::{check_relative, is_sha256, sha256_of, write_atomically};
use crate::http::{Ask, Patience};
use crate::ledger::Ledger;
use crate::lock;
use crate::manifest::FileRecord;
use crate::progress::Reporter;

const DEFAULT_REVISION: &str = "main";
const ETAG_OF_LARGE_FILE: &str = "x-linked-etag";

/// A repository at a revision, seen through an endpoint and the shared cache.
pub(super) struct Repo<'a> {
    context: &'a Context<'a>,
    repo: &'a str,
    revision: &'a str,
    /// Its folder in the shared cache.
    folder: PathBuf,
    folder_name: String,
}

/// What the head of a file says.
struct Remote {
    commit: String,
    /// Name of the blob.
    etag: String,
    size: Option<u64>,
    sha256: Option<String>,
}

/// What a repository without a card is taken for.
enum Choice {
    /// A GGUF file, or the parts of one.
    Files(Vec<String>),
    Folder(FolderFiles),
}

/// What has been fetched so far, all of one commit.
#[derive(Default)]
struct Gathered {
    root: Option<PathBuf>,
    records: Vec<FileRecord>,
}

#[derive(Deserialize)]
struct RepoInfo {
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl<'a> Repo<'a> {
    pub(super) fn new(context: &'a Context<'a>, repo: &'a str, revision: Option<&'a str>) -> Self {
        let folder_name = format!("models--{}", repo.replace('/', "--"));
        let folder = context.config.hf_cache.join(&folder_name);
        Self {
            context,
            repo,
            revision: revision.unwrap_or(DEFAULT_REVISION),
            folder,
            folder_name,
        }
    }

    /// The files, if some program has put them into the shared cache already.
    pub(super) fn find_here(
        &self,
        pick: Option<&str>,
        wanted: &Wanted,
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<Delivery>, HubError> {
        let Some(snapshot) = self.local_snapshot() else {
            return Ok(None);
        };
        let (layout, files) = if wanted.files.is_empty() {
            match self.choose_here(&snapshot, pick) {
                Some((layout, names)) => (layout, names.into_iter().map(bare).collect()),
                None => return Ok(None),
            }
        } else {
            (wanted.layout, wanted.files.clone())
        };
        let fits = |file: &ModelFile| {
            fs::metadata(snapshot.join(&file.name)).is_ok_and(|metadata| {
                metadata.is_file() && file.size.is_none_or(|size| size == metadata.len())
            })
        };
        if !files.iter().all(fits) {
            return Ok(None);
        }
        let mut records = Vec::new();
        for file in &files {
            let path = snapshot.join(&file.name);
            let found = sha256_of(&path, reporter)?;
            let expected = file.sha256.clone().or_else(|| blob_sha256(&path));
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                reporter.notice(format!(
                    "{} has sha256 {found} instead of {expected}: it is not used",
                    path.display()
                ))?;
                return Ok(None);
            }
            records.push(FileRecord::of(&snapshot, &file.name, found, false)?);
        }
        Ok(Some(Delivery {
            root: Some(snapshot),
            layout,
            files: records,
        }))
    }

    /// The files of a snapshot that make up the model. Another program may have fetched a part of a folder only, and
    /// nothing here tells: a folder counts only where it cannot be asked for, and where nothing that it needs is missing.
    fn choose_here(&self, snapshot: &Path, pick: Option<&str>) -> Option<(Layout, Vec<String>)> {
        let names = names_below(snapshot);
        match self.choose(&names, pick).ok()? {
            Choice::Files(files) => Some((Layout::File, files)),
            Choice::Folder(_) if !self.context.config.offline => None,
            Choice::Folder(_) if !folder::has_tokenizer(&names) => None,
            Choice::Folder(files) => {
                let weights = match files.weights {
                    Weights::Files(weights) => weights,
                    Weights::Index(index) => {
                        let mut shards = folder::shards(&snapshot.join(index)).ok()?;
                        shards.push(index.to_owned());
                        shards
                    }
                };
                Some((Layout::Folder, [weights, files.side_files].concat()))
            }
        }
    }

    /// Fetches the files into the shared cache.
    pub(super) fn fetch(
        &self,
        pick: Option<&str>,
        wanted: &Wanted,
        reporter: &mut Reporter<'_>,
    ) -> Result<Delivery, HubError> {
        self.check_endpoint()?;
        let mut patience = Patience::new(self.context.config.timing.answer);
        let mut gathered = Gathered::default();
        if !wanted.files.is_empty() {
            self.gather(&wanted.files, &mut gathered, &mut patience, reporter)?;
            return self.deliver(wanted.layout, gathered);
        }
        let names = self.list(&mut patience, reporter)?;
        match self.choose(&names, pick)? {
            Choice::Files(files) => {
                let files: Vec<ModelFile> = files.into_iter().map(bare).collect();
                self.gather(&files, &mut gathered, &mut patience, reporter)?;
                self.deliver(Layout::File, gathered)
            }
            Choice::Folder(files) => {
                self.gather_folder(files, &mut gathered, &mut patience, reporter)?;
                self.deliver(Layout::Folder, gathered)
            }
        }
    }

    /// What the repository is, judged by its names: a GGUF file where it has one, else a model folder.
    ///
    /// # Errors
    /// [`HubError::NoMatchingFile`] where the wish cannot be met, [`HubError::NoModelFiles`] where there is no model.
    fn choose(&self, names: &[String], pick: Option<&str>) -> Result<Choice, HubError> {
        let wants_folder = pick.is_some_and(|pick| pick.eq_ignore_ascii_case(folder::WISH));
        if !wants_folder && (pick.is_some() || pick::has_models(names)) {
            return Ok(Choice::Files(pick::choose(self.repo, names, pick)?));
        }
        match folder::choose(names) {
            Some(folder) => Ok(Choice::Folder(folder)),
            None => Err(HubError::NoModelFiles {
                repo: self.repo.to_owned(),
                available: folder::weight_files(names),
            }),
        }
    }

    /// The small files first, so that a folder that cannot be used is found out early, then the weights; the weights
    /// are noted down first, as what the model is.
    fn gather_folder(
        &self,
        files: FolderFiles,
        gathered: &mut Gathered,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), HubError> {
        let side_files: Vec<ModelFile> = files.side_files.into_iter().map(bare).collect();
        self.gather(&side_files, gathered, patience, reporter)?;
        let weights = match files.weights {
            Weights::Files(weights) => weights,
            Weights::Index(index) => {
                self.gather(&[bare(index.to_owned())], gathered, patience, reporter)?;
                let snapshot = gathered.root.clone().unwrap_or_default();
                folder::shards(&snapshot.join(index))
                    .map_err(|reason| self.bad_response(format!("{index}: {reason}")))?
            }
        };
        let small = gathered.records.len();
        let weights: Vec<ModelFile> = weights.into_iter().map(bare).collect();
        self.gather(&weights, gathered, patience, reporter)?;
        gathered.records.rotate_left(small);
        Ok(())
    }

    /// Fetches these files, of the commit of those before.
    fn gather(
        &self,
        files: &[ModelFile],
        gathered: &mut Gathered,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), HubError> {
        for file in files {
            check_relative(&file.name).map_err(|reason| self.bad_response(reason))?;
            let (snapshot, record) = self.fetch_file(file, patience, reporter)?;
            if gathered.root.as_ref().is_some_and(|root| *root != snapshot) {
                return Err(self.bad_response(
                    "the repository changed during the download; pull again".to_owned(),
                ));
            }
            gathered.root = Some(snapshot);
            gathered.records.push(record);
        }
        Ok(())
    }

    fn deliver(&self, layout: Layout, gathered: Gathered) -> Result<Delivery, HubError> {
        if gathered.records.is_empty() {
            return Err(self.bad_response("it names no file".to_owned()));
        }
        Ok(Delivery {
            root: gathered.root,
            layout,
            files: gathered.records,
        })
    }

    /// Names of all files of the repository.
    fn list(
        &self,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<Vec<String>, HubError> {
        let url = format!(
            "{}/api/models/{}/revision/{}",
            self.endpoint(),
            self.repo,
            escape(self.revision, false)
        );
        let ask = Ask {
            method: Method::GET,
            url: &url,
            token: self.token(),
            from: None,
            stop_at: None,
        };
        let (answer, body) = self.context.client.page(&ask, patience, reporter)?;
        if answer.status != 200 {
            return Err(status_error(
                &answer,
                self.token().is_some(),
                Some(&self.page()),
            ));
        }
        patience.renew(self.context.config.timing.answer);
        let info: RepoInfo =
            serde_json::from_slice(&body).map_err(|error| HubError::BadResponse {
                url: url.clone(),
                reason: error.to_string(),
            })?;
        let names = info.siblings.into_iter().map(|sibling| sibling.rfilename);
        Ok(names.filter(|name| check_relative(name).is_ok()).collect())
    }

    fn fetch_file(
        &self,
        file: &ModelFile,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<(PathBuf, FileRecord), HubError> {
        let url = self.file_url(&file.name);
        let remote = self.head(&url, file, patience, reporter)?;
        let blob = self.folder.join("blobs").join(&remote.etag);
        // The same lock as the Python hub's, so that the two share a download as well.
        let lock_name = format!("{}.lock", remote.etag);
        let lock_path = self
            .context
            .config
            .hf_cache
            .join(".locks")
            .join(&self.folder_name)
            .join(lock_name);
        let (_lock, _) = lock::wait(&lock_path, reporter)?;
        let ledger = Ledger::of(self.context.work);
        let (sha256, owned) = match self.usable_blob(&blob, &remote, reporter)? {
            Some(sha256) => (sha256, ledger.paths().contains(&blob)),
            None => {
                let page = self.page();
                let part = self
                    .folder
                    .join("blobs")
                    .join(format!("{}.dunlin.incomplete", remote.etag));
                ledger.add(&part)?;
                ledger.add(&blob)?;
                let job = Job {
                    url: &url,
                    token: self.token(),
                    repo_page: Some(&page),
                    label: &file.name,
                    part: &part,
                    destination: &blob,
                    size: remote.size,
                    sha256: remote.sha256.as_deref(),
                    must_be_gguf: false,
                };
                let fetched = download(
                    self.context.client,
                    self.context.config,
                    &job,
                    patience,
                    reporter,
                )?;
                (fetched.sha256, true)
            }
        };
        let snapshot = self.folder.join("snapshots").join(&remote.commit);
        point_to(&blob, &snapshot, &file.name)?;
        if self.revision != remote.commit {
            write_atomically(
                &self.folder.join("refs").join(self.revision),
                remote.commit.as_bytes(),
            )?;
        }
        let record = FileRecord::of(&snapshot, &file.name, sha256, owned)?;
        Ok((snapshot, record))
    }

    /// Asks what the file is, without its bytes. The first answer of the site itself says it all; where it
    /// redirects to is only the store of the bytes.
    fn head(
        &self,
        url: &str,
        file: &ModelFile,
        patience: &mut Patience,
        reporter: &mut Reporter<'_>,
    ) -> Result<Remote, HubError> {
        let ask = Ask {
            method: Method::HEAD,
            url,
            token: self.token(),
            from: None,
            stop_at: Some(ETAG_OF_LARGE_FILE),
        };
        let (answer, _) = self.context.client.page(&ask, patience, reporter)?;
        let linked = answer.header(ETAG_OF_LARGE_FILE);
        if linked.is_none() && answer.status != 200 {
            return Err(status_error(
                &answer,
                self.token().is_some(),
                Some(&self.page()),
            ));
        }
        let bad = |reason: &str| HubError::BadResponse {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let etag = linked
            .or(answer.header("etag"))
            .ok_or_else(|| bad("it has no ETag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let is_name = |text: &str| {
            !text.is_empty()
                && text.len() <= 128
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        if !is_name(&etag) {
            return Err(bad("its ETag is not of the kind that names a file"));
        }
        let commit = answer
            .header("x-repo-commit")
            .ok_or_else(|| bad("it names no commit (X-Repo-Commit)"))?
            .to_owned();
        if !is_name(&commit) {
            return Err(bad("its commit is not of the kind that names a folder"));
        }
        let sha256 = linked
            .is_some()
            .then(|| etag.to_ascii_lowercase())
            .filter(|etag| is_sha256(etag));
        let size = match linked {
            Some(_) => answer.number("x-linked-size"),
            None => answer.number("content-length"),
        };
        self.compare(file, size, sha256.as_deref())?;
        let sha256 = sha256.or_else(|| file.sha256.clone());
        Ok(Remote {
            commit,
            etag,
            size: size.or(file.size),
            sha256,
        })
    }

    /// A repository that holds another file than the catalog means is found out before its bytes are fetched.
    fn compare(
        &self,
        file: &ModelFile,
        size: Option<u64>,
        sha256: Option<&str>,
    ) -> Result<(), HubError> {
        if let (Some(expected), Some(found)) = (&file.sha256, sha256)
            && expected != found
        {
            return Err(self.bad_response(format!(
                "{} has sha256 {found} there, {expected} is expected",
                file.name
            )));
        }
        if let (Some(expected), Some(found)) = (file.size, size)
            && expected != found
        {
            return Err(self.bad_response(format!(
                "{} has {found} bytes there, {expected} are expected",
                file.name
            )));
        }
        Ok(())
    }

    /// Sha256 of a blob that is whole and right.
    fn usable_blob(
        &self,
        blob: &Path,
        remote: &Remote,
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<String>, HubError> {
        let Ok(metadata) = fs::metadata(blob) else {
            return Ok(None);
        };
        if remote.size.is_some_and(|size| size != metadata.len()) {
            return Ok(None);
        }
        let found = sha256_of(blob, reporter)?;
        if remote
            .sha256
            .as_ref()
            .is_some_and(|expected| *expected != found)
        {
            reporter.notice(format!(
                "{} is damaged: it is fetched again",
                blob.display()
            ))?;
            return Ok(None);
        }
        Ok(Some(found))
    }

    fn local_snapshot(&self) -> Option<PathBuf> {
        let snapshots = self.folder.join("snapshots");
        let named = snapshots.join(self.revision);
        if named.is_dir() {
            return Some(named);
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(self.revision)).ok()?;
        let commit = commit.trim();
        check_relative(commit).ok()?;
        Some(snapshots.join(commit)).filter(|path| path.is_dir())
    }

    fn file_url(&self, name: &str) -> String {
        format!(
            "{}/{}/resolve/{}/{}",
            self.endpoint(),
            self.repo,
            escape(self.revision, false),
            escape(name, true)
        )
    }

    fn page(&self) -> String {
        format!("{}/{}", self.endpoint(), self.repo)
    }

    fn endpoint(&self) -> &str {
        self.context.config.hf_endpoint.trim().trim_end_matches('/')
    }

    fn check_endpoint(&self) -> Result<(), HubError> {
        let is_plain = !self.endpoint().contains(['?', '#']) && !self.endpoint().contains(' ');
        match address::parse(self.endpoint()) {
            Ok(_) if is_plain => Ok(()),
            _ => Err(HubError::BadConfig {
                what: format!("HF_ENDPOINT, which is {:?},", self.endpoint()),
                reason:
                    "it is not an address such as https://huggingface.co; correct it or unset it"
                        .to_owned(),
            }),
        }
    }

    fn token(&self) -> Option<&str> {
        self.context.config.hf_token.as_deref()
    }

    fn bad_response(&self, reason: String) -> HubError {
        HubError::BadResponse {
            url: self.page(),
            reason,
        }
    }
}

/// A file of which nothing is known but its name.
fn bare(name: String) -> ModelFile {
    ModelFile {
        name,
        size: None,
        sha256: None,
    }
}

/// Percent-encodes what may not stand in a path; `/` stays where it separates folders.
fn escape(text: &str, keep_slash: bool) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte))
            }
            b'/' if keep_slash => escaped.push('/'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_for_addresses() {
        assert_eq!(escape("UD/a b+c.gguf", true), "UD/a%20b%2Bc.gguf");
        assert_eq!(escape("refs/pr/1", false), "refs%2Fpr%2F1");
    }
}
