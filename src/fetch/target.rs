//! `Target`: a URL that may be fetched, and where a redirect leads from there. It does no I/O; which
//! addresses the host has is in `look_up`.
//!
//! The host is made canonical here (lower case, no trailing dot, addresses in their usual spelling),
//! so that one and the same host is checked, connected to and named in the request.

use std::net::{IpAddr, Ipv4Addr};

use percent_encoding::percent_encode;
use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};

use crate::error::FetchError;
use crate::url::{self, NOT_IN_URL, Url};

/// Longest URL, in bytes: the request has to fit into the buffer of a socket.
const LONGEST: usize = 8 * 1024;

/// A URL that may be fetched if the addresses of its host are public.
#[derive(Clone, Debug)]
pub(super) struct Target {
    uri: Uri,
    host_port: HostPort,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) host: ServerHost,
    pub(super) port: u16,
}

/// A host in the form in which it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerHost {
    /// A name to be looked up: ASCII, in lower case, without a trailing dot.
    Name(String),
    /// A literal address.
    Address(IpAddr),
}

impl Target {
    /// Reads a URL. Its fragment is dropped.
    pub(super) fn parse(url: &str) -> Result<Self, FetchError> {
        Self::from_escaped(&escape(url.as_bytes())?)
    }

    /// Returns where a `Location` leads from here, relative or absolute (RFC 3986, section 5.2).
    pub(super) fn redirected(&self, location: &[u8]) -> Result<Self, FetchError> {
        let location = escape(location)?;
        let reference = Url::split(&location);
        let scheme = self.uri.scheme_str().unwrap_or_default();
        if reference.scheme.is_some() {
            return Self::from_escaped(&location);
        }
        if reference.authority.is_some() {
            return Self::from_escaped(&format!("{scheme}:{location}"));
        }
        let here = self.uri.path();
        let path = match reference.path {
            "" => here.to_owned(),
            path if path.starts_with('/') => without_dots(path),
            path => {
                let directory = here.rfind('/').map_or("/", |end| &here[..=end]);
                without_dots(&format!("{directory}{path}"))
            }
        };
        let target = Url {
            path: &path,
            ..reference
        }
        .request_target();
        Self::from_escaped(&format!("{scheme}://{}{target}", self.name()))
    }

    /// The URL in its canonical form.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether it is `https`.
    pub(super) fn secure(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// Host and port.
    pub(super) fn host_port(&self) -> &HostPort {
        &self.host_port
    }

    /// The host for messages, with the port if it is not the scheme's own.
    pub(super) fn name(&self) -> &str {
        self.uri.authority().map_or("", Authority::as_str)
    }

    fn from_escaped(url: &str) -> Result<Self, FetchError> {
        let problem = |problem| FetchError::Url { problem };
        let url = Url::parse(url).map_err(problem)?;
        let scheme = url
            .scheme
            .filter(|_| url.authority.is_some() || url.path.starts_with('/'))
            .ok_or(problem("it starts with neither https:// nor http://"))?
            .to_ascii_lowercase();
        let default_port = match scheme.as_str() {
            "https" => 443,
            "http" => 80,
            other => {
                let scheme = other.chars().take(32).collect();
                return Err(FetchError::Scheme { scheme });
            }
        };
        let authority = url
            .authority
            .ok_or(problem("it has no // after its scheme"))?;
        if url.user_info.is_some() {
            return Err(FetchError::UserInfo {
                host: authority.to_owned(),
            });
        }
        let (host, port) = parse_authority(authority).map_err(problem)?;
        let host = host.ok_or(FetchError::NoHost)?;
        let port = port.unwrap_or(default_port);
        let mut name = match &host {
            ServerHost::Name(name) => name.clone(),
            ServerHost::Address(IpAddr::V4(address)) => address.to_string(),
            ServerHost::Address(IpAddr::V6(address)) => format!("[{address}]"),
        };
        if port != default_port {
            name = format!("{name}:{port}");
        }
        let uri = format!("{scheme}://{name}{}", url.request_target())
            .parse()
            .map_err(|_| problem("it has a character that no URL has"))?;
        let host_port = HostPort { host, port };
        Ok(Self { uri, host_port })
    }
}

impl HostPort {
    /// Reads `host:port`.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (host, port) = parse_authority(text)?;
        Ok(Self {
            host: host.ok_or("it has no host")?,
            port: port.ok_or("it has no port")?,
        })
    }
}

/// Replaces what may not stand in a URL as it is, so that the rest can work on ASCII.
fn escape(url: &[u8]) -> Result<String, FetchError> {
    let problem = |problem| Err(FetchError::Url { problem });
    let url = url.trim_ascii();
    if url.len() > LONGEST {
        return problem("it is longer than 8 KiB");
    }
    if url.iter().any(u8::is_ascii_control) {
        return problem("it has a control character, such as a line break");
    }
    Ok(percent_encode(url, NOT_IN_URL).to_string())
}

/// Returns the host, if there is one, and the port.
fn parse_authority(text: &str) -> Result<(Option<ServerHost>, Option<u16>), &'static str> {
    let authority = url::Authority::parse(text)?;
    if authority.port == Some(0) {
        return Err("its port is not a number from 1 to 65535");
    }
    let bare = authority.bare_host();
    let host = if bare.is_empty() {
        None
    } else if bare.len() < authority.host.len() {
        // A zone (`%lo`) is an interface of this machine, so not on the internet.
        let address = bare.parse().map_err(|_| "its IPv6 address has a zone")?;
        Some(ServerHost::Address(address))
    } else {
        Some(parse_host(bare)?)
    };
    Ok((host, authority.port))
}

fn parse_host(host: &str) -> Result<ServerHost, &'static str> {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let name = host
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if !name {
        return Err("its host has a character that no host name on the internet has");
    }
    if host.len() > 253
        || host
            .split('.')
            .any(|label| label.is_empty() || label.len() > 63)
    {
        return Err("its host is no host name: a part of it is empty or too long");
    }
    if let Ok(address) = host.parse::<Ipv4Addr>() {
        return Ok(ServerHost::Address(address.into()));
    }
    // The system would take `127.1`, `0x7f.1` and `2130706433` for addresses.
    let last = host.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if numeric {
        return Err("its host looks like an address; write that as four decimal numbers");
    }
    Ok(ServerHost::Name(host))
}

/// Resolves `.` and `..` in an absolute path.
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let dots = matches!(segment, "." | "..");
        if segment == ".." {
            kept.pop();
        }
        if !dots {
            kept.push(segment);
        } else if segments.peek().is_none() {
            // What ends in dots is a directory.
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        match Target::parse(url) {
            Ok(target) => panic!("{url:?} was taken for {}", target.uri()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_url_is_made_canonical() {
        for (url, canonical, name) in [
            ("https://example.org", "https://example.org/", "example.org"),
            (
                " HTTPS://Example.ORG./a?b#c\n",
                "https://example.org/a?b",
                "example.org",
            ),
            (
                "https://example.org:443/a",
                "https://example.org/a",
                "example.org",
            ),
            (
                "https://example.org:/a",
                "https://example.org/a",
                "example.org",
            ),
            (
                "http://example.org:443/a",
                "http://example.org:443/a",
                "example.org:443",
            ),
            (
                "http://example.org?a=/b",
                "http://example.org/?a=/b",
                "example.org",
            ),
            ("http://8.8.8.8:080/", "http://8.8.8.8/", "8.8.8.8"),
            (
                "http://[2606:4700:0::1111]/",
                "http://[2606:4700::1111]/",
                "[2606:4700::1111]",
            ),
            ("http://[::1]:8080/a", "http://[::1]:8080/a", "[::1]:8080"),
            (
                "https://a.b/ü x{1}|\\",
                "https://a.b/%C3%BC%20x%7B1%7D%7C%5C",
                "a.b",
            ),
            (
                "https://xn--bcher-kva.example/%41",
                "https://xn--bcher-kva.example/%41",
                "xn--bcher-kva.example",
            ),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.uri().to_string(), canonical, "{url:?}");
            assert_eq!(target.name(), name, "{url:?}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_what_is_wrong() {
        for (url, problem) in [
            ("", "neither https"),
            ("example.org/a.zip", "neither https"),
            ("example.org:8080/a.zip", "neither https"),
            ("user:password@example.org", "neither https"),
            ("//example.org/a.zip", "neither https"),
            ("data:text/plain,a", "neither https"),
            ("https:example.org", "neither https"),
            ("https:/example.org", "no // after"),
            ("file:///etc/passwd", "scheme is \"file\""),
            ("ftp://example.org/", "scheme is \"ftp\""),
            ("https://", "no host"),
            ("https:///a", "no host"),
            ("https://:443/a", "no host"),
            ("https://?a", "no host"),
            ("https://./a", "empty or too long"),
            ("https://a..b/", "empty or too long"),
            ("https://user@example.org/", "user name or a password"),
            (
                "https://user:secret@example.org/",
                "user name or a password",
            ),
            ("https://@example.org/", "user name or a password"),
            ("https://example.org\\@10.0.0.1/", "user name or a password"),
            ("https://user%40example.org/", "no host name has"),
            ("https://bücher.example/", "xn-- form"),
            ("https://ex ample.org/", "no host name has"),
            ("https://１２７.0.0.1/", "xn-- form"),
            ("https://example.org:0/", "its port"),
            ("https://example.org:65536/", "its port"),
            ("https://example.org:+80/", "its port"),
            ("https://example.org:80:80/", "its port"),
            ("https://[::1", "closing bracket"),
            ("https://[::1%25lo]/", "has a zone"),
            ("https://[fe80::1%lo]/", "has a zone"),
            ("https://[127.0.0.1]/", "not one"),
            ("https://[::1]a/", "something between"),
            ("https://example.org/a\r\nHost: b", "control character"),
            ("https://example.org/a\0", "control character"),
        ] {
            let error = refused(url);
            assert!(error.contains(problem), "{url:?}: {error}");
            assert!(
                !error.contains("secret") && !error.contains("password@"),
                "{error}"
            );
        }
        assert!(refused(&format!("https://a/{}", "x".repeat(LONGEST))).contains("8 KiB"));
        assert!(refused(&format!("https://{}/", "x".repeat(64))).contains("too long"));
    }

    #[test]
    fn an_address_in_an_odd_spelling_is_refused() {
        for host in [
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "0X7F.0.0.1",
            "2130706433",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.0x1",
            "1.2.3.4.5",
            "256.0.0.1",
            "127.0.0.1..",
            "0",
            "0x",
            "example.0x7f",
            "127.0.0.1%2e",
            "127。0。0。1",
        ] {
            refused(&format!("http://{host}/"));
        }
        let literal = Target::parse("http://127.0.0.1./").unwrap();
        let loopback = ServerHost::Address(Ipv4Addr::LOCALHOST.into());
        assert_eq!(literal.host_port().host, loopback);
    }

    #[test]
    fn a_redirect_leads_where_rfc_3986_says() {
        let from = Target::parse("https://example.org:8443/a/b/c?query#fragment").unwrap();
        for (location, url) in [
            ("https://other.example/x", "https://other.example/x"),
            ("http://other.example", "http://other.example/"),
            ("//other.example/x?y", "https://other.example/x?y"),
            ("/x/y", "https://example.org:8443/x/y"),
            ("x", "https://example.org:8443/a/b/x"),
            ("./x", "https://example.org:8443/a/b/x"),
            ("../x?y=../z", "https://example.org:8443/a/x?y=../z"),
            ("../../../../x", "https://example.org:8443/x"),
            ("..", "https://example.org:8443/a/"),
            (".", "https://example.org:8443/a/b/"),
            ("x/../y/.", "https://example.org:8443/a/b/y/"),
            ("?z", "https://example.org:8443/a/b/c?z"),
            ("#z", "https://example.org:8443/a/b/c"),
            ("x:y/z?", "neither https"),
            ("", "https://example.org:8443/a/b/c"),
            ("/ü", "https://example.org:8443/%C3%BC"),
            (
                "/\\other.example",
                "https://example.org:8443/%5Cother.example",
            ),
            ("file:///etc/passwd", "scheme is"),
            ("//user@other.example/", "user name"),
            ("https://2130706433/", "looks like an address"),
            ("/a\r\nb", "control character"),
        ] {
            match from.redirected(location.as_bytes()) {
                Ok(target) => assert_eq!(target.uri().to_string(), url, "{location:?}"),
                Err(error) => assert!(error.to_string().contains(url), "{location:?}: {error}"),
            }
        }
        let root = Target::parse("http://example.org").unwrap();
        let target = root.redirected(b"x").unwrap();
        assert_eq!(target.uri().to_string(), "http://example.org/x");
    }
}
