//! What it costs to look for what a plugin may have left, which is part of every stop: beside so many processes of
//! the system, and beside one that shows a gibibyte as its environment.
//!
//! `cargo bench --bench looks` measures; run by `cargo test` it does everything once, beside a few processes.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../tests/support/attacker.rs"]
mod attacker;
mod support;

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plugin_runner::{Host, ReportedState, Session};
use support::plugins::{Folder, builder, install};
use support::{Bench, By, Case, LONG, Sample, Target, Unit, cpu_time};

const STOP: &str = "stop";
const STOP_BESIDE: &str = "stop, beside a vast environment";
const CPU: &str = "its processor time";
const CPU_BESIDE: &str = "its processor time, beside a vast environment";
const MEMORY: &str = "memory at the peak, beside a vast environment";

/// By so much more processor time a stop may cost beside a hostile process, in milliseconds.
const MORE_CPU: f64 = 20.0;
/// By so much memory may grow meanwhile, in KiB.
const MORE_MEMORY: f64 = 8.0 * 1024.0;

fn main() {
    let bench = Bench::new("looks", "stops of a plugin that ends at once");
    let folder = Folder::new("looks");
    let host = builder(&folder).build().unwrap();
    let id = install(&host, "ending", Path::new("/bin/sleep"), &["1000"], "stdio");
    let session = host.load(id).unwrap();
    let stops = bench.pick(1, 5, 25);
    for others in bench.pick(vec![20], vec![100, 1_000], vec![100, 1_000, 10_000]) {
        let title = format!("beside {others} processes");
        let crowd = Program::start(&folder, &["children", &others.to_string()]);
        group(&bench, &title, &folder, &session, stops);
        drop(crowd);
    }
    shut_down(host);
}

fn group(bench: &Bench, title: &str, folder: &Folder, session: &Session, stops: usize) {
    // Of the same stops.
    let (alone, beside) = (RefCell::new(None), RefCell::new(None));
    let cases = vec![
        Case::new(STOP, || {
            || {
                let figures = measure(session, stops);
                Sample::of_times(
                    Unit::Milliseconds,
                    &alone.borrow_mut().insert(figures).times,
                )
            }
        })
        .unit(Unit::Milliseconds),
        Case::new(STOP_BESIDE, || {
            || {
                let stranger = Program::start(folder, &["vast", "1", "here-none", "0"]);
                let figures = measure(session, stops);
                drop(stranger);
                Sample::of_times(
                    Unit::Milliseconds,
                    &beside.borrow_mut().insert(figures).times,
                )
            }
        })
        .unit(Unit::Milliseconds)
        .against(STOP, By::Difference, Target::None),
        Case::new(CPU, || || Sample::single(figure(&alone, |of| of.cpu))).unit(Unit::Milliseconds),
        Case::new(CPU_BESIDE, || {
            || Sample::single(figure(&beside, |of| of.cpu))
        })
        .unit(Unit::Milliseconds)
        .against(CPU, By::Difference, Target::AtMost(MORE_CPU)),
        Case::new(MEMORY, || {
            || Sample::single(figure(&beside, |of| of.memory))
        })
        .unit(Unit::KibiBytes)
        .absolute(Target::AtMost(MORE_MEMORY)),
    ];
    bench.group(title, cases);
}

/// What a round of stops came to.
struct Figures {
    times: Vec<Duration>,
    /// Milliseconds for one.
    cpu: f64,
    /// KiB more at the peak than before.
    memory: f64,
}

/// Not a number where the row that measures was not wanted.
fn figure(of: &RefCell<Option<Figures>>, what: impl Fn(&Figures) -> f64) -> f64 {
    of.borrow().as_ref().map_or(f64::NAN, what)
}

#[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
fn measure(session: &Session, stops: usize) -> Figures {
    let supervised = session.supervised().unwrap();
    let (mut times, mut cpu) = (Vec::new(), Duration::ZERO);
    // The peak begins anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = resident("VmRSS:");
    for _ in 0..stops {
        supervised.start().unwrap();
        session.wait_for(ReportedState::Connecting, LONG).unwrap();
        let (began, used) = (Instant::now(), cpu_time());
        supervised.stop(LONG).unwrap();
        times.push(began.elapsed());
        cpu += cpu_time().saturating_sub(used);
    }
    Figures {
        times,
        cpu: cpu.as_secs_f64() * 1e3 / stops as f64,
        memory: resident("VmHWM:") - before,
    }
}

/// A line of this process's memory, in KiB.
fn resident(what: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn shut_down(host: Host) {
    assert!(host.shutdown(LONG).is_complete());
}

/// A hostile program that runs, see `tests/fixtures/attacker.c`. Dropping it ends all of it.
struct Program {
    child: Child,
    is_single: bool,
}

impl Program {
    fn start(folder: &Folder, args: &[&str]) -> Self {
        let own = folder.path().join(args[0]);
        fs::create_dir_all(&own).unwrap();
        let mut child = Command::new(attacker::attacker())
            .arg(&own)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{args:?}");
        let is_single = args[0] != "children";
        Self { child, is_single }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One with children ends with its input, after them; of the other there is nothing else to end.
        drop(self.child.stdin.take());
        if self.is_single {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
