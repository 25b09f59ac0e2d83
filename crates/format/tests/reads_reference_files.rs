//! Files that the `gguf` package of PyPI wrote (see `fixtures/make_fixtures.py`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use dunlin_format::{Array, DType, FormatError, Gguf, Value, decode, validate};

#[test]
fn reads_every_metadata_type() {
    let gguf = Gguf::open(&fixture("every_value.gguf")).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.architecture(), Some("test"));
    let expected: [(&str, Value); 25] = [
        ("value.u8", u8::MAX.into()),
        ("value.i8", i8::MIN.into()),
        ("value.u16", u16::MAX.into()),
        ("value.i16", i16::MIN.into()),
        ("value.u32", u32::MAX.into()),
        ("value.i32", i32::MIN.into()),
        ("value.u64", u64::MAX.into()),
        ("value.i64", i64::MIN.into()),
        ("value.f32", 0.1f32.into()),
        ("value.f64", 0.1f64.into()),
        ("value.true", true.into()),
        ("value.string", "Ente 🦆".into()),
        ("array.u8", vec![0u8, 255].into()),
        ("array.i8", vec![-1i8, 1].into()),
        ("array.u16", vec![1u16, 2].into()),
        ("array.i16", vec![-1i16, 2].into()),
        ("array.u32", vec![1u32, 2, 3].into()),
        ("array.i32", vec![-1i32].into()),
        ("array.u64", vec![1u64 << 63].into()),
        ("array.i64", vec![i64::MIN].into()),
        ("array.f32", vec![0.5f32, -0.25].into()),
        ("array.f64", vec![0.1f64].into()),
        ("array.bool", vec![true, false, true].into()),
        ("array.string", texts(&["", "a", "für", "🦆"]).into()),
        (
            "array.nested",
            vec![texts(&["a", "b"]), texts(&["c"])].into(),
        ),
    ];
    for (key, value) in &expected {
        assert_eq!(gguf.metadata().get(key), Some(value), "{key}");
    }
    assert_eq!(gguf.metadata().bool("value.false").unwrap(), Some(false));
    // And `general.architecture`.
    assert_eq!(gguf.metadata().len(), expected.len() + 2);
}

#[test]
fn reads_tensors_of_several_types() {
    let gguf = Gguf::open(&fixture("every_value.gguf")).unwrap();
    let names: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, ["ramp.f32", "ramp.f16", "ramp.q8_0", "odd.f32"]);
    let ramp: Vec<f32> = (0..64).map(|index| index as f32).collect();
    assert_eq!(weights(&gguf, "ramp.f32"), ramp);
    assert_eq!(weights(&gguf, "ramp.f16"), ramp);
    assert_eq!(weights(&gguf, "odd.f32"), [1.5, -2.5, 3.5]);

    let q8 = gguf.tensor("ramp.q8_0").unwrap();
    assert_eq!((q8.dtype, q8.cols(), q8.rows()), (DType::Q8_0, 32, 2));
    assert_eq!((q8.elements(), q8.byte_len()), (64, 68));
    // Half a step of the largest scale (63 / 127), and the rounding of that scale to a half.
    for (weight, expected) in weights(&gguf, "ramp.q8_0").iter().zip(ramp) {
        assert!((weight - expected).abs() <= 63.0 / 127.0 * 0.5 + 63.0 / 2048.0);
    }
}

#[test]
fn version_2_is_read_as_version_3() {
    let mut bytes = fs::read(fixture("every_value.gguf")).unwrap();
    let third = Gguf::from_bytes(bytes.clone()).unwrap();
    bytes[4] = 2;
    let second = Gguf::from_bytes(bytes).unwrap();
    assert_eq!(second.version(), 2);
    assert_eq!(second.metadata(), third.metadata());
    assert_eq!(second.tensors(), third.tensors());
}

#[test]
fn a_big_endian_file_is_refused_as_such() {
    let error = Gguf::open(&fixture("big_endian.gguf")).unwrap_err();
    assert!(matches!(error, FormatError::BigEndian), "{error}");
}

#[test]
fn any_part_of_a_split_model_opens_it_all() {
    for number in 1..=3 {
        let gguf = Gguf::open(&fixture(&format!("parts-0000{number}-of-00003.gguf"))).unwrap();
        assert_eq!(gguf.parts(), 3);
        assert_eq!(gguf.architecture(), Some("test"));
        for index in 0..3 {
            assert_eq!(
                weights(&gguf, &format!("tensor.{index}")),
                [index as f32; 8]
            );
        }
    }
}

#[test]
fn validation_describes_all_parts() {
    let report = validate(&fixture("parts-00001-of-00003.gguf")).unwrap();
    assert!(report.is_ok());
    assert_eq!(
        (report.version, report.parts, report.tensor_count),
        (3, 3, 3)
    );
    assert_eq!((report.elements, report.tensor_bytes), (24, 96));
    assert_eq!(report.file_bytes, 256 + 192 + 192);
    assert_eq!(report.dtypes.len(), 1);
    assert_eq!(
        (report.dtypes[0].dtype, report.dtypes[0].tensors),
        (DType::F32, 3)
    );
    assert_eq!(report.warnings, [""; 0]);
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn texts(texts: &[&str]) -> Array {
    Array::String(texts.iter().collect())
}

fn weights(gguf: &Gguf, name: &str) -> Vec<f32> {
    let tensor = gguf.tensor(name).unwrap();
    let mut weights = vec![0.0; tensor.elements() as usize];
    decode(tensor.dtype, gguf.data(tensor), &mut weights).unwrap();
    weights
}
