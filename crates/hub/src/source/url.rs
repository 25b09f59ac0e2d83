//! A file at any address.

use super::{Context, Delivery, Wanted, ready_folder};
use crate::card::Layout;
use crate::download::{Job, download};
use crate::error::HubError;
use crate::files::check_relative;
use crate::http::Patience;
use crate::manifest::FileRecord;
use crate::progress::Reporter;

pub(super) fn fetch(
    context: &Context<'_>,
    url: &str,
    wanted: &Wanted,
    reporter: &mut Reporter<'_>,
) -> Result<Delivery, HubError> {
    let fallback = file_name_of(url);
    let file = wanted.files.first();
    let name = file.map_or(fallback.as_str(), |file| file.name.as_str());
    let ready = ready_folder(context.work);
    let job = Job {
        url,
        token: None,
        repo_page: None,
        label: name,
        part: &context.work.join("download.part"),
        destination: &ready.join(name),
        size: file.and_then(|file| file.size),
        sha256: file.and_then(|file| file.sha256.as_deref()),
        // Where a hash is promised, it decides.
        must_be_gguf: wanted.layout == Layout::File
            && file.is_none_or(|file| file.sha256.is_none()),
    };
    let mut patience = Patience::new(context.config.timing.answer);
    let fetched = download(
        context.client,
        context.config,
        &job,
        &mut patience,
        reporter,
    )?;
    let record = FileRecord::of(&ready, name, fetched.sha256, true)?;
    Ok(Delivery {
        root: None,
        layout: wanted.layout,
        files: vec![record],
    })
}

/// The name that a file of this address gets here: the last part of its path, with nothing that a file system
/// could misread.
pub(crate) fn file_name_of(url: &str) -> String {
    const LONGEST: usize = 120;
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let last = path
        .split_once('/')
        .map_or("", |(_, path)| path.rsplit('/').next().unwrap_or_default());
    let plain: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    let start = plain.len().saturating_sub(LONGEST);
    match plain[start..].trim_start_matches('.') {
        // The manifest lies in the same folder and keeps its name.
        name if check_relative(name).is_err() || name.starts_with("manifest.json") => {
            "model.gguf".to_owned()
        }
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_come_from_the_address_and_are_harmless() {
        assert_eq!(file_name_of("https://h/a/b.gguf?x=/y"), "b.gguf");
        assert_eq!(
            file_name_of("https://h/a/%2e%2e%2fx.gguf"),
            "_2e_2e_2fx.gguf"
        );
        assert_eq!(file_name_of("https://h"), "model.gguf");
        assert_eq!(file_name_of("https://h/"), "model.gguf");
        assert_eq!(file_name_of("https://h/.."), "model.gguf");
        assert_eq!(file_name_of("https://h/manifest.json"), "model.gguf");
        assert_eq!(
            file_name_of(&format!("https://h/{}.gguf", "x".repeat(500))).len(),
            120
        );
    }
}
