//! Why a connection ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::text::Foreign;

/// Why there is no connection, or why it ended. The first cause wins and is given to every call
/// that was waiting. What the peer says is shown as [`Foreign`] text; the fields have it as it came.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// There has been no connection yet since the plugin was last started.
    #[error("the plugin has not connected")]
    NotYet,
    /// The server refused the handshake of a connection that we made.
    #[error("the handshake was refused with HTTP status {status}")]
    Refused {
        /// The HTTP status it answered with.
        status: u16,
    },
    /// The peer closed it in an orderly way.
    #[error("closed by the plugin{}", close_text(*.code, .reason))]
    ByPeer {
        /// Close code, where the transport has one and the peer sent it.
        code: Option<u16>,
        /// The reason the peer gave, may be empty.
        reason: String,
    },
    /// The stream ended without a close.
    #[error("connection lost")]
    Lost,
    /// The stream of a stdio plugin ended in the middle of a line that would be a message with a line
    /// feed behind it.
    #[error("the plugin's last message came without a line end; each ends in a line feed")]
    NoLineEnd,
    /// The system reported an error.
    #[error("connection failed: {}", Foreign::new(&.0.to_string()))]
    Io(Arc<io::Error>),
    /// Nothing could be written for the write stall timeout.
    #[error("the plugin read nothing for {limit:?}")]
    Stalled {
        /// The write stall timeout.
        limit: Duration,
    },
    /// The peer answered no ping in time.
    #[error("unresponsive: no sign of life for {limit:?}")]
    Unresponsive {
        /// The time given to it.
        limit: Duration,
    },
    /// The peer sent a message over the limit.
    #[error("the plugin sent a message over the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The peer sent text that is not UTF-8.
    #[error("the plugin sent text that is not UTF-8")]
    NotUtf8,
    /// The peer broke the transport's protocol.
    #[error("the plugin broke the protocol: {}", Foreign::new(.0))]
    Violation(Arc<str>),
    /// The peer makes us answer more than it reads.
    #[error("the plugin asks faster than it reads the answers")]
    ControlOverflow,
    /// We closed it.
    #[error("closed by the host: {}", Foreign::new(.reason))]
    ByHost {
        /// Close code that was sent.
        code: u16,
        /// The reason that was sent.
        reason: Arc<str>,
    },
    /// The plugin's process ended.
    #[error("the plugin's process ended: {}", Foreign::new(.0))]
    ProcessEnded(Arc<str>),
}

fn close_text(code: Option<u16>, reason: &str) -> String {
    let shown = Foreign::new(reason);
    match code {
        None if reason.is_empty() => String::new(),
        None => format!(" ({shown})"),
        Some(code) if reason.is_empty() => format!(" (code {code})"),
        Some(code) => format!(" (code {code}, {shown})"),
    }
}

impl From<io::Error> for Disconnect {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Self::Lost,
            _ => Self::Io(Arc::new(error)),
        }
    }
}
