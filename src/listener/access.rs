//! What the access log says of an attempt to connect: who it was, what it was answered, and why. Never the token,
//! nor anything else of what was asked for.

use std::fmt;

use log::Level;

use crate::duplex::websocket::Socket;
use crate::host::{AccessLog, HostShared};
use crate::session::{Peer, Session};
use crate::text::{Foreign, PluginName};

/// How much of a user agent or an address is shown.
const SHOWN: usize = 256;

/// Who attempts to connect.
#[derive(Clone, Copy, Default)]
pub(super) struct Attempt<'a> {
    /// Empty when unknown.
    pub(super) address: &'a str,
    pub(super) user_agent: &'a str,
    /// The plugin that it names, if that is loaded.
    pub(super) plugin: Option<&'a Session>,
}

impl<'a> Attempt<'a> {
    pub(super) fn of(peer: &'a Peer) -> Self {
        Self {
            address: &peer.address,
            user_agent: &peer.user_agent,
            plugin: None,
        }
    }

    /// Writes the line of an attempt that `answered` says the end of.
    pub(super) fn ended(self, host: &HostShared, level: Level, answered: fmt::Arguments<'_>) {
        host.access.write(level, format_args!("{self}: {answered}"));
    }
}

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("/rpc from ")?;
        match self.address {
            "" => f.write_str("an unknown address")?,
            address => write!(f, "{}", Foreign::new(address).limited_to(SHOWN))?,
        }
        if !self.user_agent.is_empty() {
            let agent = Foreign::new(self.user_agent).limited_to(SHOWN);
            write!(f, ", user agent {agent:?}")?;
        }
        if let Some(session) = self.plugin {
            let name = PluginName {
                manifest_id: &session.shared().name,
                id: session.id(),
            };
            write!(f, ", {name}")?;
        }
        Ok(())
    }
}

/// Returns the address of the peer for a line, if lines are written: asking for it costs a system call.
pub(super) fn address_for_line(socket: &Socket) -> String {
    if AccessLog::is_on(Level::Info) {
        socket.peer_address()
    } else {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_says_of_itself_forges_nothing() {
        let attempt = Attempt {
            address: "10.0.0.1\nforged",
            user_agent: "curl\", plugin x: 101\n\u{202e}",
            plugin: None,
        };
        assert_eq!(
            attempt.to_string(),
            r#"/rpc from 10.0.0.1\nforged, user agent "curl\", plugin x: 101\n\u{202e}""#
        );
        assert_eq!(
            Attempt::default().to_string(),
            "/rpc from an unknown address"
        );
        let agent = "x".repeat(8 * 1024);
        let long = Attempt {
            user_agent: &agent,
            ..Attempt::default()
        };
        assert!(long.to_string().len() < 400);
    }
}
