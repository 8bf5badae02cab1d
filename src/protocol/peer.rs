//! The kind of program at the other end, as its handshake shows, and what follows from it. The SDKs
//! differ in what they can read, and only the handshake tells them apart
//! ([Handshake answers](crate::protocol#handshake-answers) and [WebSocket](crate::protocol#websocket)).

use super::access::AccessShape;

const MEBIBYTE: usize = 1024 * 1024;

/// The kind of peer, judged by the `User-Agent` of its handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum PeerKind {
    /// Storyden's Go SDK, or anything else that uses Go's HTTP client unchanged.
    Go,
    /// Storyden's Python SDK, or anything else on the `websockets` package.
    Python,
    /// Any other peer, including those without a user agent and those over stdio.
    #[default]
    Other,
}

impl PeerKind {
    /// Judges a `User-Agent` header: `Go-http-client/1.1`, `Python/3.11 websockets/15.0.1`.
    pub(crate) fn from_user_agent(user_agent: &str) -> Self {
        if user_agent.starts_with("Go-http-client/") {
            Self::Go
        } else if user_agent.starts_with("Python/") && user_agent.contains(" websockets/") {
            Self::Python
        } else {
            Self::Other
        }
    }

    /// The largest message to send to such a peer, in bytes: 1 MiB to Python, whose library closes
    /// the connection over it, 4 MiB to the others ([WebSocket](crate::protocol#websocket)).
    pub(crate) const fn message_limit(self) -> usize {
        match self {
            Self::Python => MEBIBYTE,
            Self::Go | Self::Other => 4 * MEBIBYTE,
        }
    }

    /// The form of credentials that such a peer can read.
    pub(crate) const fn access_shape(self) -> AccessShape {
        match self {
            Self::Go => AccessShape::GoUrl,
            Self::Python => AccessShape::Python,
            Self::Other => AccessShape::Schema,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_agents_tell_the_sdks_apart() {
        let kind = PeerKind::from_user_agent;
        assert_eq!(kind("Go-http-client/1.1"), PeerKind::Go);
        assert_eq!(kind("Python/3.11 websockets/15.0.1"), PeerKind::Python);
        // Python, but not the library with the small limit and the strict models.
        assert_eq!(kind("Python/3.11 aiohttp/3.9"), PeerKind::Other);
        assert_eq!(kind("plugin-runner/0.1.0"), PeerKind::Other);
        assert_eq!(kind(""), PeerKind::Other);
    }

    #[test]
    fn python_accepts_a_quarter_of_what_the_others_do() {
        assert_eq!(PeerKind::Python.message_limit(), 1_048_576);
        assert_eq!(PeerKind::Go.message_limit(), 4_194_304);
        assert_eq!(PeerKind::Other.message_limit(), 4_194_304);
    }
}
