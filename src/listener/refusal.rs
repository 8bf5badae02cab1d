//! HTTP answers that refuse a connection. A 4xx ends an SDK for good, a 5xx makes it retry
//! ([Refused or disconnected](crate::protocol#refused-or-disconnected)), so every temporary reason
//! is answered with 503.

use std::fmt;

use log::Level;

use super::HANDSHAKE_STACK;
use super::access::Attempt;
use crate::counters::count_by;
use crate::error::Error;
use crate::host::{HandshakeInProgress, HostShared};
use crate::http::RefusalAnswer;
use crate::session::{Peer, RefusalReason, Session};

/// The answer to a request that the host does not admit. The embedder sends it and drops it afterwards.
/// Dropping it writes the refusal to the access log, and to the log of the plugin that the request named; that
/// comes after the answer, so that its time does not tell a peer whether there is such a plugin.
///
/// A 4xx ends the plugin's SDK for good, a 5xx makes it try again
/// ([Refused or disconnected](crate::protocol#refused-or-disconnected)): the status must not be changed.
pub struct Refusal {
    answer: &'static RefusalAnswer,
    /// The plugin that it names, if that is loaded, and the reason for the plugin's log.
    plugin: Option<(Session, RefusalReason)>,
    /// Who asked, for the logs.
    peer: Peer,
    /// The handshake counts as in progress until the answer is sent.
    in_progress: Option<HandshakeInProgress>,
}

impl Refusal {
    pub(super) fn new(
        answer: &'static RefusalAnswer,
        session: Session,
        reason: RefusalReason,
    ) -> Self {
        Self {
            answer,
            plugin: Some((session, reason)),
            peer: Peer::default(),
            in_progress: None,
        }
    }

    /// Returns the HTTP status.
    pub fn status(&self) -> u16 {
        self.answer.status
    }

    /// Returns the body: one line of plain text.
    pub fn body(&self) -> String {
        self.answer.body()
    }

    /// Returns the headers that belong to this answer. `Content-Length` and `Connection` are not among
    /// them: a server adds its own, and [`to_bytes`](Self::to_bytes) includes them.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.answer.headers()
    }

    /// Returns the whole HTTP answer, after which the connection is to be closed.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.answer.to_bytes()
    }

    /// Counts the refusal, before it is sent, and starts the check of the existing connection if that is
    /// the reason. The peer is who asked, for the logs.
    pub(super) fn counted(mut self, in_progress: HandshakeInProgress, peer: Peer) -> Self {
        let host = in_progress.host();
        self.peer = peer;
        if self.answer == RefusalAnswer::BUSY {
            count_by(&host.handshakes.over_limit, 1);
        } else {
            host.handshakes.count_refusal(self.answer.status);
        }
        if let Some((session, reason)) = &self.plugin {
            session.shared().count_refusal(*reason);
            if *reason == RefusalReason::AlreadyConnected {
                check_existing(host, session);
            }
        }
        self.in_progress = Some(in_progress);
        self
    }

    /// Writes the line of the access log.
    fn log(&self, host: &HostShared) {
        let RefusalAnswer { status, text, .. } = self.answer;
        // Whoever asks for something else here is no plugin: a browser, or a probe whether the port answers.
        let level = match *status {
            404 => Level::Debug,
            _ => Level::Info,
        };
        let mut attempt = Attempt::of(&self.peer);
        match &self.plugin {
            Some((session, reason)) => {
                attempt.plugin = Some(session);
                attempt.ended(host, level, format_args!("{status} {reason}"));
            }
            None => attempt.ended(host, level, format_args!("{status} {text}")),
        }
    }

    pub(super) fn to_error(&self) -> Error {
        Error::Refused {
            status: self.answer.status,
            reason: self.answer.text,
        }
    }
}

impl From<&'static RefusalAnswer> for Refusal {
    fn from(answer: &'static RefusalAnswer) -> Self {
        Self {
            answer,
            plugin: None,
            peer: Peer::default(),
            in_progress: None,
        }
    }
}

impl From<Refusal> for Error {
    /// Returns [`Error::Refused`]. This drops the refusal, so it should have been sent before.
    fn from(refusal: Refusal) -> Self {
        refusal.to_error()
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = self.plugin.as_ref().map(|(session, _)| session.id());
        f.debug_struct("Refusal")
            .field("answer", &self.answer)
            .field("plugin", &session)
            .finish_non_exhaustive()
    }
}

impl Drop for Refusal {
    fn drop(&mut self) {
        if let Some((session, reason)) = &self.plugin {
            let shared = session.shared();
            shared.report_refusal(*reason, self.answer.status, &self.peer.address);
        }
        if let Some(in_progress) = &self.in_progress {
            self.log(in_progress.host());
        }
    }
}

/// Checks, on a thread of its own, whether the existing connection is alive that a new one was refused for.
fn check_existing(host: &HostShared, session: &Session) {
    let Some(check) = session.shared().begin_probe() else {
        return;
    };
    let started = host
        .context
        .services
        .threads
        .spawn("check-peer", HANDSHAKE_STACK, move || check.run());
    if let Err(error) = started {
        log::warn!("cannot check a connection: {error}");
    }
}

/// The answers of the handshake ([Handshake answers](crate::protocol#handshake-answers)).
impl RefusalAnswer {
    pub(super) const INVALID_PARAMETERS: &Self = &Self {
        status: 400,
        text: "invalid connection parameters",
        header: None,
    };
    pub(super) const BAD_HANDSHAKE: &Self = &Self {
        status: 400,
        text: "malformed WebSocket handshake",
        header: Some(("Sec-WebSocket-Version", "13")),
    };
    pub(super) const UNAUTHENTICATED: &Self = &Self {
        status: 401,
        text: "unauthenticated",
        header: None,
    };
    pub(super) const FOREIGN_ORIGIN: &Self = &Self {
        status: 403,
        text: "origin is not this host",
        header: None,
    };
    pub(super) const NO_SUCH_PATH: &Self = &Self {
        status: 404,
        text: "plugins connect to /rpc",
        header: None,
    };
    pub(super) const METHOD_NOT_ALLOWED: &Self = &Self {
        status: 405,
        text: "only GET",
        header: Some(("Allow", "GET")),
    };
    pub(super) const UPGRADE_REQUIRED: &Self = &Self {
        status: 426,
        text: "a WebSocket handshake is expected here",
        header: Some(("Upgrade", "websocket")),
    };
    pub(super) const BUSY: &Self = &Self::come_back("too many handshakes in progress");
    pub(super) const NOT_WANTED: &Self = &Self::come_back("the plugin is not wanted now");
    pub(super) const ALREADY_CONNECTED: &Self = &Self::come_back("the plugin is already connected");
    pub(super) const SHUTTING_DOWN: &Self = &Self::come_back("shutting down");
}
