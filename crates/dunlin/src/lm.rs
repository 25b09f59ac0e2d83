//! A loaded model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread;

use dunlin_compute::Tier;
use dunlin_engine::{Engine, EngineConfig, EngineError, ModelSpec};
use dunlin_format::{Gguf, Report};
use dunlin_hub::{ModelCard, ModelRef};
use dunlin_text::{ChatTemplate, Tokenizer};

use crate::info::{Header, MemoryEstimate, ModelInfo};
use crate::load::{LoadEvent, LoadOptions, TypePlan, hub_of, locate, prepare};
use crate::model_hash::known_sha256;
use crate::prompt::{Message, TemplateOptions};
use crate::state::State;
use crate::{Error, TokenizerFile, import};

/// A language model, ready to answer. Clones are cheap and share one model.
///
/// The model does one thing at a time: a generation that is started while another one of the same model is unfinished
/// waits until that one has ended or was dropped. (On one thread that would be for ever: finish one first.)
#[derive(Clone)]
pub struct Lm {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    text: TokenizerFile,
    spec: ModelSpec,
    config: EngineConfig,
    types: TypePlan,
    info: ModelInfo,
    memory: MemoryEstimate,
    path: PathBuf,
    source: String,
    notes: Vec<String>,
    card: Option<ModelCard>,
    sha256: OnceLock<String>,
}

impl Lm {
    /// Loads the model of this name, with all defaults, fetching it where it is not on this machine: a name of the
    /// catalog (`smollm2:135m`), `hf:owner/repo`, an address, or a path.
    ///
    /// # Errors
    /// As [`Lm::load`]; [`Error::Hub`] for a text that names no model.
    pub fn load_from_model_id(id: &str) -> Result<Self, Error> {
        Self::load(id.parse()?, LoadOptions::default())
    }

    /// Loads a model.
    ///
    /// # Errors
    /// What keeps the model from being fetched ([`Error::Hub`]), opened ([`Error::Format`]), computed
    /// ([`Error::Engine`]) or spoken to ([`Error::Text`]); [`Error::GpuNotInBuild`], [`Error::ContextLength`],
    /// [`Error::Cancelled`]; where weights are to have other types, those of [`TypePlan::for_model`],
    /// [`Error::MappedConversion`] and [`EngineError::Convert`].
    pub fn load(model: ModelRef, mut options: LoadOptions<'_>) -> Result<Self, Error> {
        let (threads, tier) = options.device.resolve()?;
        refuse_unsupported(&model)?;
        let pulled = locate(&model, &mut options)?;
        let gguf = Arc::new(Gguf::open(&pulled.path)?);
        let mut spec = ModelSpec::from_gguf(&gguf)?;
        if let Some(factor) = options.yarn_factor {
            spec = spec.stretched(factor)?;
        }
        let config = EngineConfig {
            threads,
            tier,
            context_length: options.context_for(&spec)?,
            kv_types: options.kv_types,
            yarn_factor: options.yarn_factor,
        };
        let types = options.type_plan(&gguf, &spec)?;
        let (engine, text) = load_both(&gguf, config, &types, &mut options)?;
        let header = Header::of(&gguf, &spec, &types);
        let memory = MemoryEstimate {
            weights: engine.weight_bytes(),
            mapped_weights: engine.mapped_bytes(),
            ..header.memory(&spec, config.context_length, config.kv_types)
        };
        let info = ModelInfo::of(&gguf)?;
        let sha256 = known_sha256(&hub_of(&options)?, &model, &pulled.path, &gguf);
        let inner = Inner {
            state: Mutex::new(State::new(engine, gguf, options.mapped_weights)),
            text,
            spec,
            config,
            types,
            info,
            memory,
            path: pulled.path,
            source: pulled.source,
            notes: pulled.notes,
            card: pulled.card,
            sha256: sha256.map_or_else(OnceLock::new, OnceLock::from),
        };
        Ok(Lm {
            inner: Arc::new(inner),
        })
    }

    /// What a model is and needs, from its metadata alone: no weight is read, and architectures that cannot be
    /// computed are described, too. Fetches the model where it is not on this machine.
    ///
    /// # Errors
    /// What keeps the model from being fetched or opened.
    pub fn open_metadata(
        model: &ModelRef,
        options: &mut LoadOptions<'_>,
    ) -> Result<ModelInfo, Error> {
        let pulled = locate(model, options)?;
        ModelInfo::open(&pulled.path)
    }

    /// Checks a model file (all parts of a split one), reading everything but the weights.
    ///
    /// # Errors
    /// Where the file cannot be opened as a model at all: the first thing that is wrong, and at which byte. What is
    /// wrong beyond that stands in [`Report::problems`].
    pub fn validate_format(path: &Path) -> Result<Report, Error> {
        Ok(dunlin_format::validate(path)?)
    }

    /// Forgets the tokens of earlier prompts and answers, whose keys and values the next generation would use as far as it
    /// begins in the same way as one of them. (The files of models are in [`Cache`](crate::Cache).)
    pub fn clear_cache(&self) {
        self.lock().clear();
    }

    /// Tokens of the last prompt and its answer whose keys and values are kept at present.
    #[must_use]
    pub fn cached_tokens(&self) -> usize {
        self.lock().tokens().len()
    }

    /// What the model's metadata say.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// The memory that it takes, measured at load.
    #[must_use]
    pub fn memory(&self) -> MemoryEstimate {
        self.inner.memory
    }

    /// What became of the types of its weights ([`LoadOptions::tensor_types`]).
    #[must_use]
    pub fn type_plan(&self) -> &TypePlan {
        &self.inner.types
    }

    /// Its description for the engine.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.inner.spec
    }

    /// Its file; of a split model, the first.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Where the file came from, in words.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// What was said while it was fetched: skipped sources, licence notices, resumed downloads.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.inner.notes
    }

    /// The card of the catalog, or one made from a local file.
    #[must_use]
    pub fn card(&self) -> Option<&ModelCard> {
        self.inner.card.as_ref()
    }

    /// Tokens that prompt and answer can have together.
    #[must_use]
    pub fn context_length(&self) -> usize {
        self.inner.config.context_length
    }

    /// Threads that compute.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.inner.config.threads
    }

    /// Kernels in use.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.inner.config.tier
    }

    /// Tokenizer and chat template.
    #[must_use]
    pub fn text(&self) -> &TokenizerFile {
        &self.inner.text
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        self.inner.text.tokenizer()
    }

    /// The chat template.
    ///
    /// # Errors
    /// [`Error::NoChatTemplate`] for a base model, [`Error::Text`] for a template that cannot be compiled.
    pub fn chat_template(&self) -> Result<&ChatTemplate, Error> {
        self.inner.text.chat_template()
    }

    /// The prompt text of a conversation, the assistant's turn opened at its end.
    ///
    /// # Errors
    /// As [`Lm::chat_template`], and what the template says against the conversation.
    pub fn render_chat(
        &self,
        messages: &[Message],
        options: &TemplateOptions,
    ) -> Result<String, Error> {
        self.inner.text.render_chat(messages, options)
    }

    /// How the engine was set up.
    pub(crate) fn engine_config(&self) -> EngineConfig {
        self.inner.config
    }

    /// Where the hash of the model is kept once it is known.
    pub(crate) fn hash_cell(&self) -> &OnceLock<String> {
        &self.inner.sha256
    }

    /// The engine and its prompt state, for one caller at a time.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(|poisoned| {
            // A panic in the middle of a step may have left positions counted in but not computed.
            self.inner.state.clear_poison();
            let mut state = poisoned.into_inner();
            state.clear();
            state
        })
    }
}

/// Bytes of weights that are packed before their pages of the file are let go.
const RELEASE_BYTES: u64 = 8 << 20;

/// Packs the weights on this thread while another one builds the tokenizer: both take long, and neither needs the other.
pub(crate) fn load_both(
    gguf: &Arc<Gguf>,
    config: EngineConfig,
    types: &TypePlan,
    options: &mut LoadOptions<'_>,
) -> Result<(Engine, TokenizerFile), Error> {
    let weight_types = types.weight_types();
    if !types.tensors.is_empty()
        && options
            .report(LoadEvent::Converting(types.clone()))
            .is_break()
    {
        return Err(Error::Cancelled);
    }
    thread::scope(|scope| {
        let text = thread::Builder::new()
            .name("dunlin-tokenizer".to_owned())
            .spawn_scoped(scope, || TokenizerFile::from_gguf(Arc::clone(gguf)))
            .map_err(Error::Thread)?;
        let mapped = options.mapped_weights;
        let mut released = 0;
        let mut progress = |done, total| {
            if !mapped && done - released >= RELEASE_BYTES {
                // The weights so far lie packed in memory: their pages of the file are not needed, too.
                gguf.release_pages();
                released = done;
            }
            options.report(LoadEvent::Loading { done, total })
        };
        let engine = match mapped {
            true => Engine::load_mapped(Arc::clone(gguf), config, &mut progress),
            false => Engine::load_converted(Arc::clone(gguf), config, &weight_types, &mut progress),
        };
        if !mapped {
            gguf.release_pages();
        }
        let text = text
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match engine {
            Err(EngineError::Cancelled) => Err(Error::Cancelled),
            engine => {
                let mut engine = engine?;
                prepare(&mut engine, gguf, options)?;
                Ok((engine, text?))
            }
        }
    })
}

/// Says that a model of the catalog cannot be computed before gigabytes of it are fetched.
fn refuse_unsupported(model: &ModelRef) -> Result<(), Error> {
    let ModelRef::Catalog(id) = model else {
        return Ok(());
    };
    match dunlin_hub::find(id).and_then(|card| card.architecture.as_deref()) {
        Some(architecture) => import::refuse_unsupported(architecture),
        None => Ok(()),
    }
}
