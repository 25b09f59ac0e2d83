//! Where a completion begins to repeat what stands after the gap.

use super::end::Reach;

/// A shorter beginning of the suffix may well stand in the gap too (`}`, `return None`).
const SHORTEST_ANCHOR: usize = 8;
/// The beginning of the suffix that is waited for has as many characters at least, and then the rest of its line.
const ANCHOR: usize = 20;

/// Notices when a completion goes on with the suffix, which small models do instead of ending.
#[derive(Debug)]
pub(super) struct SuffixWatch<'s> {
    /// White space at the beginning of the suffix.
    lead: &'s str,
    /// What follows it, some of it: where this is written, the suffix is repeated.
    anchor: &'s str,
}

impl<'s> SuffixWatch<'s> {
    /// `None` for a suffix that says too little to be recognized.
    pub(super) fn new(suffix: &'s str) -> Option<Self> {
        let rest = suffix.trim_start();
        let lead = &suffix[..suffix.len() - rest.len()];
        let from = rest.char_indices().nth(ANCHOR).map(|(at, _)| at);
        let end = from.and_then(|from| Some(from + rest[from..].find('\n')?));
        let anchor = rest[..end.unwrap_or(rest.len())].trim_end();
        let says = anchor.chars().filter(|c| !c.is_whitespace()).count();
        (says >= SHORTEST_ANCHOR).then_some(SuffixWatch { lead, anchor })
    }

    /// How far `text` is certainly not the suffix, or where the suffix begins.
    pub(super) fn reach(&self, text: &str) -> Reach {
        match text.find(self.anchor) {
            Some(at) => Reach::Ended(self.without_lead(&text[..at])),
            None => {
                let begins = text.char_indices().map(|(at, _)| at);
                let at = begins
                    .skip_while(|&at| text.len() - at >= self.anchor.len())
                    .find(|&at| self.anchor.starts_with(&text[at..]))
                    .unwrap_or(text.len());
                // White space at the end may turn out to be that before the suffix.
                Reach::Open(match self.lead.is_empty() {
                    true => at,
                    false => text[..at].trim_end().len(),
                })
            }
        }
    }

    /// Length of a text without white space at its end that belongs to the suffix.
    fn without_lead(&self, text: &str) -> usize {
        let same = text.bytes().rev().zip(self.lead.bytes().rev());
        text.len() - same.take_while(|(a, b)| a == b).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The completion of each gap as it grows, until it is known where it ends.
    fn completed<'t>(suffix: &str, text: &'t str) -> (&'t str, bool) {
        let Some(watch) = SuffixWatch::new(suffix) else {
            return (text, false);
        };
        let mut given = 0;
        for at in (0..=text.len()).filter(|&at| text.is_char_boundary(at)) {
            match watch.reach(&text[..at]) {
                Reach::Open(safe) => {
                    assert!(safe >= given, "{text:?} at {at}");
                    given = safe;
                }
                Reach::Ended(end) => {
                    assert!(end >= given, "{text:?} at {at}");
                    return (&text[..end], true);
                }
            }
        }
        (text, false)
    }

    #[test]
    fn a_completion_ends_before_the_rest_of_its_line_and_before_the_lines_that_follow() {
        let suffix = " == 0\n\nassert is_even(4)\n";
        let text = "2 == 0\n\nassert is_even(4)\nassert";
        assert_eq!(completed(suffix, text), ("2", true));
        let suffix = "\n\nprint(add(1, 2))\n";
        let text = "a + b\n\nprint(add(1, 2))";
        assert_eq!(completed(suffix, text), ("a + b", true));
        // What stands before it that is not of the suffix stays.
        let text = "a + b\n\n\nprint(add(1, 2))";
        assert_eq!(completed(suffix, text), ("a + b\n", true));
    }

    #[test]
    fn what_only_begins_like_the_suffix_is_kept() {
        let suffix = "\n    print(total, end=\"\")\n    return total\n";
        let text = "x = 1\n    print(total, file)\n    print(total";
        assert_eq!(completed(suffix, text), (text, false));
    }

    #[test]
    fn a_line_of_the_suffix_is_recognized_as_a_whole() {
        let suffix = "\n<li class=\"wide entry\">last</li>\n";
        let text = "\n<li class=\"wide entry\">first</li>\n<li class=\"wide entry\">last</li>\n";
        let wanted = "\n<li class=\"wide entry\">first</li>";
        assert_eq!(completed(suffix, text), (wanted, true));
    }

    #[test]
    fn a_suffix_that_says_little_ends_nothing() {
        for suffix in ["", "\n}\n", ";\n}\n", "  \n\n", "]\n  }\n"] {
            assert!(SuffixWatch::new(suffix).is_none(), "{suffix:?}");
        }
    }

    #[test]
    fn letters_of_several_bytes_are_not_cut() {
        let suffix = "\nprint(\"größer\")\n";
        let text = "grün\nprint(\"größe\")\nprint(\"größer\")";
        assert_eq!(completed(suffix, text), ("grün\nprint(\"größe\")", true));
    }
}
