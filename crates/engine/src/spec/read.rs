//! Checked reading of the metadata keys that describe a model.

use dunlin_format::{Array, FormatError, Metadata, Value};

use crate::EngineError;

/// No published decoder comes near these; a file that does is damaged or hostile, and would overflow products below.
pub(super) mod limit {
    pub(crate) const LAYERS: u32 = 1024;
    pub(crate) const HEADS: u32 = 4096;
    pub(crate) const HEAD_DIM: u32 = 8192;
    pub(crate) const HIDDEN: u32 = 1 << 20;
    pub(crate) const FEED_FORWARD: u32 = 1 << 22;
    pub(crate) const VOCAB: u64 = 1 << 24;
    pub(crate) const CONTEXT: u32 = 1 << 30;
    pub(crate) const CONV_TAPS: u32 = dunlin_compute::CONV_TAPS_MAX as u32;
}

/// Reads the keys of one architecture: `ARCHITECTURE.suffix`.
pub(super) struct Reader<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) architecture: &'a str,
}

impl Reader<'_> {
    pub(super) fn key(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.architecture)
    }

    /// A size that must be there, from 1 to `limit`.
    pub(super) fn size(&self, suffix: &str, limit: u32) -> Result<usize, EngineError> {
        let key = self.key(suffix);
        let found = self.metadata.require_u32(&key)?;
        in_range(key, found, limit)
    }

    /// A size from 1 to `limit`, `None` when absent.
    pub(super) fn optional_size(
        &self,
        suffix: &str,
        limit: u32,
    ) -> Result<Option<usize>, EngineError> {
        let key = self.key(suffix);
        match self.metadata.u32(&key)? {
            Some(found) => in_range(key, found, limit).map(Some),
            None => Ok(None),
        }
    }

    /// A number of things that may be absent or 0.
    pub(super) fn count(&self, suffix: &str) -> Result<usize, EngineError> {
        Ok(self.metadata.u32(&self.key(suffix))?.unwrap_or(0) as usize)
    }

    /// A size up to `limit`, `None` when absent or 0.
    pub(super) fn size_or_off(
        &self,
        suffix: &str,
        limit: u32,
    ) -> Result<Option<usize>, EngineError> {
        match self.count(suffix)? {
            0 => Ok(None),
            _ => self.optional_size(suffix, limit),
        }
    }

    /// A size from 1 to `limit` (from 0 where `none_allowed`) for every layer: one number for all, or an array with one a
    /// layer. `None` when absent.
    pub(super) fn count_per_layer(
        &self,
        suffix: &str,
        limit: u32,
        layers: usize,
        none_allowed: bool,
    ) -> Result<Option<Vec<usize>>, EngineError> {
        let key = self.key(suffix);
        match self.metadata.get(&key) {
            None => Ok(None),
            Some(Value::Array(_)) => {
                let values = self.metadata.u32s(&key)?.unwrap_or_default();
                check_length(&key, values.len(), layers)?;
                values
                    .iter()
                    .map(|value| match value {
                        0 if none_allowed => Ok(0),
                        _ => in_range(key.clone(), *value, limit),
                    })
                    .collect::<Result<_, _>>()
                    .map(Some)
            }
            Some(_) => self
                .size(suffix, limit)
                .map(|size| Some(vec![size; layers])),
        }
    }

    /// A yes or no for every layer. `None` when absent.
    pub(super) fn flags(
        &self,
        suffix: &str,
        layers: usize,
    ) -> Result<Option<Vec<bool>>, EngineError> {
        let key = self.key(suffix);
        let Some(flags) = self.metadata.bools(&key)? else {
            return Ok(None);
        };
        check_length(&key, flags.len(), layers)?;
        Ok(Some(flags.to_vec()))
    }

    /// A cap above zero; `default` when absent, `None` when 0.
    pub(super) fn cap(
        &self,
        suffix: &str,
        default: Option<f32>,
    ) -> Result<Option<f32>, EngineError> {
        match self.metadata.f32(&self.key(suffix))? {
            None => Ok(default),
            Some(_) => self.positive_or_off(suffix),
        }
    }

    /// A size for every layer that must be there.
    pub(super) fn require_size_per_layer(
        &self,
        suffix: &str,
        limit: u32,
        layers: usize,
    ) -> Result<Vec<usize>, EngineError> {
        let sizes = self.count_per_layer(suffix, limit, layers, false)?;
        sizes.ok_or_else(|| self.missing(suffix))
    }

    fn missing(&self, suffix: &str) -> EngineError {
        FormatError::MissingKey {
            key: self.key(suffix),
        }
        .into()
    }

    /// A number above zero, `None` when absent.
    pub(super) fn positive(&self, suffix: &str) -> Result<Option<f32>, EngineError> {
        let key = self.key(suffix);
        match self.metadata.f32(&key)? {
            Some(found) if !(found.is_normal() && found > 0.0) => {
                Err(EngineError::InvalidMetadata {
                    key,
                    found: found.to_string(),
                    expected: "a finite number above zero".to_owned(),
                })
            }
            found => Ok(found),
        }
    }

    /// A number above zero that must be there.
    pub(super) fn require_positive(&self, suffix: &str) -> Result<f32, EngineError> {
        self.positive(suffix)?.ok_or_else(|| self.missing(suffix))
    }

    /// A number above zero that switches something on; `None` when absent or 0.
    pub(super) fn positive_or_off(&self, suffix: &str) -> Result<Option<f32>, EngineError> {
        match self.metadata.f32(&self.key(suffix))? {
            Some(0.0) => Ok(None),
            _ => self.positive(suffix),
        }
    }

    /// Which layers are local, from `attention.sliding_window_pattern`: an array says it a layer, a number `n` makes one
    /// layer in `n` global, the last of them or the first (0: none).
    pub(super) fn local_layers(
        &self,
        default_period: u32,
        global_first: bool,
        layers: usize,
    ) -> Result<Vec<bool>, EngineError> {
        let key = self.key("attention.sliding_window_pattern");
        let period = match self.metadata.get(&key) {
            None => default_period,
            Some(Value::Array(Array::Bool(local))) => {
                check_length(&key, local.len(), layers)?;
                return Ok(local.clone());
            }
            Some(_) => self.metadata.require_u32(&key)?,
        } as usize;
        Ok((0..layers)
            .map(|layer| {
                let nth = if global_first { layer } else { layer + 1 };
                period == 0 || !nth.is_multiple_of(period)
            })
            .collect())
    }
}

fn in_range(key: String, found: u32, limit: u32) -> Result<usize, EngineError> {
    if (1..=limit).contains(&found) {
        return Ok(found as usize);
    }
    Err(EngineError::InvalidMetadata {
        key,
        found: found.to_string(),
        expected: format!("a number from 1 to {limit}"),
    })
}

fn check_length(key: &str, found: usize, layers: usize) -> Result<(), EngineError> {
    if found == layers {
        return Ok(());
    }
    Err(EngineError::InvalidMetadata {
        key: key.to_owned(),
        found: format!("an array of {found} elements"),
        expected: format!("one element for each of the {layers} layers"),
    })
}
