//! Which language a text is in.
//!
//! By its letters and groups of three letters (the crate `whatlang`), without any model: that is faster by orders of magnitude than a
//! language model, and small ones know few languages by name.

use whatlang::{Detector, Lang};

use super::TaskError;

/// The language of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct DetectedLanguage {
    /// Its code of ISO 639-3, such as `fra`.
    pub code: &'static str,
    /// Its English name.
    pub name: &'static str,
    /// How sure it is, 0 to 1.
    pub confidence: f64,
    /// Whether this is sure enough to rely on; seldom so for less than a sentence.
    pub is_reliable: bool,
}

/// The language of a text, of about 70, or of those among them that are named by code or English name. `None` where the text has no
/// letters that one of them is written in.
///
/// # Errors
/// [`TaskError::UnknownLanguage`] for a name or code that is none of them.
pub fn detect_language<S: AsRef<str>>(
    text: &str,
    among: &[S],
) -> Result<Option<DetectedLanguage>, TaskError> {
    let detector = match among {
        [] => Detector::new(),
        names => {
            let known = names.iter().map(|name| known(name.as_ref()));
            Detector::with_allowlist(known.collect::<Result<_, _>>()?)
        }
    };
    Ok(detector.detect(text).map(|info| DetectedLanguage {
        code: info.lang().code(),
        name: info.lang().eng_name(),
        confidence: info.confidence(),
        is_reliable: info.is_reliable(),
    }))
}

/// The English name of a language that is named by its code of ISO 639-3, its code of two letters or its English name; any other
/// name as it is.
#[must_use]
pub fn language_name(name: &str) -> String {
    known(name).map_or_else(
        |_| name.to_owned(),
        |language| language.eng_name().to_owned(),
    )
}

fn known(name: &str) -> Result<Lang, TaskError> {
    let lower = name.trim().to_lowercase();
    let by_two_letters = TWO_LETTERS.iter().find(|(short, _)| *short == lower);
    let code = by_two_letters.map_or(lower.as_str(), |(_, code)| code);
    let is_it = |language: &&Lang| {
        language.code() == code || language.eng_name().eq_ignore_ascii_case(&lower)
    };
    let found = Lang::all().iter().find(is_it).copied();
    found.ok_or_else(|| TaskError::UnknownLanguage {
        found: name.to_owned(),
        known: Lang::all()
            .iter()
            .map(|language| language.eng_name())
            .collect::<Vec<_>>()
            .join(", "),
    })
}

/// ISO 639-1 for the codes of ISO 639-3 that do not begin with it, or are ambiguous, and for the most used others.
const TWO_LETTERS: [(&str, &str); 46] = [
    ("ar", "ara"),
    ("bg", "bul"),
    ("bn", "ben"),
    ("ca", "cat"),
    ("cs", "ces"),
    ("da", "dan"),
    ("de", "deu"),
    ("el", "ell"),
    ("en", "eng"),
    ("eo", "epo"),
    ("es", "spa"),
    ("et", "est"),
    ("fa", "pes"),
    ("fi", "fin"),
    ("fr", "fra"),
    ("gu", "guj"),
    ("he", "heb"),
    ("hi", "hin"),
    ("hr", "hrv"),
    ("hu", "hun"),
    ("id", "ind"),
    ("it", "ita"),
    ("ja", "jpn"),
    ("kn", "kan"),
    ("ko", "kor"),
    ("la", "lat"),
    ("lt", "lit"),
    ("lv", "lav"),
    ("ml", "mal"),
    ("mr", "mar"),
    ("nb", "nob"),
    ("nl", "nld"),
    ("no", "nob"),
    ("pl", "pol"),
    ("pt", "por"),
    ("ro", "ron"),
    ("ru", "rus"),
    ("sk", "slk"),
    ("sv", "swe"),
    ("ta", "tam"),
    ("te", "tel"),
    ("th", "tha"),
    ("tr", "tur"),
    ("uk", "ukr"),
    ("vi", "vie"),
    ("zh", "cmn"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_told_apart() {
        for (text, code) in [
            (
                "The weather was so bad that nobody wanted to leave the house.",
                "eng",
            ),
            (
                "Das Wetter war so schlecht, dass niemand das Haus verlassen wollte.",
                "deu",
            ),
            (
                "Il faisait si mauvais que personne ne voulait quitter la maison.",
                "fra",
            ),
            (
                "Погода была такой плохой, что никто не хотел выходить из дома.",
                "rus",
            ),
            (
                "天気がとても悪かったので、誰も家を出たがらなかった。",
                "jpn",
            ),
        ] {
            let found = detect_language::<&str>(text, &[]).unwrap().unwrap();
            assert_eq!(found.code, code, "{text}");
            let among = detect_language(text, &["de", "english", "fra", "ru", "Japanese"]).unwrap();
            assert_eq!(among.unwrap().code, code, "{text}");
        }
        assert_eq!(detect_language::<&str>("1234 -- 5", &[]).unwrap(), None);
    }

    #[test]
    fn languages_are_named_by_code_or_name() {
        for (named, name) in [
            ("de", "German"),
            ("FRA", "French"),
            ("spanish", "Spanish"),
            ("Klingon", "Klingon"),
        ] {
            assert_eq!(language_name(named), name);
        }
        let error = detect_language("x", &["Klingon"]).unwrap_err();
        assert!(matches!(&error, TaskError::UnknownLanguage { found, .. } if found == "Klingon"));
        assert!(
            TWO_LETTERS
                .iter()
                .all(|(_, code)| Lang::from_code(*code).is_some())
        );
    }
}
