//! Why a connection ended.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::text::Foreign;

/// Why there is no connection, or why it ended. The first cause wins, and every waiting call returns
/// it. Text from the peer is displayed [escaped](crate::text::escape) and cut; the fields hold it as it was
/// received.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Disconnect {
    /// The plugin has not connected since it was last started.
    #[error("the plugin has not connected")]
    NotYet,
    /// The server refused the handshake of this client's connection.
    #[error("the handshake was refused with HTTP status {status}")]
    Refused {
        /// The HTTP status of the answer.
        status: u16,
    },
    /// The peer closed the connection in an orderly way.
    #[error("closed by the plugin{}", close_text(*.code, .reason))]
    ByPeer {
        /// The close code, if the transport has one and the peer sent it.
        code: Option<u16>,
        /// The peer's reason; may be empty.
        reason: String,
    },
    /// The stream ended without a close.
    #[error("connection lost")]
    Lost,
    /// The output of a stdio plugin ended with a message that lacks its line feed.
    #[error("the plugin's last message came without a line end; each ends in a line feed")]
    NoLineEnd,
    /// The system reported an error.
    #[error("connection failed: {}", Foreign::new(&.0.to_string()))]
    Io(Arc<io::Error>),
    /// The peer accepted no byte for too long.
    #[error("the plugin read nothing for {limit:?}")]
    Stalled {
        /// How long: [`Timeouts::write_stall`](crate::Timeouts::write_stall).
        limit: Duration,
    },
    /// The peer answered no ping in time.
    #[error("unresponsive: no sign of life for {limit:?}")]
    Unresponsive {
        /// The time it had.
        limit: Duration,
    },
    /// The peer sent a message over the limit.
    #[error("the plugin sent a message over the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The peer sent text that is not UTF-8.
    #[error("the plugin sent text that is not UTF-8")]
    NotUtf8,
    /// The peer broke the transport's protocol.
    #[error("the plugin broke the protocol: {}", Foreign::new(.0))]
    Violation(Arc<str>),
    /// The peer asks for more answers than it reads.
    #[error("the plugin asks faster than it reads the answers")]
    ControlOverflow,
    /// This side closed the connection.
    #[error("closed by the host: {}", Foreign::new(.reason))]
    ByHost {
        /// The close code that was sent.
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
