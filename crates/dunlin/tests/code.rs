//! Gaps filled by a real model: runs only where `DUNLIN_MODELS` names the folder with the model files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(clippy::print_stdout, reason = "a skipped test says so")]

mod common;

use std::path::PathBuf;

use common::{options, tiny};
use dunlin::{
    CodeCompleter, CodeEnd, CodeFinish, CodeOptions, CodeRequest, Error, InfillOverflow, ModelRef,
};

#[test]
fn a_family_without_tokens_for_gaps_is_told_so() {
    assert!(matches!(
        CodeCompleter::new(tiny()),
        Err(Error::CannotInfill { architecture }) if architecture == "llama"
    ));
}

fn coder(context: usize) -> Option<CodeCompleter> {
    let Some(models) = std::env::var_os("DUNLIN_MODELS").map(PathBuf::from) else {
        println!("skipped: DUNLIN_MODELS names no folder with model files");
        return None;
    };
    let path = models.join("qwen2.5-coder-0.5b.gguf");
    let load = options().with_context_length(context).with_warm_up(true);
    Some(CodeCompleter::load(ModelRef::Path(path), load).unwrap())
}

/// Gaps that have one right answer.
const GAPS: [(&str, &str, &str); 8] = [
    (
        "def add(a, b):\n    return ",
        "\n\nprint(add(1, 2))\n",
        "a + b",
    ),
    (
        "fn square(x: i32) -> i32 {\n    ",
        "\n}\n\nfn main() {\n    println!(\"{}\", square(3));\n}\n",
        "x * x",
    ),
    (
        "def is_even(n):\n    return n % ",
        " == 0\n\nassert is_even(4)\n",
        "2",
    ),
    ("function max(a, b) {\n  return a > b ? ", ";\n}\n", "a : b"),
    (
        "import math\n\ndef area(radius):\n    return math.",
        " * radius ** 2\n",
        "pi",
    ),
    (
        "def first(items):\n    return items[",
        "]\n\nassert first([7, 8]) == 7\n",
        "0",
    ),
    (
        "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        ",
        "\n\n    def sum(self):\n        return self.x + self.y\n",
        "self.y = y",
    ),
    (
        "total = 0\nfor number in numbers:\n    total ",
        " number\nprint(total)\n",
        "+=",
    ),
];

#[test]
fn the_middle_of_simple_functions_is_what_belongs_there() {
    let Some(coder) = coder(1024) else { return };
    let options = CodeOptions::new()
        .with_max_tokens(32)
        .with_end(CodeEnd::Lines(1));
    let mut wrong = Vec::new();
    for (prefix, suffix, wanted) in GAPS {
        let request = CodeRequest::new(prefix, suffix);
        let completion = coder.complete(&request, &options).unwrap();
        assert!(completion.dropped.is_empty());
        // A model of this size often writes the rest of the line once more.
        let rest = suffix.split('\n').next().unwrap();
        let text = completion.text.trim();
        if text != wanted && text != format!("{wanted}{rest}") {
            wrong.push((wanted, completion.text));
        }
    }
    // One of eight may be filled in another sensible way.
    assert!(wrong.len() <= 1, "{wrong:?}");
}

#[test]
fn a_completion_ends_where_the_suffix_would_begin_again() {
    let Some(coder) = coder(1024) else { return };
    let with_suffix = |stop| {
        let options = CodeOptions::new()
            .with_max_tokens(96)
            .with_stop_at_suffix(stop);
        let complete = |(prefix, suffix, _): &(&str, &str, &str)| {
            let request = CodeRequest::new(*prefix, *suffix);
            coder.complete(&request, &options).unwrap()
        };
        GAPS.iter().map(complete).collect::<Vec<_>>()
    };
    let (stopped, free) = (with_suffix(true), with_suffix(false));
    let mut ended = 0;
    for ((stopped, free), (_, suffix, _)) in stopped.iter().zip(&free).zip(GAPS) {
        assert!(
            free.text.starts_with(&stopped.text),
            "{stopped:?}\n{free:?}"
        );
        if stopped.finish == CodeFinish::End {
            let rest = free.text[stopped.text.len()..].trim_start();
            let begins = suffix.trim_start().lines().next().unwrap();
            assert!(rest.starts_with(begins), "{stopped:?}\n{free:?}");
            ended += 1;
        } else {
            assert_eq!(stopped.text, free.text);
        }
    }
    println!("{ended} of {} ended at the suffix", GAPS.len());
    assert!(ended > 0, "{free:?}");
}

#[test]
fn a_name_that_only_another_file_has_is_used() {
    let Some(coder) = coder(1024) else { return };
    let request = CodeRequest::new(
        "from prices import net_to_gross\n\n\ndef price_tag(net):\n    return ",
        "\n",
    );
    let with_file = request
        .clone()
        .with_repository("shop")
        .with_path("tags.py")
        .with_file(
            "prices.py",
            "VAT_FACTOR = 1.19\n\n\ndef net_to_gross(net, factor=VAT_FACTOR):\n    return net * factor\n",
        );
    let options = CodeOptions::new()
        .with_max_tokens(24)
        .with_end(CodeEnd::Lines(1));
    let completion = coder.complete(&with_file, &options).unwrap();
    assert!(
        completion.text.contains("net_to_gross(net"),
        "{completion:?}"
    );
    // The same files again: only what stands behind them is computed.
    let again = coder.complete(&with_file, &options).unwrap();
    assert_eq!(again.text, completion.text);
    assert_eq!(
        again.usage.cached_prompt_tokens,
        again.usage.prompt_tokens - 1
    );
}

#[test]
fn a_block_ends_where_it_ends_and_pieces_make_the_text() {
    let Some(coder) = coder(1024) else { return };
    // Nothing after the gap says where to stop.
    let request = CodeRequest::new("def factorial(n):\n", "");
    let options = CodeOptions::new()
        .with_max_tokens(200)
        .with_end(CodeEnd::Block);
    let mut pieces = String::new();
    let completion = coder
        .complete_with(&request, &options, |piece| pieces.push_str(piece))
        .unwrap();
    assert_eq!(pieces, completion.text);
    assert!(completion.text.contains("factorial(n"), "{completion:?}");
    let dedents = |line: &&str| !line.is_empty() && !line.starts_with(' ');
    assert_eq!(
        completion.text.lines().skip(1).find(dedents),
        None,
        "{completion:?}"
    );
    assert!(completion.finish == CodeFinish::End || completion.usage.completion_tokens < 200);
}

#[test]
fn a_long_file_is_an_error_or_said_to_be_cut() {
    let Some(coder) = coder(256) else { return };
    let request = CodeRequest::new("x = 1\n".repeat(200) + "def add(a, b):\n    return ", "\n");
    let options = CodeOptions::new()
        .with_max_tokens(16)
        .with_end(CodeEnd::Lines(1));
    assert!(matches!(
        coder.complete(&request, &options),
        Err(Error::InfillTooLong { room: 240, .. })
    ));
    let options = options.with_overflow(InfillOverflow::KeepNearest);
    let completion = coder.complete(&request, &options).unwrap();
    assert!(completion.dropped.prefix_tokens > 500, "{completion:?}");
    assert_eq!(completion.usage.prompt_tokens, 240);
    assert_eq!(completion.text.trim(), "a + b");
}
