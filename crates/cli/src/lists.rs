//! Lists of numbers as people and scripts write them: `1,2,3`, `1 2 3` or `[1, 2, 3]`.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// Numbers separated by commas or white space, in square brackets or not.
///
/// # Errors
/// The first piece that is no whole number from 0 to 4294967295; a comma with no number before or behind it.
pub(crate) fn parse(text: &str) -> Result<Vec<u32>> {
    let text = text.trim();
    let inner = match (text.strip_prefix('['), text.strip_suffix(']')) {
        (Some(_), Some(_)) => &text[1..text.len() - 1],
        (None, None) => text,
        _ => bail!("the list has only one of its square brackets"),
    };
    if inner.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut numbers = Vec::new();
    for (index, part) in inner.split(',').enumerate() {
        // A number that got lost between two commas must not pass as a shorter list.
        if part.trim().is_empty() {
            bail!(
                "number {} of the list is empty: there is a comma too many",
                index + 1
            );
        }
        for piece in part.split_whitespace() {
            numbers.push(piece.parse().with_context(|| {
                format!("{piece:?} is no token id or position (a whole number from 0 on)")
            })?);
        }
    }
    Ok(numbers)
}

/// As [`parse`], for a list or the name of a file that holds one; `-` is stdin.
///
/// # Errors
/// As [`parse`], or the file cannot be read.
pub(crate) fn parse_or_read(text: &str) -> Result<Vec<u32>> {
    if text == "-" {
        let text = std::io::read_to_string(std::io::stdin())
            .context("cannot read token ids from stdin")?;
        return parse(&text);
    }
    let all_list = text
        .chars()
        .all(|c| c.is_ascii_digit() || c.is_whitespace() || "[],".contains(c));
    let meant_as_list = text.contains([',', '[', ' ']) && !Path::new(text).exists();
    if all_list || meant_as_list {
        return parse(text);
    }
    let content = std::fs::read_to_string(text).with_context(|| {
        format!("{text} is neither a list of token ids nor a file that can be read")
    })?;
    parse(&content).with_context(|| format!("{text} is no list of token ids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_are_read() {
        for text in ["1,2,3", "1 2 3", "[1, 2, 3]", " 1,\n2,\t3\n"] {
            assert_eq!(parse(text).unwrap(), [1, 2, 3], "{text:?}");
        }
        assert!(parse("").unwrap().is_empty());
        assert!(parse("[]").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_number_is_named() {
        assert!(parse("1,x").unwrap_err().to_string().contains("\"x\""));
        assert!(parse("-1").is_err());
        assert!(parse("4294967296").is_err());
        assert!(parse("[1,2").is_err());
        for text in ["1,,2", "1,2,", ",1", ",", "[1, ,2]"] {
            assert!(
                parse(text).unwrap_err().to_string().contains("comma"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_file_may_hold_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.json");
        std::fs::write(&path, "[5, 6]\n").unwrap();
        assert_eq!(parse_or_read(path.to_str().unwrap()).unwrap(), [5, 6]);
        assert!(parse_or_read("no/such/file").is_err());
    }
}
