//! URLs, taken apart at their delimiters as RFC 3986 has it, and percent encoding.
//!
//! This is the only parser of URLs here. It judges syntax alone; what a URL may be is the policy of the
//! module that reads it: `fetch` for packages, `auth` and `duplex` for connection URLs, `protocol` for base
//! URLs. It does no I/O.
//!
//! Errors are texts that repeat nothing of the URL, for it may hold a token.

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::{AsciiSet, CONTROLS};

/// Longest URL that is read, in bytes.
const LONGEST: usize = 64 * 1024 - 2;

/// ASCII characters that may not stand in a URL. Others than ASCII are always encoded.
pub(crate) const NOT_IN_URL: &AsciiSet = &with(CONTROLS, b" \"<>\\^`{|}");

/// ASCII characters that may not stand in a path: delimiters, and the percent sign itself.
pub(crate) const NOT_IN_PATH: &AsciiSet = &with(NOT_IN_URL, b"#%?[]");

const fn with(set: &AsciiSet, bytes: &[u8]) -> AsciiSet {
    match bytes {
        [] => set.union(AsciiSet::EMPTY),
        [byte, rest @ ..] => with(&set.add(*byte), rest),
    }
}

/// A URL, or a reference relative to one, in its parts. They are as written, and none has its delimiters.
#[derive(Clone, Copy)]
pub(crate) struct Url<'a> {
    pub(crate) scheme: Option<&'a str>,
    pub(crate) user_info: Option<&'a str>,
    /// Host and port, for [`Authority::parse`].
    pub(crate) authority: Option<&'a str>,
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) fragment: Option<&'a str>,
}

impl<'a> Url<'a> {
    /// Takes a URL apart, and refuses white space, control characters, quotes and angle brackets
    /// anywhere in it, and user info that is not encoded as it has to be.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("it is longer than 64 KiB");
        }
        if text
            .bytes()
            .any(|byte| byte <= b' ' || b"\"<>`\x7f".contains(&byte))
        {
            return Err("it has a character that no URL has");
        }
        let url = Self::split(text);
        let user_info = url.user_info.unwrap_or_default();
        // Parsers differ in where `a\@b` and `a@b@c` end; here they are no URLs.
        if !user_info
            .bytes()
            .all(|byte| is_host_byte(byte) || b":%".contains(&byte))
        {
            return Err("its user name or password has a character that has to be encoded there");
        }
        Ok(url)
    }

    /// As [`parse`](Self::parse), for a URL with a scheme and a host.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(crate) fn parse_absolute(text: &'a str) -> Result<(Self, Authority<'a>), &'static str> {
        let url = Self::parse(text)?;
        let authority = url.authority.filter(|_| url.scheme.is_some());
        let authority = Authority::parse(authority.ok_or("it is not a URL")?)?;
        if authority.host.is_empty() {
            return Err("it has no host");
        }
        Ok((url, authority))
    }

    /// Whether its scheme is one of these, in any case.
    pub(crate) fn has_scheme(&self, schemes: &[&str]) -> bool {
        let scheme = self.scheme.unwrap_or_default();
        schemes
            .iter()
            .any(|known| known.eq_ignore_ascii_case(scheme))
    }

    /// Takes any text apart (RFC 3986, appendix B), whatever its characters.
    pub(crate) fn split(text: &'a str) -> Self {
        let (text, fragment) = split_off(text, '#');
        let (text, query) = split_off(text, '?');
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            _ => (None, text),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(authority), path)
            }
            None => (None, rest),
        };
        // The last `@` counts: what stands before it is not the host, whatever it looks like.
        let with_user = authority.and_then(|text| text.rsplit_once('@'));
        Self {
            scheme,
            user_info: with_user.map(|(user_info, _)| user_info),
            authority: with_user.map(|(_, authority)| authority).or(authority),
            path,
            query,
            fragment,
        }
    }

    /// Path and query, as an HTTP request has them.
    pub(crate) fn request_target(&self) -> String {
        let path = if self.path.is_empty() { "/" } else { self.path };
        let (mark, query) = self.query.map_or(("", ""), |query| ("?", query));
        format!("{path}{mark}{query}")
    }
}

/// A host and, where one is written, a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// A name or an address, which may be empty; an IPv6 address in its brackets, perhaps with a zone.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Reads `host` or `host:port`. An empty port is none.
    ///
    /// # Errors
    /// Says what is wrong.
    pub(crate) fn parse(text: &'a str) -> Result<Self, &'static str> {
        let (host, port) = if text.starts_with('[') {
            let end = text
                .find(']')
                .ok_or("its IPv6 address has no closing bracket")?;
            text.split_at(end + 1)
        } else {
            text.split_at(text.find(':').unwrap_or(text.len()))
        };
        let port = match port.strip_prefix(':') {
            None if !port.is_empty() => {
                return Err("there is something between its IPv6 address and the path");
            }
            None | Some("") => None,
            Some(digits) => Some(parse_port(digits)?),
        };
        let authority = Self { host, port };
        let bare = authority.bare_host();
        if bare.len() < host.len() {
            let (address, zone) = bare.split_once('%').unwrap_or((bare, ""));
            let is_zone = zone.bytes().all(|byte| byte == b'%' || is_host_byte(byte));
            if !is_zone || address.parse::<Ipv6Addr>().is_err() {
                return Err("its IPv6 address is not one");
            }
        } else if !host.bytes().all(is_host_byte) {
            return Err(
                "its host has a character that no host name has; write an international name in \
                 its xn-- form",
            );
        }
        Ok(authority)
    }

    /// The host as it is looked up: an IPv6 address without its brackets.
    pub(crate) fn bare_host(&self) -> &'a str {
        let bare = self.host.strip_prefix('[');
        bare.and_then(|host| host.strip_suffix(']'))
            .unwrap_or(self.host)
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn split_off(text: &str, delimiter: char) -> (&str, Option<&str>) {
    match text.split_once(delimiter) {
        Some((text, rest)) => (text, Some(rest)),
        None => (text, None),
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

fn parse_port(digits: &str) -> Result<u16, &'static str> {
    // The number's own parser takes a sign.
    let port = digits.parse().ok();
    port.filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit()))
        .ok_or("its port is not a number up to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Authority, path and query of what is read; the host and the port; or what is wrong.
    type Expected = Result<(&'static str, Option<u16>, &'static str), &'static str>;

    const CHARACTER: &str = "character that no URL has";
    const USER: &str = "has to be encoded there";
    const HOST: &str = "character that no host name has";
    const ADDRESS: &str = "IPv6 address is not one";
    const PORT: &str = "port is not a number up to 65535";

    fn read(text: &str) -> Result<(String, Option<u16>, String), &'static str> {
        let url = Url::parse(text)?;
        let authority = Authority::parse(url.authority.ok_or("no authority")?)?;
        Ok((
            authority.bare_host().to_owned(),
            authority.port,
            url.request_target(),
        ))
    }

    #[test]
    fn odd_urls_are_read_in_one_way_or_refused() {
        let cases: &[(&str, Expected)] = &[
            ("http://h", Ok(("h", None, "/"))),
            ("http://h/", Ok(("h", None, "/"))),
            ("http://h?q=/x", Ok(("h", None, "/?q=/x"))),
            ("http://h/a?", Ok(("h", None, "/a?"))),
            ("http://h/a?b?c#d?e", Ok(("h", None, "/a?b?c"))),
            ("http://h#/a@b", Ok(("h", None, "/"))),
            ("http://h/a#", Ok(("h", None, "/a"))),
            ("//h/a", Ok(("h", None, "/a"))),
            ("http://h/a:b@c//d", Ok(("h", None, "/a:b@c//d"))),
            // User info: the host is what follows the last '@' of the authority.
            ("http://user@h", Ok(("h", None, "/"))),
            ("http://user:a@h:1/", Ok(("h", Some(1), "/"))),
            ("http://user:a@b@h:1/", Err(USER)),
            ("http://good.example:80@evil", Ok(("evil", None, "/"))),
            ("http://h/@evil", Ok(("h", None, "/@evil"))),
            ("http://h?@evil", Ok(("h", None, "/?@evil"))),
            ("http://@h", Ok(("h", None, "/"))),
            ("http://h@", Ok(("", None, "/"))),
            ("http://%40:%2f@h", Ok(("h", None, "/"))),
            // Ports.
            ("http://h:", Ok(("h", None, "/"))),
            ("http://h:0", Ok(("h", Some(0), "/"))),
            ("http://h:65535", Ok(("h", Some(65_535), "/"))),
            ("http://h:00080", Ok(("h", Some(80), "/"))),
            ("http://:80", Ok(("", Some(80), "/"))),
            ("http://h:65536", Err(PORT)),
            ("http://h:4294967376", Err(PORT)),
            ("http://h:+80", Err(PORT)),
            ("http://h:-1", Err(PORT)),
            ("http://h:80:80", Err(PORT)),
            ("http://h:8\u{660}", Err(PORT)),
            ("http://h:80\\@evil", Err(USER)),
            // Brackets.
            ("http://[::1]", Ok(("::1", None, "/"))),
            ("http://[::1]:", Ok(("::1", None, "/"))),
            ("http://[::1]:80", Ok(("::1", Some(80), "/"))),
            ("http://[::ffff:1.2.3.4]", Ok(("::ffff:1.2.3.4", None, "/"))),
            ("http://[fe80::1%25lo]", Ok(("fe80::1%25lo", None, "/"))),
            ("http://[fe80::1%lo]", Ok(("fe80::1%lo", None, "/"))),
            ("http://[::1", Err("no closing bracket")),
            ("http://::1]", Err(PORT)),
            ("http://[]", Err(ADDRESS)),
            ("http://[h]", Err(ADDRESS)),
            ("http://[1.2.3.4]", Err(ADDRESS)),
            ("http://[v1.x]", Err(ADDRESS)),
            ("http://[%lo]", Err(ADDRESS)),
            ("http://[::1%l[o]", Err(ADDRESS)),
            ("http://[::1%\u{e9}]", Err(ADDRESS)),
            ("http://[[::1]]", Err("something between")),
            ("http://[::1]80", Err("something between")),
            ("http://[::1][::2]", Err("something between")),
            ("http://a[::1]", Err(PORT)),
            ("http://h]", Err(HOST)),
            ("http://[u@::1]", Err(USER)),
            // Backslashes do not end an authority.
            ("http://h\\a", Err(HOST)),
            ("http://evil\\@h", Err(USER)),
            ("http://h/a\\b", Ok(("h", None, "/a\\b"))),
            ("http:\\\\h", Err("no authority")),
            // Control characters, white space and what surrounds URLs in text.
            ("http://h/\0", Err(CHARACTER)),
            ("http://h/\r\nHost: evil", Err(CHARACTER)),
            ("http://h\t/", Err(CHARACTER)),
            ("http://h/\u{7f}", Err(CHARACTER)),
            (" http://h/", Err(CHARACTER)),
            ("http://h /", Err(CHARACTER)),
            ("http://u:p w@h", Err(CHARACTER)),
            ("http://h/#\n", Err(CHARACTER)),
            ("http://h/<a>", Err(CHARACTER)),
            ("http://h/\"", Err(CHARACTER)),
            // Beyond ASCII: in names never, elsewhere as it is.
            ("http://b\u{fc}cher/", Err(HOST)),
            ("http://\u{ff11}.0.0.1/", Err(HOST)),
            ("http://h\u{3002}evil/", Err(HOST)),
            ("http://h/\u{fc}?\u{fc}", Ok(("h", None, "/\u{fc}?\u{fc}"))),
            // Percent signs: none in a name, and none is decoded.
            ("http://h%2eevil", Err(HOST)),
            ("http://h%", Err(HOST)),
            ("http://%68", Err(HOST)),
            ("http://h/%2e%zz?%", Ok(("h", None, "/%2e%zz?%"))),
            // Where one part is taken for another.
            ("", Err("no authority")),
            ("h", Err("no authority")),
            ("h:80", Err("no authority")),
            ("/a://b", Err("no authority")),
            ("http:/h", Err("no authority")),
            ("http:h", Err("no authority")),
            ("?http://h", Err("no authority")),
            ("#http://h", Err("no authority")),
            ("1http://h", Err("no authority")),
            ("http ://h", Err(CHARACTER)),
            ("http:///h", Ok(("", None, "/h"))),
            ("http:////h", Ok(("", None, "//h"))),
            ("http://?h", Ok(("", None, "/?h"))),
            ("http://#h", Ok(("", None, "/"))),
            ("a+b-c.d://h", Ok(("h", None, "/"))),
        ];
        for (text, expected) in cases {
            match (read(text), expected) {
                (Ok((host, port, target)), Ok(expected)) => {
                    assert_eq!((&*host, port, &*target), *expected, "{text:?}");
                }
                (Err(problem), Err(expected)) => {
                    assert!(problem.contains(expected), "{text:?}: {problem}");
                }
                (found, _) => panic!("{text:?} was read as {found:?}"),
            }
        }
    }

    #[test]
    fn a_url_has_a_limit_and_an_authority_one_spelling() {
        assert_eq!(
            read(&format!("http://h/{}", "a".repeat(LONGEST))),
            Err("it is longer than 64 KiB")
        );
        let shown = |text| Authority::parse(text).unwrap().to_string();
        assert_eq!(shown("h:080"), "h:80");
        assert_eq!(shown("[::1]:1"), "[::1]:1");
        assert_eq!(shown("h:"), "h");
    }

    #[test]
    fn what_has_no_place_in_a_url_is_encoded() {
        let encoded =
            |text: &str, set| percent_encoding::utf8_percent_encode(text, set).to_string();
        assert_eq!(encoded("a b\u{e4}\n%41?", NOT_IN_URL), "a%20b%C3%A4%0A%41?");
        assert_eq!(
            encoded("a b%41?#[x]/~", NOT_IN_PATH),
            "a%20b%2541%3F%23%5Bx%5D/~"
        );
    }
}
