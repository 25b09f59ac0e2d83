//! Addresses: what is valid, where a redirect leads, what stays on this machine.

use std::net::IpAddr;

use ureq::http::Uri;

use crate::error::HubError;

/// An address that can be asked: http or https, with a host.
pub(crate) fn parse(url: &str) -> Result<Uri, HubError> {
    let bad = |reason: &str| HubError::InvalidReference {
        text: url.to_owned(),
        reason: reason.to_owned(),
    };
    let uri: Uri = url.parse().map_err(|_| bad("it is not a valid address"))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => Err(bad("an address starts with https:// and a host")),
    }
}

/// The target of a redirect: absolute, with a host, from the root, or beside the present page (RFC 3986, 5.2).
pub(crate) fn join(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let scheme = from.scheme_str()?;
    let authority = from.authority()?;
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = &from.path()[..=from.path().rfind('/')?];
        format!("{scheme}://{authority}{folder}{location}")
    };
    parse(&absolute).ok()
}

/// Scheme, host and port: what a credential belongs to.
pub(crate) fn origin(uri: &Uri) -> (Option<&str>, Option<String>, u16) {
    let default = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    (
        uri.scheme_str(),
        uri.host().map(str::to_ascii_lowercase),
        uri.port_u16().unwrap_or(default),
    )
}

/// Whether a secret may be sent there: it is protected on the way, or never leaves the machine.
pub(crate) fn is_confidential(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https") || is_loopback(uri)
}

/// The host of an address, for messages.
pub(crate) fn host_of(url: &str) -> String {
    url.parse::<Uri>()
        .ok()
        .and_then(|uri| uri.authority().map(|a| a.host().to_owned()))
        .unwrap_or(url.to_owned())
}

/// Whether the address stays on this machine.
pub(crate) fn is_loopback(uri: &Uri) -> bool {
    let Some(host) = uri.host() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(from: &str, location: &str) -> String {
        join(&from.parse().unwrap(), location)
            .map(|uri| uri.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn a_redirect_may_be_absolute_or_relative() {
        assert_eq!(joined("https://a/x/y?q=1", "https://b/z"), "https://b/z");
        assert_eq!(joined("https://a/x/y?q=1", "//b/z"), "https://b/z");
        assert_eq!(
            joined("https://a:8/x/y?q=1", "/z?r=2#part"),
            "https://a:8/z?r=2"
        );
        assert_eq!(joined("https://a/x/y?q=1", "z"), "https://a/x/z");
        assert_eq!(joined("https://a/x", "ftp://b/z"), "");
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for here in [
            "http://localhost:1/",
            "http://127.0.0.1/",
            "http://127.9.9.9/",
            "http://[::1]:80/",
        ] {
            assert!(is_loopback(&here.parse().unwrap()), "{here}");
        }
        for away in [
            "http://127.0.0.1.example.com/",
            "http://localhost.example.com/",
            "http://10.0.0.1/",
        ] {
            assert!(!is_loopback(&away.parse().unwrap()), "{away}");
        }
    }

    #[test]
    fn a_token_stays_with_its_host_port_and_scheme() {
        let at = |url: &str| -> Uri { url.parse().unwrap() };
        assert_eq!(origin(&at("https://A/x")), origin(&at("https://a:443/y")));
        assert_ne!(origin(&at("https://a/x")), origin(&at("https://a:444/x")));
        assert_ne!(origin(&at("https://a/x")), origin(&at("http://a:443/x")));
        assert!(is_confidential(&at("https://a/")) && !is_confidential(&at("http://a/")));
    }
}
