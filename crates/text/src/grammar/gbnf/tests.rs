use super::*;

fn lark(text: &str) -> String {
    to_lark(text, |name| {
        (name == "<|call|>").then(|| "<[7]>".to_owned())
    })
    .unwrap()
}

fn mistake(text: &str) -> (usize, usize, String) {
    match to_lark(text, |_| None) {
        Err(TextError::Gbnf {
            line,
            column,
            reason,
        }) => (line, column, reason),
        other => panic!("{text:?} gave {other:?}"),
    }
}

#[test]
fn what_does_not_recur_is_one_terminal() {
    let text =
        "root ::= \"a\" item* # comment\nitem ::= [^0-9\\]] |\n  \"\\x41\\u00e9\"{2,3} (.\n  )?\n";
    let wanted =
        "start: T0\nT0: (\"a\" (T1)*)\nT1: (/[^0-9\\x{5D}]/ | ((\"A\u{e9}\"){2,3} (/(?s:.)/)?))\n";
    assert_eq!(lark(text), wanted);
}

#[test]
fn rules_that_recur_are_cut_into_terminals_as_long_as_can_be() {
    let text = "root ::= \"(\" \" \"* root \")\" | <|call|> | ";
    let wanted = "start: r0-root\nP0: \"(\" (\" \")*\nP1: \")\"\nr0-root: ((P0 r0-root P1) | <[7]> | \"\")\n";
    assert_eq!(lark(text), wanted);
}

#[test]
fn a_bar_may_begin_a_line() {
    assert_eq!(
        lark("root ::= \"a\"\n  | \"b\"\n"),
        lark("root ::= \"a\" | \"b\"")
    );
}

#[test]
fn mistakes_are_named_with_line_and_column() {
    for (text, line, column, part) in [
        ("", 1, 1, "root"),
        ("a ::= \"b\"\n", 1, 1, "root"),
        ("root ::= \"é\" none\n", 1, 14, "no rule `none`"),
        ("root ::= \"a\nb\"", 1, 10, "not closed"),
        ("root ::= \"a\"\nroot ::= \"b\"", 2, 1, "already"),
        ("root ::= (\"a\"\n", 1, 10, "not closed"),
        ("root ::= \"a\")", 1, 13, "no group"),
        ("root ::= [z-a]", 1, 11, "backwards"),
        ("root ::= []", 1, 10, "no character"),
        ("root ::= \"a\"{3,2}", 1, 13, "repetitions"),
        ("root ::= \"a\"{99999999}", 1, 13, "repetitions"),
        ("root ::= \"\\q\"", 1, 11, "escapes"),
        ("root ::= \"\\ud800\"", 1, 11, "hexadecimal"),
        ("root ::= <|nothing|>", 1, 10, "no token"),
        ("root ::= !<|end|>", 1, 10, "must not come"),
        ("root = \"a\"", 1, 6, "::="),
        ("\n  $ ::= \"a\"", 2, 3, "name of a rule"),
        ("root ::= \"a\" $", 1, 14, "nothing that a rule"),
    ] {
        let (found_line, found_column, reason) = mistake(text);
        assert_eq!(
            (found_line, found_column),
            (line, column),
            "{text:?}: {reason}"
        );
        assert!(reason.contains(part), "{text:?}: {reason}");
    }
}

#[test]
fn groups_within_groups_are_bounded() {
    let text = format!("root ::= {}\"a\"{}", "(".repeat(5000), ")".repeat(5000));
    assert!(mistake(&text).2.contains("64"));
}
