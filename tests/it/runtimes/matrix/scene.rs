//! One row of the table: a plugin that is brought to its moment, ended there, and looked for afterwards.

use std::time::{Duration, Instant};

use plugin_runner::call::PendingCall;
use plugin_runner::fault::{self, Hold};
use plugin_runner::protocol::Transport;
use plugin_runner::{ReportedState, Session, Supervised};
use serde_json::json;

use super::*;
use crate::support::LONG;
use crate::support::attack::Attack;
use crate::support::events::Details as _;
use crate::support::events::Events;

/// A plugin at its moment.
pub(super) struct Scene<'a> {
    place: &'a Place,
    host: TestHost,
    session: Session,
    events: Events,
    legal: Events,
    began: Instant,
    hold: Option<Hold>,
    /// The call that it is in.
    call: Option<PendingCall>,
}

impl<'a> Scene<'a> {
    pub(super) fn set(place: &'a Place, row: &Row) -> Self {
        let host = row.host(place);
        let session = host.install(packed(&host, row.transport, &row.args()));
        let hold = (row.moment == Moment::BeforeSpawn)
            .then(|| fault::hold(fault::PREPARING, session.id()));
        let (events, legal) = (host.events(), host.events());
        let mut scene = Self {
            place,
            host,
            session,
            events,
            legal,
            began: Instant::now(),
            hold,
            call: None,
        };
        scene.supervised().start().unwrap();
        scene.reach(row);
        scene
    }

    fn supervised(&self) -> Supervised {
        self.session.supervised().unwrap()
    }

    fn until(&mut self, state: ReportedState) {
        self.events.until(self.session.id(), state);
    }

    /// Waits until the moment has come.
    fn reach(&mut self, row: &Row) {
        if let Some(hold) = &self.hold {
            assert!(hold.reached(LONG), "it was not prepared");
            return;
        }
        let process = self.host.lifelines.next();
        if row.behaviour.detaches {
            // Whichever came first: the other one has left its session by now too.
            self.host.lifelines.next();
        }
        match row.moment {
            Moment::BeforeSpawn => unreachable!("held, see above"),
            // What is stopped before its start has been noticed is killed without having been asked.
            Moment::Spawned => {
                self.until(ReportedState::Connecting);
                self.said("started");
            }
            Moment::Connecting => {
                self.until(ReportedState::Connecting);
                self.said("connected");
            }
            Moment::Active | Moment::Stopping => self.until(ReportedState::Active),
            Moment::InCall => {
                self.until(ReportedState::Active);
                let params = json!({"ms": 600_000});
                self.call = Some(self.session.start_call_raw("sleep", &params, LONG).unwrap());
            }
        }
        if row.is_gated() {
            process.open_gate();
        }
        if row.end == End::Itself || row.moment == Moment::Stopping {
            return;
        }
        match row.fate() {
            Some(Fate::Exits | Fate::Signalled) => {
                let at_rest = match row.moment {
                    Moment::Active | Moment::InCall => ReportedState::Restarting,
                    _ => ReportedState::Errored,
                };
                self.until(at_rest);
            }
            Some(Fate::Freezes) => process.expect_frozen(),
            // The host has ended the connection, and the process lives.
            Some(Fate::Breaks) => self.until(ReportedState::Connecting),
            Some(Fate::Hangs) | None => {}
        }
    }

    fn said(&self, what: &str) {
        let plugin = self.session.id();
        self.host.output.wait_for(what, |line| {
            (line.plugin == plugin && line.text == what).then_some(())
        });
    }

    /// What becomes of it when nobody asks for anything.
    pub(super) fn left_alone(&mut self, row: &Row) -> Outcome {
        let never_connects = row.moment == Moment::Spawned
            || row.moment == Moment::Connecting && row.transport == Transport::Stdio;
        let errs: Option<(&[&str], Duration)> = match row.fate() {
            Some(Fate::Exits) => Some((EXITED, Duration::ZERO)),
            Some(Fate::Signalled) => Some((SIGNALLED, Duration::ZERO)),
            Some(Fate::Breaks) => Some((BROKE_RULES, DISCONNECT)),
            // It hangs there, whatever else it does.
            _ if never_connects => Some((NEVER_CONNECTED, CONNECT)),
            _ => None,
        };
        let Some((causes, limit)) = errs else {
            self.expect_active(row);
            return Outcome {
                state: self.session.reported_state(),
                cause: None,
                took: self.began.elapsed(),
                bound: PROMPT,
            };
        };
        let error = self.events.until(self.session.id(), ReportedState::Errored);
        let cause = error.details()["cause"].as_str().unwrap().to_owned();
        assert!(causes.contains(&&*cause), "{cause}: {error:?}");
        let took = self.began.elapsed();
        let mut bound = limit + PROMPT;
        if row.behaviour.detaches {
            bound += LAST_WORDS;
        }
        self.outcome(error.to, Some(cause), took, bound)
    }

    /// It is active and stays so, whether it does anything for anybody or not.
    fn expect_active(&mut self, row: &Row) {
        let active = self.session.wait_for(ReportedState::Active, LONG);
        active.unwrap_or_else(|error| panic!("{error}: {:?}", self.session.error_details()));
        if row.behaviour.name == "connect twice" && row.moment == Moment::Active {
            let plugin = self.session.id();
            let refused = self
                .host
                .output
                .wait_for("about the second connection", |line| {
                    let said = line.text.strip_prefix("second connection: ")?;
                    (line.plugin == plugin).then(|| said.to_owned())
                });
            assert_ne!(refused, "accepted");
        }
        if let Some(mut call) = self.call.take() {
            assert!(call.try_wait().is_none(), "it was answered");
            return;
        }
        // Those who hang neither answer nor lose their connection.
        if matches!(row.behaviour.does, Does::Raw(..)) || row.fate().is_some() {
            let time = Duration::from_millis(100);
            let error = loop {
                // It may be on its way there.
                if let Err(error) = self.session.call_raw("echo", &json!({}), time) {
                    break error;
                }
            };
            assert!(error.is_timeout(), "{error}");
            assert_eq!(self.session.reported_state(), ReportedState::Active);
        }
    }

    /// A stop in this condition.
    pub(super) fn stopped(&mut self, row: &Row) -> Outcome {
        let supervised = self.supervised();
        let (took, report) = self.end(row, || supervised.stop(LONG));
        let report = report.unwrap();
        assert_eq!(self.session.error_message(), None);
        if row.moment != Moment::Stopping {
            assert_eq!(report.killed, row.is_deaf(), "{report:?}");
            let had_process = row.moment != Moment::BeforeSpawn && !row.is_dead_already();
            assert_eq!(report.exit.is_some(), had_process, "{report:?}");
        }
        let cause = report.exit.map(|exit| exit.to_string());
        self.ended(row, cause, took)
    }

    /// A shutdown of the host in this condition.
    pub(super) fn shut_down(&mut self, row: &Row) -> Outcome {
        let host = (*self.host).clone();
        let (took, report) = self.end(row, || host.shutdown(LONG));
        assert!(report.is_complete(), "{report:?}");
        if row.moment != Moment::Stopping {
            let killed = report.killed == [self.session.id()];
            let history = self.session.restart_history();
            assert_eq!(killed, row.is_deaf(), "{report:?}, {history:?}");
        }
        self.ended(row, None, took)
    }

    /// Ends it, while it is being stopped already where that is its moment; returns how long that took.
    fn end<T: Send>(&mut self, row: &Row, end: impl FnOnce() -> T + Send) -> (Duration, T) {
        let hold = self.hold.take();
        let events = &mut self.events;
        let (session, plugin) = (&self.session, self.session.id());
        std::thread::scope(|scope| {
            if row.moment == Moment::Stopping {
                let first = session.supervised().unwrap();
                scope.spawn(move || {
                    let stopped = first.stop(LONG);
                    // A host may end before it is heard of that the plugin did.
                    assert!(stopped.is_ok() || row.end == End::Shutdown, "{stopped:?}");
                });
                events.until(plugin, ReportedState::Stopping);
            }
            let began = Instant::now();
            let ending = scope.spawn(move || {
                let report = end();
                (began.elapsed(), report)
            });
            if let Some(hold) = hold {
                events.until(plugin, ReportedState::Stopping);
                hold.release();
            }
            ending.join().unwrap()
        })
    }

    fn ended(&mut self, row: &Row, cause: Option<String>, took: Duration) -> Outcome {
        let grace = if row.is_deaf() {
            GRACE
        } else if row.transport == Transport::Stdio {
            // It may not be reading.
            INTERRUPTED
        } else {
            Duration::ZERO
        };
        let state = self.session.reported_state();
        assert_eq!(state, ReportedState::Inactive);
        self.outcome(state, cause, took, grace + PROMPT)
    }

    /// The plugin is gone, in time, and so is the call that it was in.
    fn outcome(
        &mut self,
        state: ReportedState,
        cause: Option<String>,
        took: Duration,
        bound: Duration,
    ) -> Outcome {
        assert!(took < bound + NOISE, "{took:?}");
        if let Some(call) = self.call.take() {
            let error = call.wait().unwrap_err();
            assert!(error.is_disconnected(), "{error}");
        }
        Outcome {
            state,
            cause,
            took,
            bound,
        }
    }

    /// Nothing may be left, but for what is still running as it should.
    pub(super) fn expect_nothing_left(mut self, row: &Row) {
        if row.end == End::Itself && self.session.reported_state() == ReportedState::Active {
            self.supervised().stop(LONG).unwrap();
        }
        let lock = self.place.lock(&self.host, self.session.id());
        assert!(!lock.is_held(), "its process is there");
        // After a crash nobody waits for them.
        let is_waited_for = row.end == End::Itself;
        let patience = if is_waited_for { LONG } else { Duration::ZERO };
        let data = self.place.data(&self.host, self.session.id());
        Attack::new(data).expect_all_dead(patience);
        lock.expect_one_at_a_time();
        self.legal.heard(&self.session);
        for process in self.host.lifelines.living() {
            // What was told to die may still be about to.
            assert!(process.ends_within(LONG), "{} lives", process.pid);
        }
        // Threads, descendants and staging folders are looked for when the host is dropped.
    }
}
