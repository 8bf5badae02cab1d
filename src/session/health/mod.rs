//! Health: the thread that watches every connection of a host for signs of life, and ends those that show
//! none.
//!
//! What lives here: the thread, which connections are watched, and which is due next. Beside it: the
//! heartbeat of one connection (pure). What does not: the settings (`crate::health`), sending and receiving
//! (`rpc`), what the end of a connection means (`run`, `reaper`), and the probe of a connection that keeps
//! a new one out (`attach`).
//!
//! There is one thread for all connections, while there are any: it sleeps until the next one is due
//! and never waits for a peer. Those that are due at about the same time are handled in one go
//! ([`TickGrid`]), so that thousands of connections do not wake it thousands of times. It holds no
//! connection and no session alive. Its one lock is held for bookkeeping alone, and with no other.

mod heartbeat;

use std::collections::{BTreeSet, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::heartbeat::{Action, Heartbeat, Observed};
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::Disconnect;
use crate::health::Health;
use crate::rpc::Connection;
use crate::thread::{Threads, panic_text};

/// The stack of the thread: room for a logger, no more.
const STACK: usize = 256 * 1024;

/// The monitor of a host. A clone is another handle to the same one.
#[derive(Clone)]
pub(crate) struct HealthMonitor {
    shared: Arc<MonitorShared>,
}

struct MonitorShared {
    threads: Threads,
    grid: TickGrid,
    list: Mutex<WatchList>,
    /// Another connection is due first, none is left, or the monitor ends.
    changed: Condvar,
}

#[derive(Default)]
struct WatchList {
    watched: HashMap<Key, Watched>,
    /// When each connection is due.
    due: BTreeSet<(Instant, Key)>,
    /// The connection that was taken out of both, because its tick is running.
    ticking: Option<Key>,
    /// The thread is there, or is being started.
    running: bool,
    over: bool,
}

/// The moments at which connections are checked, the same for all with the same settings: a
/// sixteenth of the interval apart, or of the time for an answer if that is shorter.
#[derive(Clone, Copy)]
struct TickGrid {
    /// When they are counted from.
    begin: Instant,
}

impl TickGrid {
    /// Returns the tick for this heartbeat: early for a ping, and late for the check of its answer.
    fn of(self, heartbeat: &Heartbeat) -> Instant {
        let health = heartbeat.health();
        let step = (health.interval.min(health.timeout) / 16).as_nanos().max(1);
        let since = heartbeat
            .due()
            .saturating_duration_since(self.begin)
            .as_nanos();
        let steps = if heartbeat.is_resting() {
            since / step
        } else {
            since.div_ceil(step)
        };
        // Centuries fit, and nothing is due later than in a year.
        self.begin + Duration::from_nanos(u64::try_from(steps * step).unwrap_or(u64::MAX))
    }
}

/// The address of a connection. It is not used again while the weak handle to it is kept.
type Key = usize;

struct Watched {
    connection: Weak<Connection>,
    heartbeat: Heartbeat,
    kind: PingKind,
    /// When it is due.
    due: Instant,
}

/// How a connection is asked for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PingKind {
    /// With the transport's own ping, which the transport answers whatever its plugin is doing.
    Transport,
    /// With the transport's own ping, where nothing answers it while the plugin handles a call: the
    /// library does both on one event loop.
    SharedLoop,
    /// With the protocol's `ping`, where any line is a sign of life.
    Plugin,
    /// With the protocol's `ping`, where only whole messages are signs of life: what the transport sends by
    /// itself is not the plugin's.
    PluginMessages,
}

impl HealthMonitor {
    /// Starts nothing yet.
    pub(crate) fn new(threads: Threads) -> Self {
        Self {
            shared: Arc::new(MonitorShared {
                threads,
                grid: TickGrid {
                    begin: Instant::now(),
                },
                list: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Watches a connection until it ends, if there is a way to ask for a sign of life. Never blocks.
    pub(super) fn watch(&self, connection: &Arc<Connection>, health: &Health, kind: PingKind) {
        let by_transport = matches!(kind, PingKind::Transport | PingKind::SharedLoop);
        if !health.is_on() || by_transport && !connection.has_transport_ping() {
            return;
        }
        let key = key(connection);
        let heartbeat = Heartbeat::new(health.clone(), !by_transport, Instant::now());
        let mut list = self.shared.list.lock();
        // The reading thread sets the end first and calls `forget` second.
        if list.over || connection.has_ended() {
            return;
        }
        let due = (self.shared.grid.of(&heartbeat), key);
        let watched = Watched {
            connection: Arc::downgrade(connection),
            heartbeat,
            kind,
            due: due.0,
        };
        list.watched.insert(key, watched);
        list.due.insert(due);
        if list.running {
            if list.due.first() == Some(&due) {
                self.shared.changed.notify_all();
            }
            return;
        }
        list.running = true;
        drop(list);
        let shared = self.shared.clone();
        let started = self
            .shared
            .threads
            .spawn("host-health", STACK, move || shared.run());
        if let Err(error) = started {
            // The next connection tries again.
            self.shared.list.lock().running = false;
            log::warn!("health checks are suspended: {error}");
        }
    }

    /// Forgets a connection that has ended. Never blocks.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let key = key(connection);
        let mut list = self.shared.list.lock();
        list.ticking.take_if(|ticking| *ticking == key);
        if let Some(watched) = list.watched.remove(&key) {
            list.due.remove(&(watched.due, key));
            if list.watched.is_empty() {
                self.shared.changed.notify_all();
            }
        }
    }

    /// Stops all health checks, and ends the thread.
    pub(crate) fn end(&self) {
        let mut list = self.shared.list.lock();
        list.over = true;
        list.ticking = None;
        list.watched.clear();
        list.due.clear();
        self.shared.changed.notify_all();
    }
}

fn key(connection: &Arc<Connection>) -> Key {
    Arc::as_ptr(connection).addr()
}

impl MonitorShared {
    /// The body of the thread; ends when no connection is watched.
    fn run(&self) {
        let mut list = self.list.lock();
        loop {
            let Some(&next) = list.due.first() else {
                list.running = false;
                return;
            };
            let (due, key) = next;
            if Instant::now() < due {
                self.changed.wait_until(&mut list, due);
                continue;
            }
            list.due.remove(&next);
            let Some(mut watched) = list.watched.remove(&key) else {
                continue;
            };
            list.ticking = Some(key);
            let stays = MutexGuard::unlocked(&mut list, || watched.tick_guarded());
            // Unless it was forgotten meanwhile.
            if list.ticking.take().is_some() && stays {
                watched.due = self.grid.of(&watched.heartbeat);
                list.due.insert((watched.due, key));
                list.watched.insert(key, watched);
            }
        }
    }
}

impl Watched {
    /// [`tick`](Self::tick), with an embedder's transport or logger that panics costing that
    /// connection its health checks and no other.
    fn tick_guarded(&mut self) -> bool {
        let tick = AssertUnwindSafe(|| self.tick());
        panic::catch_unwind(tick).unwrap_or_else(|panic| {
            let text = panic_text(&*panic).to_string();
            // A second panic, in the logger, is swallowed.
            let tell = || log::error!("health check panicked, no more of them here: {text}");
            let _ = panic::catch_unwind(tell);
            false
        })
    }

    /// Does what is due; returns whether the connection stays watched. Never blocks.
    fn tick(&mut self) -> bool {
        let Some(connection) = self.connection.upgrade() else {
            return false;
        };
        if connection.has_ended() {
            return false;
        }
        let now = Instant::now();
        let asks_plugin = matches!(self.kind, PingKind::Plugin | PingKind::PluginMessages);
        let observed = Observed {
            heard: connection.take_signs(self.kind == PingKind::PluginMessages),
            called: self.kind != PingKind::Transport && connection.is_called(now),
            waits: asks_plugin && connection.waits_for_us(),
            owes_answer: asks_plugin && connection.expects_own_ping(),
        };
        match self.heartbeat.tick(now, observed) {
            Action::None => true,
            Action::Ask => {
                self.ask(&connection, now);
                true
            }
            Action::Missed => {
                count_by(&connection.counters().pings_missed, 1);
                log::debug!("{}: no sign of life after a ping", connection.peer());
                true
            }
            Action::GiveUp => {
                count_by(&connection.counters().pings_missed, 1);
                self.give_up(&connection);
                false
            }
        }
    }

    fn ask(&mut self, connection: &Connection, now: Instant) {
        let pings = &connection.counters().pings_sent;
        // Counted before the ping can be seen.
        pings.fetch_add(1, Ordering::Relaxed);
        let sent = match self.kind {
            PingKind::Transport | PingKind::SharedLoop => connection.ping_transport(),
            PingKind::Plugin | PingKind::PluginMessages => connection.ping_peer(),
        };
        if !sent {
            pings.fetch_sub(1, Ordering::Relaxed);
            self.heartbeat.not_asked(now);
        }
    }

    fn give_up(&self, connection: &Connection) {
        let limit = self.heartbeat.health().silence();
        let cause = Disconnect::Unresponsive { limit };
        let reason = cause.to_string();
        log::warn!("{}: {reason}", connection.peer());
        // A close without waiting: a peer that shows no sign of life is not waited for.
        let now = Deadline::after(Duration::ZERO);
        connection.close_with(cause, close_code::RESTART, &reason, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_are_attended_to_at_few_moments_none_of_them_blamed_early() {
        let begin = Instant::now();
        let grid = TickGrid { begin };
        let health = Health::default();
        let step = health.timeout / 16;
        let mut moments = BTreeSet::new();
        for number in 0..10_000 {
            let connected = begin + Duration::from_millis(number);
            let mut heartbeat = Heartbeat::new(health.clone(), false, connected);
            let ask = grid.of(&heartbeat);
            let due = connected + health.interval;
            assert!(ask <= due && due < ask + step, "asked at {ask:?}");
            moments.insert(ask);
            heartbeat.tick(ask, Observed::default());
            let look = grid.of(&heartbeat);
            let due = ask + health.timeout;
            assert!(due <= look && look < due + step, "looked at {look:?}");
            moments.insert(look);
        }
        // Ten seconds of them, and their answers.
        assert!(moments.len() <= 2 * 17, "{} moments", moments.len());
    }
}
