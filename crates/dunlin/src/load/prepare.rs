//! What is done with a loaded engine before it is handed out.

use dunlin_engine::{Chunk, Engine, Input, Logits, Pooling};
use dunlin_format::Gguf;

use crate::{Error, LoadOptions};

/// Locks the memory and computes a first token, where the options say so.
///
/// # Errors
/// [`Error::MemoryLock`]; what the engine says.
pub(crate) fn prepare(
    engine: &mut Engine,
    gguf: &Gguf,
    options: &LoadOptions<'_>,
) -> Result<(), Error> {
    if options.memory_lock {
        engine.lock_memory().map_err(Error::MemoryLock)?;
        if options.mapped_weights {
            gguf.lock_pages().map_err(Error::MemoryLock)?;
        }
    }
    if options.warm_up {
        warm_up(engine)?;
    }
    Ok(())
}

/// Computes one token and forgets it: code, weights and threads are then where the first answer finds them.
fn warm_up(engine: &mut Engine) -> Result<(), Error> {
    if engine.spec().can_generate() {
        let chunk = Chunk {
            sequence: engine.create_sequence(),
            tokens: &[0],
            logits: Logits::Last,
        };
        engine.step(&[chunk], |_| {})?;
    } else {
        engine.embed(&[Input::new(&[0])], Pooling::Mean)?;
    }
    engine.clear_cache();
    Ok(())
}
