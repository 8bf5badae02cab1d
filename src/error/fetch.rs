//! Errors of fetching a package by URL.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use crate::text::Foreign;

/// Why a package could not be fetched.
///
/// Messages name the host and never the rest of the URL, which may hold secrets. The host is as it
/// was asked for, in lower case, with the port where it is not the scheme's own; after a redirect it
/// is the host that was redirected to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Not a URL, or one that no request can be made from.
    #[error("the URL cannot be used: {problem}")]
    Url {
        /// What is wrong with it, and what to write instead.
        problem: &'static str,
    },
    /// Another scheme than `http` and `https`.
    #[error("the URL's scheme is {scheme:?}; only https and http can be fetched")]
    Scheme {
        /// The scheme, or the start of what stands in its place.
        scheme: String,
    },
    /// The URL names no host.
    #[error("the URL names no host; write https://host/path")]
    NoHost,
    /// The URL has a user name or a password.
    #[error("the URL of {} has a user name or a password in it; leave them out", Foreign::new(.host))]
    UserInfo {
        /// The host.
        host: String,
    },
    /// The host is, or resolves to, an address that is not on the public internet. All of its
    /// addresses must be.
    #[error(
        "{host} is at {address}, a private or local address; if it is meant, add its host:port to \
         FetchSettings::allowed_hosts"
    )]
    PrivateAddress {
        /// The host.
        host: String,
        /// The first such address.
        address: IpAddr,
    },

    /// The host's name does not resolve.
    #[error("cannot look up {host}: {source}; check the name, and the system's resolver")]
    LookUp {
        /// The host.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// None of the host's addresses takes a connection.
    #[error("cannot connect to {host}: {source}; is it up, and reachable without a proxy?")]
    Connect {
        /// The host.
        host: String,
        /// What the system says of the last address.
        source: io::Error,
    },
    /// The connection cannot be secured: the host speaks no TLS there, or its certificate is not one
    /// of the well-known authorities'.
    #[error(
        "no secure connection to {host}: {}; check its certificate, port and scheme",
        Foreign::new(&.source.to_string())
    )]
    Tls {
        /// The host.
        host: String,
        /// What the TLS library says.
        source: io::Error,
    },
    /// What comes back is not HTTP, or the connection broke.
    #[error("{step} from {host} failed: {}", Foreign::new(&.source.to_string()))]
    Broken {
        /// The host.
        host: String,
        /// How far it had come.
        step: FetchStep,
        /// What went wrong.
        source: io::Error,
    },

    /// More redirects than the limit.
    #[error("{host} redirects once more, over the limit of {limit} redirects; use the final URL")]
    TooManyRedirects {
        /// The host that redirects once more.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// A redirect that leads to no URL that may be fetched. One to a private address is
    /// [`PrivateAddress`](Self::PrivateAddress).
    #[error("{host} redirects, and {problem}")]
    Redirect {
        /// The host that redirects.
        host: String,
        /// What is wrong with where it leads.
        problem: Box<FetchError>,
    },
    /// The URL is `https` and a redirect leads to `http`, where anybody on the way could put in
    /// another package; and no SHA-256 was given that would show it. The source of a
    /// [`Redirect`](Self::Redirect).
    #[error("the way leads from https to http; give the package's SHA-256 to allow it")]
    Downgrade,
    /// A redirect does not say where to. The source of a [`Redirect`](Self::Redirect).
    #[error("there is no Location header that says where to")]
    NoLocation,
    /// Another status than 200.
    #[error("{host} answered with status {status}, expected 200; check the URL")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },

    /// The package is over its limit. Nothing beyond the limit is handed on.
    #[error("what {host} sends is over the limit of {limit} bytes for a package")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        limit: u64,
    },
    /// The body ended before it was whole.
    #[error("{host} closed the connection after {received} bytes{}; try again", of(*.expected))]
    EndedEarly {
        /// The host.
        host: String,
        /// Bytes received.
        received: u64,
        /// Bytes announced, where the host said so.
        expected: Option<u64>,
    },
    /// The package is not the one that was expected.
    #[error("the package from {host} has the SHA-256 {found}, expected {expected}")]
    Digest {
        /// The host.
        host: String,
        /// The one expected, in lower-case hexadecimal.
        expected: String,
        /// The one found.
        found: String,
    },

    /// Time ran out.
    #[error("{step} from {host} took longer than {limit:?}")]
    Timeout {
        /// The host.
        host: String,
        /// How far it had come.
        step: FetchStep,
        /// The time that was given: for all of it, or for connecting.
        limit: Duration,
    },
    /// It was asked to stop meanwhile.
    #[error("fetching from {host} was cancelled")]
    Cancelled {
        /// The host.
        host: String,
    },
}

/// How far the fetching of a package has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FetchStep {
    /// Looking up the host's addresses.
    LookUp,
    /// Opening the connection.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Sending the request and reading the head of the response.
    Response,
    /// Reading the body.
    Body,
}

impl FetchError {
    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Whether the same URL may be fetched later without anybody changing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::LookUp { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::EndedEarly { .. }
            | Self::Timeout { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

impl fmt::Display for FetchStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LookUp => "getting the address",
            Self::Connect => "getting a connection",
            Self::Tls => "getting a secure connection",
            Self::Response => "getting a response",
            Self::Body => "getting the package",
        })
    }
}

fn of(expected: Option<u64>) -> String {
    expected.map_or_else(String::new, |expected| format!(" of {expected}"))
}
