//! The phase in which a timeout occurred.

use std::fmt;

/// The phase of an operation in which the time ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Preparing and spawning the plugin's process.
    Spawn,
    /// The WebSocket handshake.
    Handshake,
    /// The plugin connecting (or, over stdio, answering its first ping).
    Connect,
    /// Passing the message to the transport. The message was withdrawn: the plugin receives none of it.
    Write,
    /// The plugin answering.
    Reply,
    /// The plugin reaching a state.
    State,
    /// The plugin's processes ending.
    Stop,
    /// Calls in flight finishing.
    Drain,
    /// The next line of a log.
    Log,
    /// Receiving, checking and unpacking a package.
    Install,
    /// The host's reaper thread answering a check.
    Reaper,
    /// The store writing something small, for a check.
    Store,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spawn => "starting the process",
            Self::Handshake => "the handshake",
            Self::Connect => "waiting for the plugin to connect",
            Self::Write => "writing to the plugin",
            Self::Reply => "waiting for the reply",
            Self::State => "waiting for the state",
            Self::Stop => "stopping the plugin",
            Self::Drain => "waiting for calls in flight",
            Self::Log => "waiting for a log line",
            Self::Install => "installing the package",
            Self::Reaper => "waiting for the host's reaper thread",
            Self::Store => "writing to the store",
        })
    }
}
