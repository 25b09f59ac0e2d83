//! The models known by name: `catalog.toml`, compiled in.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::card::ModelCard;

#[derive(Deserialize)]
struct CatalogFile {
    model: Vec<ModelCard>,
}

// The text is part of the program and a test parses it, so a failure here is a defect of the build.
#[allow(clippy::panic)]
static CATALOG: LazyLock<Vec<ModelCard>> =
    LazyLock::new(
        || match toml::from_str::<CatalogFile>(include_str!("../catalog.toml")) {
            Ok(file) => file.model,
            Err(error) => panic!("the built-in catalog.toml does not parse: {error}"),
        },
    );

/// All models that have a name, in the order of the catalog file.
pub fn catalog() -> &'static [ModelCard] {
    &CATALOG
}

/// The card with this id or alias; upper and lower case are the same.
pub fn find(name: &str) -> Option<&'static ModelCard> {
    catalog()
        .iter()
        .find(|card| names(card).any(|known| known.eq_ignore_ascii_case(name)))
}

/// Known names near to a misspelt one, nearest first, three at most.
pub(crate) fn suggestions(name: &str) -> Vec<String> {
    const SHOWN: usize = 3;
    let wanted = name.to_ascii_lowercase();
    let mut scored: Vec<(f64, &str)> = catalog()
        .iter()
        .map(|card| {
            let best = names(card)
                .map(|known| likeness(&wanted, known))
                .fold(0.0, f64::max);
            (best, card.id.as_str())
        })
        .filter(|(score, _)| *score > 0.75)
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored
        .into_iter()
        .take(SHOWN)
        .map(|(_, id)| id.to_owned())
        .collect()
}

fn names(card: &ModelCard) -> impl Iterator<Item = &str> {
    std::iter::once(card.id.as_str()).chain(card.aliases.iter().map(String::as_str))
}

fn likeness(wanted: &str, known: &str) -> f64 {
    // "gemma" and "qwen3:" should lead to their families although much of the name is missing.
    if !wanted.is_empty() && known.starts_with(wanted) {
        0.99
    } else {
        strsim::jaro_winkler(wanted, known)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::card::{Layout, Source};

    #[test]
    fn lists_the_models_that_the_product_promises() {
        for id in [
            "qwen3:0.6b",
            "gemma3:1b",
            "qwen3:1.7b",
            "phi4-mini:3.8b",
            "gemma3:4b",
            "qwen3:4b",
            "llama3.1:8b",
            "mistral:7b",
            "gemma3:270m",
            "smollm2:135m",
            "qwen2.5-coder:0.5b",
            "all-minilm:l6-v2",
            "qwen3-embedding:0.6b",
            "embeddinggemma:300m",
        ] {
            assert!(find(id).is_some(), "{id} is missing");
        }
    }

    #[test]
    fn every_name_is_used_once() {
        let mut seen = HashSet::new();
        for card in catalog() {
            for name in names(card) {
                assert!(
                    seen.insert(name.to_ascii_lowercase()),
                    "{name} stands twice"
                );
                assert!(
                    name.chars().all(|c| c.is_ascii_lowercase()
                        || c.is_ascii_digit()
                        || "._-:".contains(c)),
                    "{name} has a character that names do not have"
                );
            }
        }
    }

    #[test]
    fn every_entry_has_a_source_a_licence_and_files() {
        for card in catalog() {
            assert!(!card.sources.is_empty(), "{} has no source", card.id);
            assert!(!card.files.is_empty(), "{} names no file", card.id);
            let licence = card
                .licence
                .as_ref()
                .unwrap_or_else(|| panic!("{} has no licence", card.id));
            assert!(
                licence.url.starts_with("https://"),
                "{}: {}",
                card.id,
                licence.url
            );
            assert!(
                card.context_length.is_some()
                    && card.family.is_some()
                    && card.architecture.is_some(),
                "{}",
                card.id
            );
            assert!(
                card.parameters.is_some() && card.quantization.is_some(),
                "{}",
                card.id
            );
            assert!(
                card.layout == Layout::Folder || card.files.len() == 1,
                "{}",
                card.id
            );
            for file in &card.files {
                crate::files::check_relative(&file.name).unwrap();
                if let Some(sha256) = &file.sha256 {
                    assert!(
                        sha256.len() == 64 && sha256.chars().all(|c| c.is_ascii_hexdigit()),
                        "{sha256}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_comes_from_a_wheel_is_checked_against_the_catalog() {
        for card in catalog() {
            for source in &card.sources {
                if let Source::Wheel {
                    packages, inside, ..
                } = source
                {
                    assert!(
                        card.sha256().is_some() && card.files[0].size.is_some(),
                        "{}",
                        card.id
                    );
                    assert!(
                        packages.iter().all(|package| package.contains("==")),
                        "{packages:?} is not pinned"
                    );
                    let expected = if card.layout == Layout::Folder {
                        1
                    } else {
                        packages.len()
                    };
                    assert_eq!(inside.len(), expected, "{}", card.id);
                }
            }
        }
    }

    #[test]
    fn parameters_are_counted() {
        for (id, parameters) in [
            ("smollm2:135m", 135_000_000),
            ("qwen3:0.6b", 600_000_000),
            ("llama3.1:8b", 8_000_000_000),
        ] {
            assert_eq!(find(id).unwrap().parameter_count(), Some(parameters));
        }
        assert!(
            catalog()
                .iter()
                .all(|card| card.parameter_count().is_some())
        );
        for parameters in ["", "B", "many", "1T", "-1B", "infB", "é"] {
            let card = ModelCard {
                parameters: Some(parameters.to_owned()),
                ..find("smollm2:135m").unwrap().clone()
            };
            assert_eq!(card.parameter_count(), None, "{parameters:?}");
        }
    }

    #[test]
    fn gemma_models_say_their_terms() {
        for card in catalog().iter().filter(|card| card.id.contains("gemma")) {
            let licence = card.licence.as_ref().unwrap();
            let notice = licence.notice.as_deref().unwrap();
            assert!(notice.contains("ai.google.dev/gemma/terms"), "{}", card.id);
        }
    }

    #[test]
    fn a_name_is_found_by_alias_and_without_regard_to_case() {
        assert_eq!(find("SmolLM2").unwrap().id, "smollm2:135m");
        assert_eq!(find("smollm2").unwrap().id, "smollm2:135m");
        assert!(find("smollm3").is_none());
    }

    #[test]
    fn a_misspelt_name_leads_to_the_right_one() {
        assert_eq!(suggestions("smolm2:135m")[0], "smollm2:135m");
        assert_eq!(suggestions("qwen3:06b")[0], "qwen3:0.6b");
        assert!(suggestions("gemma").contains(&"gemma3:1b".to_owned()));
        assert!(suggestions("xyzzy").is_empty());
    }
}
