//! `Endpoint`: where the service is, from its base URL.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, utf8_percent_encode};

use crate::url::{NOT_IN_PATH, Url};

/// ASCII characters that may not stand in one segment of a path.
const NOT_IN_SEGMENT: &AsciiSet = &NOT_IN_PATH.add(b'/').add(b'+').add(b'&');

/// The service's base URL, in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) secure: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port as they stand in requests.
    pub(super) authority: String,
    /// What stands before `/v1`; empty, or with a slash at its beginning and none at its end.
    prefix: String,
}

impl Endpoint {
    /// Reads a base URL such as `https://api.sprites.dev`.
    ///
    /// # Errors
    /// Says what is wrong, and repeats nothing of the URL.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (url, authority) = Url::parse_absolute(text.trim())?;
        let secure = url.has_scheme(&["https"]);
        if !secure && !url.has_scheme(&["http"]) {
            return Err("it is neither https:// nor http://");
        }
        if url.user_info.is_some() || url.query.is_some() || url.fragment.is_some() {
            return Err("it has a user name, a query or a fragment; leave them out");
        }
        if !url.path.is_ascii() {
            return Err("its path has a character that is not ASCII");
        }
        let host = authority.bare_host().to_owned();
        if !secure && !is_loopback(&host) {
            return Err(
                "it is http:// and leads to another machine, where the token would be readable on the way; use https://",
            );
        }
        Ok(Self {
            secure,
            host,
            port: authority.port.unwrap_or(if secure { 443 } else { 80 }),
            authority: authority.to_string(),
            prefix: url.path.trim_end_matches('/').to_owned(),
        })
    }

    /// Returns the path and query of a request. The segments are encoded here.
    pub(super) fn target(&self, segments: &[&str], query: &[(&str, &str)]) -> String {
        let mut target = format!("{}/v1", self.prefix);
        for segment in segments {
            target.push('/');
            target.extend(utf8_percent_encode(segment, NOT_IN_SEGMENT));
        }
        if !query.is_empty() {
            let mut encoded = form_urlencoded::Serializer::new(String::new());
            encoded.extend_pairs(query);
            target.push('?');
            target.push_str(&encoded.finish());
        }
        target
    }

    /// Returns the URL of a request.
    pub(super) fn url(&self, target: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}{target}", self.authority)
    }
}

/// Whether a URL names the machine that uses it.
pub(super) fn leads_to_this_machine(url: &str) -> bool {
    let leads_here = |host: &str| {
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
        // Connecting to 0.0.0.0 is connecting to oneself.
        let is_here = |address: IpAddr| address.is_loopback() || address.is_unspecified();
        name == "localhost" || name.ends_with(".localhost") || address.is_ok_and(is_here)
    };
    let url = url.trim();
    let url = if url.contains(['/', '?', '#']) {
        Cow::from(url)
    } else {
        // A host alone, or host and port, as `connection_url` takes them.
        format!("ws://{url}").into()
    };
    Url::parse_absolute(&url).is_ok_and(|(_, authority)| leads_here(authority.bare_host()))
}

pub(super) fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether this can be one segment of a path, and not another path.
pub(super) fn is_segment(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text != "." && text != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_taken_apart() {
        let endpoint = Endpoint::parse("https://api.sprites.dev//").unwrap();
        assert!(endpoint.secure);
        assert_eq!(
            (endpoint.host.as_str(), endpoint.port),
            ("api.sprites.dev", 443)
        );
        assert_eq!(endpoint.url("/v1"), "https://api.sprites.dev/v1");
        let endpoint = Endpoint::parse("http://[::1]:8080/fake/").unwrap();
        assert!(!endpoint.secure);
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 8080));
        let target = endpoint.target(
            &["sprites", "a/../b c?d"],
            &[("cmd", "a b"), ("cmd", "&=+")],
        );
        assert_eq!(
            endpoint.url(&target),
            "http://[::1]:8080/fake/v1/sprites/a%2F..%2Fb%20c%3Fd?cmd=a+b&cmd=%26%3D%2B"
        );
    }

    #[test]
    fn what_cannot_be_a_base_url_is_refused_without_repeating_it() {
        for (url, problem) in [
            ("", "not a URL"),
            ("api.sprites.dev", "not a URL"),
            ("ftp://secret", "neither"),
            ("https://user:secret@host", "user name"),
            ("https://host/?token=secret", "query"),
            ("https://host/#secret", "fragment"),
            ("http://secret.example", "another machine"),
            ("http://10.0.0.1", "another machine"),
            ("https://host/\r\nsecret", "character"),
        ] {
            let error = Endpoint::parse(url).unwrap_err();
            assert!(error.contains(problem), "{url:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        for url in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]"] {
            assert!(Endpoint::parse(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn urls_that_lead_back_to_the_machine_that_asks_are_known() {
        for url in [
            "ws://127.0.0.1:8000",
            " ws://localhost ",
            "wss://[::1]:1/x",
            "ws://0.0.0.0:8000",
            "ws://[::]:8000",
            "localhost:8000",
            "127.0.0.1",
        ] {
            assert!(leads_to_this_machine(url), "{url}");
        }
        for url in [
            "http://[::ffff:127.0.0.1]:8000",
            "ws://foo.localhost",
            "ws://LOCALHOST.",
        ] {
            assert!(leads_to_this_machine(url), "{url}");
        }
        for url in [
            "wss://plugins.example.com",
            "ws://10.0.0.1",
            "",
            "plugins.example.com:8000",
        ] {
            assert!(!leads_to_this_machine(url), "{url}");
        }
    }

    #[test]
    fn no_segment_leads_elsewhere() {
        for text in ["", ".", "..", &"x".repeat(256)] {
            assert!(!is_segment(text), "{text:?}");
        }
        assert!(is_segment("pr-abcdefgh-0"));
    }
}
