//! Health: the thread that watches every connection of a host for signs of life, and gives up those
//! that show none.
//!
//! What lives here: the thread, who is watched and who is due next. Beside it: the pulse of one
//! connection (pure). What does not: the settings (`crate::health`), sending and hearing
//! (`connection`), what the end of a connection means (`run`, `reaper`), the look at a connection that
//! stands in a newcomer's way (`attach`), which works beside this.
//!
//! There is one thread for all connections, while there are any: it sleeps until the next one is due
//! and never waits for a peer. Those that are due at about the same time are attended to in one go
//! ([`Rounds`]), so that thousands of connections do not wake it thousands of times. It holds no
//! connection and no session alive. Its one lock is held for bookkeeping alone, and with no other.

mod pulse;

use std::collections::{BTreeSet, HashMap};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use self::pulse::{Pulse, Signs, Step};
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::duplex::close_code;
use crate::error::Disconnect;
use crate::health::Health;
use crate::rpc::Connection;
use crate::thread::{Threads, panic_text};

/// The stack of the thread: room for a logger, no more.
const STACK: usize = 256 * 1024;

/// The one who watches. Cloning gives another handle to the same one.
#[derive(Clone)]
pub(crate) struct HealthMonitor {
    shared: Arc<Shared>,
}

struct Shared {
    threads: Threads,
    rounds: Rounds,
    watched: Mutex<Watched>,
    /// Somebody else is due first, nobody is left, or it is over.
    changed: Condvar,
}

#[derive(Default)]
struct Watched {
    patients: HashMap<Key, Patient>,
    /// When each of them is due.
    due: BTreeSet<(Instant, Key)>,
    /// One who was taken out of both, because the thread is just attending to it.
    attended: Option<Key>,
    /// The thread is there, or is being started.
    running: bool,
    over: bool,
}

/// The moments at which connections are attended to, the same for all with the same settings: a
/// sixteenth of the interval apart, or of the time for an answer if that is shorter.
#[derive(Clone, Copy)]
struct Rounds {
    /// When they are counted from.
    begin: Instant,
}

impl Rounds {
    /// The moment for this pulse: it is asked early rather than late, and given time for its answer
    /// rather too long than too short.
    fn of(self, pulse: &Pulse) -> Instant {
        let health = pulse.health();
        let step = (health.interval.min(health.timeout) / 16).as_nanos().max(1);
        let since = pulse.due().saturating_duration_since(self.begin).as_nanos();
        let steps = if pulse.is_resting() {
            since / step
        } else {
            since.div_ceil(step)
        };
        // Centuries fit, and nothing is due later than in a year.
        self.begin + Duration::from_nanos(u64::try_from(steps * step).unwrap_or(u64::MAX))
    }
}

/// The address of a connection, which is nobody else's while its patient is known.
type Key = usize;

struct Patient {
    connection: Weak<Connection>,
    pulse: Pulse,
    asks: Asks,
    /// Its place among the due.
    due: Instant,
}

/// How a connection is asked for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// With the transport's own ping, which the transport answers whatever its plugin is doing.
    Transport,
    /// With the transport's own ping, where nothing answers it while the plugin handles a call: the
    /// library does both on one event loop.
    SharedLoop,
    /// With the protocol's `ping`, where any line is a sign of life.
    Plugin,
    /// With the protocol's `ping`, where only whole messages are signs of life: what the transport
    /// sends by itself is not the plugin's.
    PluginMessages,
}

impl HealthMonitor {
    /// Starts nothing yet.
    pub(crate) fn new(threads: Threads) -> Self {
        Self {
            shared: Arc::new(Shared {
                threads,
                rounds: Rounds {
                    begin: Instant::now(),
                },
                watched: Mutex::default(),
                changed: Condvar::new(),
            }),
        }
    }

    /// Watches a connection until it ends, if there is a way to ask for a sign of life. Never blocks.
    pub(super) fn watch(&self, connection: &Arc<Connection>, health: &Health, asks: Asks) {
        let by_transport = matches!(asks, Asks::Transport | Asks::SharedLoop);
        if !health.is_on() || by_transport && !connection.has_transport_ping() {
            return;
        }
        let key = key(connection);
        let pulse = Pulse::new(health.clone(), !by_transport, Instant::now());
        let mut watched = self.shared.watched.lock();
        // Who ends it says so first and lets go of it second.
        if watched.over || connection.has_ended() {
            return;
        }
        let due = (self.shared.rounds.of(&pulse), key);
        let patient = Patient {
            connection: Arc::downgrade(connection),
            pulse,
            asks,
            due: due.0,
        };
        watched.patients.insert(key, patient);
        watched.due.insert(due);
        if watched.running {
            if watched.due.first() == Some(&due) {
                self.shared.changed.notify_all();
            }
            return;
        }
        watched.running = true;
        drop(watched);
        let shared = self.shared.clone();
        let started = self
            .shared
            .threads
            .spawn("host-health", STACK, move || shared.run());
        if let Err(error) = started {
            // Whoever is watched next tries again.
            self.shared.watched.lock().running = false;
            log::warn!("health checks are suspended: {error}");
        }
    }

    /// Lets go of a connection that has ended. Never blocks.
    pub(super) fn forget(&self, connection: &Arc<Connection>) {
        let key = key(connection);
        let mut watched = self.shared.watched.lock();
        watched.attended.take_if(|attended| *attended == key);
        if let Some(patient) = watched.patients.remove(&key) {
            watched.due.remove(&(patient.due, key));
            if watched.patients.is_empty() {
                self.shared.changed.notify_all();
            }
        }
    }

    /// Watches nobody any more, and ends the thread.
    pub(crate) fn end(&self) {
        let mut watched = self.shared.watched.lock();
        watched.over = true;
        watched.attended = None;
        watched.patients.clear();
        watched.due.clear();
        self.shared.changed.notify_all();
    }
}

fn key(connection: &Arc<Connection>) -> Key {
    Arc::as_ptr(connection).addr()
}

impl Shared {
    /// The body of the thread; ends when nobody is watched.
    fn run(&self) {
        let mut watched = self.watched.lock();
        loop {
            let Some(&next) = watched.due.first() else {
                watched.running = false;
                return;
            };
            let (due, key) = next;
            if Instant::now() < due {
                self.changed.wait_until(&mut watched, due);
                continue;
            }
            watched.due.remove(&next);
            let Some(mut patient) = watched.patients.remove(&key) else {
                continue;
            };
            watched.attended = Some(key);
            let stays = MutexGuard::unlocked(&mut watched, || patient.attend_guarded());
            // Unless somebody let go of it meanwhile.
            if watched.attended.take().is_some() && stays {
                patient.due = self.rounds.of(&patient.pulse);
                watched.due.insert((patient.due, key));
                watched.patients.insert(key, patient);
            }
        }
    }
}

impl Patient {
    /// [`attend`](Self::attend), with an embedder's transport or logger that panics costing that
    /// connection its health checks and nobody else theirs.
    fn attend_guarded(&mut self) -> bool {
        let attend = AssertUnwindSafe(|| self.attend());
        panic::catch_unwind(attend).unwrap_or_else(|panic| {
            let text = panic_text(&*panic).to_string();
            // Its second panic is swallowed: there is nothing more to be done.
            let tell = || log::error!("health check panicked, no more of them here: {text}");
            let _ = panic::catch_unwind(tell);
            false
        })
    }

    /// Does what is due; gives whether the connection is to be watched on. Never blocks.
    fn attend(&mut self) -> bool {
        let Some(connection) = self.connection.upgrade() else {
            return false;
        };
        if connection.has_ended() {
            return false;
        }
        let now = Instant::now();
        let asks_plugin = matches!(self.asks, Asks::Plugin | Asks::PluginMessages);
        let signs = Signs {
            heard: connection.take_signs(self.asks == Asks::PluginMessages),
            called: self.asks != Asks::Transport && connection.is_called(now),
            waits: asks_plugin && connection.waits_for_us(),
            owes_answer: asks_plugin && connection.expects_own_ping(),
        };
        match self.pulse.attend(now, signs) {
            Step::Rest => true,
            Step::Ask => {
                self.ask(&connection, now);
                true
            }
            Step::Missed => {
                count_by(&connection.counters().pings_missed, 1);
                log::debug!("{}: no sign of life after a ping", connection.peer());
                true
            }
            Step::GiveUp => {
                count_by(&connection.counters().pings_missed, 1);
                self.give_up(&connection);
                false
            }
        }
    }

    fn ask(&mut self, connection: &Connection, now: Instant) {
        let pings = &connection.counters().pings_sent;
        // Before anybody can see it.
        pings.fetch_add(1, Ordering::Relaxed);
        let sent = match self.asks {
            Asks::Transport | Asks::SharedLoop => connection.ping_transport(),
            Asks::Plugin | Asks::PluginMessages => connection.ping_peer(),
        };
        if !sent {
            pings.fetch_sub(1, Ordering::Relaxed);
            self.pulse.not_asked(now);
        }
    }

    fn give_up(&self, connection: &Connection) {
        let limit = self.pulse.health().silence();
        let cause = Disconnect::Unresponsive { limit };
        let reason = cause.to_string();
        log::warn!("{}: {reason}", connection.peer());
        // A peer that shows no sign of life is given no time to see the close, only the chance.
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
        let rounds = Rounds { begin };
        let health = Health::default();
        let step = health.timeout / 16;
        let mut moments = BTreeSet::new();
        for number in 0..10_000 {
            let connected = begin + Duration::from_millis(number);
            let mut pulse = Pulse::new(health.clone(), false, connected);
            let ask = rounds.of(&pulse);
            let due = connected + health.interval;
            assert!(ask <= due && due < ask + step, "asked at {ask:?}");
            moments.insert(ask);
            pulse.attend(ask, Signs::default());
            let look = rounds.of(&pulse);
            let due = ask + health.timeout;
            assert!(due <= look && look < due + step, "looked at {look:?}");
            moments.insert(look);
        }
        // Ten seconds of them, and their answers.
        assert!(moments.len() <= 2 * 17, "{} moments", moments.len());
    }
}
