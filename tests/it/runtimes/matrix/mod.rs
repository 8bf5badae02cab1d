//! The fault matrix: everything that a plugin may do wrong, at every moment of its life, over both
//! transports: what becomes of it by itself, what a stop makes of it, and what a shutdown of its host
//! does. Nothing may be left of it, and nothing may take longer than it should.
//!
//! `cargo test --test it every_fault -- --nocapture` prints the table. Stops and shutdowns should take no
//! more than the stop grace where the plugin has to be killed, and [`PROMPT`] besides: how many did
//! not is printed. What is asserted adds [`NOISE`], since the machine may be busy with other things.

mod scene;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::unbounded;
use parking_lot::Mutex;
use plugin_runner::ReportedState;
use plugin_runner::protocol::Transport;

use super::place::{Place, packed};
use crate::support::host::TestHost;
use crate::support::plugin::TRANSPORTS;
use crate::support::{LONG, number};

use scene::Scene;

/// Between the first signal of a stop and the kill.
const GRACE: Duration = Duration::from_millis(400);
/// When a stdio plugin that does not end with its input is signalled: after a third of the grace.
const INTERRUPTED: Duration = Duration::from_secs(4);
/// What a stop may take beyond its grace.
const PROMPT: Duration = Duration::from_millis(250);
/// From a spawn until the plugin must be connected, where it never is.
const CONNECT: Duration = Duration::from_millis(700);
/// Between the end of a connection and that of its process, where it lives on.
const DISCONNECT: Duration = Duration::from_secs(1);
/// What is waited for output after the end, where a stranger holds the pipe.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What a busy machine may add to anything.
const NOISE: Duration = Duration::from_secs(8);
/// Rows are worked on by so many at once.
const WORKERS: usize = 12;

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

impl Behaviour {
    fn leaves_its_group(&self) -> bool {
        self.detaches || matches!(self.does, Does::Always(["attack", ..]))
    }
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

pub(super) fn every_fault_at_every_moment_ends_as_it_should(place: &Place) {
    let rows = rows(place);
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
                    let outcome = catch_unwind(AssertUnwindSafe(|| row.play(place)));
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

fn rows(place: &Place) -> Vec<Row> {
    let mut rows = Vec::new();
    for behaviour in &BEHAVIOURS {
        if behaviour.leaves_its_group() && !place.finds_descendants() {
            continue;
        }
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
    // A start elsewhere takes many requests. Four has no factor in common with the three ends of a row.
    if !place.finds_descendants() && number("PLUGIN_RUNNER_LONG").is_none_or(|number| number == 0) {
        rows = rows.into_iter().step_by(4).collect();
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

    fn host(&self, place: &Place) -> TestHost {
        let is_waited_for = self.end == End::Itself;
        let is_deaf = self.is_deaf();
        let after_good_run = matches!(self.moment, Moment::Active | Moment::InCall);
        place.host_with(|setup| {
            // Who listens is not killed, however busy the machine is.
            let grace = if is_deaf {
                GRACE
            } else if self.transport == Transport::Stdio {
                3 * INTERRUPTED
            } else {
                LONG
            };
            setup.timeouts(|timeouts| timeouts.stop_grace(grace).stop(grace + LONG));
            if is_waited_for {
                setup.timeouts(|timeouts| timeouts.connect(CONNECT).disconnect_grace(DISCONNECT));
            }
            setup.limits(|limits| limits.inbound_message(64 * 1024));
            setup.policy(|policy| policy.max_restart_attempts(0));
            if !is_waited_for && after_good_run {
                // Backing off, for as long as the test lasts.
                setup.stay_down_after_a_crash();
                setup.policy(|policy| policy.requested_restart_delay(Duration::from_secs(3600)));
            }
        })
    }

    fn play(&self, place: &Place) -> Outcome {
        let mut scene = Scene::set(place, self);
        let outcome = match self.end {
            End::Itself => scene.left_alone(self),
            End::Stop => scene.stopped(self),
            End::Shutdown => scene.shut_down(self),
        };
        scene.expect_nothing_left(self);
        outcome
    }
}
