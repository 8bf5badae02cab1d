//! The handshake up to where the host is asked, for fuzzing. Nothing is decided here: each step is
//! the one that a real handshake takes.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::decision::check_upgrade;
use super::head::{HEAD_LIMIT, Head};
use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;
use crate::http::{HeadError, RefusalAnswer, read_head};

/// What became of a request head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// It asks for a WebSocket in the right way. Its token was not checked.
    Accepted {
        /// Path and query.
        target: String,
        /// What the peer says it is.
        user_agent: String,
        /// `Sec-WebSocket-Accept` of the answer.
        accept: String,
        /// What came behind the head.
        rest: Vec<u8>,
    },
    /// Answered with this status.
    Refused(u16),
    /// The stream ended before the head did.
    Gone,
    /// The head did not end in time.
    Timeout,
}

/// Reads a head and judges it. `already_read` comes before what the socket yields. Blocks at most for
/// the limit.
pub fn judge_head(socket: OwnedFd, already_read: Vec<u8>, limit: Duration) -> HeadVerdict {
    let socket = Socket::of(socket);
    let (mut head, deadline) = (already_read, Deadline::after(limit));
    let end = match read_head(&socket, &mut head, HEAD_LIMIT, deadline, None) {
        Ok(end) => end,
        Err(HeadError::TooLarge) => {
            return HeadVerdict::Refused(RefusalAnswer::HEAD_TOO_LARGE.status);
        }
        Err(HeadError::Gone | HeadError::SlotLost) => return HeadVerdict::Gone,
        Err(HeadError::Timeout) => return HeadVerdict::Timeout,
    };
    let rest = head.split_off(end);
    let judged = Head::parse(&head).and_then(|head| Ok((check_upgrade(&head)?, head)));
    match judged {
        Ok((accept, head)) => HeadVerdict::Accepted {
            target: head.target,
            user_agent: head.user_agent.unwrap_or_default(),
            accept,
            rest,
        },
        Err(answer) => HeadVerdict::Refused(answer.status),
    }
}
