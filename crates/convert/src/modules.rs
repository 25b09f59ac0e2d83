//! The parts that sentence-transformers puts after a model: pooling and dense layers.

use std::path::Path;

use serde_json::Value as Json;

use crate::{ConvertError, folder::read_json};

/// What modules.json lists.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    pub(crate) pooling: Option<Pooling>,
    pub(crate) dense: Vec<Dense>,
    /// Tokens of the longest text that is embedded whole, special ones included (`max_seq_length`).
    pub(crate) longest_text: Option<u32>,
}

/// How token vectors become one, with llama.cpp's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    Mean = 1,
    Cls = 2,
    Last = 3,
    Rank = 4,
}

/// A linear layer after pooling.
#[derive(Debug)]
pub(crate) struct Dense {
    /// Its folder, which holds `model.safetensors`.
    pub(crate) folder: String,
    /// `dense_2` or `dense_3`, as llama.cpp calls them.
    pub(crate) name: &'static str,
    pub(crate) inputs: u32,
    pub(crate) outputs: u32,
}

impl Modules {
    /// Reads modules.json and the configurations that it names; without it there are no modules.
    pub(crate) fn read(folder: &Path, family: &'static str) -> Result<Self, ConvertError> {
        let mut modules = Self::default();
        let path = folder.join("modules.json");
        if !path.is_file() {
            return Ok(modules);
        }
        let list = read_json(&path)?;
        let bad = |reason: &str| ConvertError::BadFile {
            path: path.clone(),
            reason: reason.to_owned(),
        };
        let unsupported = |what: String| ConvertError::Unsupported { family, what };
        for module in list.as_array().ok_or_else(|| bad("it is not a list"))? {
            let text = |name: &str| module.get(name).and_then(Json::as_str);
            let (Some(kind), Some(inner)) = (text("type"), text("path")) else {
                return Err(bad("a module has no type or no path"));
            };
            if inner.split(['/', '\\']).any(|part| part == "..") || Path::new(inner).is_absolute() {
                return Err(bad("a module lies outside the folder"));
            }
            let settings = || read_json(&folder.join(inner).join("config.json"));
            match kind.rsplit('.').next().unwrap_or(kind) {
                "Transformer" => {
                    let path = folder.join(inner).join("sentence_bert_config.json");
                    if path.is_file() {
                        modules.longest_text = longest_text(&path)?;
                    }
                }
                "Normalize" => {}
                "Pooling" => modules.pooling = Some(pooling(&settings()?).map_err(unsupported)?),
                "Dense" => {
                    let dense = dense(inner, &settings()?).map_err(unsupported)?;
                    modules.dense.push(dense);
                }
                other => {
                    return Err(unsupported(format!(
                        "the sentence-transformers module `{other}`"
                    )));
                }
            }
        }
        Ok(modules)
    }
}

fn longest_text(path: &Path) -> Result<Option<u32>, ConvertError> {
    match read_json(path)?.get("max_seq_length") {
        None | Some(Json::Null) => Ok(None),
        Some(length) => match length
            .as_u64()
            .and_then(|length| u32::try_from(length).ok())
        {
            Some(length @ 1..) => Ok(Some(length)),
            _ => Err(ConvertError::BadFile {
                path: path.to_owned(),
                reason: format!("max_seq_length is {length}, not a number of tokens"),
            }),
        },
    }
}

fn pooling(settings: &Json) -> Result<Pooling, String> {
    let set = |name: &str| settings.get(name).and_then(Json::as_bool) == Some(true);
    let others = [
        "pooling_mode_max_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
        "pooling_mode_weightedmean_tokens",
    ];
    let modes = [
        ("pooling_mode_mean_tokens", Pooling::Mean),
        ("pooling_mode_cls_token", Pooling::Cls),
        ("pooling_mode_lasttoken", Pooling::Last),
    ];
    let mut chosen = modes.iter().filter(|(name, _)| set(name));
    let named = || match settings.get("pooling_mode").and_then(Json::as_str) {
        Some("mean") => Some(Pooling::Mean),
        Some("cls") => Some(Pooling::Cls),
        Some("lasttoken") => Some(Pooling::Last),
        _ => None,
    };
    let one = match (chosen.next(), chosen.next()) {
        (Some(&(_, pooling)), None) => Some(pooling),
        (None, None) => named(),
        _ => None,
    };
    match one {
        Some(pooling) if !others.iter().any(|name| set(name)) => Ok(pooling),
        _ => Err("pooling other than one of mean, cls and last token".to_owned()),
    }
}

fn dense(folder: &str, settings: &Json) -> Result<Dense, String> {
    let size = |name: &str| {
        let number = settings.get(name).and_then(Json::as_u64);
        let number = number.and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| format!("a dense module without `{name}`"))
    };
    let activation = settings.get("activation_function").and_then(Json::as_str);
    if activation.is_some_and(|name| !name.ends_with("Identity")) {
        return Err(format!(
            "the activation `{}` of a dense module",
            activation.unwrap_or_default()
        ));
    }
    if settings.get("bias").and_then(Json::as_bool) == Some(true) {
        return Err("a dense module with a bias".to_owned());
    }
    Ok(Dense {
        name: match folder {
            "2_Dense" => "dense_2",
            "3_Dense" => "dense_3",
            _ => return Err(format!("a dense module in the folder `{folder}`")),
        },
        folder: folder.to_owned(),
        inputs: size("in_features")?,
        outputs: size("out_features")?,
    })
}
