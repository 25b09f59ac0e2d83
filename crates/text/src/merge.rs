//! Merging the characters of a text into tokens, the best union of two neighbours first. With a heap
//! of candidates this takes n log n steps.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::{
    pair_ranks::PairRanks,
    vocabulary::{TokenKind, Vocabulary},
};

/// Which of two possible merges comes first.
pub(crate) enum Order {
    /// The one whose union is the token with the higher score; any two whose union is a token merge.
    Scores(Vec<f32>),
    /// The one that stands first in a list of merges.
    Ranks(PairRanks),
}

/// No symbol.
const NONE: usize = usize::MAX;

/// A piece of the text in a chain of pieces; empty once it is merged into the one before it.
struct Symbol {
    start: usize,
    end: usize,
    previous: usize,
    next: usize,
}

/// Two neighbouring symbols whose union is a token.
struct Candidate {
    /// The best goes first, the leftmost among equals.
    priority: f32,
    left: usize,
    right: usize,
    /// Bytes of the union when it was found; another length later means that it is outdated.
    length: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority
            .total_cmp(&other.priority)
            .then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

pub(crate) struct Merge<'a> {
    vocabulary: &'a Vocabulary,
    order: &'a Order,
    text: &'a str,
    symbols: Vec<Symbol>,
    candidates: BinaryHeap<Candidate>,
    /// Two pieces as a list of merges writes them.
    merge: String,
    /// Where unions that are unused tokens came together: (start, end, middle).
    unused: Vec<(usize, usize, usize)>,
}

impl<'a> Merge<'a> {
    pub(crate) fn new(vocabulary: &'a Vocabulary, order: &'a Order, text: &'a str) -> Self {
        let mut symbols: Vec<Symbol> = text
            .char_indices()
            .enumerate()
            .map(|(index, (start, c))| Symbol {
                start,
                end: start + c.len_utf8(),
                previous: if index == 0 { NONE } else { index - 1 },
                next: index + 1,
            })
            .collect();
        if let Some(last) = symbols.last_mut() {
            last.next = NONE;
        }
        let (candidates, unused) = (BinaryHeap::with_capacity(symbols.len()), Vec::new());
        Self {
            vocabulary,
            order,
            text,
            symbols,
            candidates,
            merge: String::new(),
            unused,
        }
    }

    pub(crate) fn run(&mut self) {
        for right in 1..self.symbols.len() {
            self.consider(right - 1, right);
        }
        while let Some(Candidate {
            left,
            right,
            length,
            ..
        }) = self.candidates.pop()
        {
            let (start, middle) = (self.symbols[left].start, self.symbols[left].end);
            let end = self.symbols[right].end;
            let outdated = middle == start
                || self.symbols[right].start == end
                || self.symbols[right].start != middle
                || end - start != length;
            if outdated {
                continue;
            }
            if let Some((_, TokenKind::Unused)) = self.vocabulary.text_id(&self.text[start..end]) {
                self.unused.push((start, end, middle));
            }
            let next = self.symbols[right].next;
            self.symbols[left].end = end;
            self.symbols[left].next = next;
            self.symbols[right].start = end;
            if next != NONE {
                self.symbols[next].previous = left;
            }
            self.consider(self.symbols[left].previous, left);
            self.consider(left, next);
        }
        self.unused.sort_unstable();
    }

    fn consider(&mut self, left: usize, right: usize) {
        if left == NONE || right == NONE {
            return;
        }
        let (start, end) = (self.symbols[left].start, self.symbols[right].end);
        let priority = match self.order {
            Order::Scores(scores) => {
                let union = self.vocabulary.text_id(&self.text[start..end]);
                union.map(|(id, _)| scores[id as usize])
            }
            Order::Ranks(ranks) => {
                let middle = self.symbols[right].start;
                self.merge.clear();
                self.merge.push_str(&self.text[start..middle]);
                self.merge.push(' ');
                self.merge.push_str(&self.text[middle..end]);
                let rank = match end - start > self.vocabulary.longest() {
                    true => None,
                    false => ranks.rank(&self.merge),
                };
                // A merge that leads to no token would end in bytes.
                let leads_to_token =
                    |_: &u32| self.vocabulary.text_id(&self.text[start..end]).is_some();
                // Exact up to 16 million merges.
                rank.filter(leads_to_token).map(|rank| -(rank as f32))
            }
        };
        if let Some(priority) = priority {
            self.candidates.push(Candidate {
                priority,
                left,
                right,
                length: end - start,
            });
        }
    }

    pub(crate) fn text(&self, start: usize, end: usize) -> &'a str {
        &self.text[start..end]
    }

    /// Start and end of the pieces that are left.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = (usize, usize)> {
        self.symbols
            .iter()
            .filter(|s| s.start < s.end)
            .map(|s| (s.start, s.end))
    }

    /// Where the two halves of an unused token met.
    pub(crate) fn middle(&self, start: usize, end: usize) -> Option<usize> {
        let at = self
            .unused
            .partition_point(|&(s, e, _)| (s, e) < (start, end));
        self.unused
            .get(at)
            .filter(|&&(s, e, _)| (s, e) == (start, end))
            .map(|&(_, _, m)| m)
    }
}
