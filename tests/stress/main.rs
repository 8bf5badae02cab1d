//! Random operations from many threads on tens of plugins, while an oracle looks whether the rules
//! hold: one process at most for each plugin, nothing left at the end, legal sequences of states
//! without a gap, every wait within its time, every answer to the very call it belongs to, tokens of
//! earlier runs refused, and a neighbour that answers throughout.
//!
//! From time to time all threads meet: every plugin is then asked by several at once, the last
//! request is awaited, and must have won.
//!
//! The seed is printed. `PLUGIN_RUNNER_STRESS_SEED` replays it: each thread does the same operations
//! again, though how the threads meet is the system's. `PLUGIN_RUNNER_STRESS_SECONDS` says how long.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod arena;
mod operation;
mod oracle;
mod peers;
#[allow(dead_code, reason = "shared with the fuzz tests, which use all of it")]
#[path = "../support/random.rs"]
mod random;
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../support/mod.rs"]
mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::unbounded;
use parking_lot::Mutex;
use plugin_runner::protocol::Transport;
use plugin_runner::{ActiveState, Error, ReportedState, RestartPolicy, Session};
use rustix::process::Signal;

use arena::{Arena, Cast, Nature, Plugin};
use operation::{Operation, STATES, echo};
use oracle::Verdict;
use peers::Peers;
use random::Random;
use support::alone::{Holdings, expect_no_children};
use support::host::{Setup, TestHost};
use support::plugin::fixture;
use support::{LONG, number};

const WORKERS: usize = 6;
/// Operations of each worker between two meetings.
const ROUND: usize = 250;

/// Everything that the workers share.
pub(crate) struct World {
    arenas: Vec<Arc<Arena>>,
    /// Of a host of their own, that nobody does anything to.
    neighbours: Vec<Session>,
    peers: Peers,
    verdict: Arc<Verdict>,
    barrier: Barrier,
    over: AtomicBool,
    /// What each worker is at, for when one of them does not come back.
    doing: Vec<Mutex<String>>,
}

/// Plugins that get on with it, over both transports by turns.
const WELL_BEHAVED: Cast<'_> = &[
    (&["behave"], Nature::Answers),
    (&["behave"], Nature::Answers),
    (&["grandchild"], Nature::Answers),
    (&["grandchild"], Nature::Answers),
    (&["slow-handler", "2"], Nature::Answers),
    (&["slow-handler", "2"], Nature::Answers),
    // Over WebSocket, as below: over stdio nobody could tell that it has let go of its connection.
    (&["linger"], Nature::Answers),
    (&["fail-events"], Nature::Answers),
];

/// Plugins that do not.
const SICK: Cast<'_> = &[
    (&["behave"], Nature::Answers),
    (&["behave"], Nature::Answers),
    (&["ignore-signals"], Nature::Answers),
    (&["ignore-signals", "grandchild"], Nature::Answers),
    (&["never-read"], Nature::Connects),
    (&["never-read"], Nature::Connects),
    (&["linger"], Nature::Answers),
    (&["flood-output"], Nature::Answers),
    (&["connect-twice"], Nature::Answers),
    (&["exit-at", "start", "0"], Nature::Fails),
    (&["exit-at", "first-call", "3"], Nature::Fails),
    (&["exit-at", "active", "0"], Nature::Fails),
    (&["kill-self-at", "active", "9"], Nature::Fails),
    (&["kill-self-at", "connect", "6"], Nature::Fails),
    (&["hang-at", "start"], Nature::Fails),
    (&["hang-at", "connect"], Nature::Fails),
    (&["flood-socket"], Nature::Connects),
    (&["hang-at", "first-call"], Nature::Connects),
    (&["attack", "escape 5"], Nature::Answers),
];

#[test]
fn random_operations_break_no_rule() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("PLUGIN_RUNNER_STRESS_SEED").unwrap_or_else(|| u64::from(now.subsec_nanos()));
    let seconds = number("PLUGIN_RUNNER_STRESS_SECONDS").unwrap_or(10);
    println!("stress: PLUGIN_RUNNER_STRESS_SEED={seed} PLUGIN_RUNNER_STRESS_SECONDS={seconds}");
    let before = Holdings::now();
    let verdict = Arc::new(Verdict::default());
    let rounds = run(seed, Duration::from_secs(seconds), &verdict);
    println!("{verdict}\n{rounds} rounds");
    assert!(
        verdict.is_clean(),
        "violations, see above; replay with PLUGIN_RUNNER_STRESS_SEED={seed}"
    );
    before.expect();
    expect_no_children();
    println!("before and after: {before}");
}

/// Gives the number of rounds.
fn run(seed: u64, time: Duration, verdict: &Arc<Verdict>) -> u64 {
    let policy = RestartPolicy::default()
        .max_backoff(Duration::from_millis(20))
        .crash_backoff(Duration::from_millis(20))
        .requested_restart_delay(Duration::from_millis(5));
    let tireless = policy.clone().max_restart_attempts(1_000_000);
    let steady = steady();
    let neighbours = [Transport::WebSocket, Transport::Stdio]
        .map(|transport| steady.run(fixture(&steady, transport, &["behave"])));
    let world = Arc::new(World {
        arenas: vec![
            Arena::new("well", verdict, tireless, WELL_BEHAVED, 2),
            Arena::new("sick", verdict, policy, SICK, 2),
        ],
        neighbours: neighbours.into(),
        peers: Peers::default(),
        verdict: verdict.clone(),
        barrier: Barrier::new(WORKERS),
        over: false.into(),
        doing: (0..WORKERS).map(|_| Mutex::default()).collect(),
    });
    let end = Instant::now() + time;
    let (finished, ends) = unbounded();
    for worker in 0..WORKERS {
        let (world, finished) = (world.clone(), finished.clone());
        std::thread::spawn(move || {
            let rounds = work(&world, seed, worker, end);
            drop(world);
            let _ = finished.send(rounds);
        });
    }
    let mut rounds = 0;
    for _ in 0..WORKERS {
        let patience = end + LONG * 4;
        rounds = ends.recv_deadline(patience).unwrap_or_else(|_| {
            let doing: Vec<_> = world
                .doing
                .iter()
                .map(|doing| doing.lock().clone())
                .collect();
            panic!("a worker does not come back, seed {seed}; they are at {doing:#?}")
        });
    }
    world.peers.close_all(verdict);
    let World { arenas, .. } = Arc::into_inner(world).expect("the workers have let go");
    for arena in arenas {
        arena.end();
    }
    drop(steady);
    rounds
}

/// The host of the neighbours.
fn steady() -> TestHost {
    Setup::new("stress-steady").start()
}

fn work(world: &World, seed: u64, worker: usize, end: Instant) -> u64 {
    let mut random = Random::new(seed, worker as u64);
    let mut round = 0;
    loop {
        for _ in 0..ROUND {
            let (arena, plugin) = choose(world, &mut random, round);
            let operation = Operation::choose(&mut random);
            *world.doing[worker].lock() = format!("{operation:?} of {}", plugin.name);
            guarded(world, || {
                operation.perform(world, arena, plugin, &mut random);
            });
        }
        *world.doing[worker].lock() = format!("the meeting after round {round}");
        guarded(world, || {
            meet(world, worker, Random::new(seed, 1_000 + round));
        });
        round += 1;
        if worker == 0 {
            let enough = Instant::now() >= end || !world.verdict.is_clean();
            world.over.store(enough, Ordering::SeqCst);
        }
        world.barrier.wait();
        if world.over.load(Ordering::SeqCst) {
            return round;
        }
    }
}

/// A worker must not miss a meeting because something panicked.
fn guarded(world: &World, act: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(act)) {
        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        world.verdict.violate(format!("a panic: {text}"));
    }
}

/// Half of the time one of a few, which are others in each round, so that threads meet there.
fn choose<'a>(world: &'a World, random: &mut Random, round: u64) -> (&'a Arena, &'a Plugin) {
    let arena = random.choose(&world.arenas);
    let plugins = &arena.plugins;
    if random.one_in(2) {
        let focus = usize::try_from(round).unwrap() * 3 + random.below(3);
        return (arena, &plugins[focus % plugins.len()]);
    }
    (arena, random.choose(plugins))
}

/// All workers ask for something of every plugin at once; then each plugin's last request must win.
fn meet(world: &World, worker: usize, mut random: Random) {
    // Each does its own part, whatever becomes of the others'.
    let part = |act: &dyn Fn()| {
        world.barrier.wait();
        guarded(world, act);
        world.barrier.wait();
    };
    part(&|| {
        if worker == 0 {
            world.peers.close_all(&world.verdict);
            for arena in &world.arenas {
                arena.load_all();
                for plugin in &arena.plugins {
                    plugin.signal_all(Signal::CONT);
                }
            }
        }
    });
    // The same numbers for every worker, so that all ask for the same plugins.
    let all: Vec<_> = world
        .arenas
        .iter()
        .flat_map(|arena| arena.plugins.iter().map(move |plugin| (arena, plugin)))
        .collect();
    let wanted: Vec<ActiveState> = all.iter().map(|_| *random.choose(&STATES)).collect();
    part(&|| {
        let mut random = Random::new(random.clone().next(), worker as u64);
        for (arena, plugin) in &all {
            let state = *random.choose(&STATES);
            let Some(session) = arena.session(plugin) else {
                continue;
            };
            if let Err(error) = session.set_active_state(state) {
                let name = &plugin.name;
                world
                    .verdict
                    .violate(format!("{name}: cannot be set {state}: {error}"));
            }
        }
    });
    part(&|| {
        for (number, (arena, plugin)) in all.iter().enumerate() {
            if number % WORKERS == worker {
                *world.doing[worker].lock() = format!("the last request to {}", plugin.name);
                last_request(world, arena, plugin, wanted[number]);
            }
        }
    });
}

/// Asks for a state, and expects it.
fn last_request(world: &World, arena: &Arena, plugin: &Plugin, wanted: ActiveState) {
    let name = &plugin.name;
    let violate = |what: String| world.verdict.violate(format!("{name}: {what}"));
    let Some(session) = arena.session(plugin) else {
        return violate("is not loaded".to_owned());
    };
    match wanted {
        ActiveState::Inactive => {
            let before = plugin.living();
            if let Err(error) = session.set_active_state(ActiveState::Inactive) {
                return violate(format!("cannot be stopped: {error}"));
            }
            let state = session.reported_state();
            if state != ReportedState::Inactive {
                violate(format!("was stopped and is {state}"));
            }
            if plugin.lock.is_held() {
                violate("was stopped and its process is there".to_owned());
            }
            for lifeline in before {
                if !lifeline.ends_within(LONG) {
                    violate(format!("was stopped and process {} lives", lifeline.pid));
                }
            }
        }
        ActiveState::Active if plugin.is_external() => {
            let result = session.set_active_state(ActiveState::Active);
            let state = session.reported_state();
            if result.is_err() || state != ReportedState::Connecting {
                violate(format!("is wanted and is {state}: {result:?}"));
            }
        }
        ActiveState::Active => {
            if let Err(error) = session.set_active_state(ActiveState::Active) {
                return violate(format!("cannot be started: {error}"));
            }
            if plugin.nature == Nature::Fails {
                return;
            }
            let began = Instant::now();
            while let Err(error) = expect_well(world, &session, plugin) {
                // What was done to it before may come to light only now.
                if matches!(
                    &error,
                    Error::State {
                        state: ReportedState::Errored,
                        ..
                    }
                ) {
                    let _ = session.set_active_state(ActiveState::Active);
                }
                if began.elapsed() > LONG {
                    let details = session.error_details();
                    return violate(format!("does not become well: {error}; {details:?}"));
                }
            }
            if !plugin.lock.is_held() {
                violate("is well without a process".to_owned());
            }
        }
    }
}

/// Waits until it is active, and for an answer.
fn expect_well(world: &World, session: &Session, plugin: &Plugin) -> Result<(), Error> {
    session.wait_for(ReportedState::Active, LONG)?;
    if plugin.nature == Nature::Answers {
        echo(world, session, &plugin.name, LONG)?;
    }
    Ok(())
}
