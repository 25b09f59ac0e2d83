//! Texts that break repetitions, as runs of tokens.

use dunlin_engine::{EngineError, SamplerConfig};
use dunlin_text::{TextError, TokenId, Tokenizer};

/// Bytes of a breaker at most, as in llama.cpp: tokens are looked for that begin anywhere in it.
const MOST_BYTES: usize = 40;

/// Adds the runs of tokens that contain a breaker to the settings, where they are on.
///
/// # Errors
/// [`EngineError::InvalidSampling`] for an empty text, and for one of more than 40 bytes.
pub(super) fn add(
    config: &mut SamplerConfig,
    breakers: &[String],
    tokenizer: &Tokenizer,
) -> Result<(), crate::Error> {
    for breaker in breakers {
        if breaker.is_empty() || breaker.len() > MOST_BYTES {
            return Err(EngineError::InvalidSampling {
                field: "dry_sequence_breaker",
                found: format!("{breaker:?} of {} bytes", breaker.len()),
                allowed: "texts of 1 to 40 bytes",
            }
            .into());
        }
    }
    if config.dry_multiplier == 0.0 || breakers.is_empty() {
        return Ok(());
    }
    for token in 0..tokenizer.vocab_size() as TokenId {
        let piece = tokenizer.piece_bytes(token).unwrap_or_default();
        for breaker in breakers {
            runs_from(token, &piece, breaker, tokenizer, &mut config.dry_breakers)?;
        }
    }
    Ok(())
}

/// The runs that begin with a token: itself where it contains the breaker; where it ends with a beginning of it, with the
/// tokens of the rest behind it.
fn runs_from(
    token: TokenId,
    piece: &[u8],
    breaker: &str,
    tokenizer: &Tokenizer,
    runs: &mut Vec<Vec<TokenId>>,
) -> Result<(), TextError> {
    let wanted = breaker.as_bytes();
    if piece.windows(wanted.len()).any(|window| window == wanted) {
        runs.push(vec![token]);
        return Ok(());
    }
    let first = runs.len();
    for length in (1..wanted.len().min(piece.len() + 1)).rev() {
        // A rest that begins inside of a character cannot be encoded by itself.
        if piece.ends_with(&wanted[..length]) && breaker.is_char_boundary(length) {
            let mut run = vec![token];
            run.extend(tokenizer.encode(&breaker[length..], false)?);
            if !runs[first..].contains(&run) {
                runs.push(run);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dunlin_format::Gguf;

    use super::*;

    #[test]
    fn a_breaker_is_found_however_tokens_cut_it() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny.gguf");
        let gguf = Gguf::open(&path).unwrap();
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        let id = |text: &str| tokenizer.token_id(text).unwrap();
        let mut config = SamplerConfig {
            dry_multiplier: 1.0,
            ..SamplerConfig::default()
        };
        // The vocabulary has the bytes, and th, in, the, er.
        add(&mut config, &["the".to_owned()], &tokenizer).unwrap();
        let mut expected = vec![
            vec![id("the")],
            vec![id("th"), id("e")],
            vec![id("t"), id("h"), id("e")],
        ];
        expected.sort();
        config.dry_breakers.sort();
        assert_eq!(config.dry_breakers, expected);
    }

    #[test]
    fn breakers_cost_nothing_while_there_is_no_penalty() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny.gguf");
        let gguf = Gguf::open(&path).unwrap();
        let tokenizer = Tokenizer::from_gguf(gguf.metadata()).unwrap();
        let mut config = SamplerConfig::default();
        add(&mut config, &["\n".to_owned()], &tokenizer).unwrap();
        assert_eq!(config, SamplerConfig::default());
        for bad in [String::new(), "x".repeat(41)] {
            assert!(add(&mut config, &[bad], &tokenizer).is_err());
        }
    }
}
