//! The text after which a grammar begins.

/// Looks for a text in the bytes of an answer, with the automaton of Knuth, Morris and Pratt (1977).
#[derive(Clone, Debug)]
pub(crate) struct Trigger {
    bytes: Box<[u8]>,
    /// `fallback[n]`: the longest beginning of `bytes`, shorter than `n`, that ends its first `n` bytes.
    fallback: Box<[usize]>,
    /// Bytes of the text that stand at the end of the answer, before each token so far and now.
    matched: Vec<usize>,
}

impl Trigger {
    /// `None` for an empty text, which stands before every answer.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let bytes: Box<[u8]> = text.as_bytes().into();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut matched = 0;
        for end in 1..bytes.len() {
            while matched > 0 && bytes[matched] != bytes[end] {
                matched = fallback[matched];
            }
            matched += usize::from(bytes[matched] == bytes[end]);
            fallback[end + 1] = matched;
        }
        (!bytes.is_empty()).then(|| Trigger {
            bytes,
            fallback: fallback.into(),
            matched: vec![0],
        })
    }

    /// Whether the text has come up.
    pub(crate) fn is_found(&self) -> bool {
        self.matched.last() == Some(&self.bytes.len())
    }

    /// Takes the bytes of the next token. What stands in it behind the text belongs to the free part of the answer.
    pub(crate) fn push(&mut self, token: &[u8]) {
        let mut matched = self.matched.last().copied().unwrap_or_default();
        for byte in token {
            if matched == self.bytes.len() {
                break;
            }
            while matched > 0 && self.bytes[matched] != *byte {
                matched = self.fallback[matched];
            }
            matched += usize::from(self.bytes[matched] == *byte);
        }
        self.matched.push(matched);
    }

    /// Takes back so many tokens, at most those that it has seen.
    pub(crate) fn pop(&mut self, tokens: usize) {
        let left = self.matched.len().saturating_sub(tokens).max(1);
        self.matched.truncate(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_found_however_it_is_cut_and_lost_when_it_is_taken_back() {
        let text = b"<<</think>".as_slice();
        for cut in 0..text.len() {
            let mut trigger = Trigger::new("</think>").unwrap();
            trigger.push(&text[..cut]);
            assert!(!trigger.is_found());
            trigger.push(&text[cut..]);
            assert!(trigger.is_found(), "cut at {cut}");
            trigger.pop(1);
            assert!(!trigger.is_found());
        }
    }

    #[test]
    fn there_is_no_empty_text() {
        assert!(Trigger::new("").is_none());
    }
}
