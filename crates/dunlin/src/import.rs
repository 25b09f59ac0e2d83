//! Model folders: imported once into the cache as a GGUF file, then loaded as any other; or converted to a file that the
//! caller names.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use dunlin_convert::{ConvertError, ConvertOptions, Folder, Report, is_model_folder};
use dunlin_engine::EngineError;
use dunlin_engine::spec::supported_architectures;
use dunlin_hub::{Hub, ImportSlot, Layout, ModelRef, Progress, PulledModel};

use crate::Error;
use crate::load::{LoadEvent, LoadOptions, hub_of, pull};

/// Changes when an import would come out otherwise than before, so that older ones are made anew.
const RECIPE: &str = "2";
/// About what metadata and vocabulary add to the weights: an import asks for this much more room on the disk.
const BESIDE_WEIGHTS: u64 = 64 << 20;

/// Converts a model folder (of this machine, or a Hugging Face repository's safetensors) to a GGUF file at `out`, with the
/// keys, names and layouts of llama.cpp's converter. The weights stream, so that memory holds a few MB of them; `out`
/// appears when it is complete.
///
/// # Errors
/// What keeps the model from being fetched; [`Error::Convert`] for a folder that cannot be converted;
/// [`Error::NotAFolder`] for a model that is a GGUF file; [`Error::Cancelled`].
pub fn convert(
    model: &ModelRef,
    settings: &ConvertOptions,
    out: &Path,
    options: &mut LoadOptions<'_>,
) -> Result<Report, Error> {
    let hub = hub_of(options)?;
    let model = folder_of_repository(model, &hub)?;
    let pulled = pull(&hub, &model, options)?;
    if pulled.layout == Layout::File {
        return Err(Error::NotAFolder { path: pulled.path });
    }
    let settings = ConvertOptions {
        name: settings.name.clone().or_else(|| name_of(&model, &pulled)),
        ..settings.clone()
    };
    let folder = Folder::open(&pulled.path)?;
    write(&folder, &settings, out, &RefCell::new(options))
}

/// A model as a GGUF file: where it is a folder, its import, which is made where there is none.
///
/// # Errors
/// [`Error::Folder`] for a folder that is none of a model, [`Error::Convert`], [`Error::Cancelled`], and
/// [`Error::Engine`] for a family that this build cannot compute, before anything is written.
pub(crate) fn as_file(
    hub: &Hub,
    model: &ModelRef,
    pulled: PulledModel,
    options: &mut LoadOptions<'_>,
) -> Result<PulledModel, Error> {
    if pulled.layout == Layout::File {
        return Ok(pulled);
    }
    if holds_only_gguf(&pulled.path) {
        let path = only_gguf(&pulled.path)?;
        return Ok(as_pulled_file(pulled, path));
    }
    let slot = slot(hub, model, &pulled.path)?;
    if let Some(path) = slot.found() {
        let path = path.to_path_buf();
        return Ok(as_pulled_file(pulled, path));
    }
    let folder = Folder::open(&pulled.path)?;
    refuse_unsupported(folder.architecture())?;
    let settings = ConvertOptions {
        name: name_of(model, &pulled),
        ..ConvertOptions::default()
    };
    let options = RefCell::new(options);
    let mut notes = Vec::new();
    let path = slot.fill(
        folder.weight_bytes().saturating_add(BESIDE_WEIGHTS),
        &mut |progress: Progress| options.borrow_mut().report(LoadEvent::Hub(progress)),
        |path| {
            let report = write(&folder, &settings, path, &options)?;
            notes.push(format!(
                "{} was imported: its {} tensors are kept as one GGUF file",
                pulled.path.display(),
                report.tensors
            ));
            notes.extend(report.notes);
            Ok::<_, Error>(())
        },
    )?;
    let mut pulled = as_pulled_file(pulled, path);
    pulled.notes.extend(notes);
    Ok(pulled)
}

/// The GGUF file of a folder that `model` led to, if it holds one or has been imported. Fetches and writes nothing.
///
/// # Errors
/// [`Error::Hub`] where the folder cannot be read, [`Error::Folder`] where it is none of a model.
pub fn imported_file(hub: &Hub, model: &ModelRef, folder: &Path) -> Result<Option<PathBuf>, Error> {
    if holds_only_gguf(folder) {
        return only_gguf(folder).map(Some);
    }
    let slot = slot(hub, model, folder)?;
    Ok(slot.found().map(Path::to_path_buf))
}

fn slot(hub: &Hub, model: &ModelRef, folder: &Path) -> Result<ImportSlot, Error> {
    Ok(hub.cache().import_slot(model, folder, RECIPE)?)
}

fn write(
    folder: &Folder,
    settings: &ConvertOptions,
    out: &Path,
    options: &RefCell<&mut LoadOptions<'_>>,
) -> Result<Report, Error> {
    let mut progress = |done, total| {
        let event = LoadEvent::Importing { done, total };
        options.borrow_mut().report(event)
    };
    match dunlin_convert::convert(folder, settings, out, &mut progress) {
        Err(ConvertError::Cancelled) => Err(Error::Cancelled),
        other => Ok(other?),
    }
}

/// A repository is wanted as its folder, whatever GGUF files it has, too; one that was pulled as a folder is that folder.
fn folder_of_repository(model: &ModelRef, hub: &Hub) -> Result<ModelRef, Error> {
    let ModelRef::HuggingFace {
        repo,
        pick: None,
        revision,
    } = model
    else {
        return Ok(model.clone());
    };
    let here = hub.cache().find(model)?;
    if here.is_some_and(|cached| cached.layout == Layout::Folder) {
        return Ok(model.clone());
    }
    Ok(ModelRef::HuggingFace {
        repo: repo.clone(),
        pick: Some("safetensors".to_owned()),
        revision: revision.clone(),
    })
}

/// Says that a family of models cannot be computed.
pub(crate) fn refuse_unsupported(found: &str) -> Result<(), Error> {
    if supported_architectures().any(|supported| supported == found) {
        return Ok(());
    }
    let supported = supported_architectures().collect();
    let found = found.to_owned();
    Err(EngineError::UnknownArchitecture { found, supported }.into())
}

/// The model's name where its folder does not tell: that of a snapshot is the hash of a commit.
fn name_of(model: &ModelRef, pulled: &PulledModel) -> Option<String> {
    match model {
        ModelRef::HuggingFace { repo, .. } => repo.rsplit('/').next().map(str::to_owned),
        ModelRef::Catalog(_) => pulled.card.as_ref().map(|card| card.name.clone()),
        _ => None,
    }
}

fn as_pulled_file(pulled: PulledModel, path: PathBuf) -> PulledModel {
    PulledModel {
        path,
        layout: Layout::File,
        ..pulled
    }
}

/// Whether a folder is no model folder, or one whose weights are GGUF files beside a config.json (many repositories of GGUF
/// files have one).
fn holds_only_gguf(folder: &Path) -> bool {
    let has = |kind: &str| {
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = names.filter_map(|entry| entry.file_name().into_string().ok());
        names.any(|name| name.to_lowercase().ends_with(kind))
    };
    !is_model_folder(folder) || (has(".gguf") && !has(".safetensors"))
}

/// The GGUF file of a folder that holds one (or the first part of one), as `git clone` leaves it.
fn only_gguf(folder: &Path) -> Result<PathBuf, Error> {
    let refuse = |reason: String| Error::Folder {
        path: folder.to_path_buf(),
        reason,
    };
    let entries = std::fs::read_dir(folder).map_err(|error| refuse(error.to_string()))?;
    let is_model = |name: &String| {
        let lower = name.to_lowercase();
        lower.ends_with(".gguf") && !lower.contains("mmproj") && !is_later_part(&lower)
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(is_model)
        .collect();
    names.sort();
    match names.as_slice() {
        [name] => Ok(folder.join(name)),
        [] => Err(refuse(
            "it has neither a GGUF file nor a config.json with safetensors".to_owned(),
        )),
        several => Err(refuse(format!(
            "it has several GGUF files; name one of {}",
            several.join(", ")
        ))),
    }
}

/// "model-00002-of-00003.gguf"
fn is_later_part(name: &str) -> bool {
    let number = name
        .strip_suffix(".gguf")
        .and_then(|stem| stem.rsplit_once("-of-"))
        .and_then(|(rest, _)| rest.rsplit_once('-'));
    number.is_some_and(|(_, part)| part.parse().is_ok_and(|part: u32| part > 1))
}

#[cfg(test)]
mod tests {
    use super::refuse_unsupported;

    #[test]
    fn every_model_of_the_catalog_can_be_computed_and_an_unknown_family_is_refused() {
        for card in dunlin_hub::catalog() {
            let architecture = card.architecture.as_deref().unwrap();
            assert!(refuse_unsupported(architecture).is_ok(), "{}", card.id);
        }
        let error = refuse_unsupported("rwkv7").unwrap_err().to_string();
        assert!(
            error.contains("rwkv7") && error.contains("qwen3"),
            "{error}"
        );
    }
}
