//! The best few of many: continuations of a step, and complete answers.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use dunlin_text::TokenId;

/// A beam with one more token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Continuation {
    /// Sum of the log-probabilities.
    pub(super) sum: f64,
    /// Index of the beam.
    pub(super) parent: usize,
    pub(super) token: TokenId,
}

/// The better continuation is the smaller one, of equal ones that of the earlier beam and the lower token.
impl Ord for Continuation {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .sum
            .total_cmp(&self.sum)
            .then(self.parent.cmp(&other.parent))
            .then(self.token.cmp(&other.token))
    }
}

impl PartialOrd for Continuation {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Continuation {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Continuation {}

/// The best continuations seen so far.
pub(super) struct Best {
    count: usize,
    /// The worst one on top.
    heap: BinaryHeap<Continuation>,
}

impl Best {
    pub(super) fn new(count: usize) -> Self {
        Best {
            count,
            heap: BinaryHeap::new(),
        }
    }

    pub(super) fn offer(&mut self, continuation: Continuation) {
        if self.heap.len() == self.count {
            if self.heap.peek().is_some_and(|worst| *worst < continuation) {
                return;
            }
            self.heap.pop();
        }
        self.heap.push(continuation);
    }

    /// The best first.
    pub(super) fn into_sorted(self) -> Vec<Continuation> {
        self.heap.into_sorted_vec()
    }
}

/// The best complete answers, the best first.
pub(super) struct Finished<T> {
    count: usize,
    answers: Vec<(f64, T)>,
}

impl<T> Finished<T> {
    pub(super) fn new(count: usize) -> Self {
        Finished {
            count,
            answers: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, score: f64, answer: T) {
        // Of equal ones the earlier stays before.
        let place = self.answers.partition_point(|(other, _)| *other >= score);
        self.answers.insert(place, (score, answer));
        self.answers.truncate(self.count);
    }

    /// The score that a new answer has to beat, once there are as many as are wanted.
    pub(super) fn worst(&self) -> Option<f64> {
        let is_full = self.answers.len() == self.count;
        self.answers.last().filter(|_| is_full).map(|last| last.0)
    }

    pub(super) fn into_sorted(self) -> Vec<T> {
        self.answers.into_iter().map(|(_, answer)| answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finished_answers_are_full_when_there_are_as_many_as_wanted() {
        let mut finished = Finished::new(2);
        finished.push(-3.0, 'c');
        assert_eq!(finished.worst(), None);
        finished.push(-1.0, 'a');
        assert_eq!(finished.worst(), Some(-3.0));
        finished.push(-2.0, 'b');
        finished.push(-2.0, 'd');
        assert_eq!(finished.worst(), Some(-2.0));
        assert_eq!(finished.into_sorted(), ['a', 'b']);
    }

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(
            sums in prop::collection::vec(-20i32..0, 0..200),
            count in 1usize..40,
        ) {
            let all = sums.iter().enumerate().map(|(index, sum)| Continuation {
                sum: f64::from(*sum),
                parent: index % 3,
                token: index as TokenId,
            });
            let mut best = Best::new(count);
            all.clone().for_each(|one| best.offer(one));
            let mut sorted = Vec::from_iter(all);
            sorted.sort();
            sorted.truncate(count);
            prop_assert_eq!(best.into_sorted(), sorted);
        }
    }
}
