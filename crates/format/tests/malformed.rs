//! Files that are wrong in one way each, and the one error that says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::{
    fs::{self, File},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use common::{F32, Q4_0, Raw, array, kind, text, texts};
use dunlin_format::{DType, FormatError, Gguf, validate};
use peak_alloc::PeakAlloc;

/// What no malformed file may cost, in bytes.
const MEMORY_LIMIT: usize = 64 << 20;

struct Case {
    name: &'static str,
    /// Names and bytes; the first is opened.
    files: Vec<(&'static str, Vec<u8>)>,
    is_expected: fn(&FormatError) -> bool,
}

/// `name, bytes => error`: a file with these bytes gives this error.
macro_rules! cases {
    ($($name:literal, $bytes:expr => $error:pat $(if $condition:expr)?,)*) => {
        vec![$(Case {
            name: $name,
            files: vec![("model.gguf", $bytes)],
            is_expected: |error| matches!(error, $error $(if $condition)?),
        }),*]
    };
}

/// `name, [file, bytes; ...] => error`: the first of these files gives this error.
macro_rules! split_cases {
    ($($name:literal, [$($file:expr, $bytes:expr);*] => $error:pat $(if $condition:expr)?,)*) => {
        vec![$(Case {
            name: $name,
            files: vec![$(($file, $bytes)),*],
            is_expected: |error| matches!(error, $error $(if $condition)?),
        }),*]
    };
}

fn head_cases() -> Vec<Case> {
    use FormatError as E;
    let with = |change: fn(&mut Raw)| {
        let mut raw = Raw::model();
        change(&mut raw);
        raw.bytes()
    };
    let valid = Raw::model().bytes();
    cases! {
        "an empty file", vec![] => E::Truncated { at: 0, left: 0, .. },
        "half a magic number", b"GG".to_vec() => E::Truncated { at: 0, needed: 4, left: 2, .. },
        "another magic number", with(|raw| raw.magic = *b"GGML") => E::BadMagic { found } if found == b"GGML",
        "an error page", b"<!DOCTYPE html>".to_vec() => E::BadMagic { .. },
        "the magic number backwards", with(|raw| raw.magic = *b"FUGG") => E::BigEndian,
        "version 0", with(|raw| raw.version = 0) => E::UnsupportedVersion { version: 0 },
        "version 1", with(|raw| raw.version = 1) => E::UnsupportedVersion { version: 1 },
        "version 4", with(|raw| raw.version = 4) => E::UnsupportedVersion { version: 4 },
        "version 99", with(|raw| raw.version = 99) => E::UnsupportedVersion { version: 99 },
        "a big-endian version", with(|raw| raw.version = 3 << 24) => E::BigEndian,
        "cut in the version", valid[..6].to_vec() => E::Truncated { at: 4, needed: 4, left: 2, .. },
        "cut in the tensor count", valid[..12].to_vec() => E::Truncated { at: 8, .. },
        "cut in the metadata count", valid[..20].to_vec() => E::Truncated { at: 16, .. },
        "a tensor count near 2^63", with(|raw| raw.tensor_count = Some(1 << 63)) => E::CountTooLarge { at: 8, .. },
        "a tensor count of 2^64 - 1", with(|raw| raw.tensor_count = Some(u64::MAX)) => E::CountTooLarge { at: 8, .. },
        "a metadata count near 2^63", with(|raw| raw.entry_count = Some((1 << 63) - 1)) => E::CountTooLarge { at: 16, .. },
        "one metadata entry too many", with(|raw| raw.entry_count = Some(2)) => E::Truncated { .. },
        "one tensor too many", Raw::model().bytes().tap(|bytes| bytes[8] = 1) => E::Truncated { .. },
    }
}

fn metadata_cases() -> Vec<Case> {
    use FormatError as E;
    let key = |bytes: &[u8]| Raw::new().raw_entry(&[bytes, &[0; 16]].concat()).bytes();
    let value = |kind: u32, value: &[u8]| Raw::new().entry("k", kind, value).bytes();
    let nested = |depth: usize| {
        let innermost = array(kind::U8, 1, &[7]);
        (1..depth).fold(innermost, |inner, _| array(kind::ARRAY, 1, &inner))
    };
    let twice = Raw::new()
        .u32("twice", 1)
        .u32("other", 2)
        .u32("twice", 1)
        .bytes();
    let huge = u64::MAX / 2 + 1;
    cases! {
        "a key length past the end", key(&1000u64.to_le_bytes()) => E::CountTooLarge { at: 24, count: 1000, .. },
        "a key length near 2^63", key(&huge.to_le_bytes()) => E::CountTooLarge { at: 24, .. },
        "a key that is not UTF-8", key(&text(&[b'a', 0xff])) => E::InvalidUtf8 { at: 33, .. },
        "a key cut in a character", key(&text("ü".as_bytes()[..1].as_ref())) => E::InvalidUtf8 { at: 32, .. },
        "the same key twice", twice => E::DuplicateKey { key, at: 66 } if key == "twice",
        "cut in a value type", Raw::new().raw_entry(&text(b"long enough")).raw_entry(&[4]).tap(|raw| raw.entry_count = Some(1)).bytes() => E::Truncated { needed: 4, left: 1, .. },
        "value type 13", value(13, &[0; 8]) => E::UnknownValueType { id: 13, at: 33, .. },
        "value type 2^32 - 1", value(u32::MAX, &[0; 8]) => E::UnknownValueType { id: u32::MAX, .. },
        "cut in a number", value(kind::U32, &[1, 2]) => E::Truncated { needed: 4, left: 2, .. },
        "a truth value of 2", value(kind::BOOL, &[2]) => E::InvalidBool { value: 2, at: 37, .. },
        "a text length past the end", value(kind::STRING, &[9, 0, 0, 0, 0, 0, 0, 0]) => E::CountTooLarge { count: 9, .. },
        "a text that is not UTF-8", value(kind::STRING, &text(b"ok\xc0\x80")) => E::InvalidUtf8 { at: 47, .. },
        "cut in an array's type", value(kind::ARRAY, &[0, 0]) => E::Truncated { needed: 4, left: 2, .. },
        "cut in an array's length", value(kind::ARRAY, &array(kind::U8, 0, &[])[..6]) => E::Truncated { needed: 8, left: 2, .. },
        "an array of unknown type", value(kind::ARRAY, &array(77, 1, &[0; 8])) => E::UnknownValueType { id: 77, .. },
        "an array longer than the file", value(kind::ARRAY, &array(kind::F32, 3, &[0; 11])) => E::CountTooLarge { count: 3, left: 11, .. },
        "an array length near 2^63", value(kind::ARRAY, &array(kind::U32, huge, &[0; 8])) => E::CountTooLarge { .. },
        "an array length that overflows in bytes", value(kind::ARRAY, &array(kind::U32, (1 << 62) + 1, &[0; 8])) => E::CountTooLarge { .. },
        "an array of texts near 2^63", value(kind::ARRAY, &array(kind::STRING, huge, &[0; 8])) => E::CountTooLarge { .. },
        "an array's text past the end", value(kind::ARRAY, &array(kind::STRING, 1, &99u64.to_le_bytes())) => E::CountTooLarge { count: 99, .. },
        "an array's text that is not UTF-8", value(kind::ARRAY, &array(kind::STRING, 2, &[text(b"a"), text(b"\xe2\x82")].concat())) => E::InvalidUtf8 { .. },
        "half a character in each of two texts", value(kind::ARRAY, &array(kind::STRING, 2, &[text(b"\xc3"), text(b"\xbc")].concat())) => E::InvalidUtf8 { .. },
        "an array with a truth value of 255", value(kind::ARRAY, &array(kind::BOOL, 3, &[0, 1, 255])) => E::InvalidBool { value: 255, at: 51, .. },
        "an array of arrays near 2^63", value(kind::ARRAY, &array(kind::ARRAY, huge, &[0; 12])) => E::CountTooLarge { .. },
        "arrays nested five deep", value(kind::ARRAY, &nested(5)) => E::ArrayTooDeep { limit: 4, .. },
        "arrays nested a thousand deep", value(kind::ARRAY, &nested(1000)) => E::ArrayTooDeep { limit: 4, .. },
        "alignment 0", Raw::model().u32("general.alignment", 0).bytes() => E::BadAlignment { alignment: 0 },
        "alignment 4", Raw::model().u32("general.alignment", 4).bytes() => E::BadAlignment { alignment: 4 },
        "alignment 48", Raw::model().u32("general.alignment", 48).bytes() => E::BadAlignment { alignment: 48 },
        "an alignment that is a text", Raw::model().entry("general.alignment", kind::STRING, &text(b"32")).bytes() => E::WrongType { found: "string", .. },
        "an alignment below zero", Raw::model().entry("general.alignment", kind::I32, &(-32i32).to_le_bytes()).bytes() => E::OutOfRange { .. },
        "no architecture", Raw::new().bytes() => E::MissingKey { key } if key == "general.architecture",
        "an architecture that is a number", Raw::new().u32("general.architecture", 1).bytes() => E::WrongType { .. },
    }
}

fn tensor_cases() -> Vec<Case> {
    use FormatError as E;
    let one = |shape: &[u64], dtype: u32, offset: u64| {
        Raw::model()
            .tensor("t", shape, dtype, offset)
            .data(256)
            .bytes()
    };
    let two = |offset: u64| {
        let raw = Raw::model().tensor("a", &[16], F32, 0);
        raw.tensor("b", &[16], F32, offset).data(256).bytes()
    };
    // Long enough metadata that the tensor count alone does not give the cut away.
    let metadata = Raw::model().entry("padding", kind::STRING, &text(&[b'x'; 64]));
    let valid = metadata
        .tensor("t", &[8], F32, 0)
        .tensor("u", &[8], F32, 32)
        .data(64);
    let cut = |bytes: usize| valid.bytes()[..valid.table_start() + bytes].to_vec();
    let name = |bytes: &[u8]| Raw::model().raw_tensor(&[bytes, &[0; 32]].concat()).bytes();
    let same_name = Raw::model()
        .tensor("t", &[8], F32, 0)
        .tensor("t", &[8], F32, 32)
        .data(64);
    let coarse = Raw::model()
        .u32("general.alignment", 256)
        .tensor("t", &[8], F32, 32)
        .data(256);
    cases! {
        "cut after the metadata", cut(0) => E::Truncated { what: "a tensor name", left: 0, .. },
        "cut in a tensor name", cut(8) => E::CountTooLarge { count: 1, left: 0, .. },
        "cut in a dimension count", cut(11) => E::Truncated { needed: 4, left: 2, .. },
        "cut in a shape", cut(20) => E::Truncated { needed: 8, left: 7, .. },
        "cut in a tensor type", cut(22) => E::Truncated { needed: 4, left: 1, .. },
        "cut in an offset", cut(30) => E::Truncated { needed: 8, left: 5, .. },
        "cut between two tensors", cut(33) => E::Truncated { what: "a tensor name", .. },
        "cut before the weights", cut(66) => E::TensorPastEnd { .. },
        "cut in the weights", valid.bytes().tap(|bytes| bytes.truncate(bytes.len() - 1)) => E::TensorPastEnd { tensor, .. } if tensor == "u",
        "a tensor name length past the end", name(&500u64.to_le_bytes()) => E::CountTooLarge { count: 500, .. },
        "a tensor name that is not UTF-8", name(&text(b"\xff")) => E::InvalidUtf8 { what: "a tensor name", .. },
        "the same tensor twice", same_name.bytes() => E::DuplicateTensor { name, .. } if name == "t",
        "tensor type 4, which ggml gave up", one(&[32], 4, 0) => E::UnknownTensorType { tensor, id: 4, .. } if tensor == "t",
        "tensor type 1000", one(&[32], 1000, 0) => E::UnknownTensorType { id: 1000, .. },
        "no dimensions", one(&[], F32, 0) => E::DimensionCount { dimensions: 0, .. },
        "five dimensions", one(&[1; 5], F32, 0) => E::DimensionCount { dimensions: 5, .. },
        "2^32 - 1 dimensions", name(&[&text(b"t")[..], &[0xff; 4]].concat()) => E::DimensionCount { dimensions: u32::MAX, .. },
        "a first dimension of zero", one(&[0, 4], F32, 0) => E::ZeroDimension { .. },
        "a last dimension of zero", one(&[4, 0], F32, 0) => E::ZeroDimension { .. },
        "dimensions whose product overflows", one(&[1 << 32, 1 << 32], F32, 0) => E::ShapeOverflow { .. },
        "four dimensions that overflow to zero", one(&[1 << 16; 4], F32, 0) => E::ShapeOverflow { .. },
        "a size in bytes that overflows", one(&[1 << 62], F32, 0) => E::ShapeOverflow { .. },
        "a dimension of 2^64 - 1", one(&[u64::MAX], F32, 0) => E::ShapeOverflow { .. },
        "a row of a block and a half", one(&[48], Q4_0, 0) => E::PartialBlock { columns: 48, dtype: DType::Q4_0, .. },
        "rows that only together are blocks", one(&[16, 2], Q4_0, 0) => E::PartialBlock { columns: 16, .. },
        "an offset that is not aligned", one(&[8], F32, 4) => E::MisalignedTensor { offset: 4, alignment: 32, .. },
        "an offset aligned to 32 where 256 is asked for", coarse.bytes() => E::MisalignedTensor { alignment: 256, .. },
        "an offset past the end", one(&[8], F32, 4096) => E::TensorPastEnd { .. },
        "an offset near 2^64", one(&[8], F32, u64::MAX - 31) => E::TensorPastEnd { .. },
        "an offset and a size that overflow together", one(&[1 << 60], F32, (1 << 63) + 32) => E::TensorPastEnd { .. },
        "weights longer than the file", one(&[1 << 20], F32, 0) => E::TensorPastEnd { .. },
        "two tensors at offset zero", two(0) => E::OverlappingTensors { first, second, .. } if first == "a" && second == "b",
        "two tensors that overlap by half", two(32) => E::OverlappingTensors { .. },
    }
}

fn vocabulary_cases() -> Vec<Case> {
    use FormatError as E;
    let with = |key: &str, value: &[u8]| {
        Raw::model()
            .entry("tokenizer.ggml.model", kind::STRING, &text(b"gpt2"))
            .entry("tokenizer.ggml.tokens", kind::ARRAY, &texts(&["a", "b"]))
            .entry(key, kind::ARRAY, value)
            .bytes()
    };
    let tokens = |kind: u32, value: &[u8]| {
        Raw::model()
            .entry("tokenizer.ggml.tokens", kind, value)
            .bytes()
    };
    let nameless = Raw::model().u32("tokenizer.ggml.model", 7);
    let no_tokens = Raw::model().entry("tokenizer.ggml.model", kind::STRING, &text(b"gpt2"));
    cases! {
        "tokens that are numbers", tokens(kind::ARRAY, &array(kind::U32, 1, &[0; 4])) => E::WrongType { found: "array of u32", .. },
        "tokens that are one text", tokens(kind::STRING, &text(b"a b c")) => E::WrongType { found: "string", .. },
        "a tokenizer without tokens", no_tokens.bytes() => E::MissingKey { key } if key == "tokenizer.ggml.tokens",
        "a tokenizer whose name is a number", nameless.bytes() => E::WrongType { .. },
        "scores that are integers", with("tokenizer.ggml.scores", &array(kind::I32, 2, &[0; 8])) => E::WrongType { found: "array of i32", .. },
        "fewer scores than tokens", with("tokenizer.ggml.scores", &array(kind::F32, 1, &[0; 4])) => E::VocabularyLength { length: 1, tokens: 2, .. },
        "token types that are texts", with("tokenizer.ggml.token_type", &texts(&["x", "y"])) => E::WrongType { found: "array of string", .. },
        "a token type beyond 32 bits signed", with("tokenizer.ggml.token_type", &array(kind::U32, 2, &[0xff; 8])) => E::OutOfRange { .. },
        "more token types than tokens", with("tokenizer.ggml.token_type", &array(kind::I32, 3, &[0; 12])) => E::VocabularyLength { length: 3, tokens: 2, .. },
        "merges that are arrays", with("tokenizer.ggml.merges", &array(kind::ARRAY, 1, &texts(&["a", "b"]))) => E::WrongType { found: "array of arrays", .. },
    }
}

fn split_cases() -> Vec<Case> {
    use FormatError as E;
    const FIRST: &str = "m-00001-of-00002.gguf";
    const SECOND: &str = "m-00002-of-00002.gguf";
    let part = |number: u32, count: u32, tensors: u32| {
        Raw::model()
            .u32("split.no", number)
            .u32("split.count", count)
            .u32("split.tensors.count", tensors)
            .tensor(["a", "b"][number as usize % 2], &[8], F32, 0)
            .data(32)
    };
    let first = part(0, 2, 2).bytes();
    let second = part(1, 2, 2).bytes();
    let no_place = Raw::model().u32("split.count", 2).bytes();
    let second_a = Raw::model().u32("split.no", 1).u32("split.count", 2);
    let second_a = second_a.tensor("a", &[8], F32, 0).data(32).bytes();
    split_cases! {
        "a missing second part", [FIRST, first.clone()] => E::MissingPart { path, number: 2, count: 2 } if path.ends_with(SECOND),
        "a missing first part", [SECOND, second.clone()] => E::MissingPart { path, number: 1, .. } if path.ends_with(FIRST),
        "65535 parts of which one is there", ["m-00001-of-65535.gguf", part(0, 65535, 2).bytes()] => E::MissingPart { number: 2, count: 65535, .. },
        "2^32 - 1 parts", ["m-00001-of-4294967295.gguf", part(0, u32::MAX, 2).bytes()] => E::MissingPart { number: 2, .. },
        "a part under another name", ["model.gguf", first.clone()] => E::SplitName { number: 1, count: 2, .. },
        "a name of another place", [SECOND, first.clone()] => E::SplitName { .. },
        "a name of another number of parts", ["m-00001-of-00003.gguf", first.clone()] => E::SplitName { .. },
        "the last number there is", [FIRST, part(u32::MAX, 2, 2).bytes()] => E::SplitName { .. },
        "a part that does not say its place", [FIRST, no_place.clone()] => E::MissingKey { key } if key == "split.no",
        "a second part that does not say its place", [FIRST, first.clone(); SECOND, no_place.clone()] => E::Part { path, source } if path.ends_with(SECOND) && matches!(**source, E::MissingKey { .. }),
        "a second part of three", [FIRST, first.clone(); SECOND, part(1, 3, 2).bytes()] => E::SplitCount { expected: 2, found: 3, .. },
        "a second part that is a whole model", [FIRST, first.clone(); SECOND, Raw::model().bytes()] => E::SplitCount { found: 1, .. },
        "the first part twice", [FIRST, first.clone(); SECOND, first.clone()] => E::SplitNumber { expected: 2, found: 1, .. },
        "too few tensors in all parts", [FIRST, part(0, 2, 9).bytes(); SECOND, second] => E::SplitTensorCount { expected: 9, found: 2 },
        "a tensor in two parts", [FIRST, first.clone(); SECOND, second_a] => E::DuplicateAcrossParts { first: 1, second: 2, .. },
        "a damaged second part", [FIRST, first.clone(); SECOND, b"GGUF".to_vec()] => E::Part { path, source } if path.ends_with(SECOND) && matches!(**source, E::Truncated { at: 4, .. }),
    }
}

fn all_cases() -> Vec<Case> {
    let mut cases = head_cases();
    cases.extend(metadata_cases());
    cases.extend(tensor_cases());
    cases.extend(vocabulary_cases());
    cases.extend(split_cases());
    cases
}

#[test]
fn every_malformed_file_gives_its_error_and_costs_little() {
    let _alone = alone();
    let cases = all_cases();
    assert!(cases.len() >= 40);
    let failures: Vec<String> = cases.iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What is wrong with our answer to this case.
fn failure(case: &Case) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in &case.files {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    match first_problem(&folder.path().join(case.files[0].0)) {
        Some(error) if (case.is_expected)(&error) => None,
        answer => Some(format!("{}: {answer:?}", case.name)),
    }
}

/// One test at a time, so that none counts the memory of another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is wrong with the file: what keeps it from being opened, or the first problem it has then.
fn first_problem(path: &Path) -> Option<FormatError> {
    measured(path).0
}

/// The first problem of the file, and the bytes that it took to find it.
fn measured(path: &Path) -> (Option<FormatError>, usize) {
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = validate(path);
    let cost = ALLOCATOR.peak_usage() - before;
    assert!(cost < MEMORY_LIMIT, "{}: {cost} bytes", path.display());
    let problem = match result {
        Ok(report) => report
            .problems
            .into_iter()
            .next()
            .map(|problem| problem.error),
        Err(error) => Some(error),
    };
    (problem, cost)
}

#[test]
fn the_same_bytes_in_memory_give_the_same_error() {
    let _alone = alone();
    for case in all_cases()
        .iter()
        .filter(|case| case.files[0].0 == "model.gguf")
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, &case.files[0].1).unwrap();
        let mapped = Gguf::open(&path)
            .map(|_| ())
            .map_err(|error| error.to_string());
        let owned = Gguf::from_bytes(case.files[0].1.clone());
        match owned {
            Err(FormatError::SplitInMemory { count }) => assert_eq!(count, 2, "{}", case.name),
            owned => {
                let owned = owned.map(|_| ()).map_err(|error| error.to_string());
                assert_eq!(owned, mapped, "{}", case.name);
            }
        }
    }
}

#[test]
fn a_file_that_is_missing_or_a_folder_is_named() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent.gguf"), folder.path().to_owned()] {
        let error = Gguf::open(&path).unwrap_err();
        assert!(matches!(error, FormatError::Io { .. }), "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}

#[test]
fn a_problem_with_the_vocabulary_names_its_byte() {
    let _alone = alone();
    let raw = Raw::model();
    let at = raw.table_start() as u64;
    let numbers = array(kind::U32, 1, &[0; 4]);
    let raw = raw.entry("tokenizer.ggml.tokens", kind::ARRAY, &numbers);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, raw.bytes()).unwrap();

    let report = validate(&path).unwrap();
    assert!(!report.is_ok());
    assert_eq!(report.problems.len(), 1);
    assert_eq!(report.problems[0].at, Some(at));
    assert_eq!(
        report.problems[0].to_string(),
        "metadata key `tokenizer.ggml.tokens` should be an array of string, but has the type \
         array of u32 (at byte 68)"
    );
}

/// Files of gigabytes (sparse, all zeros after the head) whose counts are true to their size.
#[test]
fn a_huge_file_of_lies_costs_no_more() {
    let _alone = alone();
    let zeros = 4u64 << 30;
    let array_of = |kind: u32, count: u64| {
        Raw::new()
            .entry("k", kind::ARRAY, &array(kind, count, &[]))
            .bytes()
    };
    let mut many_entries = Raw::new();
    many_entries.entry_count = Some(zeros / 13 - 10);
    let mut many_tensors = Raw::new();
    many_tensors.tensor_count = Some(zeros / 32 - 10);
    for (name, head) in [
        ("an array of bytes", array_of(kind::U8, zeros - 100)),
        (
            "an array of truth values",
            array_of(kind::BOOL, zeros - 100),
        ),
        (
            "an array of empty texts",
            array_of(kind::STRING, zeros / 8 - 10),
        ),
        (
            "an array of empty arrays",
            array_of(kind::ARRAY, zeros / 12 - 10),
        ),
        (
            "one text",
            Raw::new()
                .entry("k", kind::STRING, &(zeros - 100).to_le_bytes())
                .bytes(),
        ),
        (
            "one key",
            Raw::new().raw_entry(&(zeros - 100).to_le_bytes()).bytes(),
        ),
        ("many entries", many_entries.bytes()),
        ("many tensors", many_tensors.bytes()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, head).unwrap();
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .set_len(zeros)
            .unwrap();
        let error = first_problem(&path).unwrap();
        assert!(
            matches!(error, FormatError::HeaderTooLarge { .. }),
            "{name}: {error:?}"
        );
    }
}

/// Files that just pass the limit on counts, so that everything is allocated that can be.
#[test]
fn a_header_at_the_limit_stays_under_64_mib() {
    let _alone = alone();
    let entries = (0..225_000).fold(Raw::model(), |raw, i| raw.u32(&format!("key.{i}"), i));
    let strings = array(kind::STRING, 4_100_000, &text(b"duck").repeat(4_100_000));
    let arrays = array(
        kind::ARRAY,
        890_000,
        &array(kind::U8, 0, &[]).repeat(890_000),
    );
    let tensors = (0..100_000u32).fold(Raw::model(), |raw, i| {
        raw.tensor(&format!("tensor.{i}"), &[8], F32, u64::from(i) * 32)
    });
    for (name, bytes) in [
        ("entries", entries.bytes()),
        (
            "texts",
            Raw::model().entry("k", kind::ARRAY, &strings).bytes(),
        ),
        (
            "arrays",
            Raw::model().entry("k", kind::ARRAY, &arrays).bytes(),
        ),
        ("tensors", tensors.data(100_000 * 32).bytes()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, bytes).unwrap();
        let (error, cost) = measured(&path);
        assert!(error.is_none(), "{name}: {error:?}");
        assert!(
            cost > 16 << 20,
            "{name}: {cost} bytes are too few for a test of the limit"
        );
    }
}

/// Builds a value by changing it, so that a case stays one expression.
trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl<T> Tap for T {}

/// Passes allocations on to the system and keeps count of them.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;
