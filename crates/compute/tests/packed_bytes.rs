//! The memory of packed weights is known before they are packed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use dunlin_compute::{Pool, pack, packed_bytes};
use dunlin_format::DType;

#[test]
fn the_size_is_that_of_the_packed_matrix() {
    let pool = Pool::new(1).unwrap();
    let types = [
        DType::F32,
        DType::BF16,
        DType::Q4_0,
        DType::Q8_0,
        DType::Q3_K,
        DType::Q4_K,
        DType::Q6_K,
        DType::IQ4_XS,
        DType::IQ2_XXS,
        DType::MXFP4,
    ];
    for dtype in types {
        for rows in [1, 8, 13] {
            let bytes = vec![0; dtype.row_bytes(512).unwrap() * rows];
            let packed = pack(&pool, dtype, rows, 512, &bytes).unwrap();
            let told = packed_bytes(dtype, rows, 512);
            assert_eq!(told, Some(packed.bytes()), "{dtype:?}, {rows} rows");
        }
    }
}

#[test]
fn what_cannot_be_packed_has_no_size() {
    assert_eq!(packed_bytes(DType::I32, 8, 32), None);
    assert_eq!(packed_bytes(DType::Q4_K, 8, 100), None);
    assert_eq!(packed_bytes(DType::F32, usize::MAX, 512), None);
}
