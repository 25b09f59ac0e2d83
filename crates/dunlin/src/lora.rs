//! Low-rank adapters of a model, from GGUF files and PEFT folders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_convert::{AttentionHeads, PeftAdapter, PeftMatrix};
use dunlin_engine::{AdapterId, AdapterUse, LoraMatrix, LoraPair, ModelSpec};
use dunlin_format::Gguf;

use crate::{Error, Lm};

/// A LoRA adapter, not yet bound to a model. Clones are cheap.
///
/// ```no_run
/// use dunlin::{GenerateOptions, Lm, LoraAdapter, Prompt};
///
/// let lm = Lm::load_from_model_id("smollm2:135m")?;
/// let pirate = lm.add_adapter(&LoraAdapter::load("pirate-lora")?)?;
/// let options = GenerateOptions::new().with_adapter(pirate, 0.8);
/// println!("{}", lm.generate(&Prompt::from("The sea"), &options)?.complete()?.text);
/// # Ok::<(), dunlin::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LoraAdapter {
    path: PathBuf,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Gguf(dunlin_engine::LoraAdapter),
    Peft(Arc<PeftAdapter>),
}

impl LoraAdapter {
    /// Opens an adapter: a GGUF file as llama.cpp's converter makes it, or a folder as PEFT saves it (or the
    /// `adapter_model.safetensors` in it). Its numbers are read when it is added to a model; the files must stay until then.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that cannot be read, [`Error::Engine`] and [`Error::Convert`] for one that is no adapter,
    /// or one that does more than change linear layers by pairs of matrices.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let is_safetensors = path.extension().is_some_and(|end| end == "safetensors");
        let source = match path.is_dir() || is_safetensors {
            true => Source::Peft(Arc::new(PeftAdapter::open(path)?)),
            false => {
                let gguf = Arc::new(Gguf::open(path)?);
                Source::Gguf(dunlin_engine::LoraAdapter::from_gguf(&gguf)?)
            }
        };
        let path = path.to_owned();
        Ok(LoraAdapter { path, source })
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the model's matrices that it changes.
    #[must_use]
    pub fn matrices(&self) -> usize {
        match &self.source {
            Source::Gguf(adapter) => adapter.pairs().len(),
            Source::Peft(adapter) => adapter.modules(),
        }
    }

    /// The adapter as a model of this description takes it.
    fn for_model(&self, spec: &ModelSpec) -> Result<dunlin_engine::LoraAdapter, Error> {
        let peft = match &self.source {
            Source::Gguf(adapter) => return Ok(adapter.clone()),
            Source::Peft(peft) => peft,
        };
        let heads = |layer: usize| {
            let attention = spec.layers.get(layer)?.attention()?;
            Some(AttentionHeads {
                queries: attention.head_count,
                keys: attention.head_count_kv,
                width: attention.head_dim_k,
            })
        };
        let pairs = peft.pairs(&spec.architecture, &heads)?;
        let pairs = pairs.into_iter().map(|pair| LoraPair {
            tensor: pair.tensor,
            a: matrix(pair.a),
            b: matrix(pair.b),
            scale: pair.scale,
        });
        let architecture = spec.architecture.as_str();
        Ok(dunlin_engine::LoraAdapter::new(
            architecture,
            pairs.collect(),
        ))
    }
}

fn matrix(matrix: PeftMatrix) -> LoraMatrix {
    let name = matrix.name().to_owned();
    let (dtype, rows, cols) = (matrix.dtype(), matrix.rows(), matrix.cols());
    LoraMatrix::new(name, dtype, rows, cols, move || matrix.read())
}

impl Lm {
    /// Reads an adapter and binds it to this model. Generations use it that name it
    /// ([`GenerateOptions::with_adapter`](crate::GenerateOptions::with_adapter)); the model's own weights stay as they are, and
    /// nothing else becomes slower. From one generation to the next other adapters can be named at no cost, but what earlier
    /// prompts have left in the cache is only found again with the same adapters and scales.
    ///
    /// Waits while a generation of this model is unfinished.
    ///
    /// # Errors
    /// [`Error::Engine`] where the adapter does not fit the model (its architecture, names or shapes), holds numbers that are
    /// not finite, or the model does not write; [`Error::Convert`] for modules that the model does not have.
    pub fn add_adapter(&self, adapter: &LoraAdapter) -> Result<AdapterId, Error> {
        let adapter = adapter.for_model(self.spec())?;
        Ok(self.lock().add_adapter(&adapter)?)
    }

    /// Forgets an adapter and gives its memory back.
    ///
    /// # Errors
    /// [`EngineError::UnknownAdapter`](crate::EngineError::UnknownAdapter) for one that was removed, or is another model's.
    pub fn remove_adapter(&self, adapter: AdapterId) -> Result<(), Error> {
        Ok(self.lock().remove_adapter(adapter)?)
    }

    /// Bytes of memory that the adapters take.
    #[must_use]
    pub fn adapter_bytes(&self) -> u64 {
        self.lock().adapter_bytes()
    }

    /// As [`Lm::logits`], with these adapters.
    ///
    /// # Errors
    /// As [`Lm::logits`], and [`Error::Engine`] for adapters that the model does not have, that are named twice, or whose scale
    /// is not finite.
    pub fn logits_with_adapters(
        &self,
        ids: &[dunlin_text::TokenId],
        positions: &[usize],
        adapters: &[AdapterUse],
    ) -> Result<Vec<Vec<f32>>, Error> {
        self.scores(ids, positions, adapters)
    }
}
