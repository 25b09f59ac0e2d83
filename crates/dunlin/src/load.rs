//! How a model is loaded, and what is said meanwhile.

mod prepare;
mod type_plan;
mod types;

use std::fmt;
use std::ops::ControlFlow;

use dunlin_compute::KvElement;
use dunlin_engine::{KvTypes, ModelSpec};
use dunlin_format::{DType, Gguf};
use dunlin_hub::{Hub, HubConfig, ModelRef, Progress, PulledModel};

use crate::{DeviceConfiguration, Error, import};

pub(crate) use prepare::prepare;
pub use type_plan::{TensorConversion, TypePlan};
pub use types::{TensorTypes, TypeFallback};

/// Longest context that is taken without being asked for, in tokens: the memory for it is reserved at load.
pub const DEFAULT_CONTEXT_LENGTH: usize = 4096;

/// How a model is loaded. Every field has a default; the builder methods set one each.
#[derive(Default)]
#[non_exhaustive]
pub struct LoadOptions<'a> {
    /// Threads, kernels, GPU.
    pub device: DeviceConfiguration,
    /// Tokens of prompt and answer together; `None`: what the model was trained for, but at most
    /// [`DEFAULT_CONTEXT_LENGTH`].
    pub context_length: Option<usize>,
    /// Stretch the context that the model was trained for by this factor, with YaRN; `None`: as the file says. For models
    /// whose cards say so (Qwen 2.5, Qwen 3: 4); short texts lose a little by it.
    pub yarn_factor: Option<f32>,
    /// Number types of the KV cache: F16, smaller ones where memory is short or the context long, or F32 for comparisons with
    /// other engines.
    pub kv_types: KvTypes,
    /// Leave the weights in the file instead of packing them into memory: they then are pages of the file, which the system
    /// shares between processes and takes back when memory is short. The answers are the same; a prompt takes a little
    /// longer, each token of an answer several times as long.
    pub mapped_weights: bool,
    /// Types that weights are to have in memory, whatever they are in the file. Not together with
    /// [`mapped_weights`](Self::mapped_weights).
    pub tensor_types: TensorTypes,
    /// Keep weights and cache in memory whatever else runs: the system may not swap them out. All of the cache is taken at
    /// once. Systems limit how much a process may lock ([`Error::MemoryLock`]).
    pub memory_lock: bool,
    /// Compute a token while loading, so that the first answer does not wait for what is done once.
    pub warm_up: bool,
    /// Where models are fetched and kept; `None`: as the environment says ([`HubConfig::from_env`]).
    pub hub: Option<HubConfig>,
    /// Nothing leaves the machine, whatever `hub` says.
    pub offline: bool,
    /// Is told what happens, on the loading thread; [`ControlFlow::Break`] ends the loading with [`Error::Cancelled`].
    pub progress: Option<Box<dyn FnMut(LoadEvent) -> ControlFlow<()> + 'a>>,
}

/// What loading says while it works.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadEvent {
    /// The model is being found or fetched.
    Hub(Progress),
    /// A model folder is being imported: written as a GGUF file, once.
    Importing {
        /// Bytes of weights that are written.
        done: u64,
        /// Bytes of all weights.
        total: u64,
    },
    /// Weights have other types in memory than in the file. Told once, before the first one is read.
    Converting(TypePlan),
    /// Weights are being read and packed.
    Loading {
        /// Bytes of the file that are packed.
        done: u64,
        /// Bytes of all tensors.
        total: u64,
    },
}

impl<'a> LoadOptions<'a> {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// On this device.
    #[must_use]
    pub fn with_device(mut self, device: DeviceConfiguration) -> Self {
        self.device = device;
        self
    }

    /// With a context of this many tokens.
    #[must_use]
    pub fn with_context_length(mut self, tokens: usize) -> Self {
        self.context_length = Some(tokens);
        self
    }

    /// With a context stretched by this factor.
    #[must_use]
    pub fn with_yarn_factor(mut self, factor: f32) -> Self {
        self.yarn_factor = Some(factor);
        self
    }

    /// With a KV cache of this number type.
    #[must_use]
    pub fn with_kv_element(self, element: KvElement) -> Self {
        self.with_kv_types(element.into())
    }

    /// With a KV cache of these number types.
    #[must_use]
    pub fn with_kv_types(mut self, types: KvTypes) -> Self {
        self.kv_types = types;
        self
    }

    /// With the weights left in the file ([`mapped_weights`](Self::mapped_weights)), where memory matters more than speed.
    #[must_use]
    pub fn with_mapped_weights(mut self, mapped: bool) -> Self {
        self.mapped_weights = mapped;
        self
    }

    /// With this type for the matrices whose name has `pattern` in it, as far as no earlier one matches
    /// ([`TensorTypes::with_tensor_type`]).
    #[must_use]
    pub fn with_tensor_type(mut self, pattern: impl Into<String>, dtype: DType) -> Self {
        self.tensor_types = self.tensor_types.with_tensor_type(pattern, dtype);
        self
    }

    /// With this type for the matrices that no pattern matches.
    #[must_use]
    pub fn with_weight_type(mut self, dtype: DType) -> Self {
        self.tensor_types = self.tensor_types.with_weight_type(dtype);
        self
    }

    /// With these types of weights instead of those of the file.
    #[must_use]
    pub fn with_tensor_types(mut self, types: TensorTypes) -> Self {
        self.tensor_types = types;
        self
    }

    /// With weights and cache kept in memory ([`memory_lock`](Self::memory_lock)).
    #[must_use]
    pub fn with_memory_lock(mut self, locked: bool) -> Self {
        self.memory_lock = locked;
        self
    }

    /// With a first token computed while loading.
    #[must_use]
    pub fn with_warm_up(mut self, warm_up: bool) -> Self {
        self.warm_up = warm_up;
        self
    }

    /// With these settings of the hub.
    #[must_use]
    pub fn with_hub(mut self, hub: HubConfig) -> Self {
        self.hub = Some(hub);
        self
    }

    /// With or without the network.
    #[must_use]
    pub fn with_offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// With a callback that is told what happens and can cancel.
    #[must_use]
    pub fn with_progress(
        mut self,
        progress: impl FnMut(LoadEvent) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    pub(crate) fn report(&mut self, event: LoadEvent) -> ControlFlow<()> {
        match &mut self.progress {
            Some(progress) => progress(event),
            None => ControlFlow::Continue(()),
        }
    }

    /// What becomes of the matrices of a model.
    ///
    /// # Errors
    /// [`Error::MappedConversion`]; as [`TypePlan::for_model`].
    pub(crate) fn type_plan(&self, gguf: &Gguf, spec: &ModelSpec) -> Result<TypePlan, Error> {
        if self.mapped_weights && !self.tensor_types.is_empty() {
            return Err(Error::MappedConversion);
        }
        TypePlan::of(gguf, spec, &self.tensor_types)
    }

    /// Tokens of the context for a model. One that reads whole texts reserves no memory for it.
    ///
    /// # Errors
    /// [`Error::ContextLength`].
    pub(crate) fn context_for(&self, spec: &ModelSpec) -> Result<usize, Error> {
        let limit = spec.context_length;
        match self.context_length {
            None if !spec.causal => Ok(limit),
            None => Ok(limit.min(DEFAULT_CONTEXT_LENGTH)),
            Some(requested) if (1..=limit).contains(&requested) => Ok(requested),
            Some(requested) => Err(Error::ContextLength { requested, limit }),
        }
    }
}

impl fmt::Debug for LoadOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadOptions")
            .field("device", &self.device)
            .field("context_length", &self.context_length)
            .field("yarn_factor", &self.yarn_factor)
            .field("kv_types", &self.kv_types)
            .field("mapped_weights", &self.mapped_weights)
            .field("tensor_types", &self.tensor_types)
            .field("memory_lock", &self.memory_lock)
            .field("warm_up", &self.warm_up)
            .field("hub", &self.hub)
            .field("offline", &self.offline)
            .finish_non_exhaustive()
    }
}

/// Makes sure that the model's GGUF file is on this machine: fetches what is not here, and imports a folder.
///
/// # Errors
/// [`Error::Hub`], [`Error::Cancelled`], and for a folder those of its import.
pub(crate) fn locate(
    model: &ModelRef,
    options: &mut LoadOptions<'_>,
) -> Result<PulledModel, Error> {
    let hub = hub_of(options)?;
    let pulled = pull(&hub, model, options)?;
    import::as_file(&hub, model, pulled, options)
}

/// The hub as the options say.
pub(crate) fn hub_of(options: &LoadOptions<'_>) -> Result<Hub, Error> {
    let mut config = match options.hub.clone() {
        Some(config) => config,
        None => HubConfig::from_env()?,
    };
    config.offline |= options.offline;
    Ok(Hub::new(config)?)
}

/// Makes sure that the model, file or folder, is on this machine.
pub(crate) fn pull(
    hub: &Hub,
    model: &ModelRef,
    options: &mut LoadOptions<'_>,
) -> Result<PulledModel, Error> {
    let pulled = hub.pull(model, &mut |progress| {
        options.report(LoadEvent::Hub(progress))
    });
    Ok(pulled?)
}
