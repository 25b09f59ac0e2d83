//! What earlier prompts and answers have left is found again, by any conversation that begins alike.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use common::{conformance, options, tiny};
use dunlin::{Completion, GenerateOptions, Lm, ModelRef, Prompt};

const ANSWER: usize = 12;

/// A conversation as its tokens.
struct Conversation {
    ids: Vec<u32>,
    /// Tokens that were computed when it last spoke.
    computed: usize,
}

impl Conversation {
    fn new(ids: impl Iterator<Item = u32>) -> Self {
        Conversation {
            ids: ids.collect(),
            computed: 0,
        }
    }

    /// Asks, with what was said so far, and takes the answer in.
    fn turn(&mut self, lm: &Lm) -> Completion {
        self.ids.extend([40, 41, 42]);
        let options = GenerateOptions::greedy().with_max_tokens(ANSWER);
        let completion = lm
            .generate(&Prompt::Tokens(self.ids.clone()), &options)
            .unwrap()
            .complete()
            .unwrap();
        self.ids.extend(&completion.tokens);
        // The last token of an answer is chosen and not computed.
        self.computed = self.ids.len() - 1;
        completion
    }
}

#[test]
fn conversations_that_take_turns_compute_only_what_is_new() {
    let lm = tiny();
    let mut talks = [3, 5, 7].map(|step| Conversation::new((0..50).map(|at| 50 + at * step % 100)));
    for turn in 0..4 {
        for talk in &mut talks {
            let known = talk.computed;
            let cached = talk.turn(&lm).usage.cached_prompt_tokens;
            assert!(cached >= known, "turn {turn}: {cached} of {known}");
        }
    }
}

#[test]
fn conversations_with_recurrent_layers_go_on_from_their_last_answers() {
    let Some(folder) = conformance() else { return };
    for name in ["qwen3_5", "lfm2"] {
        let path = folder.join(name).join("model.gguf");
        let lm = Lm::load(ModelRef::Path(path), options()).unwrap();
        let mut talks =
            [3, 5].map(|step| Conversation::new((0..50).map(|at| 50 + at * step % 100)));
        for turn in 0..4 {
            for talk in &mut talks {
                let known = talk.computed;
                let cached = talk.turn(&lm).usage.cached_prompt_tokens;
                assert_eq!(cached, known, "{name}, turn {turn}");
            }
        }
    }
}

#[test]
fn an_answer_is_the_same_with_what_others_have_left_and_without() {
    let (lm, fresh) = (tiny(), tiny());
    // Prompts that share beginnings of many lengths, inside and at the ends of blocks; more than the cache holds.
    for length in [1, 2, 31, 32, 33, 64, 65, 90, 128, 200, 300, 20, 150, 310] {
        for other in [0u32, 1] {
            let shared = (0..length).map(|at| 40 + at * 7 % 90);
            let ids = Vec::from_iter(shared.chain([100 + other; 9]));
            let options = GenerateOptions::greedy().with_max_tokens(ANSWER);
            let answer = |lm: &Lm| {
                let prompt = Prompt::Tokens(ids.clone());
                lm.generate(&prompt, &options).unwrap().complete().unwrap()
            };
            let found = answer(&lm);
            if other == 1 {
                assert!(
                    found.usage.cached_prompt_tokens >= length as usize,
                    "{length}"
                );
            }
            fresh.clear_cache();
            assert_eq!(found.tokens, answer(&fresh).tokens, "{length}");
        }
    }
    lm.clear_cache();
    assert_eq!(lm.cached_tokens(), 0);
}
