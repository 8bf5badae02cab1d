//! The fault matrix: everything that a plugin may do wrong, at every moment of its life, over both
//! transports: what becomes of it by itself, what a stop makes of it, and what a shutdown of its host
//! does. Nothing may be left of it, and nothing may take longer than it should.
//!
//! `cargo test --test it matrix -- --nocapture` prints the table. Stops and shutdowns should take no
//! more than the stop grace where the plugin has to be killed, and [`PROMPT`] besides: how many did
//! not is printed. What is asserted adds [`NOISE`], since the machine may be busy with other things.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use parking_lot::Mutex;
use plugin_runner::fault::{self, Hold};
use plugin_runner::protocol::Transport;
use plugin_runner::{PendingReply, ReportedState, RestartPolicy, Session, Supervised};
use serde_json::json;

use crate::support::LONG;
use crate::support::attack::Attack;
use crate::support::events::Events;
use crate::support::host::TestHost;
use crate::support::lock::Lock;
use crate::support::plugin::{TRANSPORTS, fixture};

/// Between the first signal of a stop and the kill.
const GRACE: Duration = Duration::from_millis(400);
/// When a stdio plugin that does not end with its input is signalled: after a third of the grace.
const INTERRUPTED: Duration = Duration::from_secs(4);
/// What a stop may take beyond its grace.
const PROMPT: Duration = Duration::from_millis(250);
/// From a spawn until the plugin must be connected, where it never is.
const CONNECT: Duration = Duration::from_millis(700);
/// Between the end of a connection and that of its process, where it lives on.
const DISCONNECT: Duration = Duration::from_millis(100);
/// What is waited for output after the end, where a stranger holds the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a busy machine may add to anything.
const NOISE: Duration = Duration::from_secs(8);
/// Rows are worked on by so many at once.
const WORKERS: usize = 6;

/// What is wrong with a plugin.
struct Behaviour {
    name: &'static str,
    does: Does,
    /// It takes no notice of SIGINT and SIGTERM.
    deaf: bool,
    /// Something of it moves to a session of its own.
    detaches: bool,
    transports: &'static [Transport],
}

enum Does {
    /// At the moment in question, this.
    Step(&'static [&'static str], Fate),
    /// All its life, this.
    Always(&'static [&'static str]),
    /// The same, without the SDK: it has no more moments than those of its connection.
    Raw(&'static [&'static str], Fate),
}

/// What a step makes of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Exits,
    Signalled,
    Hangs,
    Freezes,
    /// The connection is ended by the host.
    Breaks,
}

const EXITED: &[&str] = &["exited"];
const SIGNALLED: &[&str] = &["exited", "killed_by_signal", "signalled"];
const NEVER_CONNECTED: &[&str] = &["never_connected"];
const BROKE_RULES: &[&str] = &["misbehaved", "protocol_violation", "message_too_large"];

const BOTH: &[Transport] = &TRANSPORTS;
const SOCKET: &[Transport] = &[Transport::WebSocket];

const BEHAVIOURS: [Behaviour; 20] = [
    always("none", &["behave"], false),
    step("exit 0", &["exit-at", "0"], Fate::Exits),
    step("exit 3", &["exit-at", "3"], Fate::Exits),
    step("SIGKILL", &["kill-self-at", "9"], Fate::Signalled),
    step("SIGABRT", &["kill-self-at", "6"], Fate::Signalled),
    step("hang", &["hang-at"], Fate::Hangs),
    step("freeze", &["kill-self-at", "19"], Fate::Freezes),
    always("ignore signals", &["ignore-signals"], true),
    always("flood output", &["flood-output"], false),
    raw("flood socket", &["flood-socket"], Fate::Hangs, BOTH),
    raw("never read", &["never-read"], Fate::Hangs, BOTH),
    raw("oversize", &["oversize", "100000"], Fate::Breaks, BOTH),
    raw("violation", &["violate"], Fate::Breaks, SOCKET),
    always("fork in a loop", &["fork-loop"], false),
    always("grandchild", &["grandchild"], false),
    always("deaf grandchild", &["grandchild", "ignore-signals"], true),
    Behaviour {
        detaches: true,
        ..always("detached", &["grandchild-detached"], false)
    },
    // Not chains of forks, which a stop may fail to end and say so; and nothing that stops a keeper, which would
    // be that of any other row.
    Behaviour {
        transports: SOCKET,
        ..always("escape many", &["attack", "escape 40"], false)
    },
    always("linger", &["linger"], false),
    Behaviour {
        transports: SOCKET,
        ..always("connect twice", &["connect-twice"], false)
    },
];

const fn step(name: &'static str, args: &'static [&'static str], fate: Fate) -> Behaviour {
    let deaf = matches!(fate, Fate::Freezes);
    let does = Does::Step(args, fate);
    Behaviour {
        name,
        does,
        deaf,
        detaches: false,
        transports: BOTH,
    }
}

const fn always(name: &'static str, args: &'static [&'static str], deaf: bool) -> Behaviour {
    let does = Does::Always(args);
    Behaviour {
        name,
        does,
        deaf,
        detaches: false,
        transports: BOTH,
    }
}

const fn raw(
    name: &'static str,
    args: &'static [&'static str],
    fate: Fate,
    transports: &'static [Transport],
) -> Behaviour {
    let does = Does::Raw(args, fate);
    Behaviour {
        name,
        does,
        deaf: false,
        detaches: false,
        transports,
    }
}

/// When it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    BeforeSpawn,
    Spawned,
    Connecting,
    Active,
    InCall,
    Stopping,
}

const MOMENTS: [Moment; 6] = [
    Moment::BeforeSpawn,
    Moment::Spawned,
    Moment::Connecting,
    Moment::Active,
    Moment::InCall,
    Moment::Stopping,
];

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::BeforeSpawn => "before spawn",
            Self::Spawned => "spawned",
            Self::Connecting => "connecting",
            Self::Active => "active",
            Self::InCall => "in a call",
            Self::Stopping => "stopping",
        })
    }
}

/// Who ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody, or the host of its own accord.
    Itself,
    Stop,
    Shutdown,
}

/// One row of the table.
struct Row {
    behaviour: &'static Behaviour,
    moment: Moment,
    transport: Transport,
    end: End,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match self.end {
            End::Itself => "left alone",
            End::Stop => "stop",
            End::Shutdown => "shutdown",
        };
        write!(
            f,
            "{:<16}{:<14}{:<11}{end:<11}",
            self.behaviour.name, self.moment, self.transport
        )
    }
}

/// What became of it.
struct Outcome {
    state: ReportedState,
    cause: Option<String>,
    took: Duration,
    bound: Duration,
}

#[test]
fn every_fault_at_every_moment_ends_as_it_should() {
    let rows = rows();
    let began = Instant::now();
    let (give, take) = unbounded();
    for numbered in rows.iter().enumerate() {
        give.send(numbered).unwrap();
    }
    drop(give);
    let outcomes: Vec<Mutex<Option<Result<Outcome, String>>>> =
        rows.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            let (take, outcomes) = (take.clone(), &outcomes);
            scope.spawn(move || {
                for (number, row) in take {
                    let outcome = catch_unwind(AssertUnwindSafe(|| row.play()));
                    let outcome = outcome.map_err(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        text.unwrap_or_else(|| "panicked".to_owned())
                    });
                    *outcomes[number].lock() = Some(outcome);
                }
            });
        }
    });
    println!(
        "{:<16}{:<14}{:<11}{:<11}{:<11}{:<18}{:>9}{:>9}  left",
        "fault", "moment", "transport", "end", "state", "cause", "took", "bound"
    );
    let (mut failed, mut late, mut ended) = (Vec::new(), 0, 0);
    for (row, outcome) in rows.iter().zip(outcomes) {
        match outcome.into_inner().expect("every row was played") {
            Ok(outcome) => {
                let took = outcome.took.as_millis();
                let bound = outcome.bound.as_millis();
                let cause = outcome.cause.as_deref().unwrap_or("-");
                let state = outcome.state;
                // Or the row would have failed.
                println!("{row}{state:<11}{cause:<18}{took:>6} ms{bound:>6} ms  nothing");
                if row.end != End::Itself {
                    ended += 1;
                    late += u32::from(outcome.took > outcome.bound);
                }
            }
            Err(problem) => {
                println!("{row}FAILED: {problem}");
                failed.push(format!("{row}: {problem}"));
            }
        }
    }
    println!(
        "{} rows in {:.1?}; of {ended} stops and shutdowns {late} took longer than they should",
        rows.len(),
        began.elapsed()
    );
    assert!(failed.is_empty(), "{failed:#?}");
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for behaviour in &BEHAVIOURS {
        for moment in MOMENTS {
            for &transport in behaviour.transports {
                for end in [End::Itself, End::Stop, End::Shutdown] {
                    let row = Row {
                        behaviour,
                        moment,
                        transport,
                        end,
                    };
                    if row.makes_sense() {
                        rows.push(row);
                    }
                }
            }
        }
    }
    rows
}

impl Row {
    fn makes_sense(&self) -> bool {
        let is_raw = matches!(self.behaviour.does, Does::Raw(..));
        match self.moment {
            // Without a process, or while it is being stopped, there is something to be asked for.
            Moment::BeforeSpawn | Moment::Stopping => self.end != End::Itself,
            // Without the SDK, connecting and being active are one.
            Moment::Connecting => !is_raw,
            // The connection has ended before a call could be made.
            Moment::InCall => !matches!(self.behaviour.does, Does::Raw(_, Fate::Breaks)),
            Moment::Spawned | Moment::Active => true,
        }
    }

    /// What the step makes of it, if it is one and its moment comes.
    fn fate(&self) -> Option<Fate> {
        match self.behaviour.does {
            Does::Step(..) if self.moment == Moment::BeforeSpawn => None,
            Does::Step(_, fate) => Some(fate),
            Does::Raw(_, Fate::Breaks) if self.moment == Moment::Active => Some(Fate::Breaks),
            Does::Raw(..) | Does::Always(_) => None,
        }
    }

    /// Whether the process has ended, of its own accord, when its end is asked for.
    fn is_dead_already(&self) -> bool {
        matches!(self.fate(), Some(Fate::Exits | Fate::Signalled))
            && self.moment != Moment::Stopping
    }

    /// Whether it has to be killed.
    fn is_deaf(&self) -> bool {
        match self.moment {
            Moment::BeforeSpawn => false,
            // It has been told, and does not listen.
            Moment::Stopping => {
                self.behaviour.deaf || matches!(self.fate(), Some(Fate::Hangs | Fate::Freezes))
            }
            _ => self.behaviour.deaf,
        }
    }

    /// Whether it waits to be told. Over stdio a plugin cannot see when its host takes it for active:
    /// its answer to the first ping may still be on its way.
    fn is_gated(&self) -> bool {
        self.moment == Moment::Active
            && matches!(self.behaviour.does, Does::Step(..))
            && !matches!(self.fate(), Some(Fate::Hangs))
    }

    /// The fixture's arguments.
    fn args(&self) -> Vec<&'static str> {
        let point = match self.moment {
            Moment::BeforeSpawn | Moment::Spawned => "start",
            Moment::Connecting => "connect",
            Moment::Active => "active",
            Moment::InCall => "first-call",
            Moment::Stopping => "stop",
        };
        let mut args = vec!["alone"];
        match self.behaviour.does {
            Does::Step(step, _) => {
                args.extend([step[0], point]);
                args.extend(&step[1..]);
                if self.is_gated() {
                    args.push("gated");
                }
            }
            Does::Always(always) | Does::Raw(always, _) => {
                args.extend(always);
                // It stays at the moment.
                if matches!(
                    self.moment,
                    Moment::Spawned | Moment::Connecting | Moment::InCall
                ) {
                    args.extend(["hang-at", point]);
                }
            }
        }
        if self.transport == Transport::Stdio && self.behaviour.deaf {
            // The end of its input is no signal that it could ignore.
            args.push("linger");
        }
        args
    }

    fn host(&self) -> TestHost {
        let is_waited_for = self.end == End::Itself;
        let is_deaf = self.is_deaf();
        let after_good_run = matches!(self.moment, Moment::Active | Moment::InCall);
        TestHost::with("matrix", |setup| {
            let timeouts = &mut setup.timeouts;
            // Who listens is not killed, however busy the machine is.
            timeouts.stop_grace = if is_deaf {
                GRACE
            } else if self.transport == Transport::Stdio {
                3 * INTERRUPTED
            } else {
                LONG
            };
            timeouts.stop = timeouts.stop_grace + LONG;
            if is_waited_for {
                timeouts.connect = CONNECT;
                timeouts.disconnect_grace = DISCONNECT;
            }
            setup.limits.read_message = 64 * 1024;
            setup.policy = RestartPolicy::default().with_max_restart_attempts(0);
            if !is_waited_for && after_good_run {
                // Backing off, for as long as the test lasts.
                setup.stay_down_after_a_crash();
                setup.policy.requested_restart_delay = Duration::from_secs(3600);
            }
        })
    }

    fn play(&self) -> Outcome {
        let mut scene = Scene::set(self);
        let outcome = match self.end {
            End::Itself => scene.left_alone(self),
            End::Stop => scene.stopped(self),
            End::Shutdown => scene.shut_down(self),
        };
        scene.expect_nothing_left(self);
        outcome
    }
}

/// A plugin at its moment.
struct Scene {
    host: TestHost,
    session: Session,
    lock: Lock,
    events: Events,
    legal: Events,
    began: Instant,
    hold: Option<Hold>,
    /// The call that it is in.
    call: Option<PendingReply>,
}

impl Scene {
    fn set(row: &Row) -> Self {
        let host = row.host();
        let session = host.install(fixture(&host, row.transport, &row.args()));
        let lock = Lock::of(&host, &session);
        let hold = (row.moment == Moment::BeforeSpawn)
            .then(|| fault::hold(fault::PREPARING, session.id()));
        let (events, legal) = (host.events(), host.events());
        let mut scene = Self {
            host,
            session,
            lock,
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
            Moment::Spawned => self.said("started"),
            Moment::Connecting => self.said("connected"),
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
    fn left_alone(&mut self, row: &Row) -> Outcome {
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
        let cause = error.details["cause"].as_str().unwrap().to_owned();
        assert!(causes.contains(&&*cause), "{cause}: {error:?}");
        let took = self.began.elapsed();
        let mut bound = limit + PROMPT;
        if row.behaviour.detaches {
            bound += LAST_WORDS;
        }
        assert!(took < bound + NOISE, "{took:?}");
        if let Some(call) = self.call.take() {
            let error = call.wait().unwrap_err();
            assert!(error.is_disconnected(), "{error}");
        }
        Outcome {
            state: error.to,
            cause: Some(cause),
            took,
            bound,
        }
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
    fn stopped(&mut self, row: &Row) -> Outcome {
        let supervised = self.supervised();
        let hold = self.hold.take();
        let events = &mut self.events;
        let (session, plugin) = (&self.session, self.session.id());
        let (took, report) = std::thread::scope(|scope| {
            if row.moment == Moment::Stopping {
                let first = session.supervised().unwrap();
                scope.spawn(move || first.stop(LONG).unwrap());
                events.until(plugin, ReportedState::Stopping);
            }
            let began = Instant::now();
            let stop = scope.spawn(move || {
                let report = supervised.stop(LONG);
                (began.elapsed(), report)
            });
            if let Some(hold) = hold {
                events.until(plugin, ReportedState::Stopping);
                hold.release();
            }
            stop.join().unwrap()
        });
        let report = report.unwrap();
        let state = self.session.reported_state();
        assert_eq!(state, ReportedState::Inactive);
        assert_eq!(self.session.error_message(), None);
        if row.moment != Moment::Stopping {
            assert_eq!(report.killed, row.is_deaf(), "{report:?}");
            let had_process = row.moment != Moment::BeforeSpawn && !row.is_dead_already();
            assert_eq!(report.exit.is_some(), had_process, "{report:?}");
        }
        let cause = report.exit.map(|exit| exit.to_string());
        self.ended(row, state, cause, took)
    }

    /// A shutdown of the host in this condition.
    fn shut_down(&mut self, row: &Row) -> Outcome {
        let hold = self.hold.take();
        let (host, events) = (&self.host, &mut self.events);
        let (session, plugin) = (&self.session, self.session.id());
        let (took, report) = std::thread::scope(|scope| {
            if row.moment == Moment::Stopping {
                let first = session.supervised().unwrap();
                // The host may end before it is heard of that the plugin did.
                scope.spawn(move || drop(first.stop(LONG)));
                events.until(plugin, ReportedState::Stopping);
            }
            let began = Instant::now();
            let shutdown = scope.spawn(move || {
                let report = host.shutdown(LONG);
                (began.elapsed(), report)
            });
            if let Some(hold) = hold {
                events.until(plugin, ReportedState::Stopping);
                hold.release();
            }
            shutdown.join().unwrap()
        });
        assert!(report.is_complete(), "{report:?}");
        if row.moment != Moment::Stopping {
            assert_eq!(report.killed == [plugin], row.is_deaf(), "{report:?}");
        }
        let state = self.session.reported_state();
        assert_eq!(state, ReportedState::Inactive);
        self.ended(row, state, None, took)
    }

    fn ended(
        &mut self,
        row: &Row,
        state: ReportedState,
        cause: Option<String>,
        took: Duration,
    ) -> Outcome {
        let grace = if row.is_deaf() {
            GRACE
        } else if row.transport == Transport::Stdio {
            // It may not be reading.
            INTERRUPTED
        } else {
            Duration::ZERO
        };
        let bound = grace + PROMPT;
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
    fn expect_nothing_left(mut self, row: &Row) {
        if row.end == End::Itself && self.session.reported_state() == ReportedState::Active {
            self.supervised().stop(LONG).unwrap();
        }
        assert!(!self.lock.is_held(), "its process is there");
        // After a crash nobody waits for them.
        let is_waited_for = row.end == End::Itself;
        let patience = if is_waited_for { LONG } else { Duration::ZERO };
        let data = self.host.installation_folder(&self.session).join("data");
        Attack::new(data).expect_all_dead(patience);
        self.lock.expect_one_at_a_time();
        self.legal.heard(&self.session);
        for process in self.host.lifelines.living() {
            // What was told to die may still be about to.
            assert!(process.ends_within(LONG), "{} lives", process.pid);
        }
        // Threads, descendants and staging folders are looked for when the host is dropped.
    }
}
