//! The host, as a plugin sees it: calls to it, and closing the connection. Under it, the link that
//! outlives single connections.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::{Disconnect, Error, Result};
use crate::protocol::access::AccessGrant;
use crate::protocol::configuration::Configuration;
use crate::protocol::method::{
    AccessGet, GetConfig, Method, RobotRun, RobotRunReply, decode_reply,
};
use crate::rpc::Connection;
use crate::rpc::Reply;

/// How long a close may take to reach the host.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The host at the other end. A clone is another handle to the same host; handles may be used from any
/// thread, inside handlers and outside.
///
/// A plugin that reconnects keeps its handles: each call goes over the connection there is at that
/// moment. When it ends, the calls in flight fail at once, and nothing is sent again.
#[derive(Clone)]
pub struct HostHandle {
    link: Arc<HostLink>,
}

impl HostHandle {
    pub(super) fn new() -> Self {
        Self {
            link: Arc::default(),
        }
    }

    pub(super) fn link(&self) -> &HostLink {
        &self.link
    }

    /// Calls a method of the host and waits for its answer.
    ///
    /// # Blocking
    /// At most `timeout`. The answer, the end of the connection and the timeout wake it.
    ///
    /// # Errors
    /// - [`Error::Disconnected`]: there is no connection, or it ended first. The host may have acted.
    /// - [`Error::Rpc`]: the host answered with an error.
    /// - [`Error::Timeout`] with the phase that ran out.
    /// - [`Error::Encode`], [`Error::MessageTooLarge`] or [`Error::TooManyPending`]: nothing was
    ///   sent.
    /// - [`Error::InvalidReply`]: the answer cannot be read.
    pub fn call<M: Method>(&self, params: &M, timeout: Duration) -> Result<M::Reply> {
        decode_reply::<M>(self.call_raw(M::NAME, params, timeout)?.as_json())
    }

    /// Calls a method by name, such as one of the host's own. `params` must encode to a JSON object.
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// As [`call`](Self::call), but for the reading of the reply, which is [`Reply::read`]'s.
    pub fn call_raw(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Reply> {
        self.link.connection()?.call(method, params, timeout)
    }

    /// Returns the stored configuration: all of it, or those of `keys` that exist. Inside
    /// [`on_configure`](super::Plugin::on_configure) that is still the old one
    /// ([`get_config`](crate::protocol#get_config)).
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn get_config(&self, keys: &[&str], timeout: Duration) -> Result<Configuration> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let reply = self.call(&GetConfig { keys }, timeout)?;
        Ok(reply.config)
    }

    /// Returns credentials for the host's HTTP API, for a plugin whose manifest asks for access.
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::Rpc`] also for a refusal inside the answer
    /// ([`access_get`](crate::protocol#access_get)).
    pub fn access_get(&self, timeout: Duration) -> Result<AccessGrant> {
        let reply = self.call(&AccessGet {}, timeout)?;
        reply.0.map_err(Error::from)
    }

    /// Runs a Robot, unattended. May take minutes; a run that failed is a reply with
    /// [`failure`](RobotRunReply::failure), not an error.
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn robot_run(&self, params: &RobotRun, timeout: Duration) -> Result<RobotRunReply> {
        self.call(params, timeout)
    }

    /// Returns whether there is a connection right now.
    pub fn is_connected(&self) -> bool {
        self.link.state.lock().connection.is_some()
    }

    /// Ends the plugin's connection in an orderly way and makes
    /// [`Plugin::run`](super::Plugin::run) return, also while it waits to try again. Answers that
    /// have not been sent yet are not. A closed handle stays closed.
    ///
    /// # Blocking
    /// At most a second, if the host does not read.
    pub fn close(&self) {
        self.link.close();
    }
}

impl fmt::Debug for HostHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostHandle")
            .field("connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// What connects a plugin with its host, across connections.
#[derive(Default)]
pub(super) struct HostLink {
    state: Mutex<LinkState>,
    closing: Condvar,
    connected_since: OnceLock<Instant>,
}

#[derive(Default)]
struct LinkState {
    connection: Option<Arc<Connection>>,
    /// Why the connection before this one ended.
    ended: Option<Arc<Disconnect>>,
    closed: bool,
}

impl HostLink {
    fn connection(&self) -> Result<Arc<Connection>> {
        let state = self.state.lock();
        state.connection.clone().ok_or_else(|| {
            let cause = state.ended.clone();
            Error::Disconnected(cause.unwrap_or_else(|| Arc::new(Disconnect::NotYet)))
        })
    }

    /// Takes a new connection into use. Returns false when the link is closed.
    pub(super) fn attach(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            state.connection = Some(connection.clone());
            self.connected_since.get_or_init(Instant::now);
        }
        !state.closed
    }

    pub(super) fn detach(&self, cause: &Arc<Disconnect>) {
        let mut state = self.state.lock();
        state.connection = None;
        state.ended = Some(cause.clone());
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Waits until the link is closed, at most for this long. Returns false when it is closed.
    pub(super) fn pause(&self, wait: Duration) -> bool {
        let deadline = Deadline::after(wait);
        let mut state = self.state.lock();
        while !state.closed && !deadline.has_passed() {
            self.closing.wait_until(&mut state, deadline.instant());
        }
        !state.closed
    }

    /// Returns the time since the first connection; zero before that.
    pub(super) fn uptime(&self) -> Duration {
        self.connected_since
            .get()
            .map_or(Duration::ZERO, Instant::elapsed)
    }

    fn close(&self) {
        let connection = {
            let mut state = self.state.lock();
            state.closed = true;
            self.closing.notify_all();
            state.connection.clone()
        };
        if let Some(connection) = connection {
            close(&connection);
        }
    }
}

/// Closes as the SDKs in the field do ([WebSocket](crate::protocol#websocket)).
pub(super) fn close(connection: &Connection) {
    connection.close(
        close_code::NORMAL,
        "shutting down",
        Deadline::after(CLOSE_TIMEOUT),
    );
}
