//! How a connection is attached to a session: which connections are admitted, the reservation that keeps a
//! second one out, spending the token, and the hand-over to the session's thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::MutexGuard;

use super::Session;
use super::health::PingKind;
use super::run::NewConnection;
use super::shared::SharedSession;
use super::state::SessionState;
use crate::auth::SealedToken;
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::{Duplex, DuplexSettings, Halves, close_code, peer_address};
use crate::error::{Disconnect, Error, Result};
use crate::fault;
use crate::protocol::method::{Method, Ping};
use crate::protocol::peer::PeerKind;
use crate::reaper::RunId;
use crate::rpc::CallOutcome;
use crate::rpc::{Connection, ConnectionSettings};
use crate::state::{ActiveState, PluginMode, ReportedState};
use crate::text::Foreign;

/// How long an existing connection has to show a sign of life when a new one arrives.
const INCUMBENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The peer at the other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// Its `User-Agent`; decides the shape of `access_get` and the size of what it is sent. Empty
    /// when unknown.
    pub(crate) user_agent: String,
    /// Its address for log lines. Empty when unknown.
    pub(crate) address: String,
}

/// What a new connection shows to be admitted.
pub(crate) enum Credential<'a> {
    /// The token of a supervised plugin's current run.
    Sealed(&'a SealedToken),
    /// An external plugin's token that was found right, or a connection of the embedder's.
    Trusted,
}

/// Why a new connection is not admitted.
#[derive(Debug)]
pub(crate) enum AdmitError {
    /// Its token is not, or no longer, good.
    BadToken,
    /// There is a connection already, or one is being made.
    AlreadyConnected,
    /// The plugin is not wanted, not started, or going away.
    NotWanted(ReportedState),
}

/// The right to attach one connection. Other connections may try again once it is dropped, or its deadline
/// has passed. The next connection checks the deadline, so no thread has to wait for it.
pub(crate) struct Reservation {
    shared: Arc<SharedSession>,
    run: RunId,
    number: u64,
    used: bool,
}

impl SharedSession {
    /// Returns whether a sealed token is that of the current run, without spending it.
    pub(crate) fn knows_token(&self, token: &SealedToken) -> bool {
        self.state.lock().knows_token(self, token)
    }

    /// Admits a new connection or not; on success its token is spent, under the same lock, and no other
    /// connection is admitted until the deadline.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        credential: &Credential<'_>,
        until: Deadline,
    ) -> std::result::Result<Reservation, AdmitError> {
        let mut state = self.state.lock();
        if let Credential::Sealed(token) = credential
            && !state.knows_token(self, token)
        {
            return Err(AdmitError::BadToken);
        }
        let is_reserved = state.reserved.is_some_and(|(_, until)| !until.has_passed());
        if state.connection.is_some() || is_reserved {
            return Err(AdmitError::AlreadyConnected);
        }
        let ready = match self.mode {
            // A plugin that shows its token may be faster than the reaper's report that it was spawned.
            // Without the token, no one can know of a process that is not reported yet.
            PluginMode::Supervised if matches!(credential, Credential::Sealed(_)) => matches!(
                state.reported,
                ReportedState::Starting | ReportedState::Connecting
            ),
            _ => state.reported == ReportedState::Connecting,
        };
        if !ready
            || state.wanted == ActiveState::Inactive
            || state.unloading > 0
            || self.context.is_shut_down()
        {
            return Err(AdmitError::NotWanted(state.reported));
        }
        // Last, after every other check: a refusal must not cost the plugin its only token.
        if matches!(credential, Credential::Sealed(_)) {
            state.secret = None;
        }
        state.reservations += 1;
        state.reserved = Some((state.reservations, until));
        Ok(Reservation {
            shared: self.clone(),
            run: state.run,
            number: state.reservations,
            used: false,
        })
    }

    /// Returns a probe of the existing connection, unless one is under way.
    pub(crate) fn begin_probe(self: &Arc<Self>) -> Option<LivenessProbe> {
        let begun = self.probing.swap(true, Ordering::AcqRel);
        (!begun).then(|| LivenessProbe(self.clone()))
    }
}

/// Checks whether the existing connection, which keeps a new one out, is alive.
pub(crate) struct LivenessProbe(Arc<SharedSession>);

impl LivenessProbe {
    /// Ends the connection if it shows no sign of life in time, so that a half-open one does not
    /// lock its plugin out. Blocks for as long as that takes.
    pub(crate) fn run(self) {
        let shared = &self.0;
        let Some(connection) = shared.state.lock().connection.clone() else {
            return;
        };
        let limit = INCUMBENT_TIMEOUT;
        // A connection that ended by itself meanwhile has a cause of its own.
        if !connection.is_alive(Deadline::after(limit)) && !connection.has_ended() {
            log::warn!(
                "plugin {}: its connection is dead, making room for a new one",
                shared.name
            );
            let cause = Disconnect::Unresponsive { limit };
            let reason = cause.to_string();
            let deadline = Deadline::after(CLOSE_TIMEOUT);
            connection.close_with(cause, close_code::RESTART, &reason, deadline);
        }
    }
}

/// How long a close of a connection that seems dead may take.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(250);

impl Drop for LivenessProbe {
    fn drop(&mut self) {
        self.0.probing.store(false, Ordering::Release);
    }
}

/// Describes the peer for log lines by its address and user agent; empty for a pipe.
fn described(address: &str, user_agent: &str) -> String {
    let mut text = String::new();
    for part in [address, user_agent] {
        if !part.is_empty() {
            text.push_str(if text.is_empty() { ", " } else { " " });
            text.push_str(&Foreign::new(part).to_string());
        }
    }
    text
}

impl SessionState {
    fn knows_token(&self, shared: &SharedSession, token: &SealedToken) -> bool {
        self.secret
            .as_ref()
            .is_some_and(|secret| token.open(secret) == Some(shared.id))
    }
}

impl Reservation {
    /// Attaches the connection and reports the plugin active, but for stdio plugins, which must
    /// answer a ping first.
    ///
    /// # Errors
    /// - [`Error::Io`] when the connection cannot be taken into use.
    /// - [`Error::State`] when the plugin was stopped or ended meanwhile.
    pub(crate) fn attach(
        mut self,
        duplex: Box<dyn Duplex>,
        peer: &Peer,
        first_ping: bool,
    ) -> Result<()> {
        let shared = self.shared.clone();
        let context = &shared.context;
        fault::point(fault::RESERVED, shared.id);
        let record = match shared.mode {
            // Its token or manifest may have been replaced in the store.
            PluginMode::External => shared.refreshed_record()?,
            // Was refreshed when the run was prepared; and this may be the reaper's thread, which
            // must not wait for a store.
            PluginMode::Supervised => shared.record(),
        };
        let mut settings =
            DuplexSettings::with_threads(shared.name.to_string(), context.services.threads.clone());
        settings.inbound_message = context.settings.limits.inbound_message;
        settings.outbound_bytes = context.settings.limits.outbound_bytes;
        settings.write_stall = context.settings.timeouts.write_stall;
        let halves = Halves::of(duplex, &settings)?;
        let kind = PeerKind::from_user_agent(&peer.user_agent);
        let message_limit = record
            .overrides
            .outbound_message
            .unwrap_or_else(|| kind.message_limit());
        let access_shape = record
            .overrides
            .access_shape
            .unwrap_or_else(|| kind.access_shape());
        let per_second = record
            .overrides
            .inbound_per_second
            .unwrap_or(context.settings.limits.inbound_per_second);
        let settings = ConnectionSettings {
            peer: format!("plugin {}", shared.name),
            pending_limit: context.settings.limits.pending_calls,
            access_shape,
            message_limit,
            rate: shared.rate.limited_to(per_second),
            spin: context.settings.spin,
        };
        let (connection, reader) = Connection::new(halves, settings, shared.counters.rpc.clone());
        let reading = NewConnection {
            connection: connection.clone(),
            reader,
            run: self.run,
        };

        let refused = {
            let mut state = shared.state.lock();
            // Not valid any more if the process has ended or the plugin was stopped since, even if
            // it has been started again.
            let valid = self.release(&mut state);
            let ready = matches!(
                state.reported,
                ReportedState::Starting | ReportedState::Connecting
            );
            if ready && valid && state.wanted == ActiveState::Active && state.unloading == 0 {
                self.hand_over(&mut state, reading, first_ping)
            } else {
                let error = Error::State {
                    state: state.reported,
                    message: state.message(),
                };
                Some((error, reading))
            }
        };
        if let Some((error, reading)) = refused {
            // Not an orderly close: this may be the reaper's thread, which must not wait.
            connection.abort(Disconnect::NotYet);
            drop(reading);
            return Err(error);
        }
        fault::point(fault::ATTACHED, shared.id);
        if first_ping {
            self.ping_first(&connection)
        } else {
            // Storyden's Python SDK runs handlers on the event loop that answers pings.
            let asks = match kind {
                PeerKind::Python => PingKind::SharedLoop,
                _ => PingKind::Transport,
            };
            shared.watch(&connection, asks);
            shared.resync_configuration();
            Ok(())
        }
    }

    /// Hands the reading half to the session's thread, and makes the connection the session's. Returns both
    /// back with the error if that fails.
    fn hand_over(
        &self,
        state: &mut MutexGuard<'_, SessionState>,
        reading: NewConnection,
        first_ping: bool,
    ) -> Option<(Error, NewConnection)> {
        let shared = &self.shared;
        let connection = reading.connection.clone();
        let readers = shared.readers.lock();
        let Some(sender) = readers.as_ref() else {
            return Some((Error::NotLoaded(shared.id), reading));
        };
        let tells_reaper = !first_ping && shared.mode == PluginMode::Supervised;
        if tells_reaper {
            // Before anybody can see it active, and before a call of its own is answered: it may exit
            // upon either, and the reaper must not hear of the exit first.
            shared
                .context
                .services
                .reaper
                .connected(shared.child, self.run);
        }
        // There is at most one connection; a session thread that is still busy with the end of the
        // one before takes it next.
        if let Err(refused) = sender.try_send(reading) {
            if tells_reaper {
                let cause = Arc::new(Disconnect::NotYet);
                let reaper = &shared.context.services.reaper;
                reaper.disconnected(shared.child, self.run, cause);
            }
            return Some((Error::NotLoaded(shared.id), refused.into_inner()));
        }
        drop(readers);
        state.connection = Some(connection);
        count_by(&shared.counters.connections, 1);
        if !first_ping {
            self.activate(state);
        }
        None
    }

    fn activate(&self, state: &mut MutexGuard<'_, SessionState>) {
        if state.reported == ReportedState::Starting {
            self.shared.enter(state, ReportedState::Connecting, None);
        }
        self.shared.enter(state, ReportedState::Active, None);
    }

    /// A stdio plugin is active when it has answered a first ping, if only with an error: there are servers
    /// that take nothing else before they are initialized. Without an answer the connect timeout ends it.
    fn ping_first(&self, connection: &Arc<Connection>) -> Result<()> {
        let (shared, run) = (self.shared.clone(), self.run);
        let pinged = connection.clone();
        let on_outcome = Box::new(move |outcome| {
            let answered = matches!(outcome, CallOutcome::Reply(..) | CallOutcome::Refused(_));
            let mut state = shared.state.lock();
            let current = state
                .connection
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, &pinged));
            if answered && current && state.reported == ReportedState::Connecting {
                // In this order for the same reason as above.
                shared.context.services.reaper.connected(shared.child, run);
                shared.enter(&mut state, ReportedState::Active, None);
                drop(state);
                // Not before: until then it has the connect timeout.
                shared.watch(&pinged, PingKind::Plugin);
                shared.resync_configuration();
            }
        });
        match connection.post_call(Ping::NAME, &Ping {}, on_outcome) {
            // It has ended already: the reading thread tells, and the process's exit says why.
            Err(Error::Disconnected(_)) => Ok(()),
            result => result,
        }
    }

    /// Lets other connections try; returns whether the reservation was valid until now.
    fn release(&mut self, state: &mut SessionState) -> bool {
        self.used = true;
        let valid = state
            .reserved
            .is_some_and(|(number, _)| number == self.number);
        if valid {
            state.reserved = None;
        }
        valid
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.used {
            let shared = self.shared.clone();
            self.release(&mut shared.state.lock());
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("plugin", &self.shared.id)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Attaches a connection that the embedder made and trusts, such as one end of
    /// [`memory::pair`](crate::duplex::memory::pair) or one that came through its own server.
    ///
    /// For an external plugin that is wanted active, or a supervised one whose process is waited
    /// for. `user_agent` is what the peer says it is, as in a handshake; it decides the shape of `access_get`
    /// and the size of what the plugin is sent, and is empty when unknown.
    ///
    /// # Blocking
    /// While it reads an external plugin's record from the store; it never waits for the peer.
    ///
    /// # Errors
    /// - [`Error::AlreadyConnected`]: the plugin has a connection, which it keeps.
    /// - [`Error::State`]: it is not waiting for one. [`Error::NotLoaded`], [`Error::ShutDown`]
    ///   likewise.
    /// - [`Error::Io`]: the connection cannot be taken into use.
    /// - [The store's](crate::store::Store#errors), with an external plugin.
    pub fn connect(&self, duplex: impl Duplex, user_agent: &str) -> Result<()> {
        let shared = self.shared();
        let reservation = shared
            .reserve(&Credential::Trusted, Deadline::after(Duration::MAX))
            .map_err(|refused| shared.refusal(&refused))?;
        let peer = Peer {
            user_agent: user_agent.to_owned(),
            ..Peer::default()
        };
        // Now, because the end of a socket forgets it. Connections by other ways are in the access log, or are
        // pipes.
        let from = described(&peer_address(&duplex), user_agent);
        reservation.attach(Box::new(duplex), &peer, false)?;
        log::info!("plugin {}: connected{from}", shared.name);
        Ok(())
    }
}

impl SharedSession {
    /// Starts the health checks of the connection, until its end.
    fn watch(&self, connection: &Arc<Connection>, asks: PingKind) {
        let record = self.record();
        let own = record.overrides.health.as_ref();
        let own = own.filter(|health| match health.validate() {
            Ok(()) => true,
            Err(error) => {
                log::warn!("plugin {}: {error}; the host's settings apply", self.name);
                false
            }
        });
        let health = own.unwrap_or(&self.context.settings.health);
        let asks = match asks {
            PingKind::Transport | PingKind::SharedLoop if health.rpc_ping => {
                PingKind::PluginMessages
            }
            asks => asks,
        };
        self.context.services.health.watch(connection, health, asks);
    }

    fn refusal(&self, refused: &AdmitError) -> Error {
        let state = self.state.lock();
        match refused {
            AdmitError::AlreadyConnected => Error::AlreadyConnected(self.id),
            _ if self.context.is_shut_down() => Error::ShutDown,
            _ if state.unloaded => Error::NotLoaded(self.id),
            AdmitError::NotWanted(reported) => Error::State {
                state: *reported,
                message: state.message(),
            },
            AdmitError::BadToken => Error::State {
                state: state.reported,
                message: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duplex::memory;
    use crate::host::Host;
    use crate::protocol::manifest::Manifest;
    use crate::store::Record;
    use crate::testing::{LONG, TestDir, assert_matches, wait_until};

    fn soon() -> Deadline {
        Deadline::after(LONG)
    }

    /// An external plugin that waits for its connection.
    fn external(dir: &TestDir) -> (Host, Session) {
        let host = Host::builder().data_dir(dir.path()).build().unwrap();
        let manifest = Manifest {
            id: "tested".to_owned(),
            author: "tests".to_owned(),
            name: "Tested".to_owned(),
            ..Manifest::default()
        };
        let record = Record::external(manifest).unwrap();
        let id = record.id;
        host.store().put(record).unwrap();
        let session = host.load(id).unwrap();
        (host, session)
    }

    #[test]
    fn a_connection_that_ends_before_its_first_ping_was_one_all_the_same() {
        let dir = TestDir::new("attach");
        let (host, session) = external(&dir);
        let shared = session.shared();
        let reservation = shared.reserve(&Credential::Trusted, soon()).unwrap();
        let (ours, theirs) = memory::pair(1);
        drop(theirs);
        let peer = Peer::default();
        reservation.attach(Box::new(ours), &peer, true).unwrap();
        wait_until("room for the next", || {
            shared.state.lock().connection.is_none()
        });
        assert_eq!(session.counters().connections, 1);
        let (ours, _theirs) = memory::pair(1);
        session.connect(ours, "").unwrap();
        assert!(host.shutdown(LONG).is_complete());
    }

    #[test]
    fn a_handshake_that_a_stop_overtook_is_void_though_the_plugin_is_wanted_again() {
        let dir = TestDir::new("attach");
        let (host, session) = external(&dir);
        let overtaken = session.shared();
        let overtaken = overtaken.reserve(&Credential::Trusted, soon()).unwrap();
        for state in [ActiveState::Inactive, ActiveState::Active] {
            session.set_active_state(state).unwrap();
        }
        let (ours, theirs) = memory::pair(1);
        let peer = Peer::default();
        let refused = overtaken.attach(Box::new(ours), &peer, false);
        let connecting = ReportedState::Connecting;
        assert_matches!(refused, Err(Error::State { state, .. }) if state == connecting);
        let settings = DuplexSettings::new("plugin");
        let mut halves = Halves::of(theirs, &settings).unwrap();
        assert!(halves.reader.receive().is_err(), "the refused end is open");
        // Nor does it stand in anybody's way.
        let (ours, _theirs) = memory::pair(1);
        session.connect(ours, "").unwrap();
        assert!(host.shutdown(LONG).is_complete());
    }

    #[test]
    fn a_reservation_whose_time_is_over_keeps_no_other_connection_out() {
        let dir = TestDir::new("attach");
        let (host, session) = external(&dir);
        let shared = session.shared();
        let reserve = |until| shared.reserve(&Credential::Trusted, until);
        let first = reserve(Deadline::after(Duration::ZERO)).unwrap();
        let second = reserve(soon()).unwrap();
        assert_matches!(reserve(soon()), Err(AdmitError::AlreadyConnected));
        // The first is void: it attaches nothing, and its end does not free the place of the second.
        let (ours, _theirs) = memory::pair(1);
        let peer = Peer::default();
        let refused = first.attach(Box::new(ours), &peer, false);
        assert_matches!(refused, Err(Error::State { .. }));
        assert_matches!(reserve(soon()), Err(AdmitError::AlreadyConnected));
        let (ours, _theirs) = memory::pair(1);
        second.attach(Box::new(ours), &peer, false).unwrap();
        assert!(host.shutdown(LONG).is_complete());
    }
}
