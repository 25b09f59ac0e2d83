//! Folders to convert: the one of `fixtures/make_tiny_llama.py`, copied so that a test can spoil it.
#![allow(dead_code, reason = "each test file uses some of it")]

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use dunlin_convert::{ConvertError, ConvertOptions, Folder, OutputType, Report, convert};
use dunlin_format::{Gguf, SafeTensors};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

pub(crate) const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// A tensor of a safetensors file: name, type, shape, bytes.
pub(crate) type Tensor = (String, &'static str, Vec<u64>, Vec<u8>);

/// A model folder of its own, gone with the value.
pub(crate) struct Work {
    pub(crate) folder: TempDir,
}

impl Work {
    /// An untouched copy of the tiny Llama.
    pub(crate) fn tiny_llama() -> Self {
        Self::copy_of(&Path::new(FIXTURES).join("tiny-llama"))
    }

    /// A copy of a folder without what lies in its folders.
    pub(crate) fn copy_of(folder: &Path) -> Self {
        let work = Self::empty();
        let paths = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for path in paths.filter(|path| path.is_file()) {
            let copy = work.path().join(path.file_name().unwrap());
            fs::write(copy, fs::read(&path).unwrap()).unwrap();
        }
        work
    }

    /// A copy whose weights are in one file, changed by `change`.
    pub(crate) fn with_weights(change: impl FnOnce(&mut Vec<Tensor>)) -> Self {
        let work = Self::tiny_llama();
        let mut tensors = Vec::new();
        for part in [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ] {
            let path = work.path().join(part);
            let file = SafeTensors::open(&path).unwrap();
            for tensor in file.tensors() {
                let mut bytes = vec![0; tensor.byte_len() as usize];
                file.read(tensor, 0, &mut bytes).unwrap();
                tensors.push((tensor.name.clone(), "BF16", tensor.shape.clone(), bytes));
            }
            fs::remove_file(path).unwrap();
        }
        fs::remove_file(work.path().join("model.safetensors.index.json")).unwrap();
        change(&mut tensors);
        work.write_weights("model.safetensors", &tensors);
        work
    }

    pub(crate) fn empty() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Changes a file of JSON; `Value::Null` removes an entry.
    pub(crate) fn edit(&self, file: &str, entries: Value) -> &Self {
        let path = self.file(file);
        let mut json: Map<String, Value> =
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for (key, value) in entries.as_object().unwrap() {
            match value {
                Value::Null => json.remove(key),
                value => json.insert(key.clone(), value.clone()),
            };
        }
        fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
        self
    }

    pub(crate) fn write_weights(&self, file: &str, tensors: &[Tensor]) {
        let mut header = Map::new();
        let mut data = Vec::new();
        for (name, dtype, shape, bytes) in tensors {
            let start = data.len();
            data.extend(bytes);
            let entry =
                json!({"dtype": dtype, "shape": shape, "data_offsets": [start, data.len()]});
            header.insert(name.clone(), entry);
        }
        let header = serde_json::to_vec(&header).unwrap();
        let length = (header.len() as u64).to_le_bytes();
        fs::write(self.file(file), [&length[..], &header, &data].concat()).unwrap();
    }

    pub(crate) fn convert(&self, dtype: OutputType) -> Result<(Gguf, Report), ConvertError> {
        let out = TempDir::new().unwrap();
        let path = out.path().join("model.gguf");
        let options = ConvertOptions {
            dtype,
            name: Some("Tiny".to_owned()),
        };
        let folder = Folder::open(self.path())?;
        let report = convert(&folder, &options, &path, &mut |_, _| {
            ControlFlow::Continue(())
        });
        let files = fs::read_dir(out.path()).unwrap().count();
        match report {
            Ok(report) => Ok((Gguf::from_bytes(fs::read(path).unwrap()).unwrap(), report)),
            Err(error) => {
                assert_eq!(files, 0, "something was left behind: {error}");
                Err(error)
            }
        }
    }

    /// The error of a folder that cannot be converted.
    pub(crate) fn refusal(&self) -> ConvertError {
        match self.convert(OutputType::F32) {
            Ok(_) => panic!("it was converted"),
            Err(error) => error,
        }
    }
}

/// A tensor whose numbers count up, so that each can be told.
pub(crate) fn ramp(name: &str, shape: &[u64]) -> Tensor {
    let count = shape.iter().product::<u64>();
    let bytes = (0..count).flat_map(|number| (number as f32).to_le_bytes());
    (name.to_owned(), "F32", shape.to_vec(), bytes.collect())
}
