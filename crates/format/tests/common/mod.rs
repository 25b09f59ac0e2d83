//! GGUF files made byte by byte, so that each byte can be wrong. Shares nothing with the writer.
#![allow(dead_code, reason = "each test file uses some of it")]

/// Type numbers of metadata values, as the GGUF specification has them.
pub(crate) mod kind {
    pub(crate) const U8: u32 = 0;
    pub(crate) const U32: u32 = 4;
    pub(crate) const I32: u32 = 5;
    pub(crate) const F32: u32 = 6;
    pub(crate) const BOOL: u32 = 7;
    pub(crate) const STRING: u32 = 8;
    pub(crate) const ARRAY: u32 = 9;
}

/// Type number of an F32 tensor.
pub(crate) const F32: u32 = 0;
/// Type number of a Q4_0 tensor (blocks of 32).
pub(crate) const Q4_0: u32 = 2;

/// A file under construction. The default is valid and empty.
#[derive(Clone)]
pub(crate) struct Raw {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    /// What the head says, where it is not the truth.
    pub(crate) tensor_count: Option<u64>,
    pub(crate) entry_count: Option<u64>,
    pub(crate) alignment: usize,
    entries: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: Vec<u8>,
}

impl Raw {
    pub(crate) fn new() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            entry_count: None,
            alignment: 32,
            entries: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
        }
    }

    /// With a name for the architecture, as every model has.
    pub(crate) fn model() -> Self {
        Self::new().entry("general.architecture", kind::STRING, &text(b"test"))
    }

    pub(crate) fn entry(self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.raw_entry(&[&text(key.as_bytes()), &kind.to_le_bytes()[..], value].concat())
    }

    pub(crate) fn raw_entry(mut self, bytes: &[u8]) -> Self {
        self.entries.push(bytes.to_vec());
        self
    }

    pub(crate) fn u32(self, key: &str, value: u32) -> Self {
        self.entry(key, kind::U32, &value.to_le_bytes())
    }

    pub(crate) fn tensor(self, name: &str, shape: &[u64], dtype: u32, offset: u64) -> Self {
        let shape: Vec<u8> = shape
            .iter()
            .flat_map(|length| length.to_le_bytes())
            .collect();
        let dimensions = (shape.len() / 8) as u32;
        self.raw_tensor(
            &[
                &text(name.as_bytes()),
                &dimensions.to_le_bytes()[..],
                &shape,
                &dtype.to_le_bytes(),
                &offset.to_le_bytes(),
            ]
            .concat(),
        )
    }

    pub(crate) fn raw_tensor(mut self, bytes: &[u8]) -> Self {
        self.tensors.push(bytes.to_vec());
        self
    }

    pub(crate) fn data(mut self, bytes: usize) -> Self {
        self.data = (0..bytes).map(|byte| byte as u8).collect();
        self
    }

    /// Where the tensor table starts.
    pub(crate) fn table_start(&self) -> usize {
        24 + self.entries.concat().len()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        bytes.extend(
            self.entry_count
                .unwrap_or(self.entries.len() as u64)
                .to_le_bytes(),
        );
        bytes.extend(self.entries.concat());
        bytes.extend(self.tensors.concat());
        if !self.data.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
            bytes.extend(&self.data);
        }
        bytes
    }
}

/// A text as GGUF writes it: length, bytes.
pub(crate) fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// An array as GGUF writes it: type, count, elements.
pub(crate) fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

/// An array of texts.
pub(crate) fn texts(texts: &[&str]) -> Vec<u8> {
    let elements: Vec<u8> = texts.iter().flat_map(|one| text(one.as_bytes())).collect();
    array(kind::STRING, texts.len() as u64, &elements)
}
