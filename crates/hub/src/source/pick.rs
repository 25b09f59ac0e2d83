//! Which files of a repository make up the model that a reference asks for.

use crate::error::HubError;

/// Tried in this order where a reference names no quantization: small with little loss first, then what is left.
const USUAL: [&str; 12] = [
    "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_XS", "IQ4_NL", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0",
    "F16", "BF16",
];

/// The file, or all parts of a split file in order.
///
/// `pick` is a file name (the whole path in the repository, or its last part) or a quantization.
///
/// # Errors
/// [`HubError::NoMatchingFile`] with what there is instead.
pub(super) fn choose(
    repo: &str,
    names: &[String],
    pick: Option<&str>,
) -> Result<Vec<String>, HubError> {
    let models: Vec<&String> = names.iter().filter(|name| is_model(name)).collect();
    let missing = |wanted: String| HubError::NoMatchingFile {
        repo: repo.to_owned(),
        wanted,
        available: models.iter().map(|name| (*name).clone()).collect(),
    };
    let Some(pick) = pick else {
        let usual = USUAL
            .iter()
            .find_map(|quantization| best_of(&models, quantization));
        let only = || {
            models
                .iter()
                .find(|name| part_of(name).is_none_or(|(_, part, _)| part == 1))
                .copied()
        };
        let chosen = usual
            .or_else(only)
            .ok_or_else(|| missing("GGUF file".to_owned()))?;
        return all_parts(repo, names, chosen);
    };
    let exact = names.iter().find(|name| *name == pick);
    let by_last_part = || {
        names
            .iter()
            .find(|name| name.rsplit('/').next() == Some(pick))
    };
    let chosen = exact
        .or_else(by_last_part)
        .or_else(|| best_of(&models, pick));
    let chosen = chosen.ok_or_else(|| missing(format!("file or quantization {pick:?}")))?;
    all_parts(repo, names, chosen)
}

/// Whether there is any GGUF file that is a model.
pub(super) fn has_models(names: &[String]) -> bool {
    names.iter().any(|name| is_model(name))
}

/// The file of a quantization; of several the one with the shortest name, which is the plainest variant.
fn best_of<'a>(models: &[&'a String], quantization: &str) -> Option<&'a String> {
    models
        .iter()
        .filter(|name| {
            has_word(name, quantization) && part_of(name).is_none_or(|(_, part, _)| part == 1)
        })
        .min_by_key(|name| (name.len(), name.as_str()))
        .copied()
}

fn is_model(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let last = lower.rsplit('/').next().unwrap_or_default();
    // A projector for images and an importance matrix are GGUF files too, but no models.
    last.ends_with(".gguf") && !last.contains("mmproj") && !last.contains("imatrix")
}

/// Whether the name has the word between separators, so that Q4_K does not mean Q4_K_M and Q8_0 not IQ8_0.
fn has_word(name: &str, word: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let word = word.to_ascii_uppercase();
    let is_edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
    name.match_indices(&word).any(|(at, _)| {
        is_edge(name[..at].chars().next_back()) && is_edge(name[at + word.len()..].chars().next())
    })
}

/// All parts of the split file that this one belongs to; the file itself where it is not split.
fn all_parts(repo: &str, names: &[String], chosen: &str) -> Result<Vec<String>, HubError> {
    // Enough for a terabyte in parts of the usual 50 GB many times over.
    const MOST_PARTS: usize = 999;
    let Some((stem, _, count)) = part_of(chosen) else {
        return Ok(vec![chosen.to_owned()]);
    };
    let parts: Vec<String> = (1..=count.min(MOST_PARTS))
        .map(|part| format!("{stem}-{part:05}-of-{count:05}.gguf"))
        .collect();
    match parts.iter().find(|part| !names.contains(part)) {
        None => Ok(parts),
        Some(absent) => Err(HubError::NoMatchingFile {
            repo: repo.to_owned(),
            wanted: format!("part {absent}"),
            available: names
                .iter()
                .filter(|name| name.starts_with(stem))
                .cloned()
                .collect(),
        }),
    }
}

/// Stem, number and count of a part "stem-00001-of-00003.gguf".
fn part_of(name: &str) -> Option<(&str, usize, usize)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(part) || !is_number(count) {
        return None;
    }
    Some((stem, part.parse().ok()?, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str], pick: Option<&str>) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        choose("o/r", &names, pick).unwrap_or_else(|error| vec![error.to_string()])
    }

    #[test]
    fn the_usual_quantization_is_chosen_where_none_is_named() {
        assert_eq!(
            chosen(
                &[
                    "README.md",
                    "m-Q8_0.gguf",
                    "m-Q4_K_M.gguf",
                    "mmproj-Q4_K_M.gguf"
                ],
                None
            ),
            ["m-Q4_K_M.gguf"]
        );
        assert_eq!(chosen(&["m-IQ1_S.gguf"], None), ["m-IQ1_S.gguf"]);
    }

    #[test]
    fn a_quantization_is_a_whole_word_in_any_case() {
        let names = [
            "m-Q4_K_M.gguf",
            "m-Q4_K_S.gguf",
            "m-IQ4_XS.gguf",
            "m.q8_0.gguf",
            "m-UD-Q4_K_M.gguf",
        ];
        assert_eq!(chosen(&names, Some("q4_k_m")), ["m-Q4_K_M.gguf"]);
        assert_eq!(chosen(&names, Some("Q8_0")), ["m.q8_0.gguf"]);
        assert_eq!(chosen(&names, Some("UD-Q4_K_M")), ["m-UD-Q4_K_M.gguf"]);
        assert!(
            chosen(&names, Some("Q4_K"))[0].contains("m-Q4_K_S.gguf"),
            "the error lists what there is"
        );
    }

    #[test]
    fn a_file_is_found_by_its_path_or_its_name() {
        let names = ["a/m-Q4_0.gguf", "m.bin"];
        assert_eq!(chosen(&names, Some("a/m-Q4_0.gguf")), ["a/m-Q4_0.gguf"]);
        assert_eq!(chosen(&names, Some("m-Q4_0.gguf")), ["a/m-Q4_0.gguf"]);
        assert_eq!(chosen(&names, Some("m.bin")), ["m.bin"]);
    }

    #[test]
    fn a_split_file_comes_with_all_its_parts() {
        let names = [
            "Q4_0/m-Q4_0-00002-of-00002.gguf",
            "Q4_0/m-Q4_0-00001-of-00002.gguf",
        ];
        assert_eq!(
            chosen(&names, Some("Q4_0")),
            [
                "Q4_0/m-Q4_0-00001-of-00002.gguf",
                "Q4_0/m-Q4_0-00002-of-00002.gguf"
            ]
        );
        assert_eq!(chosen(&names, None).len(), 2);
        let error = chosen(&["m-Q4_0-00001-of-00002.gguf"], None);
        assert!(error[0].contains("m-Q4_0-00002-of-00002.gguf"), "{error:?}");
    }

    #[test]
    fn a_wish_for_a_quantization_needs_gguf_files() {
        let error = &chosen(&["model.safetensors"], Some("Q4_0"))[0];
        assert!(
            error.contains("-GGUF") && error.contains(":safetensors"),
            "{error}"
        );
    }
}
