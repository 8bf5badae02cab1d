//! Answers that refuse a request or a connection: one line of plain text, after which the connection ends.

use std::fmt::Write as _;

use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;

/// What a refusal answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusalAnswer {
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    /// The body, which is also for log lines and errors.
    pub(crate) text: &'static str,
    /// One header beyond those that every answer has.
    pub(crate) header: Option<(&'static str, &'static str)>,
}

impl RefusalAnswer {
    pub(crate) const BAD_REQUEST: &Self = &Self {
        status: 400,
        reason: "Bad Request",
        text: "malformed request",
        header: None,
    };
    pub(crate) const HEAD_TOO_LARGE: &Self = &Self {
        status: 431,
        reason: "Request Header Fields Too Large",
        text: "the request head is too large",
        header: None,
    };

    /// Returns the answer of what is refused for the moment only.
    pub(crate) const fn come_back(text: &'static str) -> Self {
        Self {
            status: 503,
            reason: "Service Unavailable",
            text,
            header: Some(("Retry-After", "1")),
        }
    }

    /// Returns the body: one line of plain text.
    pub(crate) fn body(&self) -> String {
        format!("{}\n", self.text)
    }

    /// Returns the headers, but for `Content-Length` and `Connection`.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        let content = ("Content-Type", "text/plain; charset=utf-8");
        std::iter::once(content).chain(self.header)
    }

    /// Returns the whole answer, after which the connection is to be closed.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut answer = String::with_capacity(256);
        let (status, body) = (self.status, self.body());
        // Writing to a string cannot fail.
        let _ = write!(answer, "HTTP/1.1 {status} {}\r\n", self.reason);
        for (name, value) in self.headers() {
            let _ = write!(answer, "{name}: {value}\r\n");
        }
        let length = body.len();
        let _ = write!(
            answer,
            "Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        answer.into_bytes()
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
