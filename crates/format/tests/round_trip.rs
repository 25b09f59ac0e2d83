//! What the writer writes, the reader reads.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::BTreeMap, fs, io};

use dunlin_format::{Array, DType, FormatError, Gguf, GgufWriter, Metadata, Value};
use proptest::{collection::vec, prelude::*};

/// A tensor's shape, type and bytes.
type Tensor = (Vec<u64>, DType, Vec<u8>);

proptest! {
    #[test]
    fn any_model_survives(
        entries in vec((key(), value()), 0..12),
        tensors in proptest::collection::btree_map(key(), tensor(), 0..6),
        alignment in proptest::option::of((3u32..8).prop_map(|power| 1 << power)),
    ) {
        let mut metadata: Metadata = entries.into_iter().collect();
        if let Some(alignment) = alignment {
            metadata.insert("general.alignment", alignment as u32);
        }
        let file = write(&metadata, &tensors);
        let gguf = Gguf::from_bytes(file.clone()).unwrap();

        prop_assert_eq!(gguf.version(), 3);
        prop_assert_eq!(gguf.metadata(), &metadata);
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        prop_assert_eq!(gguf.file_bytes(), file.len() as u64);
        for (name, (shape, dtype, bytes)) in &tensors {
            let tensor = gguf.tensor(name).unwrap();
            prop_assert_eq!(&tensor.shape, shape);
            prop_assert_eq!(tensor.dtype, *dtype);
            prop_assert_eq!(gguf.data(tensor), bytes.as_slice());
            prop_assert_eq!(tensor.file_range().start % u64::from(alignment.unwrap_or(32) as u32), 0);
        }
    }
}

fn write(metadata: &Metadata, tensors: &BTreeMap<String, Tensor>) -> Vec<u8> {
    let mut writer = GgufWriter::new(metadata.clone());
    for (index, (name, (shape, dtype, bytes))) in tensors.iter().enumerate() {
        match index % 2 {
            0 => writer.add_tensor(name, shape, *dtype, bytes),
            _ => writer.add_tensor_with(name, shape, *dtype, move |out| out.write_all(bytes)),
        };
    }
    let mut file = Vec::new();
    let length = writer.write(&mut file).unwrap();
    assert_eq!(length, file.len() as u64);
    file
}

fn key() -> impl Strategy<Value = String> {
    // Not `general.alignment`, which means something.
    "[a-z🦆]{0,3}[.][a-zß_]{0,8}"
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        ".*".prop_map(Value::from),
        array().prop_map(Value::from),
    ]
}

fn array() -> impl Strategy<Value = Array> {
    let flat = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::from),
        vec(any::<i8>(), 0..9).prop_map(Array::from),
        vec(any::<u16>(), 0..9).prop_map(Array::from),
        vec(any::<i16>(), 0..9).prop_map(Array::from),
        vec(any::<u32>(), 0..9).prop_map(Array::from),
        vec(any::<i32>(), 0..9).prop_map(Array::from),
        vec(any::<u64>(), 0..9).prop_map(Array::from),
        vec(any::<i64>(), 0..9).prop_map(Array::from),
        vec(any::<f32>(), 0..9).prop_map(Array::from),
        vec(any::<f64>(), 0..9).prop_map(Array::from),
        vec(any::<bool>(), 0..9).prop_map(Array::from),
        vec(".*", 0..9).prop_map(|texts| Array::String(texts.iter().collect())),
    ];
    flat.prop_recursive(3, 24, 4, |inner| vec(inner, 0..4).prop_map(Array::from))
}

fn tensor() -> impl Strategy<Value = Tensor> {
    let dtypes: Vec<DType> = DType::all().collect();
    (
        proptest::sample::select(dtypes),
        1usize..4,
        vec(1u64..4, 0..4),
    )
        .prop_flat_map(|(dtype, blocks, lengths)| {
            let rows: u64 = lengths.iter().product();
            let bytes = blocks * dtype.block_bytes() * rows as usize;
            let mut shape = vec![(blocks * dtype.block_len()) as u64];
            shape.extend(lengths);
            (Just(shape), Just(dtype), vec(any::<u8>(), bytes))
        })
}

#[test]
fn refuses_what_it_could_not_read_back() {
    let f32s = DType::F32;
    let write = |build: &dyn Fn(&mut GgufWriter)| {
        let mut writer = GgufWriter::new(Metadata::new());
        build(&mut writer);
        let mut file = Vec::new();
        let error = writer.write(&mut file).unwrap_err();
        assert_eq!(file, b"", "nothing is written before everything is checked");
        error
    };

    let error = write(&|writer| {
        writer.add_tensor("a", &[1], f32s, [0; 4].as_slice());
        writer.add_tensor("a", &[1], f32s, [0; 4].as_slice());
    });
    assert!(
        matches!(error, FormatError::DuplicateTensor { .. }),
        "{error}"
    );
    let error = write(&|writer| {
        writer.add_tensor("a", &[2], f32s, [0; 4].as_slice());
    });
    assert!(
        matches!(
            error,
            FormatError::TensorLength {
                expected: 8,
                found: 4,
                ..
            }
        ),
        "{error}"
    );
    let error = write(&|writer| {
        writer.add_tensor("a", &[16], DType::Q8_0, [0; 17].as_slice());
    });
    assert!(matches!(error, FormatError::PartialBlock { .. }), "{error}");
    let error = write(&|writer| {
        writer.add_tensor("a", &[1; 5], f32s, [0; 4].as_slice());
    });
    assert!(
        matches!(error, FormatError::DimensionCount { dimensions: 5, .. }),
        "{error}"
    );
    let error = write(&|writer| {
        writer.metadata_mut().insert("general.alignment", 24u32);
    });
    assert!(
        matches!(error, FormatError::BadAlignment { alignment: 24 }),
        "{error}"
    );
    let error = write(&|writer| {
        let deep = (0..4).fold(Array::from(vec![1u8]), |array, _| Array::from(vec![array]));
        writer.metadata_mut().insert("deep", deep);
    });
    assert!(matches!(error, FormatError::ArrayTooDeep { .. }), "{error}");
}

#[test]
fn a_file_appears_only_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, "the old file").unwrap();

    let mut writer = GgufWriter::new(Metadata::new());
    writer.add_tensor_with("a", &[2], DType::F32, |_| Err(io::Error::other("no data")));
    let error = writer.write_to(&path).unwrap_err();
    assert!(matches!(error, FormatError::Write(_)), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"the old file");

    for bytes in [4, 12] {
        let mut writer = GgufWriter::new(Metadata::new());
        writer.add_tensor_with("a", &[2], DType::F32, move |out| {
            out.write_all(&vec![1; bytes])
        });
        let error = writer.write_to(&path).unwrap_err();
        assert!(
            matches!(error, FormatError::TensorLength { expected: 8, .. }),
            "{error}"
        );
        assert_eq!(fs::read(&path).unwrap(), b"the old file");
    }

    let mut writer = GgufWriter::new(Metadata::new());
    writer.add_tensor_with("a", &[2], DType::F32, |out| out.write_all(&[7; 8]));
    let length = writer.write_to(&path).unwrap();
    assert_eq!(length, fs::metadata(&path).unwrap().len());
    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.data(gguf.tensor("a").unwrap()), [7; 8]);
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no half-made file is left"
    );
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    // Stands for a device: renaming over a folder fails anyway, over a socket or /dev/null it does not.
    let taken = folder.path().join("model.gguf");
    let _socket = std::os::unix::net::UnixListener::bind(&taken).unwrap();

    let refused = GgufWriter::new(Metadata::new()).write_to(&taken);

    assert!(
        matches!(refused, Err(FormatError::Io { .. })),
        "{refused:?}"
    );
    assert!(!fs::metadata(&taken).unwrap().is_file());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn released_pages_come_back_from_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    let tensor = (vec![100_000], DType::I8, bytes.clone());
    let tensors = BTreeMap::from([("weights".to_owned(), tensor)]);
    fs::write(&path, write(&Metadata::new(), &tensors)).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    for _ in 0..3 {
        assert_eq!(gguf.data(&gguf.tensors()[0]), bytes.as_slice());
        gguf.release_pages();
    }
}
