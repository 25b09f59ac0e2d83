//! adapter_config.json: what PEFT makes of an adapter's matrices, and what it does beyond them.

use std::path::Path;

use serde_json::{Map, Value as Json};

use super::not_an_adapter;
use crate::ConvertError;

/// How an adapter's pairs are scaled.
#[derive(Debug)]
pub(super) struct PeftConfig {
    rank: u64,
    alpha: f64,
    /// The scale is `alpha / sqrt(rank)` (Kalajdzievski 2023, arXiv:2312.03732).
    rank_stabilized: bool,
    ranks: Vec<(String, f64)>,
    alphas: Vec<(String, f64)>,
}

/// Settings with which more than pairs of matrices changes the model. They are supported where they are absent, `null`, `false`
/// or empty.
const BEYOND_PAIRS: &[(&str, &str)] = &[
    (
        "use_dora",
        "DoRA scales the rows of the changed weights anew",
    ),
    ("lora_bias", "an adapter's biases are not computed"),
    (
        "modules_to_save",
        "modules that were trained whole are not taken over",
    ),
    (
        "trainable_token_indices",
        "adapters of embeddings are not computed",
    ),
    ("fan_in_fan_out", "its matrices lie the other way round"),
    ("layer_replication", "it repeats layers of the model"),
    (
        "target_parameters",
        "it changes parameters that are no linear layers",
    ),
    (
        "alora_invocation_tokens",
        "it works only from certain tokens on",
    ),
    ("arrow_config", "it chooses among adapters token by token"),
    ("use_qalora", "it pools its input"),
    (
        "kasa_config",
        "it goes with a base model that was changed before the training",
    ),
    ("monteclora_config", "its matrices are drawn at random"),
    ("use_bdlora", "its matrices are in diagonal blocks"),
];

/// Values of `init_lora_weights` that leave the base model as it is.
const INITIALIZATIONS: &[&str] = &["gaussian", "eva", "orthogonal"];

impl PeftConfig {
    pub(super) fn read(path: &Path, json: &Json) -> Result<Self, ConvertError> {
        let Json::Object(entries) = json else {
            return Err(not_an_adapter(path, "it is no JSON object"));
        };
        match entries.get("peft_type").and_then(Json::as_str) {
            Some("LORA") => {}
            found => {
                let found = found.unwrap_or("absent");
                let reason = format!("its peft_type is {found}, not LORA");
                return Err(not_an_adapter(path, &reason));
            }
        }
        refuse_what_is_no_pair(entries)?;
        let alpha = other_than_zero(entries.get("lora_alpha"));
        Ok(PeftConfig {
            rank: whole(entries.get("r")).ok_or_else(|| bad("r", entries))?,
            alpha: alpha.ok_or_else(|| bad("lora_alpha", entries))?,
            rank_stabilized: is_set(entries, "use_rslora"),
            ranks: patterns(entries, "rank_pattern")?,
            alphas: patterns(entries, "alpha_pattern")?,
        })
    }

    /// The rank of a module.
    pub(super) fn rank(&self, module: &str) -> u64 {
        by_pattern(&self.ranks, module).map_or(self.rank, |rank| rank as u64)
    }

    /// The factor on a module's product.
    pub(super) fn scale(&self, module: &str, rank: u64) -> f32 {
        let alpha = by_pattern(&self.alphas, module).unwrap_or(self.alpha);
        let rank = rank as f64;
        let divisor = match self.rank_stabilized {
            true => rank.sqrt(),
            false => rank,
        };
        (alpha / divisor) as f32
    }
}

fn refuse_what_is_no_pair(entries: &Map<String, Json>) -> Result<(), ConvertError> {
    let unsupported = |name: &str, reason: &str| ConvertError::AdapterUnsupported {
        name: format!("{name} = {}", shown(entries.get(name))),
        reason: reason.to_owned(),
    };
    for (name, reason) in BEYOND_PAIRS {
        if is_set(entries, name) {
            return Err(unsupported(name, reason));
        }
    }
    match entries.get("bias") {
        None | Some(Json::Null) => {}
        Some(Json::String(bias)) if bias == "none" => {}
        _ => {
            return Err(unsupported("bias", "an adapter's biases are not computed"));
        }
    }
    match entries.get("init_lora_weights") {
        None | Some(Json::Null | Json::Bool(_)) => Ok(()),
        Some(Json::String(kind)) if INITIALIZATIONS.contains(&kind.as_str()) => Ok(()),
        _ => Err(unsupported(
            "init_lora_weights",
            "it goes with a base model that was changed before the training (save it as a plain adapter)",
        )),
    }
}

/// Whether an entry says something.
fn is_set(entries: &Map<String, Json>, name: &str) -> bool {
    match entries.get(name) {
        None | Some(Json::Null | Json::Bool(false)) => false,
        Some(Json::Array(list)) => !list.is_empty(),
        Some(Json::Object(object)) => !object.is_empty(),
        Some(_) => true,
    }
}

fn whole(value: Option<&Json>) -> Option<u64> {
    value?.as_u64()
}

/// A finite number other than 0.
fn other_than_zero(value: Option<&Json>) -> Option<f64> {
    let fits = |number: &f64| (*number as f32).is_finite() && *number != 0.0;
    value?.as_f64().filter(fits)
}

fn bad(name: &str, entries: &Map<String, Json>) -> ConvertError {
    bad_value(name, entries.get(name))
}

fn bad_value(name: &str, found: Option<&Json>) -> ConvertError {
    ConvertError::AdapterSetting {
        key: name.to_owned(),
        found: shown(found),
    }
}

/// The beginning of a value.
fn shown(value: Option<&Json>) -> String {
    let text = value.map_or_else(|| "absent".to_owned(), Json::to_string);
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// The numbers of some modules.
fn patterns(entries: &Map<String, Json>, name: &str) -> Result<Vec<(String, f64)>, ConvertError> {
    let entries = match entries.get(name) {
        None | Some(Json::Null) => return Ok(Vec::new()),
        Some(Json::Object(entries)) => entries,
        other => return Err(bad_value(name, other)),
    };
    let numbers = entries.iter().map(|(pattern, value)| {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        // The patterns are regular expressions; those that people write are names.
        let plain = pattern.strip_prefix('^').unwrap_or(pattern);
        if plain.is_empty() || !plain.chars().all(is_plain) {
            return Err(ConvertError::AdapterUnsupported {
                name: format!("{name} {pattern:?}"),
                reason: "only names of modules are read as patterns".to_owned(),
            });
        }
        let number = match name {
            "rank_pattern" => whole(Some(value)).map(|rank| rank as f64),
            _ => other_than_zero(Some(value)),
        };
        let number = number.ok_or_else(|| bad_value(&format!("{name} {pattern}"), Some(value)))?;
        Ok((pattern.clone(), number))
    });
    numbers.collect()
}

/// The number of the first pattern that is the end of the module's name, as PEFT looks it up; with `^` it is the whole name.
fn by_pattern(patterns: &[(String, f64)], module: &str) -> Option<f64> {
    let fits = |pattern: &str| match pattern.strip_prefix('^') {
        Some(whole) => module == whole,
        None => module
            .strip_suffix(pattern)
            .is_some_and(|before| before.is_empty() || before.ends_with('.')),
    };
    let found = patterns.iter().find(|(pattern, _)| fits(pattern));
    found.map(|(_, number)| *number)
}
