//! The ways to name a model: catalog id, Hugging Face repository, address, path.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ureq::http::Uri;

use crate::address::is_loopback;
use crate::catalog;
use crate::error::HubError;
use crate::files::check_relative;

/// Where a model is to come from, parsed from what a user writes.
///
/// | written | meaning |
/// |---|---|
/// | `gemma3:270m`, `smollm2` | id or alias of the catalog |
/// | `hf:owner/repo` | a Hugging Face repository; the usual quantization is chosen |
/// | `hf:owner/repo:Q8_0`, `hf:owner/repo:name.gguf@v1` | with quantization or file, and revision |
/// | `https://host/file.gguf` | an address (`http://` only on this machine) |
/// | `./file.gguf`, `/models/file.gguf`, `folder/file.gguf` | a file or folder here |
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// An entry of the catalog, by its id.
    Catalog(String),
    /// A Hugging Face repository.
    HuggingFace {
        /// `owner/name`.
        repo: String,
        /// Quantization ("Q4_K_M") or file name; the usual choice when absent.
        pick: Option<String>,
        /// Branch, tag or commit; `main` when absent.
        revision: Option<String>,
    },
    /// An address.
    Url(String),
    /// A file or folder on this machine.
    Path(PathBuf),
}

impl FromStr for ModelRef {
    type Err = HubError;

    /// Reads a reference without touching disk or network.
    ///
    /// # Errors
    /// [`HubError::UnknownModel`] with the nearest names, or [`HubError::InvalidReference`] with what would be right.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(invalid(text, "it is empty; `dunlin catalog` lists names"));
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return hugging_face(text, rest.trim_start_matches("//"));
        }
        if text.contains("://") {
            return address(text);
        }
        if let Some(card) = catalog::find(text) {
            return Ok(ModelRef::Catalog(card.id.clone()));
        }
        if looks_like_path(text) {
            return Ok(ModelRef::Path(PathBuf::from(text)));
        }
        if text.contains('/') {
            return Err(invalid(
                text,
                &format!(
                    "write hf:{text} for the Hugging Face repository, or ./{text} for a file here"
                ),
            ));
        }
        Err(HubError::UnknownModel {
            name: text.to_owned(),
            suggestions: catalog::suggestions(text),
        })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelRef::Catalog(id) => f.write_str(id),
            ModelRef::HuggingFace {
                repo,
                pick,
                revision,
            } => {
                write!(f, "hf:{repo}")?;
                if let Some(pick) = pick {
                    write!(f, ":{pick}")?;
                }
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                Ok(())
            }
            ModelRef::Url(url) => f.write_str(url),
            ModelRef::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

fn looks_like_path(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.starts_with(['.', '/', '~', '\\'])
        || text.contains('\\')
        || lower.ends_with(".gguf")
        || lower.ends_with(".safetensors")
        || text.as_bytes().get(1..3) == Some(b":/")
}

fn hugging_face(text: &str, rest: &str) -> Result<ModelRef, HubError> {
    let (rest, revision) = match rest.rsplit_once('@') {
        Some((rest, revision)) => (rest, Some(revision)),
        None => (rest, None),
    };
    let (path, pick) = match rest.split_once(':') {
        Some((path, pick)) => (path, Some(pick.to_owned())),
        None => (rest, None),
    };
    let mut parts = path.splitn(3, '/');
    let (Some(owner), Some(name), file) = (parts.next(), parts.next(), parts.next()) else {
        return Err(invalid(
            text,
            "a Hugging Face reference is hf:owner/repo[:quantization or file][@revision]",
        ));
    };
    if !is_repo_part(owner) || !is_repo_part(name) {
        return Err(invalid(
            text,
            "owner and repository consist of letters, digits, '-', '_' and '.'",
        ));
    }
    if file.is_some() && pick.is_some() {
        return Err(invalid(
            text,
            "the file is named twice, after / and after :",
        ));
    }
    let pick = pick.or(file.map(str::to_owned));
    for part in [pick.as_deref(), revision].into_iter().flatten() {
        check_relative(part).map_err(|reason| invalid(text, &reason))?;
    }
    Ok(ModelRef::HuggingFace {
        repo: format!("{owner}/{name}"),
        pick,
        revision: revision.map(str::to_owned),
    })
}

fn is_repo_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= 96
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--")
        && part
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn address(text: &str) -> Result<ModelRef, HubError> {
    if let Some(path) = text.strip_prefix("file://") {
        return Ok(ModelRef::Path(PathBuf::from(path)));
    }
    let uri: Uri = text
        .parse()
        .map_err(|_| invalid(text, "it is not a valid address"))?;
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        _ if host.is_empty() => Err(invalid(text, "the address has no host")),
        _ if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@')) =>
        {
            Err(invalid(
                text,
                "an address with a password in it would end up in logs; use a source that needs none",
            ))
        }
        Some("https") if matches!(host, "huggingface.co" | "hf.co") => {
            hugging_face_page(text, uri.path())
        }
        Some("https") => Ok(ModelRef::Url(text.to_owned())),
        Some("http") if is_loopback(&uri) => Ok(ModelRef::Url(text.to_owned())),
        Some("http") => Err(invalid(
            text,
            "plain http could be changed on the way; use https",
        )),
        _ => Err(invalid(text, "only https addresses are downloaded")),
    }
}

/// A copied address of the site is the repository that it shows, so that token and shared cache work for it too.
fn hugging_face_page(text: &str, path: &str) -> Result<ModelRef, HubError> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [owner, name] => hugging_face(text, &format!("{owner}/{name}")),
        [owner, name, "resolve" | "blob", revision, file @ ..] if !file.is_empty() => hugging_face(
            text,
            &format!("{owner}/{name}:{}@{revision}", file.join("/")),
        ),
        _ => Err(invalid(
            text,
            "it shows no file of a repository; write hf:owner/repo",
        )),
    }
}

fn invalid(text: &str, reason: &str) -> HubError {
    HubError::InvalidReference {
        text: text.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> ModelRef {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn fails(text: &str) -> String {
        text.parse::<ModelRef>().unwrap_err().to_string()
    }

    fn hf(repo: &str, pick: Option<&str>, revision: Option<&str>) -> ModelRef {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        ModelRef::HuggingFace {
            repo: repo.to_owned(),
            pick: owned(pick),
            revision: owned(revision),
        }
    }

    #[test]
    fn catalog_names_lead_to_their_id() {
        assert_eq!(
            parse("smollm2:135m"),
            ModelRef::Catalog("smollm2:135m".to_owned())
        );
        assert_eq!(
            parse(" SmolLM2 "),
            ModelRef::Catalog("smollm2:135m".to_owned())
        );
    }

    #[test]
    fn a_repository_may_name_quantization_file_and_revision() {
        assert_eq!(parse("hf:a/b"), hf("a/b", None, None));
        assert_eq!(parse("hf:a/b:Q4_K_M"), hf("a/b", Some("Q4_K_M"), None));
        assert_eq!(
            parse("hf:a/b:dir/x.gguf@v1"),
            hf("a/b", Some("dir/x.gguf"), Some("v1"))
        );
        assert_eq!(
            parse("hf:a/b@refs/pr/1"),
            hf("a/b", None, Some("refs/pr/1"))
        );
        assert_eq!(parse("hf:a/b/x.gguf"), hf("a/b", Some("x.gguf"), None));
        assert_eq!(
            parse("https://huggingface.co/a/b/resolve/main/x.gguf?download=true"),
            hf("a/b", Some("x.gguf"), Some("main"))
        );
        assert_eq!(parse("https://hf.co/a/b"), hf("a/b", None, None));
    }

    #[test]
    fn what_is_parsed_is_written_the_same_way() {
        for text in [
            "gemma3:270m",
            "hf:a/b",
            "hf:a/b:Q4_K_M@v1",
            "https://h/x.gguf",
            "./x.gguf",
        ] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn plain_http_is_for_this_machine_only() {
        assert_eq!(
            parse("http://127.0.0.1:8000/x.gguf"),
            ModelRef::Url("http://127.0.0.1:8000/x.gguf".to_owned())
        );
        assert!(fails("http://example.com/x.gguf").contains("https"));
        assert!(fails("ftp://example.com/x.gguf").contains("https"));
        assert!(fails("https://user:pw@example.com/x.gguf").contains("password"));
    }

    #[test]
    fn paths_are_told_by_their_look() {
        for text in ["x.gguf", "./x", "../x", "/x/y", "a/b.gguf", "C:/x", "a\\b"] {
            assert_eq!(parse(text), ModelRef::Path(PathBuf::from(text)), "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_helps() {
        assert!(fails("smolm2:135m").contains("did you mean smollm2:135m"));
        assert!(fails("owner/repo").contains("hf:owner/repo"));
        assert!(fails("hf:owner").contains("hf:owner/repo"));
        assert!(fails("").contains("empty"));
    }

    #[test]
    fn names_that_would_leave_the_cache_are_refused() {
        for text in [
            "hf:../x",
            "hf:a/..",
            "hf:a/b:../../x",
            "hf:a/b@../x",
            "hf:a/b:/etc/passwd",
            "hf:a--b/c",
        ] {
            assert!(text.parse::<ModelRef>().is_err(), "{text}");
        }
    }
}
