//! How a family's row and a file's metadata become a [`ModelSpec`].

use std::collections::HashMap;

use dunlin_format::{Gguf, Metadata, TensorInfo};

use super::families::{FAMILIES, Family, Rope, Windows};
use super::read::{Reader, limit};
use super::{
    Activation, Classifier, ClassifierActivation, Head, ModelSpec, Norm, Pooling, names,
    supported_architectures,
};
use crate::EngineError;

impl ModelSpec {
    /// Reads the description of a model from its file, without touching the weights.
    ///
    /// # Errors
    ///
    /// As [`from_metadata`](Self::from_metadata).
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, EngineError> {
        Self::from_metadata(gguf.metadata(), gguf.tensors())
    }

    /// Reads the description of a model from its metadata and tensor table.
    ///
    /// The table decides what the metadata leave open: the vocabulary's size, a tied head, biases, fused matrices, rope
    /// factors. Whether all tensors are there in the right shape is asked of [`check_tensors`](Self::check_tensors).
    ///
    /// # Errors
    ///
    /// [`EngineError::UnknownArchitecture`]; [`EngineError::Format`] for a key that is missing or has another type;
    /// [`EngineError::InvalidMetadata`] for sizes that no model has or that contradict each other;
    /// [`EngineError::UnsupportedFeature`] for what would silently change the answer (experts, unknown rope scaling, ...).
    pub fn from_metadata(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Self, EngineError> {
        let architecture = metadata.require_str("general.architecture")?;
        let Some(family) = FAMILIES
            .iter()
            .find(|family| family.architecture == architecture)
        else {
            return Err(EngineError::UnknownArchitecture {
                found: architecture.to_owned(),
                supported: supported_architectures().collect(),
            });
        };
        let file = File {
            reader: Reader {
                metadata,
                architecture,
            },
            family,
            table: tensors
                .iter()
                .map(|tensor| (tensor.name.as_str(), tensor))
                .collect(),
        };
        file.refuse_what_is_not_computed()?;
        file.model()
    }
}

/// What a description is read from.
pub(super) struct File<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) family: &'a Family,
    table: HashMap<&'a str, &'a TensorInfo>,
}

impl File<'_> {
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    fn model(&self) -> Result<ModelSpec, EngineError> {
        let (reader, family) = (&self.reader, self.family);
        let hidden_size = reader.size("embedding_length", limit::HIDDEN)?;
        let positions = match family.rope {
            Rope::None => Some(self.rows(names::POSITION_EMBEDDING)?),
            Rope::All(_) | Rope::AllBut(..) => None,
        };
        let context_length = reader.size("context_length", limit::CONTEXT)?;
        let (_, logit_cap) = family.softcaps.unzip();
        let prediction_blocks = reader.count("nextn_predict_layers")?;
        let multiplier = |suffix| match family.multipliers {
            true => Ok::<_, EngineError>(reader.positive(suffix)?.unwrap_or(1.0)),
            false => Ok(1.0),
        };
        Ok(ModelSpec {
            architecture: reader.architecture.to_owned(),
            vocab_size: self.rows(names::TOKEN_EMBEDDING)?,
            hidden_size,
            context_length: context_length.min(positions.unwrap_or(usize::MAX)),
            causal: family.causal,
            embedding_scale: match family.scaled_embedding {
                true => (hidden_size as f32).sqrt(),
                false => multiplier("embedding_scale")?,
            },
            position_embeddings: positions,
            token_types: match self.has(names::TOKEN_TYPES) {
                true => self.rows(names::TOKEN_TYPES)?,
                false => 0,
            },
            embedding_norm: family.output_norm != Some(names::TOKEN_EMBEDDING_NORM)
                && self.has(names::TOKEN_EMBEDDING_NORM),
            per_layer_input: match family.per_layer_embeddings {
                true => reader.size_or_off("embedding_length_per_layer_input", limit::HIDDEN)?,
                false => None,
            },
            norm: self.norm()?,
            residual_scale: multiplier("residual_scale")?,
            layers: self.layers(hidden_size, prediction_blocks)?,
            prediction_blocks,
            output_norm: family.output_norm,
            head: match (family.causal, self.has(names::OUTPUT)) {
                (false, _) => Head::None,
                (true, true) => Head::Own,
                (true, false) => Head::Tied,
            },
            logit_scale: 1.0 / multiplier("logit_scale")?,
            final_logit_softcap: reader.cap("final_logit_softcapping", logit_cap)?,
            pooling: self.pooling("pooling_type")?,
            longest_text: reader.size_or_off("max_seq_length", limit::CONTEXT)?,
            dense: self.dense()?,
            classifier: self.classifier()?,
        })
    }

    /// A key that changes the computation and is not computed must not be passed over.
    fn refuse_what_is_not_computed(&self) -> Result<(), EngineError> {
        let (reader, family) = (&self.reader, self.family);
        let refuse = |what: &str, suffix: &str| {
            Err(EngineError::UnsupportedFeature {
                feature: format!("{what} ({})", reader.key(suffix)),
            })
        };
        if reader.count("expert_count")? > 0 {
            return refuse("a mixture of experts", "expert_count");
        }
        let causal = reader.metadata.bool(&reader.key("attention.causal"))?;
        if causal.is_some_and(|causal| causal != family.causal) {
            return refuse(
                "attention in another direction than the family's",
                "attention.causal",
            );
        }
        let window = reader.count("attention.sliding_window")?;
        if matches!(family.windows, Windows::None) && window > 0 {
            return refuse(
                "a sliding window in this family",
                "attention.sliding_window",
            );
        }
        let activation = reader.metadata.str(&reader.key("hidden_activation"))?;
        let known = match family.activation {
            Activation::Silu => "silu",
            Activation::GeluTanh => "gelu_pytorch_tanh",
            Activation::Gelu => "gelu",
        };
        if activation.is_some_and(|activation| activation != known) {
            return refuse("another activation than the family's", "hidden_activation");
        }
        match reader.metadata.str(&reader.key("rope.scaling.type"))? {
            Some("longrope") if !self.has(names::ROPE_FACTORS_LONG) => {
                Err(EngineError::MissingTensor {
                    name: names::ROPE_FACTORS_LONG.to_owned(),
                })
            }
            None | Some("none" | "linear" | "yarn" | "longrope") => Ok(()),
            Some(other) => refuse(
                &format!("rope scaling of type {other:?}"),
                "rope.scaling.type",
            ),
        }
    }

    /// Rows of a matrix that must be there, as many as a vocabulary has at most.
    fn rows(&self, name: &str) -> Result<usize, EngineError> {
        let Some(tensor) = self.table.get(name) else {
            return Err(EngineError::MissingTensor {
                name: name.to_owned(),
            });
        };
        // A single row's dimension may be left out, but a vocabulary is never a single row.
        let single = (name != names::TOKEN_EMBEDDING).then_some(1);
        match tensor.shape.get(1).copied().or(single).unwrap_or(0) {
            rows @ 1..=limit::VOCAB => Ok(rows as usize),
            _ => Err(EngineError::InvalidMetadata {
                key: format!("shape of {name}"),
                found: format!("{:?}", tensor.shape),
                expected: format!(
                    "two dimensions, of which the second is from 1 to {}",
                    limit::VOCAB
                ),
            }),
        }
    }

    fn norm(&self) -> Result<Norm, EngineError> {
        if !self.family.layer_norm {
            let eps = self
                .reader
                .require_positive("attention.layer_norm_rms_epsilon")?;
            return Ok(Norm::Rms { eps });
        }
        Ok(Norm::Layer {
            eps: self
                .reader
                .require_positive("attention.layer_norm_epsilon")?,
            bias: self.has(&names::bias(names::TOKEN_EMBEDDING_NORM)),
        })
    }

    fn pooling(&self, suffix: &str) -> Result<Option<Pooling>, EngineError> {
        let key = self.reader.key(suffix);
        Ok(match self.reader.metadata.u32(&key)? {
            None | Some(0) => None,
            Some(1) => Some(Pooling::Mean),
            Some(2) => Some(Pooling::Cls),
            Some(3) => Some(Pooling::Last),
            Some(4) => Some(Pooling::Rank),
            Some(other) => {
                return Err(EngineError::InvalidMetadata {
                    key,
                    found: other.to_string(),
                    expected: "0 (none), 1 (mean), 2 (cls), 3 (last) or 4 (rank)".to_owned(),
                });
            }
        })
    }

    fn dense(&self) -> Result<Vec<(usize, usize)>, EngineError> {
        let mut dense = Vec::new();
        for name in names::DENSE {
            if let Some(tensor) = self.table.get(name) {
                let columns = tensor.cols();
                if !(1..=limit::HIDDEN as usize).contains(&columns) {
                    return Err(EngineError::InvalidMetadata {
                        key: format!("shape of {name}"),
                        found: format!("{:?}", tensor.shape),
                        expected: format!("1 to {} columns", limit::HIDDEN),
                    });
                }
                dense.push((columns, self.rows(name)?));
            }
        }
        Ok(dense)
    }

    fn classifier(&self) -> Result<Option<Classifier>, EngineError> {
        if !self.has(names::CLASSIFIER) && !self.has(names::CLASSIFIER_OUTPUT) {
            return Ok(None);
        }
        let modern = self.family.architecture == "modern-bert";
        let labels = self
            .reader
            .metadata
            .strings(&self.reader.key("classifier.output_labels"))?;
        let default = match (modern, self.family.causal) {
            (true, _) => Pooling::Mean,
            (false, true) => Pooling::Last,
            (false, false) => Pooling::Cls,
        };
        Ok(Some(Classifier {
            pooling: self.pooling("classifier.pooling_type")?.unwrap_or(default),
            dense: self.has(names::CLASSIFIER).then_some(match modern {
                true => ClassifierActivation::Gelu,
                false => ClassifierActivation::Tanh,
            }),
            dense_bias: self.has(&names::bias(names::CLASSIFIER)),
            norm: self.has(names::CLASSIFIER_NORM),
            labels: self.rows(names::CLASSIFIER_OUTPUT)?,
            output_bias: self.has(&names::bias(names::CLASSIFIER_OUTPUT)),
            softmax: self.family.causal,
            label_names: labels
                .map(|labels| labels.iter().map(str::to_owned).collect())
                .unwrap_or_default(),
        }))
    }
}
