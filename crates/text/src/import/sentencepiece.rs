//! SentencePiece model files (`tokenizer.model`): a protocol buffer `ModelProto`
//! (`sentencepiece_model.proto`), of which a conversion needs the pieces, the kind of model and the
//! normalization.

use super::vocabulary::MAX_TOKENS;
use crate::{TextError, vocabulary::TokenKind};

/// What a conversion needs of a model file.
#[derive(Default)]
pub(super) struct SentencePiece {
    pub(super) pieces: Vec<Piece>,
    pub(super) kind: Kind,
    /// Characters replaced before anything else; empty for none.
    pub(super) charsmap: Vec<u8>,
    pub(super) add_dummy_prefix: bool,
    pub(super) remove_extra_whitespaces: bool,
}

pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: TokenKind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Unigram,
    Bpe,
    /// Words or characters.
    Other,
}

impl SentencePiece {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        let mut model = Self {
            // Defaults of the format.
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            ..Self::default()
        };
        for field in Fields(bytes) {
            match field? {
                // A piece takes many times the two bytes that name an empty one.
                (1, Field::Bytes(_)) if model.pieces.len() == MAX_TOKENS => {
                    return Err(damaged(&format!("it has more than {MAX_TOKENS} pieces")));
                }
                (1, Field::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
                (2, Field::Bytes(trainer)) => model.kind = parse_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.parse_normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(damaged("it has no pieces"));
        }
        Ok(model)
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Result<(), TextError> {
        for field in Fields(bytes) {
            match field? {
                (2, Field::Bytes(charsmap)) => self.charsmap = charsmap.to_vec(),
                (3, Field::Number(flag)) => self.add_dummy_prefix = flag != 0,
                (4, Field::Number(flag)) => self.remove_extra_whitespaces = flag != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece, TextError> {
    let mut piece = Piece {
        text: String::new(),
        score: 0.0,
        kind: TokenKind::Normal,
    };
    for field in Fields(bytes) {
        match field? {
            (1, Field::Bytes(text)) => {
                let text = std::str::from_utf8(text);
                piece.text = text.map_err(|_| damaged("a piece is no UTF-8"))?.to_owned();
            }
            (2, Field::Fixed32(score)) => piece.score = f32::from_bits(score),
            (3, Field::Number(kind)) => {
                // The numbers of GGUF are these.
                let kind = i32::try_from(kind).map_err(|_| damaged("a piece of unknown type"))?;
                piece.kind = TokenKind::from_gguf(kind);
            }
            _ => {}
        }
    }
    Ok(piece)
}

fn parse_trainer(bytes: &[u8]) -> Result<Kind, TextError> {
    let mut kind = Kind::default();
    for field in Fields(bytes) {
        if let (3, Field::Number(number)) = field? {
            kind = match number {
                1 => Kind::Unigram,
                2 => Kind::Bpe,
                _ => Kind::Other,
            };
        }
    }
    Ok(kind)
}

/// The fields of a message in order: number and value.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// Of a type that no field needed here has.
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| damaged("it is cut short or no protocol buffer")))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Other
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Field::Bytes(self.take(length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((key >> 3, field))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(1)?.try_into().ok()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

fn damaged(reason: &str) -> TextError {
    TextError::TokenizerFile {
        file: "tokenizer.model".to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_pieces_kind_and_normalization() {
        // Piece "ab" with score -1.5 of type 3, trainer of type 2, normalizer without a prefix.
        let bytes = [
            &[
                0x0A, 11, 0x0A, 2, b'a', b'b', 0x15, 0, 0, 0xC0, 0xBF, 0x18, 3,
            ][..],
            &[0x12, 2, 0x18, 2],
            &[0x1A, 5, 0x12, 1, 7, 0x18, 0],
        ]
        .concat();
        let model = SentencePiece::parse(&bytes).unwrap();
        let piece = &model.pieces[0];
        assert_eq!((piece.text.as_str(), piece.score), ("ab", -1.5));
        assert_eq!((piece.kind, model.kind), (TokenKind::Control, Kind::Bpe));
        assert_eq!((model.charsmap, model.add_dummy_prefix), (vec![7], false));
        for length in 1..bytes.len() {
            // Cut anywhere: an error, or fewer fields.
            let _ = SentencePiece::parse(&bytes[..length]);
        }
        assert!(SentencePiece::parse(&bytes[..12]).is_err());
    }

    #[test]
    fn pieces_beyond_the_largest_vocabulary_are_not_read() {
        let bytes = [0x0A, 0].repeat(MAX_TOKENS + 1);
        assert!(SentencePiece::parse(&bytes[2..]).is_ok());
        let Err(TextError::TokenizerFile { reason, .. }) = SentencePiece::parse(&bytes) else {
            panic!("a vocabulary of any length");
        };
        assert_eq!(reason, "it has more than 2097152 pieces");
    }

    #[test]
    fn bytes_that_are_no_model_are_an_error() {
        for bytes in [
            &[][..],
            &[0xFF; 20],
            &[0x0A, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
            b"{\"a\": 1}",
        ] {
            assert!(SentencePiece::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
