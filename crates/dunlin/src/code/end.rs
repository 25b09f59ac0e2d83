//! Where a completion ends before the model ends it.

/// Where a completion ends. A model ends it by itself in any case: with a token that says so, or one that would begin another
/// file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeEnd {
    /// Where the model ends it.
    #[default]
    Model,
    /// After this many lines, what is written on the cursor's own line being the first.
    Lines(usize),
    /// Before the first blank line that follows some text.
    BlankLine,
    /// With the block in which the cursor stands: before the first line that is indented less, except that a line of closing
    /// brackets still belongs to it.
    ///
    /// Where the cursor stands behind what opens a block (`:`, `{`, `(` or `[` at the end of its line), that block is meant.
    Block,
}

/// What is known of a completion so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It goes on; so many bytes belong to it in any case.
    Open(usize),
    /// It ends after so many bytes.
    Ended(usize),
}

impl Reach {
    /// As far as both say: an end that comes first ends it.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Reach::Ended(a), Reach::Ended(b)) => Reach::Ended(a.min(b)),
            (Reach::Open(a), Reach::Open(b)) => Reach::Open(a.min(b)),
            (Reach::Ended(end), Reach::Open(_)) | (Reach::Open(_), Reach::Ended(end)) => {
                Reach::Ended(end)
            }
        }
    }
}

impl CodeEnd {
    /// How far `text` is the completion; `line` is what stands before the cursor on its line.
    pub(super) fn reach(self, line: &str, text: &str) -> Reach {
        match self {
            CodeEnd::Model => Reach::Open(text.len()),
            CodeEnd::Lines(count) => match text.match_indices('\n').nth(count.saturating_sub(1)) {
                Some((at, _)) => Reach::Ended(at),
                None => Reach::Open(text.len()),
            },
            CodeEnd::BlankLine => before_blank_line(text),
            CodeEnd::Block => before_dedent(line, text),
        }
    }
}

fn before_blank_line(text: &str) -> Reach {
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let is_blank = line.trim().is_empty();
        if is_blank && line.ends_with('\n') && !text[..end].trim().is_empty() {
            return Reach::Ended(text[..end].trim_end().len());
        }
        end += line.len();
    }
    // White space at the end may turn out to be a blank line.
    Reach::Open(text.trim_end().len())
}

fn before_dedent(line: &str, text: &str) -> Reach {
    let opens = line.trim_end().ends_with([':', '{', '(', '[']);
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().unwrap_or_default();
    let own = format!("{line}{first}");
    let mut least = match opens || own.trim().is_empty() {
        true => None,
        false => Some(indentation(&own)),
    };
    let mut end = first.len();
    for line in lines {
        let start = end;
        end += line.len();
        if line.trim().is_empty() {
            continue;
        }
        let depth = indentation(line);
        if depth >= *least.get_or_insert(depth) {
            continue;
        }
        let before = text[..start].trim_end().len();
        let closes = line.trim().chars().all(|c| ")]};,".contains(c));
        return match (closes, line.ends_with('\n')) {
            (true, true) => Reach::Ended(start + line.trim_end().len()),
            // What follows on this line decides.
            (true, false) => Reach::Open(before),
            (false, _) => Reach::Ended(before),
        };
    }
    Reach::Open(text.trim_end().len())
}

fn indentation(line: &str) -> usize {
    line.chars().take_while(|c| matches!(c, ' ' | '\t')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended<'t>(end: CodeEnd, line: &str, text: &'t str) -> Option<&'t str> {
        match end.reach(line, text) {
            Reach::Open(_) => None,
            Reach::Ended(at) => Some(&text[..at]),
        }
    }

    #[test]
    fn lines_are_counted_from_the_cursors_own() {
        let text = "a + b\n    c\nd";
        assert_eq!(ended(CodeEnd::Lines(1), "return ", text), Some("a + b"));
        assert_eq!(ended(CodeEnd::Lines(2), "", text), Some("a + b\n    c"));
        assert_eq!(ended(CodeEnd::Lines(3), "", text), None);
    }

    #[test]
    fn a_blank_line_ends_only_what_has_begun() {
        let end = CodeEnd::BlankLine;
        assert_eq!(
            ended(end, "", "\n\n  x = 1\n  y\n \nz"),
            Some("\n\n  x = 1\n  y")
        );
        assert_eq!(ended(end, "", "\n\n"), None);
        assert_eq!(end.reach("", "x\n  "), Reach::Open(1));
    }

    #[test]
    fn a_block_ends_before_what_is_indented_less() {
        let end = CodeEnd::Block;
        assert_eq!(
            ended(end, "    ", "if x:\n        y\n    return z\n\n\nprint(1)"),
            Some("if x:\n        y\n    return z")
        );
        // The cursor stands behind the colon: the block below is meant.
        assert_eq!(
            ended(end, "def f():", "\n    return 1\n\nprint(2)"),
            Some("\n    return 1")
        );
        assert_eq!(ended(end, "", "a\nb\n  c\nd\n"), None);
    }

    #[test]
    fn closing_brackets_belong_to_their_block_and_what_goes_on_after_them_does_not() {
        let end = CodeEnd::Block;
        assert_eq!(
            ended(end, "    ", "a();\n}\n\nfn other() {"),
            Some("a();\n}")
        );
        assert_eq!(ended(end, "    ", "a();\n} else {\n"), Some("a();"));
        assert_eq!(end.reach("    ", "a();\n}"), Reach::Open(4));
    }

    #[test]
    fn what_is_given_out_is_never_taken_back() {
        let text = "if x {\n        y\n    }\n\n    z(\n    );\n}\n\nfn next() {}\n";
        for end in [
            CodeEnd::Model,
            CodeEnd::Lines(3),
            CodeEnd::BlankLine,
            CodeEnd::Block,
        ] {
            let mut given = 0;
            for at in 0..=text.len() {
                match end.reach("    ", &text[..at]) {
                    Reach::Open(safe) => {
                        assert!(safe >= given, "{end:?} at {at}");
                        given = safe;
                    }
                    Reach::Ended(last) => {
                        assert!(last >= given, "{end:?} at {at}");
                        break;
                    }
                }
            }
        }
    }
}
