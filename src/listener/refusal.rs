//! HTTP answers that refuse a connection. A 4xx ends an SDK for good, a 5xx makes it retry
//! ([Refused or disconnected](crate::protocol#refused-or-disconnected)), so every temporary reason
//! is answered with 503.

use std::fmt::Write as _;

/// An HTTP answer that refuses a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    reason: &'static str,
    /// One line of plain text ([Handshake answers](crate::protocol#handshake-answers)).
    body: &'static str,
    /// One header beyond those that every answer has.
    header: Option<(&'static str, &'static str)>,
}

impl Refusal {
    pub(super) const INVALID_PARAMETERS: Self = Self {
        status: 400,
        reason: "Bad Request",
        body: "invalid connection parameters",
        header: None,
    };
    pub(super) const BAD_REQUEST: Self = Self {
        status: 400,
        reason: "Bad Request",
        body: "malformed request",
        header: None,
    };
    pub(super) const BAD_HANDSHAKE: Self = Self {
        status: 400,
        reason: "Bad Request",
        body: "malformed WebSocket handshake",
        header: Some(("Sec-WebSocket-Version", "13")),
    };
    pub(super) const UNAUTHENTICATED: Self = Self {
        status: 401,
        reason: "Unauthorized",
        body: "unauthenticated",
        header: None,
    };
    pub(super) const FOREIGN_ORIGIN: Self = Self {
        status: 403,
        reason: "Forbidden",
        body: "origin is not this host",
        header: None,
    };
    pub(super) const NO_SUCH_PATH: Self = Self {
        status: 404,
        reason: "Not Found",
        body: "plugins connect to /rpc",
        header: None,
    };
    pub(super) const METHOD_NOT_ALLOWED: Self = Self {
        status: 405,
        reason: "Method Not Allowed",
        body: "only GET",
        header: Some(("Allow", "GET")),
    };
    pub(super) const UPGRADE_REQUIRED: Self = Self {
        status: 426,
        reason: "Upgrade Required",
        body: "a WebSocket handshake is expected here",
        header: Some(("Upgrade", "websocket")),
    };
    pub(super) const HEAD_TOO_LARGE: Self = Self {
        status: 431,
        reason: "Request Header Fields Too Large",
        body: "the request head is too large",
        header: None,
    };
    pub(super) const INTERNAL: Self = Self {
        status: 500,
        reason: "Internal Server Error",
        body: "internal server error",
        header: None,
    };
    pub(super) const BUSY: Self = Self::come_back("too many handshakes in progress");
    pub(super) const NOT_WANTED: Self = Self::come_back("the plugin is not wanted now");
    pub(super) const ALREADY_CONNECTED: Self = Self::come_back("the plugin is already connected");
    pub(super) const SHUTTING_DOWN: Self = Self::come_back("shutting down");

    const fn come_back(body: &'static str) -> Self {
        Self {
            status: 503,
            reason: "Service Unavailable",
            body,
            header: Some(("Retry-After", "1")),
        }
    }

    /// The text of the body, for log lines and errors.
    pub(super) fn text(&self) -> &'static str {
        self.body
    }

    /// The whole HTTP answer.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut answer = String::with_capacity(256);
        // Writing to a string cannot fail.
        let _ = write!(answer, "HTTP/1.1 {} {}\r\n", self.status, self.reason);
        let _ = write!(
            answer,
            "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n",
            self.body.len() + 1
        );
        if let Some((name, value)) = self.header {
            let _ = write!(answer, "{name}: {value}\r\n");
        }
        let _ = write!(answer, "Connection: close\r\n\r\n{}\n", self.body);
        answer.into_bytes()
    }
}
