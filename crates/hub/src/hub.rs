//! The flow of a pull: what is here already, the lock, the sources in order, the finished folder.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::cache::{Cache, CachedModel, folder_name};
use crate::card::{Layout, Licence, ModelCard, ModelFile, Source};
use crate::catalog;
use crate::config::HubConfig;
use crate::error::HubError;
use crate::files::{bytes_below, check_relative, create_dir, remove_if_there, rename_durably};
use crate::http::Client;
use crate::lock;
use crate::manifest::Manifest;
use crate::progress::{Progress, Reporter};
use crate::reference::ModelRef;
use crate::source::{self, Context, Delivery, Wanted};

/// Gets models: from the cache, or from their sources.
#[derive(Debug)]
pub struct Hub {
    config: HubConfig,
    client: Client,
}

/// A model that is on this machine now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledModel {
    /// The file to open (of a split file the first part, beside the others), or the folder.
    pub path: PathBuf,
    /// Whether `path` is a file or a folder.
    pub layout: Layout,
    /// Where it came from, in words.
    pub source: String,
    /// Whether it was here already: nothing was asked of anybody.
    pub from_cache: bool,
    /// What the pull said along the way: skipped sources, licence notices, resumed downloads.
    pub notes: Vec<String>,
    /// The catalog's card, or for a local file a card made from it.
    pub card: Option<ModelCard>,
}

/// What a reference asks for.
struct Plan {
    id: String,
    folder: String,
    wanted: Wanted,
    sources: Vec<Source>,
    licence: Option<Licence>,
    card: Option<ModelCard>,
}

impl Hub {
    /// A hub with these settings.
    ///
    /// # Errors
    /// [`HubError::BadConfig`] when the proxy's address cannot be used.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        Ok(Self {
            client: Client::new(&config)?,
            config,
        })
    }

    /// A hub with the settings of the environment ([`HubConfig::from_env`]).
    ///
    /// # Errors
    /// As [`HubConfig::from_env`] and [`Hub::new`].
    pub fn from_env() -> Result<Self, HubError> {
        Self::new(HubConfig::from_env()?)
    }

    /// The settings in use.
    pub fn config(&self) -> &HubConfig {
        &self.config
    }

    /// What is kept on this machine.
    pub fn cache(&self) -> Cache {
        Cache::new(self.config.clone())
    }

    /// The model if it is here already; asks nobody and changes nothing.
    ///
    /// # Errors
    /// [`HubError::BadManifest`] when the cache's note of it is damaged.
    pub fn resolve(&self, model: &ModelRef) -> Result<Option<PathBuf>, HubError> {
        match model {
            ModelRef::Path(path) => Ok(path.exists().then(|| path.clone())),
            _ => Ok(self.cache().find(model)?.map(|cached| cached.path)),
        }
    }

    /// Makes sure that the model is on this machine and says where.
    ///
    /// What is here is used without asking anybody. Otherwise the sources are tried in their order; two pulls of the
    /// same model, in one process or several, share one download. `progress` is called often, on this thread, and
    /// ends the pull with [`HubError::Cancelled`] when it answers [`ControlFlow::Break`]; what was downloaded is kept
    /// for the next pull.
    ///
    /// # Errors
    /// [`HubError::Offline`] when the model is not here and must not be fetched; the source's own error when there is
    /// one source, [`HubError::AllSourcesFailed`] with all of them when there are several; [`HubError::NoSpace`] and
    /// [`HubError::Io`] when this machine is the reason.
    pub fn pull(
        &self,
        model: &ModelRef,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<PulledModel, HubError> {
        if let ModelRef::Path(path) = model {
            return local(path);
        }
        self.carry_out(model, Plan::of(model)?, progress)
    }

    /// As [`Hub::pull`], for a model that the built-in catalog does not know: the card names files and sources. It
    /// is kept under the card's id.
    ///
    /// # Errors
    /// As [`Hub::pull`]; [`HubError::InvalidReference`] when a file name of the card would leave its folder.
    pub fn pull_card(
        &self,
        card: &ModelCard,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<PulledModel, HubError> {
        self.carry_out(
            &ModelRef::Catalog(card.id.clone()),
            Plan::of_card(card)?,
            progress,
        )
    }

    fn carry_out(
        &self,
        model: &ModelRef,
        plan: Plan,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<PulledModel, HubError> {
        let mut reporter = Reporter::new(progress);
        if let Some(cached) = self.usable(model, &mut reporter)? {
            return Ok(finished(cached, true, reporter, plan.card));
        }
        create_dir(&self.config.home)?;
        let (_lock, waited) = lock::wait(&self.config.lock_path(&plan.folder), &mut reporter)?;
        if waited && let Some(cached) = self.usable(model, &mut reporter)? {
            return Ok(finished(cached, true, reporter, plan.card));
        }
        let (source, delivery, was_here) = self.fetch(&plan, &mut reporter)?;
        let cached = self.keep(model, &plan, &source, delivery)?;
        Ok(finished(cached, was_here, reporter, plan.card))
    }

    /// The cached model, if its files are as noted. A touched file is hashed again: the same bytes are as good as
    /// before, other bytes are fetched anew.
    fn usable(
        &self,
        model: &ModelRef,
        reporter: &mut Reporter<'_>,
    ) -> Result<Option<CachedModel>, HubError> {
        let cache = self.cache();
        let folder = cache.folder_of(model);
        let mut manifest = match Manifest::read(&folder) {
            Ok(Some(manifest)) => manifest,
            Ok(None) => return Ok(None),
            Err(error @ HubError::BadManifest { .. }) => {
                reporter.notice(format!("{error}; fetching it again"))?;
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if !manifest.looks_unchanged(&folder) {
            let problems = manifest.rehash(&folder, reporter)?;
            if !problems.is_empty() {
                reporter.notice(format!("{}; fetching it again", problems.join("; ")))?;
                return Ok(None);
            }
            manifest.refresh(&folder)?;
        }
        cache.find(model)
    }

    /// Tries the sources in order. The flag tells whether the files were on this machine already.
    fn fetch(
        &self,
        plan: &Plan,
        reporter: &mut Reporter<'_>,
    ) -> Result<(String, Delivery, bool), HubError> {
        let work = self.config.partial_dir().join(&plan.folder);
        let context = Context {
            config: &self.config,
            client: &self.client,
            work: &work,
        };
        for source in &plan.sources {
            if let Some(delivery) = source::find_here(&context, source, &plan.wanted, reporter)? {
                return Ok((
                    format!("{source} (already in the shared cache)"),
                    delivery,
                    true,
                ));
            }
        }
        if self.config.offline {
            return Err(HubError::Offline {
                model: plan.id.clone(),
            });
        }
        if let Some(notice) = plan
            .licence
            .as_ref()
            .and_then(|licence| licence.notice.as_deref())
        {
            reporter.notice(notice.trim())?;
        }
        create_dir(&work)?;
        let mut attempts = Vec::new();
        for (index, source) in plan.sources.iter().enumerate() {
            let has_next = index + 1 < plan.sources.len();
            let name = source.to_string();
            reporter.report(Progress::Trying {
                source: name.clone(),
            })?;
            match source::fetch(&context, source, &plan.wanted, has_next, reporter) {
                Ok(delivery) => return Ok((name, delivery, false)),
                Err(error) if error.concerns_only_the_source() => {
                    if has_next {
                        reporter.report(Progress::Skipped {
                            source: name.clone(),
                            reason: error.to_string(),
                        })?;
                    }
                    attempts.push((name, error));
                }
                Err(error) => return Err(self.with_free_space(error)),
            }
        }
        if bytes_below(&work) == 0 {
            remove_if_there(&work)?;
        }
        match attempts.pop() {
            Some((_, only)) if attempts.is_empty() => Err(only),
            last => {
                attempts.extend(last);
                Err(HubError::AllSourcesFailed {
                    model: plan.id.clone(),
                    attempts,
                })
            }
        }
    }

    /// Writes the manifest and gives the model its visible folder, in one rename.
    fn keep(
        &self,
        model: &ModelRef,
        plan: &Plan,
        source: &str,
        delivery: Delivery,
    ) -> Result<CachedModel, HubError> {
        let work = self.config.partial_dir().join(&plan.folder);
        let ready = source::ready_folder(&work);
        create_dir(&ready)?;
        let now = (self.config.now)();
        let mut manifest = Manifest::new(
            plan.id.clone(),
            source.to_owned(),
            delivery.layout,
            delivery.files,
            now,
        );
        manifest.licence = plan.licence.clone();
        manifest.root = delivery.root;
        manifest.write(&ready)?;
        let cache = self.cache();
        let folder = cache.folder_of(model);
        remove_if_there(&folder)?;
        rename_durably(&ready, &folder)?;
        remove_if_there(&work)?;
        cache.find(model)?.ok_or_else(|| HubError::NotCached {
            model: plan.id.clone(),
        })
    }

    /// An error of a full disk that was met while writing, with the figures it did not have there.
    fn with_free_space(&self, error: HubError) -> HubError {
        match error {
            HubError::NoSpace {
                path, needed: None, ..
            } => {
                let folder = path.parent().unwrap_or(&path);
                let free = (self.config.free_space)(folder).unwrap_or(0);
                HubError::NoSpace {
                    path: folder.to_path_buf(),
                    needed: None,
                    free,
                }
            }
            other => other,
        }
    }
}

impl Plan {
    fn of_card(card: &ModelCard) -> Result<Self, HubError> {
        for file in &card.files {
            check_relative(&file.name).map_err(|reason| HubError::InvalidReference {
                text: card.id.clone(),
                reason,
            })?;
        }
        Ok(Self {
            id: card.id.clone(),
            folder: folder_name(&ModelRef::Catalog(card.id.clone())),
            wanted: Wanted {
                layout: card.layout,
                files: card.files.clone(),
            },
            sources: card.sources.clone(),
            licence: card.licence.clone(),
            card: Some(card.clone()),
        })
    }

    fn of(model: &ModelRef) -> Result<Self, HubError> {
        let id = model.to_string();
        let folder = folder_name(model);
        let single = |source: Source, files: Vec<ModelFile>| Self {
            id: id.clone(),
            folder: folder.clone(),
            wanted: Wanted {
                layout: Layout::File,
                files,
            },
            sources: vec![source],
            licence: None,
            card: None,
        };
        match model {
            ModelRef::Catalog(name) => {
                let card = catalog::find(name).ok_or_else(|| HubError::UnknownModel {
                    name: name.clone(),
                    suggestions: catalog::suggestions(name),
                })?;
                Self::of_card(card)
            }
            ModelRef::HuggingFace {
                repo,
                pick,
                revision,
            } => {
                let (repo, revision) = (repo.clone(), revision.clone());
                Ok(single(
                    Source::HuggingFace {
                        repo,
                        revision,
                        pick: pick.clone(),
                    },
                    Vec::new(),
                ))
            }
            ModelRef::Url(url) => {
                let file = ModelFile {
                    name: source::file_name_of(url),
                    size: None,
                    sha256: None,
                };
                Ok(single(Source::Url { url: url.clone() }, vec![file]))
            }
            ModelRef::Path(path) => Err(HubError::InvalidReference {
                text: path.display().to_string(),
                reason: "a path is not fetched".to_owned(),
            }),
        }
    }
}

fn local(path: &Path) -> Result<PulledModel, HubError> {
    let card = ModelCard::from_path(path)?;
    Ok(PulledModel {
        path: path.to_path_buf(),
        layout: card.layout,
        source: path.display().to_string(),
        from_cache: true,
        notes: Vec::new(),
        card: Some(card),
    })
}

fn finished(
    cached: CachedModel,
    from_cache: bool,
    reporter: Reporter<'_>,
    card: Option<ModelCard>,
) -> PulledModel {
    PulledModel {
        path: cached.path,
        layout: cached.layout,
        source: cached.source,
        from_cache,
        notes: reporter.into_notes(),
        card,
    }
}
