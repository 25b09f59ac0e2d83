//! Reading safetensors files: what is right is read, what is wrong is an error.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{fs, path::PathBuf};

use dunlin_format::{DType, FormatError, SafeTensors};
use proptest::prelude::*;
use tempfile::TempDir;

#[test]
fn reads_tensors_in_the_order_of_their_bytes() {
    let folder = TempDir::new().unwrap();
    let header = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},
        "a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},
        "c":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[16,18]}}"#;
    let data: Vec<u8> = (0..18).collect();
    let file = SafeTensors::open(&write(&folder, header, &data)).unwrap();

    let names: Vec<&str> = file
        .tensors()
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
    let b = file.tensor("b").unwrap();
    assert_eq!(
        (b.dtype, b.shape.as_slice()),
        (Some(DType::BF16), &[2, 3][..])
    );
    assert_eq!(b.byte_len(), 12);
    let mut bytes = [0; 5];
    file.read(b, 7, &mut bytes).unwrap();
    assert_eq!(bytes, [11, 12, 13, 14, 15]);
    let c = file.tensor("c").unwrap();
    assert_eq!((c.dtype, c.dtype_name.as_str()), (None, "F8_E4M3"));
    assert!(file.tensor("d").is_none());
}

#[test]
fn a_read_past_the_end_of_a_tensor_is_refused() {
    let folder = TempDir::new().unwrap();
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                     "b":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
    let file = SafeTensors::open(&write(&folder, header, &[0; 8])).unwrap();
    let a = file.tensor("a").unwrap();
    for offset in [3, 4, u64::MAX] {
        let error = file.read(a, offset, &mut [0; 2]).unwrap_err();
        assert!(error.to_string().contains("`a` ends before"), "{error}");
    }
}

#[test]
fn wrong_headers_are_refused() {
    let tensor = |offsets: &str| {
        format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#)
    };
    let huge = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#;
    for (what, header, data) in [
        ("shorter than the header says", tensor("[0,8]"), 7),
        ("longer than the header says", tensor("[0,8]"), 9),
        ("offsets that run backwards", tensor("[8,0]"), 8),
        ("offsets past the end", tensor("[0,800]"), 8),
        ("a hole", tensor("[8,16]"), 16),
        ("bytes that do not match the shape", tensor("[0,12]"), 12),
        ("a shape that overflows", huge.to_owned(), 0),
        ("a negative offset", tensor("[-8,0]"), 8),
        (
            "a type that does not exist",
            tensor("[0,8]").replace("F32", "F33"),
            8,
        ),
        ("no JSON", "{".to_owned(), 0),
        ("an array", "[]".to_owned(), 0),
    ] {
        let folder = TempDir::new().unwrap();
        let error = SafeTensors::open(&write(&folder, &header, &vec![0; data])).unwrap_err();
        assert!(
            matches!(error, FormatError::SafeTensors { .. }),
            "{what}: {error}"
        );
    }
}

#[test]
fn overlapping_tensors_are_refused() {
    let folder = TempDir::new().unwrap();
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                     "b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    let error = SafeTensors::open(&write(&folder, header, &[0; 6])).unwrap_err();
    assert!(matches!(error, FormatError::SafeTensors { .. }), "{error}");
}

#[test]
fn a_header_length_that_is_a_lie_is_refused() {
    for length in [3, (16 << 20) + 1, u64::from(u32::MAX), u64::MAX] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, [&length.to_le_bytes()[..], b"{}"].concat()).unwrap();
        let error = SafeTensors::open(&path).unwrap_err();
        assert!(
            matches!(error, FormatError::SafeTensors { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_file_too_short_for_a_length_is_refused() {
    for length in 0..8 {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.safetensors");
        fs::write(&path, vec![0; length]).unwrap();
        let error = SafeTensors::open(&path).unwrap_err();
        assert!(
            matches!(error, FormatError::SafeTensors { .. }),
            "{length}: {error}"
        );
    }
}

#[test]
fn a_file_that_shrank_gives_an_error() {
    let folder = TempDir::new().unwrap();
    let header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#;
    let path = write(&folder, header, &[0; 4]);
    let file = SafeTensors::open(&path).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(20)
        .unwrap();
    let error = file
        .read(file.tensor("a").unwrap(), 0, &mut [0; 4])
        .unwrap_err();
    assert!(matches!(error, FormatError::Io { .. }), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_give_a_value_or_an_error(header in "[\\[\\]{}:,\"a-c0-9\\-]{0,60}", data in 0usize..9) {
        let folder = TempDir::new().unwrap();
        let _ = SafeTensors::open(&write(&folder, &header, &vec![0; data]));
    }
}

fn write(folder: &TempDir, header: &str, data: &[u8]) -> PathBuf {
    let path = folder.path().join("model.safetensors");
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&path, [&length, header.as_bytes(), data].concat()).unwrap();
    path
}
