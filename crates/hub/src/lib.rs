//! Model catalog, downloads and cache: from the name of a model to a file on this machine.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use dunlin_hub::{Hub, ModelRef};
//!
//! let hub = Hub::from_env()?;
//! let model: ModelRef = "smollm2:135m".parse()?;
//! let pulled = hub.pull(&model, &mut |_progress| ControlFlow::Continue(()))?;
//! println!("{}", pulled.path.display());
//! # Ok::<(), dunlin_hub::HubError>(())
//! ```
//!
//! Scope: this is the only crate that opens outgoing connections, and the only place where it reads the
//! environment is [`HubConfig::from_env`]. It moves bytes, checks them and remembers where they lie; what the
//! bytes mean is for the crates to its right.
//!
//! Flow of a pull: a [`ModelRef`] becomes a list of sources ([`Source`]); what is already here is used without
//! asking anybody; of a Hugging Face repository the GGUF file is meant, or where it has none its folder of safetensors;
//! otherwise one process takes the model's lock and tries the sources in order. A file is written
//! beside its destination, checked, and renamed, so a name that can be seen always means a whole file.

mod address;
mod cache;
mod card;
mod catalog;
mod config;
mod download;
mod error;
mod files;
mod http;
mod hub;
mod import;
mod ledger;
mod lock;
mod manifest;
mod progress;
mod reference;
mod source;

pub use cache::{Cache, CachedModel, Removed, Verdict};
pub use card::{Capability, Layout, Licence, ModelCard, ModelFile, Source};
pub use catalog::{catalog, find};
pub use config::{HubConfig, Timing};
pub use error::HubError;
pub use hub::{Hub, PulledModel};
pub use import::ImportSlot;
pub use progress::Progress;
pub use reference::ModelRef;
