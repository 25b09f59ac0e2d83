//! Who holds which block of the cache, and where the tokens of a block are found again.
//!
//! Blocks whose tokens are known stand in a trie: a path from a root spells a text, 32 tokens a node, and a node's number is
//! that of its block. Sequences that begin alike share the blocks of their path. A block that no sequence holds stays in the
//! trie until its memory is needed, least recently used first, and from the ends of paths, so that what is left can be
//! reached. The last block of a text that ended may be filled in part; it is a leaf that nobody holds, and who goes on from
//! there takes it over or copies it.
//!
//! Texts that are computed in different ways have different roots.
//!
//! Recurrent layers leave states at some positions of a path. Only from there a text can go on.

use crate::lora::AdapterSet;
use dunlin_compute::POSITIONS_PER_BLOCK;
use std::sync::Arc;

/// States of recurrent layers that the trie keeps; each may take megabytes.
pub(crate) const STATES: usize = 5;

/// No block.
const NONE: u32 = u32::MAX;

/// The states of all recurrent layers after some position.
pub(crate) type State = Arc<Vec<f32>>;

/// How texts are computed: the keys and values of the same tokens are others where this differs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Computation {
    /// With the rotation for long sequences.
    pub long: bool,
    /// With these adapters.
    pub adapters: AdapterSet,
}

/// The blocks of a cache: free ones, held ones, and the trie.
pub(crate) struct Blocks {
    free: Vec<u32>,
    nodes: Vec<Node>,
    /// The first child of each root. There is none without a child.
    roots: Vec<(Computation, u32)>,
    /// Blocks of the trie that no sequence holds.
    idle: usize,
    /// States in the trie.
    states: usize,
    /// Grows with each use.
    clock: u64,
}

/// A block, in the trie or not.
struct Node {
    /// Sequences that hold it.
    holders: u32,
    /// Its tokens; none: it is not in the trie.
    tokens: Vec<u32>,
    /// [`NONE`] below a root.
    parent: u32,
    first_child: u32,
    next_sibling: u32,
    used: u64,
    /// States after so many of its tokens.
    states: Vec<(usize, State)>,
}

/// What is known of the beginning of a text.
pub(crate) struct Match {
    /// Whole blocks, in order.
    pub blocks: Vec<u32>,
    /// A further block, and how many of its tokens are those of the text.
    pub part: Option<(u32, usize)>,
    /// The states there, where they are asked for.
    pub state: Option<State>,
}

impl Blocks {
    pub(crate) fn new(count: usize) -> Self {
        let node = |_| Node {
            holders: 0,
            tokens: Vec::new(),
            parent: NONE,
            first_child: NONE,
            next_sibling: NONE,
            used: 0,
            states: Vec::new(),
        };
        Blocks {
            free: (0..count as u32).rev().collect(),
            nodes: (0..count).map(node).collect(),
            roots: Vec::new(),
            idle: 0,
            states: 0,
            clock: 0,
        }
    }

    /// Blocks that can be had: free ones, and those that the trie would give up.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.idle
    }

    /// A block of one's own; the least recently used one of the trie where none is free.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if self.free.is_empty() {
            self.evict();
        }
        let block = self.free.pop()?;
        self.nodes[block as usize].holders = 1;
        Some(block)
    }

    /// Adds a holder to a block of the trie.
    pub(crate) fn hold(&mut self, block: u32) {
        let node = &mut self.nodes[block as usize];
        if node.holders == 0 {
            self.idle -= 1;
        }
        node.holders += 1;
    }

    /// Takes a holder away.
    pub(crate) fn release(&mut self, block: u32) {
        let node = &mut self.nodes[block as usize];
        node.holders -= 1;
        if node.holders > 0 {
            return;
        }
        match node.tokens.is_empty() {
            true => self.free.push(block),
            false => self.idle += 1,
        }
    }

    /// Blocks in all.
    pub(crate) fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Whether other sequences hold a block.
    pub(crate) fn has_other_holders(&self, block: u32) -> bool {
        self.nodes[block as usize].holders > 1
    }

    /// Whether others may read a block, so that it must not be written.
    pub(crate) fn is_shared(&self, block: u32) -> bool {
        let node = &self.nodes[block as usize];
        node.holders > 1 || !node.tokens.is_empty()
    }

    /// Whether others hold a block, or have gone on from it: it has to be copied before it is written.
    pub(crate) fn must_be_copied(&self, block: u32) -> bool {
        let node = &self.nodes[block as usize];
        node.holders > 1 || node.first_child != NONE
    }

    /// Takes a block that only its holder and the trie know out of the trie.
    pub(crate) fn detach(&mut self, block: u32) {
        debug_assert!(!self.must_be_copied(block));
        if !self.nodes[block as usize].tokens.is_empty() {
            self.unlink(block);
        }
    }

    /// Finds the longest beginning of `tokens` that is known; with `wants_state`, the longest one that has states. What is
    /// found is held but for a last block that is used in part.
    pub(crate) fn find(
        &mut self,
        computation: &Computation,
        tokens: &[u32],
        wants_state: bool,
    ) -> Match {
        self.clock += 1;
        let (mut path, mut part) = (Vec::new(), None);
        // The block, the number of blocks before it and of tokens in it.
        let mut last_state: Option<(u32, usize, usize, State)> = None;
        let mut next = self.first_child(computation, None);
        let mut rest = tokens;
        while next != NONE {
            let mut best = (NONE, 0);
            while next != NONE {
                let node = &self.nodes[next as usize];
                let same = common(&node.tokens, rest);
                if same > best.1 {
                    best = (next, same);
                }
                for (count, state) in node.states.iter().filter(|(count, _)| *count <= same) {
                    let position = path.len() * POSITIONS_PER_BLOCK + count;
                    let known = last_state.as_ref();
                    let known = known.map_or(0, |(_, at, n, _)| at * POSITIONS_PER_BLOCK + n);
                    if position > known {
                        last_state = Some((next, path.len(), *count, Arc::clone(state)));
                    }
                }
                next = node.next_sibling;
            }
            let (block, same) = best;
            if block == NONE {
                break;
            }
            self.nodes[block as usize].used = self.clock;
            if same < POSITIONS_PER_BLOCK {
                part = Some((block, same));
                break;
            }
            path.push(block);
            rest = &rest[same..];
            next = self.nodes[block as usize].first_child;
        }
        let mut state = None;
        if wants_state {
            part = None;
            let blocks = last_state.as_ref().map_or(0, |(_, blocks, _, _)| *blocks);
            path.truncate(blocks);
            if let Some((block, _, count, found)) = last_state {
                self.nodes[block as usize].used = self.clock;
                match count == POSITIONS_PER_BLOCK {
                    true => path.push(block),
                    false => part = Some((block, count)),
                }
                state = Some(found);
            }
        }
        path.iter().for_each(|block| self.hold(*block));
        Match {
            blocks: path,
            part,
            state,
        }
    }

    /// Makes a block that is used in part the caller's own: itself where nothing else is lost by that, else another one, into
    /// which it has to be copied (`copy(from, to)`). `None` where there is no room for the copy.
    pub(crate) fn take_part(
        &mut self,
        block: u32,
        count: usize,
        copy: impl FnOnce(u32, u32),
    ) -> Option<u32> {
        self.hold(block);
        let only_ours = !self.must_be_copied(block);
        if only_ours && self.nodes[block as usize].tokens.len() == count {
            self.detach(block);
            return Some(block);
        }
        if let Some(fresh) = self.take() {
            copy(block, fresh);
            self.release(block);
            return Some(fresh);
        }
        if only_ours {
            self.detach(block);
            return Some(block);
        }
        self.release(block);
        None
    }

    /// Puts a block that the caller holds into the trie behind `parent`. Where the trie has these tokens, the caller holds
    /// that block instead. Returns the block that it holds now.
    ///
    /// A block that is not full must be one that its only holder is about to release.
    pub(crate) fn insert(
        &mut self,
        computation: &Computation,
        parent: Option<u32>,
        tokens: &[u32],
        block: u32,
    ) -> u32 {
        self.clock += 1;
        let clock = self.clock;
        let mut moved = Vec::new();
        let mut child = self.first_child(computation, parent);
        while child != NONE {
            let next = self.nodes[child as usize].next_sibling;
            let same = common(&self.nodes[child as usize].tokens, tokens);
            if same == tokens.len() {
                self.nodes[child as usize].used = clock;
                if child != block {
                    self.hold(child);
                    self.release(block);
                }
                self.leave_states(child, &moved);
                return child;
            }
            if same == self.nodes[child as usize].tokens.len() {
                // A block filled in part, of which this one is the continuation.
                let states = std::mem::take(&mut self.nodes[child as usize].states);
                self.states -= states.len();
                moved.extend(states);
                self.idle -= 1;
                self.unlink(child);
                self.free.push(child);
            }
            child = next;
        }
        let next_sibling = self.first_child(computation, parent);
        match parent {
            Some(parent) => self.nodes[parent as usize].first_child = block,
            None => *self.root_mut(computation) = block,
        }
        let node = &mut self.nodes[block as usize];
        node.tokens.clear();
        node.tokens.extend_from_slice(tokens);
        node.parent = parent.unwrap_or(NONE);
        node.next_sibling = next_sibling;
        node.used = clock;
        self.leave_states(block, &moved);
        block
    }

    fn leave_states(&mut self, block: u32, states: &[(usize, State)]) {
        for (count, state) in states {
            self.leave_state(block, *count, state);
        }
    }

    /// Remembers a use of a block.
    pub(crate) fn touch(&mut self, block: u32) {
        self.clock += 1;
        self.nodes[block as usize].used = self.clock;
    }

    /// Leaves a state after the first `count` tokens of a block of the trie, and drops the one of the least recently used block
    /// where there are too many.
    pub(crate) fn leave_state(&mut self, block: u32, count: usize, state: &State) {
        let node = &mut self.nodes[block as usize];
        if node.tokens.len() < count || node.states.iter().any(|(at, _)| *at == count) {
            return;
        }
        node.states.push((count, Arc::clone(state)));
        self.states += 1;
        if self.states > STATES {
            let with_states = self.nodes.iter_mut().filter(|node| !node.states.is_empty());
            if let Some(node) = with_states.min_by_key(|node| node.used) {
                node.states.remove(0);
                self.states -= 1;
            }
        }
    }

    /// Frees the blocks of the path of `tokens`, from its end on, that no sequence holds and no other text goes on from.
    /// Returns how many tokens they held.
    pub(crate) fn forget(&mut self, computation: &Computation, tokens: &[u32]) -> usize {
        let (mut path, mut rest) = (Vec::new(), tokens);
        let mut next = self.first_child(computation, path.last().copied());
        while next != NONE && !rest.is_empty() {
            let node = &self.nodes[next as usize];
            if !rest.starts_with(&node.tokens) {
                next = node.next_sibling;
                continue;
            }
            rest = &rest[node.tokens.len()..];
            path.push(next);
            next = self.nodes[next as usize].first_child;
        }
        let mut forgotten = 0;
        for block in path.into_iter().rev() {
            let node = &self.nodes[block as usize];
            if node.holders > 0 || node.first_child != NONE {
                break;
            }
            forgotten += node.tokens.len();
            self.idle -= 1;
            self.unlink(block);
            self.free.push(block);
        }
        forgotten
    }

    /// Frees the least recently used block that ends a path and that no sequence holds.
    fn evict(&mut self) {
        let is_idle_end =
            |node: &Node| node.holders == 0 && !node.tokens.is_empty() && node.first_child == NONE;
        let ends = self.nodes.iter().enumerate();
        let ends = ends.filter(|(_, node)| is_idle_end(node));
        if let Some((block, _)) = ends.min_by_key(|(_, node)| node.used) {
            self.idle -= 1;
            self.unlink(block as u32);
            self.free.push(block as u32);
        }
    }

    /// Takes a leaf out of the trie.
    fn unlink(&mut self, block: u32) {
        let node = &mut self.nodes[block as usize];
        node.tokens.clear();
        self.states -= node.states.len();
        node.states.clear();
        let (parent, next) = (node.parent, node.next_sibling);
        (node.parent, node.next_sibling) = (NONE, NONE);
        match parent {
            NONE => {
                for root in 0..self.roots.len() {
                    self.roots[root].1 = self.without(self.roots[root].1, block, next);
                }
                self.roots.retain(|(_, first)| *first != NONE);
            }
            parent => {
                let first = self.nodes[parent as usize].first_child;
                self.nodes[parent as usize].first_child = self.without(first, block, next);
            }
        }
    }

    /// Takes `block`, which `next` follows, out of the siblings that begin at `first`, where it is one of them; the first that
    /// is left.
    fn without(&mut self, first: u32, block: u32, next: u32) -> u32 {
        if first == block {
            return next;
        }
        let mut child = first;
        while child != NONE {
            let link = &mut self.nodes[child as usize].next_sibling;
            if *link == block {
                *link = next;
            }
            child = self.nodes[child as usize].next_sibling;
        }
        first
    }

    fn first_child(&self, computation: &Computation, parent: Option<u32>) -> u32 {
        match parent {
            Some(parent) => self.nodes[parent as usize].first_child,
            None => {
                let mut roots = self.roots.iter();
                let root = roots.find(|(other, _)| other == computation);
                root.map_or(NONE, |(_, first)| *first)
            }
        }
    }

    fn root_mut(&mut self, computation: &Computation) -> &mut u32 {
        let found = self
            .roots
            .iter()
            .position(|(other, _)| other == computation);
        let index = found.unwrap_or_else(|| {
            self.roots.push((computation.clone(), NONE));
            self.roots.len() - 1
        });
        &mut self.roots[index].1
    }
}

/// Tokens with which both begin.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
impl Blocks {
    /// Checks that each block is free, held or in the trie as its numbers say. `held`: the blocks of all sequences.
    pub(crate) fn check(&self, held: &[u32]) {
        let mut in_trie = vec![false; self.nodes.len()];
        let mut open = Vec::new();
        let mut visit = |parent: u32, first: u32, open: &mut Vec<u32>| {
            let mut child = first;
            while child != NONE {
                let node = &self.nodes[child as usize];
                assert!(!in_trie[child as usize], "a block once in the trie");
                in_trie[child as usize] = true;
                assert_eq!(node.parent, parent);
                assert!(!node.tokens.is_empty());
                let is_full = node.tokens.len() == POSITIONS_PER_BLOCK;
                assert!(is_full || (node.holders == 0 && node.first_child == NONE));
                assert!(
                    parent == NONE || node.holders == 0 || self.nodes[parent as usize].holders > 0
                );
                open.push(child);
                child = node.next_sibling;
            }
        };
        for (index, (computation, root)) in self.roots.iter().enumerate() {
            assert_ne!(*root, NONE);
            let before = &self.roots[..index];
            assert!(before.iter().all(|(other, _)| other != computation));
            visit(NONE, *root, &mut open);
        }
        while let Some(block) = open.pop() {
            visit(block, self.nodes[block as usize].first_child, &mut open);
        }
        let (mut idle, mut states) = (0, 0);
        for (block, node) in self.nodes.iter().enumerate() {
            let holders = held.iter().filter(|held| **held as usize == block).count();
            assert_eq!(node.holders as usize, holders, "holders of block {block}");
            assert_eq!(in_trie[block], !node.tokens.is_empty());
            let is_free = self.free.contains(&(block as u32));
            assert_eq!(is_free, holders == 0 && !in_trie[block], "block {block}");
            idle += usize::from(holders == 0 && in_trie[block]);
            states += node.states.len();
        }
        let free: std::collections::HashSet<_> = self.free.iter().collect();
        assert_eq!(free.len(), self.free.len(), "a block once in the list");
        assert_eq!((self.idle, self.states), (idle, states));
        assert!(states <= STATES);
    }
}
