//! What becomes of each matrix of a model where weights are asked to have other types.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dunlin_engine::spec::{Head, names};
use dunlin_engine::{ModelSpec, WeightTypes, matrices};
use dunlin_format::{DType, FormatError, Gguf, TensorInfo, can_encode, encoding_for_width};
use regex::Regex;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::{TensorTypes, TypeFallback};
use crate::Error;

/// The types that the matrices of a model get by [`TensorTypes`], told from the file's header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TypePlan {
    /// Every matrix that a pattern or the weight type names, in the order of the file, those included that have their type already.
    pub tensors: Vec<TensorConversion>,
}

/// What becomes of one matrix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TensorConversion {
    /// Its name in the file.
    pub tensor: String,
    /// Its type in the file.
    #[serde(serialize_with = "type_name")]
    pub from: DType,
    /// The type that was asked for.
    #[serde(serialize_with = "type_name")]
    pub wanted: DType,
    /// The type that it gets; another one than was asked for where its rows are no whole blocks of that
    /// ([`TypeFallback::Wider`]).
    #[serde(serialize_with = "type_name")]
    pub to: DType,
    /// Weights in a row.
    pub columns: usize,
    /// Weights in all.
    pub elements: u64,
}

fn type_name<S: Serializer>(dtype: &DType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(dtype.name())
}

impl TensorConversion {
    /// Whether it gets another type than it has in the file.
    #[must_use]
    pub fn is_change(&self) -> bool {
        self.from != self.to
    }

    /// Whether it gets another type than was asked for.
    #[must_use]
    pub fn is_fallback(&self) -> bool {
        self.to != self.wanted
    }
}

impl TypePlan {
    /// What would become of the matrices of a file. Only its header is read.
    ///
    /// # Errors
    /// [`Error::TensorPattern`] for a pattern that is no regular expression, [`Error::TensorPatternUnused`] for one that decides
    /// nothing, [`Error::TensorWidth`] for rows that are no whole blocks, [`FormatError::UnsupportedEncoding`] for a type that
    /// weights cannot be brought into; [`Error::Format`] and [`Error::Engine`] for a file that cannot be computed.
    pub fn for_model(path: &Path, types: &TensorTypes) -> Result<Self, Error> {
        let gguf = Gguf::open(path)?;
        let spec = ModelSpec::from_gguf(&gguf)?;
        spec.check_tensors(&gguf)?;
        Self::of(&gguf, &spec, types)
    }

    /// As [`for_model`](Self::for_model), of an open file.
    pub(crate) fn of(gguf: &Gguf, spec: &ModelSpec, types: &TensorTypes) -> Result<Self, Error> {
        let mut rules = types
            .patterns
            .iter()
            .map(|(pattern, dtype)| Rule::of(pattern, *dtype))
            .collect::<Result<Vec<_>, _>>()?;
        types.weight_type.map_or(Ok(()), check_encodable)?;
        let mut tensors = Vec::new();
        for info in matrices(spec, gguf.tensors()) {
            let mut wanted = types.weight_type;
            // From the last to the first, so that the first decides.
            let mut deciding = None;
            for (index, rule) in rules.iter_mut().enumerate().rev() {
                if rule.matches(info, spec) {
                    rule.matched = true;
                    (wanted, deciding) = (Some(rule.dtype), Some(index));
                }
            }
            if let Some(index) = deciding {
                rules[index].decided = true;
            }
            if let Some(wanted) = wanted {
                tensors.push(conversion(info, wanted, types.fallback)?);
            }
        }
        match rules.iter().find(|rule| !rule.decided) {
            Some(unused) => Err(unused.error(gguf, spec)),
            None => Ok(TypePlan { tensors }),
        }
    }

    /// The matrices that get another type than they have in the file.
    pub fn changes(&self) -> impl Iterator<Item = &TensorConversion> {
        self.tensors.iter().filter(|tensor| tensor.is_change())
    }

    /// The matrices that get another type than was asked for.
    pub fn fallbacks(&self) -> impl Iterator<Item = &TensorConversion> {
        self.tensors.iter().filter(|tensor| tensor.is_fallback())
    }

    /// What it does, in sentences for people: what is converted to what, which types are not those that were asked for, and where bits are
    /// spent that the file has no precision for. Empty where nothing changes.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let changes = counted(self.changes().map(|tensor| (tensor.from, tensor.to)));
        if !changes.is_empty() {
            let parts = changes
                .iter()
                .map(|((from, to), count)| format!("{count} from {from} to {to}"));
            notes.push(format!(
                "matrices that are converted while loading: {}",
                parts.collect::<Vec<_>>().join(", ")
            ));
        }
        let fallbacks = counted(self.fallbacks().map(|tensor| (tensor.wanted, tensor.to)));
        for ((wanted, to), count) in fallbacks {
            let example = self
                .fallbacks()
                .find(|tensor| (tensor.wanted, tensor.to) == (wanted, to));
            let example = example.map_or_else(String::new, |tensor| {
                format!(": {} has rows of {}", tensor.tensor, tensor.columns)
            });
            notes.push(format!(
                "{count} matrices become {to} instead of {wanted}, whose blocks of {} their rows do not fill{example}",
                wanted.block_len()
            ));
        }
        let raised = self
            .changes()
            .filter(|tensor| tensor.to.bits_per_weight() > tensor.from.bits_per_weight());
        let raised = raised.count();
        if raised > 0 {
            notes.push(format!(
                "{raised} matrices get more bits than the file has: that takes memory and adds no precision"
            ));
        }
        notes
    }

    /// The types for the engine.
    pub(crate) fn weight_types(&self) -> WeightTypes {
        self.changes()
            .map(|tensor| (tensor.tensor.clone(), tensor.to))
            .collect()
    }

    /// Tells loadings of one file apart whose weights are not the same numbers; `None`: all as in the file.
    pub(crate) fn identity(&self) -> Option<String> {
        let types = self.weight_types();
        if types.is_empty() {
            return None;
        }
        let mut hasher = Sha256::new();
        for (tensor, dtype) in &types {
            hasher.update(format!("{tensor}={dtype}\n"));
        }
        let digits: String = hasher.finalize()[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let counts = counted(types.into_values());
        let counts = counts
            .iter()
            .map(|(dtype, count)| format!("{count} matrices as {dtype}"));
        Some(format!(
            "{} ({digits})",
            counts.collect::<Vec<_>>().join(", ")
        ))
    }
}

fn counted<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

/// A pattern with its type, and what has come of it.
struct Rule<'a> {
    pattern: &'a str,
    regex: Regex,
    dtype: DType,
    matched: bool,
    decided: bool,
}

impl<'a> Rule<'a> {
    fn of(pattern: &'a str, dtype: DType) -> Result<Self, Error> {
        check_encodable(dtype)?;
        let regex = Regex::new(pattern).map_err(|source| Error::TensorPattern {
            pattern: pattern.to_owned(),
            source: Box::new(source),
        })?;
        Ok(Rule {
            pattern,
            regex,
            dtype,
            matched: false,
            decided: false,
        })
    }

    fn matches(&self, info: &TensorInfo, spec: &ModelSpec) -> bool {
        let is_tied_head = spec.head == Head::Tied && info.name == names::TOKEN_EMBEDDING;
        self.regex.is_match(&info.name) || (is_tied_head && self.regex.is_match(names::OUTPUT))
    }

    /// Why it decided nothing.
    fn error(&self, gguf: &Gguf, spec: &ModelSpec) -> Error {
        let others = gguf.tensors().iter();
        let other = others
            .map(|info| &info.name)
            .find(|name| self.regex.is_match(name));
        let reason = match (self.matched, other) {
            (true, _) => {
                "every matrix that it matches has its type by an earlier pattern".to_owned()
            }
            (false, Some(other)) => format!(
                "it matches {other}, and only matrices that are multiplied with can be converted"
            ),
            (false, None) => {
                let all = matrices(spec, gguf.tensors());
                let kinds: BTreeSet<&str> = all.map(|info| kind(&info.name)).collect();
                let kinds: Vec<&str> = kinds.into_iter().collect();
                format!("the matrices of this model are {}", kinds.join(", "))
            }
        };
        Error::TensorPatternUnused {
            pattern: self.pattern.to_owned(),
            reason,
        }
    }
}

/// A tensor's name without its layer and ending: `blk.3.attn_v.weight` is `attn_v`.
fn kind(name: &str) -> &str {
    let name = name.strip_suffix(".weight").unwrap_or(name);
    match name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
    {
        Some((_, kind)) => kind,
        None => name,
    }
}

fn check_encodable(dtype: DType) -> Result<(), Error> {
    match can_encode(dtype) {
        true => Ok(()),
        false => Err(FormatError::UnsupportedEncoding { dtype }.into()),
    }
}

fn conversion(
    info: &TensorInfo,
    wanted: DType,
    fallback: TypeFallback,
) -> Result<TensorConversion, Error> {
    let columns = info.cols();
    let wider = encoding_for_width(wanted, columns);
    if wider != wanted && fallback == TypeFallback::Refuse {
        return Err(Error::TensorWidth {
            tensor: info.name.clone(),
            columns,
            dtype: wanted,
            wider,
        });
    }
    Ok(TensorConversion {
        tensor: info.name.clone(),
        from: info.dtype,
        wanted,
        to: wider,
        columns,
        elements: info.elements(),
    })
}
