//! config.json: its entries under the names that the families use, with what is left out filled in.

use serde_json::{Map, Value};

use crate::{
    ConvertError,
    family::{Default, Family},
};

/// No model has more layers; a larger number is a damaged file.
const MAX_LAYERS: u64 = 1024;

/// The entries of config.json that describe the text model.
#[derive(Debug)]
pub(crate) struct Config {
    entries: Map<String, Value>,
    pub(crate) family: &'static Family,
}

impl Config {
    /// `json` is the whole file; the text part of a multimodal model is lifted to the top, as
    /// llama.cpp's converter does.
    pub(crate) fn new(json: &Map<String, Value>, family: &'static Family) -> Self {
        let mut entries = json.clone();
        if let Some(Value::Object(text)) = json.get("text_config") {
            entries.extend(text.clone());
        }
        entries.remove("text_config");
        Self { entries, family }
    }

    /// The first of `names` that is there and not null.
    pub(crate) fn get(&self, names: &[&str]) -> Option<&Value> {
        names
            .iter()
            .find_map(|&name| self.entries.get(name).filter(|value| !value.is_null()))
    }

    pub(crate) fn unsigned(&self, names: &[&str]) -> Result<Option<u32>, ConvertError> {
        let number = |value: &Value| value.as_u64().and_then(|value| value.try_into().ok());
        match self.read(names, "a whole number", number)? {
            Some(value) => Ok(Some(value)),
            None => Ok(self.default(names).and_then(|default| match default {
                Default::U32(value) => Some(value),
                Default::Heads => self.unsigned(&["num_attention_heads"]).ok().flatten(),
                Default::HiddenPerHead => self.hidden_per_head(),
                _ => None,
            })),
        }
    }

    pub(crate) fn require_unsigned(&self, names: &[&str]) -> Result<u32, ConvertError> {
        self.unsigned(names)?.ok_or_else(|| self.missing(names))
    }

    pub(crate) fn float(&self, names: &[&str]) -> Result<Option<f32>, ConvertError> {
        Ok(self
            .read(names, "a number", as_float)?
            .or_else(|| match self.default(names) {
                Some(Default::F32(value)) => Some(value),
                _ => None,
            }))
    }

    pub(crate) fn bool(&self, names: &[&str]) -> Result<Option<bool>, ConvertError> {
        self.read(names, "true or false", Value::as_bool)
    }

    pub(crate) fn text(&self, names: &[&str]) -> Result<Option<&str>, ConvertError> {
        self.read(names, "a text", Value::as_str)
    }

    /// The number of layers, checked before anything is made for each.
    pub(crate) fn layer_count(&self) -> Result<u32, ConvertError> {
        let names = &["num_hidden_layers", "n_layer"];
        let count = self.require_unsigned(names)?;
        if !(1..=MAX_LAYERS).contains(&u64::from(count)) {
            return Err(self.bad(names[0], count, "1 to 1024"));
        }
        Ok(count)
    }

    /// The kind of each layer, where the file lists them.
    pub(crate) fn layer_types(&self) -> Result<Option<Vec<&str>>, ConvertError> {
        let Some(value) = self.get(&["layer_types"]) else {
            return Ok(None);
        };
        let count = self.layer_count()? as usize;
        let types: Option<Vec<&str>> = value
            .as_array()
            .and_then(|types| types.iter().map(Value::as_str).collect());
        match types {
            Some(types) if types.len() == count => Ok(Some(types)),
            Some(types) => Err(self.bad(
                "layer_types",
                format!("a list of {}", types.len()),
                "one entry for each of num_hidden_layers",
            )),
            None => Err(self.bad("layer_types", value, "a list of texts")),
        }
    }

    pub(crate) fn missing(&self, names: &[&str]) -> ConvertError {
        ConvertError::MissingSetting {
            family: self.family.gguf,
            key: names.first().copied().unwrap_or_default().to_owned(),
        }
    }

    pub(crate) fn bad(
        &self,
        key: &str,
        found: impl std::fmt::Display,
        expected: &'static str,
    ) -> ConvertError {
        let mut found = found.to_string();
        if let Some((end, _)) = found.char_indices().nth(60) {
            found.truncate(end);
            found.push_str("...");
        }
        ConvertError::BadSetting {
            key: key.to_owned(),
            found,
            expected,
        }
    }

    pub(crate) fn unsupported(&self, what: impl Into<String>) -> ConvertError {
        ConvertError::Unsupported {
            family: self.family.gguf,
            what: what.into(),
        }
    }

    fn read<'a, T>(
        &'a self,
        names: &[&str],
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConvertError> {
        let Some(value) = self.get(names) else {
            return Ok(None);
        };
        let name = names.iter().find(|&&name| self.get(&[name]).is_some());
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.bad(name.copied().unwrap_or_default(), value, expected)),
        }
    }

    /// What stands for entries that are not there. `null` is not the same: it switches off what has
    /// a number of its own, but not what follows from other entries.
    fn default(&self, names: &[&str]) -> Option<Default> {
        let null = names.iter().any(|&name| self.entries.contains_key(name));
        let defaults = self.family.defaults.iter().copied().flatten();
        defaults
            .filter(|(name, _)| names.contains(name))
            .map(|&(_, default)| default)
            .find(|default| !null || matches!(default, Default::Heads | Default::HiddenPerHead))
    }

    fn hidden_per_head(&self) -> Option<u32> {
        let hidden = self.unsigned(&["hidden_size"]).ok().flatten()?;
        let heads = self.unsigned(&["num_attention_heads"]).ok().flatten()?;
        hidden.checked_div(heads)
    }
}

/// A number that a 32-bit float can hold.
pub(crate) fn as_float(value: &Value) -> Option<f32> {
    value
        .as_f64()
        .map(|value| value as f32)
        .filter(|value| value.is_finite())
}
