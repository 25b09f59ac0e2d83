//! Model description, weights, forward pass, KV cache and sampling.

mod error;
pub mod reference;
pub mod spec;

pub use error::EngineError;
pub use spec::ModelSpec;
