//! A Hugging Face model folder: which files are in it, read and checked as far as that is cheap.

use std::{
    fs::{self, File},
    io::Read,
    path::{Component, Path, PathBuf},
};

use dunlin_format::SafeTensors;
use dunlin_text::TokenizerFiles;
use serde_json::{Map, Value as Json};

use crate::{
    ConvertError, config::Config, families, model::Model, modules::Modules, supported_architectures,
};

/// The largest tokenizer.json known has 34 MB.
const FILE_LIMIT: u64 = 128 << 20;

/// Files that are parsed here take many times their length in memory; the largest known
/// (tokenizer_config.json, the index of the weights) have 2 MB.
const JSON_LIMIT: u64 = 8 << 20;

const INDEX: &str = "model.safetensors.index.json";

/// A folder as `save_pretrained` of transformers makes it, and as the Hugging Face hub serves it:
/// config.json, safetensors in one file or several, the tokenizer's files, sentence-transformers
/// modules.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    hugging_face: String,
    config: Json,
    pub(crate) model: Model,
    /// The files of weights; those of dense modules come last, one each.
    pub(crate) weights: Vec<SafeTensors>,
}

/// Whether `path` looks like a folder that [`Folder::open`] is for: it has a config.json.
pub fn is_model_folder(path: &Path) -> bool {
    path.join("config.json").is_file()
}

impl Folder {
    /// Reads the configuration and the headers of the weights.
    ///
    /// # Errors
    /// [`ConvertError::NotAModel`] where files are missing, [`ConvertError::UnknownArchitecture`]
    /// and [`ConvertError::Unsupported`] for models that cannot be converted,
    /// [`ConvertError::MissingShard`], and others for files that are damaged.
    pub fn open(path: &Path) -> Result<Self, ConvertError> {
        if !is_model_folder(path) {
            return Err(not_a_model(path, "it has no config.json"));
        }
        let config_path = path.join("config.json");
        let config = read_json(&config_path)?;
        let Json::Object(entries) = &config else {
            return Err(ConvertError::BadFile {
                path: config_path,
                reason: "it is not an object".to_owned(),
            });
        };
        let Some(hugging_face) = architecture(entries) else {
            return Err(not_a_model(path, "its config.json names no architecture"));
        };
        let Some(family) = families::find(hugging_face) else {
            return Err(ConvertError::UnknownArchitecture {
                found: hugging_face.to_owned(),
                supported: supported_architectures(),
            });
        };
        let modules = Modules::read(path, family.gguf)?;
        let model = Model::new(Config::new(entries, family), modules)?;
        let mut weights = open_weights(path)?;
        for dense in &model.modules.dense {
            let file = path.join(&dense.folder).join("model.safetensors");
            weights.push(SafeTensors::open(&file)?);
        }
        Ok(Self {
            path: path.to_owned(),
            hugging_face: hugging_face.to_owned(),
            weights,
            model,
            config,
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The family as GGUF names it (`llama`, `gemma3`, `bert`, ...).
    pub fn architecture(&self) -> &'static str {
        self.model.family().gguf
    }

    /// The family as config.json names it (`LlamaForCausalLM`, ...).
    pub fn hugging_face_architecture(&self) -> &str {
        &self.hugging_face
    }

    /// Bytes of all weights together.
    pub fn weight_bytes(&self) -> u64 {
        let tensors = self.weights.iter().flat_map(SafeTensors::tensors);
        tensors.map(|tensor| tensor.byte_len()).sum()
    }

    /// The files that describe the tokenizer, read into memory.
    ///
    /// # Errors
    /// [`ConvertError::Io`] and [`ConvertError::BadFile`] for files that cannot be read.
    pub fn tokenizer_files(&self) -> Result<TokenizerFiles, ConvertError> {
        let bytes = |names: &[&str]| {
            let file = names
                .iter()
                .map(|name| self.path.join(name))
                .find(|path| path.is_file());
            file.map(|path| read(&path, FILE_LIMIT)).transpose()
        };
        let json = |name: &str| {
            let path = self.path.join(name);
            path.is_file().then(|| read_json(&path)).transpose()
        };
        let template = match bytes(&["chat_template.jinja"])? {
            Some(bytes) => Some(text(&self.path.join("chat_template.jinja"), bytes)?),
            None => json("chat_template.json")?
                .and_then(|json| Some(json.get("chat_template")?.as_str()?.to_owned())),
        };
        Ok(TokenizerFiles {
            tokenizer_json: bytes(&["tokenizer.json"])?,
            sentencepiece: bytes(&["tokenizer.model", "sentencepiece.bpe.model", "spiece.model"])?,
            vocab_txt: bytes(&["vocab.txt"])?,
            tokenizer_config: json("tokenizer_config.json")?,
            special_tokens_map: json("special_tokens_map.json")?,
            added_tokens: json("added_tokens.json")?,
            chat_template: template,
            generation_config: self.generation_config()?,
            config: self.config.clone(),
        })
    }

    pub(crate) fn generation_config(&self) -> Result<Option<Json>, ConvertError> {
        let path = self.path.join("generation_config.json");
        path.is_file().then(|| read_json(&path)).transpose()
    }

    /// Qwen publishes its rerankers as plain decoders that answer "yes" or "no"; only their name
    /// tells (llama.cpp's converter looks in the same places).
    pub(crate) fn answers_yes_or_no(&self) -> bool {
        if self.hugging_face != "Qwen3ForCausalLM" {
            return false;
        }
        let name = self
            .path
            .file_name()
            .map(|name| name.to_string_lossy().to_lowercase());
        let origin = self.config.get("_name_or_path").and_then(Json::as_str);
        let card = read(&self.path.join("README.md"), JSON_LIMIT).unwrap_or_default();
        let card = String::from_utf8_lossy(&card).to_lowercase();
        name.is_some_and(|name| name.contains("qwen3-reranker"))
            || origin.is_some_and(|name| name.to_lowercase().contains("qwen3-reranker"))
            || card.contains("# qwen3-reranker")
    }
}

fn architecture(config: &Map<String, Json>) -> Option<&str> {
    config.get("architectures")?.as_array()?.first()?.as_str()
}

fn not_a_model(path: &Path, reason: &str) -> ConvertError {
    ConvertError::NotAModel {
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

fn open_weights(folder: &Path) -> Result<Vec<SafeTensors>, ConvertError> {
    let index = folder.join(INDEX);
    if index.is_file() {
        return open_shards(folder, &index);
    }
    let names = fs::read_dir(folder).map_err(|source| io_error(folder, source))?;
    let mut files: Vec<PathBuf> = names
        .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.to_owned()))
        .filter(|name| name.starts_with("model") && name.ends_with(".safetensors"))
        .map(|name| folder.join(name))
        .collect();
    files.sort();
    if files.is_empty() {
        let reason = "it has no model.safetensors (weights as pytorch_model.bin are not read)";
        return Err(not_a_model(folder, reason));
    }
    files
        .iter()
        .map(|file| Ok(SafeTensors::open(file)?))
        .collect()
}

fn open_shards(folder: &Path, index: &Path) -> Result<Vec<SafeTensors>, ConvertError> {
    let bad = |reason: &str| ConvertError::BadFile {
        path: index.to_owned(),
        reason: reason.to_owned(),
    };
    let json = read_json(index)?;
    let Some(map) = json.get("weight_map").and_then(Json::as_object) else {
        return Err(bad("it has no `weight_map`"));
    };
    let mut places = Vec::new();
    for (tensor, file) in map {
        let file = file
            .as_str()
            .ok_or_else(|| bad("a file name is not a text"))?;
        let mut parts = Path::new(file).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(bad("a file lies outside the folder"));
        }
        places.push((file, tensor));
    }
    places.sort();
    let mut weights: Vec<SafeTensors> = Vec::new();
    for (file, tensor) in places {
        let path = folder.join(file);
        if weights.last().is_none_or(|last| last.path() != path) {
            if !path.is_file() {
                return Err(ConvertError::MissingShard { path });
            }
            weights.push(SafeTensors::open(&path)?);
        }
        if weights
            .last()
            .is_some_and(|last| last.tensor(tensor).is_none())
        {
            let tensor = tensor.clone();
            return Err(ConvertError::NotInShard { tensor, path });
        }
    }
    Ok(weights)
}

pub(crate) fn read_json(path: &Path) -> Result<Json, ConvertError> {
    serde_json::from_slice(&read(path, JSON_LIMIT)?).map_err(|error| ConvertError::BadFile {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

fn text(path: &Path, bytes: Vec<u8>) -> Result<String, ConvertError> {
    String::from_utf8(bytes).map_err(|_| ConvertError::BadFile {
        path: path.to_owned(),
        reason: "it is not UTF-8".to_owned(),
    })
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ConvertError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let read = file.take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|source| io_error(path, source))?;
    if bytes.len() as u64 > limit {
        return Err(ConvertError::BadFile {
            path: path.to_owned(),
            reason: format!("it has more than {limit} bytes"),
        });
    }
    Ok(bytes)
}

fn io_error(path: &Path, source: std::io::Error) -> ConvertError {
    ConvertError::Io {
        path: path.to_owned(),
        source,
    }
}
