//! Answers that refuse a request or a connection, after which the connection ends: one line of plain text, unless
//! a server words them in its own way.

use std::fmt::Write as _;

use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;

/// The body of a refusal.
pub(crate) struct RefusalBody {
    pub(crate) content_type: &'static str,
    pub(crate) text: String,
}

/// What a refusal answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusalAnswer {
    pub(crate) status: u16,
    /// The body, which is also for log lines and errors.
    pub(crate) text: &'static str,
    /// One header beyond those that every answer has.
    pub(crate) header: Option<(&'static str, &'static str)>,
}

impl RefusalAnswer {
    pub(crate) const BAD_REQUEST: &Self = &Self {
        status: 400,
        text: "malformed request",
        header: None,
    };
    pub(crate) const HEAD_TOO_LARGE: &Self = &Self {
        status: 431,
        text: "the request head is too large",
        header: None,
    };
    pub(crate) const REQUEST_TIMEOUT: &Self = &Self {
        status: 408,
        text: "the request took too long",
        header: None,
    };
    pub(crate) const BODY_TOO_LARGE: &Self = &Self {
        status: 413,
        text: "the request body is too large",
        header: None,
    };
    pub(crate) const UNKNOWN_EXPECTATION: &Self = &Self {
        status: 417,
        text: "only 100-continue can be expected",
        header: None,
    };
    pub(crate) const INTERNAL: &Self = &Self {
        status: 500,
        text: "internal server error",
        header: None,
    };
    pub(crate) const TOO_MANY_CONNECTIONS: &Self = &Self::come_back("too many connections");
    pub(crate) const OTHER_VERSION: &Self = &Self {
        status: 505,
        text: "only HTTP/1.0 and HTTP/1.1 are served",
        header: None,
    };

    /// Returns the answer of what is refused for the moment only.
    pub(crate) const fn come_back(text: &'static str) -> Self {
        Self {
            status: 503,
            text,
            header: Some(("Retry-After", "1")),
        }
    }

    /// Returns the body: one line of plain text.
    pub(crate) fn body(&self) -> String {
        self.plain_text().text
    }

    /// Returns the headers, but for `Content-Length` and `Connection`.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.headers_with(&self.plain_text())
    }

    /// Returns the whole answer, after which the connection is to be closed.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes_with(&self.plain_text())
    }

    /// Returns the text alone as a body.
    pub(crate) fn plain_text(&self) -> RefusalBody {
        RefusalBody {
            content_type: "text/plain; charset=utf-8",
            text: format!("{}\n", self.text),
        }
    }

    pub(super) fn headers_with(
        &self,
        body: &RefusalBody,
    ) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let content = ("Content-Type", body.content_type);
        std::iter::once(content).chain(self.header)
    }

    /// Returns the whole answer with another body.
    pub(super) fn to_bytes_with(&self, body: &RefusalBody) -> Vec<u8> {
        let mut answer = String::with_capacity(256);
        let status = self.status;
        // Writing to a string cannot fail.
        let _ = write!(answer, "HTTP/1.1 {status} {}\r\n", reason(status));
        for (name, value) in self.headers_with(body) {
            let _ = write!(answer, "{name}: {value}\r\n");
        }
        let (length, body) = (body.text.len(), &body.text);
        let _ = write!(
            answer,
            "Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        answer.into_bytes()
    }
}

/// Returns the reason phrase of a status, empty if it is none that is used here.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// Sends a refusal, as far as the peer reads it by the deadline, and ends writing. What has arrived is
/// discarded, so that closing the connection does not reset it.
pub(crate) fn refuse(socket: &Socket, answer: &[u8], deadline: Deadline) {
    // A peer that does not read its refusal sees the connection end.
    let _ = socket.write_within(answer, deadline);
    socket.end_writing();
    socket.discard_arrived();
}
