//! From the end of a plugin's process until its host has noticed (a subscriber hears of the restart),
//! and until the next process is up (its first line of output is there), with a back-off of zero;
//! beside what the system takes for it: waiting for a child, and spawning the same program again.
//!
//! `cargo bench` measures; run by `cargo test` each case does a few rounds, as a smoke test. Figures
//! are from one run: quote the ratios, machines differ.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Record, Source};
use plugin_runner::{ActiveState, Host, ReportedState, RestartPolicy, StateChange};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

fn main() {
    let full = std::env::args().any(|argument| argument == "--bench");
    let rounds = if full { 1_000 } else { 5 };
    println!("supervision: {rounds} kills each, back-off zero; from the kill");
    let bare = bare(rounds);
    let cases = [
        ("system alone", bare),
        (
            "connecting",
            host(rounds, "websocket", &["hang-at", "start"]),
        ),
        ("active over stdio", host(rounds, "stdio", &["behave"])),
        (
            "active over websocket",
            host(rounds, "websocket", &["behave"]),
        ),
    ];
    let half = |name: &str, figure: fn(&Case) -> Figure| {
        println!(
            "{name:<36}{:>11}{:>11}  over the system's p50",
            "p50", "p99"
        );
        for (name, case) in &cases {
            let (figure, system) = (figure(case), figure(&cases[0].1));
            let more = micros(figure.p50) - micros(system.p50);
            println!(
                "  {name:<34}{:>9.0}µs{:>9.0}µs{more:>12.0}µs",
                micros(figure.p50),
                micros(figure.p99)
            );
        }
    };
    half("exit to noticed", |case| case.noticed);
    half("exit to the next process up", |case| case.up);
}

struct Case {
    noticed: Figure,
    up: Figure,
}

#[derive(Clone, Copy)]
struct Figure {
    p50: Duration,
    p99: Duration,
}

impl Figure {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self {
            p50: times[times.len() / 2],
            p99: times[times.len() * 99 / 100],
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_plugin-runner-fixture"))
}

/// The process id in the first line that the fixture prints.
fn pid(line: &str) -> Option<Pid> {
    let said: Value = serde_json::from_str(line).ok()?;
    Pid::from_raw(i32::try_from(said["pid"].as_i64()?).ok()?)
}

fn bare(rounds: usize) -> Case {
    let mut current = spawn();
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        current.kill().unwrap();
        current.wait().unwrap();
        times.0.push(began.elapsed());
        current = spawn();
        times.1.push(began.elapsed());
    }
    current.kill().unwrap();
    current.wait().unwrap();
    Case {
        noticed: Figure::of(times.0),
        up: Figure::of(times.1),
    }
}

/// Spawns the program and waits for its first line.
fn spawn() -> Child {
    let mut child = Command::new(program())
        .args(["echo-env", "hang-at", "start"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.as_mut().unwrap());
    output.read_line(&mut line).unwrap();
    assert_eq!(pid(&line), Some(Pid::from_child(&child)));
    child
}

fn host(rounds: usize, transport: &str, args: &[&str]) -> Case {
    let data = std::env::temp_dir().join(format!("plugin-runner-bench-{}", std::process::id()));
    let (up, ups) = unbounded();
    let host = Host::builder()
        .data_folder(&data)
        .restart_policy(
            RestartPolicy::default()
                .with_max_restart_attempts(u32::MAX)
                .with_max_backoff(Duration::ZERO),
        )
        .on_output(move |_, _, line| {
            if let Some(pid) = pid(&line.text) {
                let _ = up.send((pid, Instant::now()));
            }
        })
        .build()
        .unwrap();
    let _listener = host.listen("127.0.0.1:0").unwrap();
    let changes = host.subscribe();
    let session = host.load(install(&host, transport, args)).unwrap();
    session.set_active_state(ActiveState::Active).unwrap();
    let settled = match args {
        ["behave"] => ReportedState::Active,
        _ => ReportedState::Connecting,
    };
    let (mut current, _) = ups.recv_timeout(LONG).unwrap();
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        until(&changes, settled);
        let began = Instant::now();
        kill_process(current, Signal::KILL).unwrap();
        until(&changes, ReportedState::Restarting);
        times.0.push(began.elapsed());
        let (next, at) = ups.recv_timeout(LONG).unwrap();
        times.1.push(at - began);
        assert_ne!(current, next);
        current = next;
    }
    assert!(host.shutdown(LONG).is_complete());
    std::fs::remove_dir_all(data).unwrap();
    Case {
        noticed: Figure::of(times.0),
        up: Figure::of(times.1),
    }
}

/// Waits for the next change to this state.
fn until(changes: &Receiver<StateChange>, state: ReportedState) {
    while changes.recv_timeout(LONG).unwrap().to != state {}
}

fn install(host: &Host, transport: &str, args: &[&str]) -> plugin_runner::InstallationId {
    let args: Vec<&str> = [&["echo-env"], args].concat();
    let manifest = json!({
        "id": "bench", "author": "bench", "name": "bench",
        "command": program(), "args": args, "transport": transport,
    });
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let folder = program().parent().map(Path::to_owned).unwrap();
    let record = Record::supervised(manifest, Source::Folder(folder));
    let id = record.id;
    host.store().put(record).unwrap();
    id
}
