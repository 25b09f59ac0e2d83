//! Memory for contexts that a file or a caller names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{Golden, shared};
use dunlin_compute::{KvElement, Tier};
use dunlin_engine::{Engine, EngineConfig, EngineError, Input, Pooling};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

fn load(shared: &Path, name: &str, context_length: usize) -> Result<Engine, EngineError> {
    let config = EngineConfig {
        threads: 1,
        tier: Tier::detect(),
        context_length,
        kv_types: KvElement::F16.into(),
        yarn_factor: None,
    };
    let gguf = Arc::new(Golden::gguf(shared, name));
    Engine::load(gguf, config, &mut |_, _| ControlFlow::Continue(()))
}

#[test]
fn a_context_beyond_the_memory_is_an_error_with_its_bytes() {
    let Some(shared) = shared() else { return };
    let Err(EngineError::NoMemory { tokens, bytes }) = load(&shared, "llama", 1 << 45) else {
        panic!("no machine has this memory");
    };
    assert_eq!(tokens, 1 << 45);
    assert!(bytes > 1 << 50);
}

#[test]
fn an_encoder_takes_memory_for_its_texts_and_not_for_the_context_that_its_file_names() {
    let Some(shared) = shared() else { return };
    let mut engine = load(&shared, "gemma_embedding", 1 << 45).unwrap();
    let small = engine.buffer_bytes();
    let text: Vec<u32> = (0..8200).map(|index| index % 400).collect();
    let mut embed = |tokens: usize| {
        let inputs = [Input::new(&text[..tokens])];
        engine.embed(&inputs, Pooling::Mean).unwrap()
    };

    let (short, middle) = (embed(5), embed(700));
    let _more_than_is_reserved = embed(text.len());
    assert_eq!((embed(5), embed(700)), (short, middle));
    assert!(engine.buffer_bytes() > small);
}

#[test]
fn a_text_longer_than_an_encoders_context_is_an_error_with_both_lengths() {
    let Some(shared) = shared() else { return };
    let mut engine = load(&shared, "gemma_embedding", 300).unwrap();
    let refused = engine.embed(&[Input::new(&[1; 301])], Pooling::Mean);
    let Err(EngineError::CacheFull { needed, available }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((needed, available), (301, 300));
}
