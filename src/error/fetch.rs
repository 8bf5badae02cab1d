//! Errors of fetching a package by URL.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::ErrorKind;
use crate::text::Foreign;

/// Why a package could not be fetched.
///
/// Messages name the host and never the rest of the URL, which may hold secrets. The host is as it
/// was asked for, in lower case, with the port where it is not the scheme's own; after a redirect it
/// is the host that was redirected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The text is not a URL, or no request can be made from it.
    #[error("the URL cannot be used: {problem}")]
    Url {
        /// What is wrong with it, and what to write instead.
        problem: &'static str,
    },
    /// The URL's scheme is neither `http` nor `https`.
    #[error("the URL's scheme is {scheme:?}; only https and http can be fetched")]
    Scheme {
        /// The scheme, or the start of what is in its place.
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
         the hosts that may be fetched from (`fetch_allowed_hosts`)"
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
        /// The system's error.
        source: io::Error,
    },
    /// None of the host's addresses accepts a connection.
    #[error("cannot connect to {host}: {source}; is it up, and reachable without a proxy?")]
    Connect {
        /// The host.
        host: String,
        /// The system's error for the last address.
        source: io::Error,
    },
    /// The connection cannot be secured: the host does not speak TLS on that port, or its certificate
    /// was not issued by a well-known authority.
    #[error(
        "no secure connection to {host}: {}; check its certificate, port and scheme",
        Foreign::new(&.source.to_string())
    )]
    Tls {
        /// The host.
        host: String,
        /// The TLS library's error.
        source: io::Error,
    },
    /// The response is not HTTP, or the connection broke.
    #[error("{step} from {host} failed: {}", Foreign::new(&.source.to_string()))]
    Broken {
        /// The host.
        host: String,
        /// The step that failed.
        step: FetchStep,
        /// What went wrong.
        source: io::Error,
    },

    /// There were more redirects than the limit.
    #[error("{host} redirects once more, over the limit of {limit} redirects; use the final URL")]
    TooManyRedirects {
        /// The host that redirects once more.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// A redirect leads to a URL that may not be fetched. One to a private address is
    /// [`PrivateAddress`](Self::PrivateAddress).
    #[error("{host} redirects, and {problem}")]
    Redirect {
        /// The host that redirects.
        host: String,
        /// What is wrong with the target.
        problem: Box<FetchError>,
    },
    /// The URL is `https` and a redirect leads to `http`, where anyone on the network path could replace the
    /// package; and no SHA-256 was given that would show it. The source of a
    /// [`Redirect`](Self::Redirect).
    #[error("the way leads from https to http; give the package's SHA-256 to allow it")]
    Downgrade,
    /// A redirect names no target. The source of a [`Redirect`](Self::Redirect).
    #[error("there is no Location header that says where to")]
    NoLocation,
    /// The status is not 200.
    #[error("{host} answered with status {status}, expected 200; check the URL")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
    },

    /// The package is over its limit. Nothing beyond the limit is passed on.
    #[error("what {host} sends is over the limit of {limit} bytes for a package")]
    TooLarge {
        /// The host.
        host: String,
        /// The limit.
        limit: u64,
    },
    /// The body ended before it was complete.
    #[error("{host} closed the connection after {received} bytes{}; try again", of(*.expected))]
    EndedEarly {
        /// The host.
        host: String,
        /// Bytes received.
        received: u64,
        /// Bytes announced, if the host did.
        expected: Option<u64>,
    },
    /// The package is not the one that was expected.
    #[error("the package from {host} has the SHA-256 {found}, expected {expected}")]
    Digest {
        /// The host.
        host: String,
        /// The expected SHA-256, in lower-case hexadecimal.
        expected: String,
        /// The SHA-256 found.
        found: String,
    },

    /// A time limit was exceeded.
    #[error("{step} from {host} took longer than {limit:?}")]
    Timeout {
        /// The host.
        host: String,
        /// The step that failed.
        step: FetchStep,
        /// The time allowed, for the whole or for connecting.
        limit: Duration,
    },
    /// The fetch was cancelled.
    #[error("fetching from {host} was cancelled")]
    Cancelled {
        /// The host.
        host: String,
    },
}

/// The steps of fetching a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum FetchStep {
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
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Url { .. } | Self::Scheme { .. } | Self::NoHost | Self::UserInfo { .. } => {
                ErrorKind::InvalidInput
            }
            Self::PrivateAddress { .. } => ErrorKind::PrivateAddress,
            Self::LookUp { .. }
            | Self::Connect { .. }
            | Self::Broken { .. }
            | Self::EndedEarly { .. }
            | Self::Status {
                status: 408 | 425 | 429 | 500..=599,
                ..
            } => ErrorKind::FetchFailed,
            Self::Tls { .. }
            | Self::TooManyRedirects { .. }
            | Self::Redirect { .. }
            | Self::Downgrade
            | Self::NoLocation
            | Self::Status { .. } => ErrorKind::FetchRefused,
            Self::TooLarge { .. } => ErrorKind::PackageTooLarge,
            Self::Digest { .. } => ErrorKind::DigestMismatch,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Cancelled { .. } => ErrorKind::Cancelled,
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
