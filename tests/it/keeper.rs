//! Hosts that end without having stopped their plugins: nothing may be left of them, nor of what ends
//! them. Each such host is a process of its own.

use std::fs;
use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::Command;

use plugin_runner::protocol::Transport;
use plugin_runner::store::{Record, Source};
use plugin_runner::{Host, Keeper, ReportedState};
use rustix::process::{Pid, Signal, getsid};

use crate::support::alone::{Driver, Watched, children, command};
use crate::support::host::{TestHost, active};
use crate::support::lifeline::{Lifeline, Lifelines};
use crate::support::plugin::{TRANSPORTS, With as _, call, fixture, manifest, over_stdio};
use crate::support::{LONG, TestDir, wait_until};

/// What a driven host runs: plugins that do not end by themselves, whatever happens to their
/// connection, and descendants inside and outside of their groups.
const BEHAVIOURS: [&[&str]; 3] = [
    &["linger", "ignore-signals"],
    &["linger", "ignore-signals", "grandchild"],
    &["linger", "ignore-signals", "grandchild-detached"],
];
/// Processes of all of them, over both transports.
const PROCESSES: usize = 2 * (1 + 2 + 2);

/// A host in a process of its own.
struct Driven {
    driver: Driver,
    lifelines: Lifelines,
    _folder: TestDir,
}

impl Driven {
    fn start(test: &str, what: &str, keeper: &str) -> Self {
        Self::start_by(command(&format!("keeper::driver::{what}")), test, keeper)
    }

    fn start_by(mut command: Command, test: &str, keeper: &str) -> Self {
        let (lifelines, folder) = (Lifelines::new(), TestDir::new(test));
        command
            .env("DRIVER_LIFELINE", lifelines.address())
            .env("DRIVER_FOLDER", folder.path())
            .env("DRIVER_KEEPER", keeper);
        Self {
            driver: Driver::start(&mut command),
            lifelines,
            _folder: folder,
        }
    }

    /// Waits until all plugins are up; gives the lives of all processes.
    #[track_caller]
    fn up(&self) -> Vec<Lifeline> {
        self.driver.wait_for("driver: ready");
        (0..PROCESSES).map(|_| self.lifelines.next()).collect()
    }

    /// The keeper: the child that is no plugin.
    #[track_caller]
    fn keeper(&self, plugins: &[Lifeline]) -> Watched {
        let is_plugin = |pid: &Pid| {
            let pid = pid.as_raw_nonzero().get();
            plugins
                .iter()
                .any(|plugin| i32::try_from(plugin.pid) == Ok(pid))
        };
        let keepers: Vec<Pid> = self
            .driver
            .children()
            .into_iter()
            .filter(|pid| !is_plugin(pid))
            .collect();
        assert_eq!(keepers.len(), 1, "one keeper for one host: {keepers:?}");
        Watched::new(keepers[0])
    }
}

/// The program, which is not built with every set of features.
const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_plugin-runner");

fn keepers() -> Vec<&'static str> {
    if PROGRAM.is_some() {
        vec!["shell", "program"]
    } else {
        vec!["shell"]
    }
}

/// What a keeper ignores, or catches and does nothing.
const HEEDLESS_OF: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::HUP];

/// Waits until the keeper has come to that; on a busy machine plugins may be up before it.
#[track_caller]
fn expect_heedless(keeper: &Watched) {
    let wanted = HEEDLESS_OF
        .iter()
        .fold(0_u64, |mask, signal| mask | 1 << (signal.as_raw() - 1));
    wait_until("the keeper to take no notice of signals", || {
        let path = format!("/proc/{}/status", keeper.pid.as_raw_nonzero());
        let status = fs::read_to_string(path).unwrap();
        let heedless = status
            .lines()
            .filter_map(|line| {
                line.strip_prefix("SigIgn:")
                    .or(line.strip_prefix("SigCgt:"))
            })
            .fold(0, |mask, text| {
                mask | u64::from_str_radix(text.trim(), 16).unwrap()
            });
        heedless & wanted == wanted
    });
}

#[test]
fn nothing_outlives_a_host_that_is_killed() {
    for keeper in keepers() {
        let mut driven = Driven::start("host-killed", "runs_until_told", keeper);
        let plugins = driven.up();
        let keeper = driven.keeper(&plugins);
        expect_heedless(&keeper);
        let session = getsid(Some(keeper.pid)).unwrap();
        assert_eq!(session, keeper.pid, "in a session of its own");
        // Not even its own signals keep it from its task.
        for signal in HEEDLESS_OF {
            keeper.signal(signal);
        }
        driven.driver.kill();
        driven.lifelines.expect_all_dead();
        keeper.expect_end("the keeper");
    }
}

#[test]
fn nothing_outlives_a_host_that_exits_without_a_word() {
    for keeper in keepers() {
        let mut driven = Driven::start("host-exits", "runs_until_told", keeper);
        let plugins = driven.up();
        let keeper = driven.keeper(&plugins);
        driven.driver.tell("exit");
        driven.driver.wait();
        driven.lifelines.expect_all_dead();
        keeper.expect_end("the keeper");
    }
}

#[test]
fn a_keeper_that_dies_is_replaced_and_told_again() {
    for keeper in keepers() {
        let mut driven = Driven::start("keeper-killed", "runs_until_told", keeper);
        let plugins = driven.up();
        let first = driven.keeper(&plugins);
        first.signal(Signal::KILL);
        first.expect_end("the first keeper");
        // The driver sees another child of its own; the old one is reaped.
        driven.driver.tell("keeper");
        driven.driver.wait_for("driver: another keeper");
        let second = driven.keeper(&plugins);
        assert_ne!(first.pid, second.pid);
        driven.driver.kill();
        driven.lifelines.expect_all_dead();
        second.expect_end("the second keeper");
    }
}

#[test]
fn a_keeper_that_takes_no_lines_is_replaced() {
    let mut driven = Driven::start("keeper-stopped", "runs_until_told", "shell");
    let plugins = driven.up();
    let first = driven.keeper(&plugins);
    first.signal(Signal::STOP);
    // Each is told to the keeper, twice.
    driven.driver.tell("churn");
    driven.driver.wait_for("driver: churned");
    first.expect_end("the stopped keeper");
    driven.driver.kill();
    driven.lifelines.expect_all_dead();
}

#[test]
fn a_plugin_that_the_keeper_was_not_told_of_yet_dies_too() {
    for keeper in keepers() {
        let mut driven = Driven::start("keeper-window", "is_held_after_a_spawn", keeper);
        driven.driver.wait_for("driver: held");
        let lifeline = driven.lifelines.next();
        driven.driver.kill();
        lifeline.expect_end();
    }
}

#[test]
fn the_keeper_ends_with_its_host() {
    for keeper in keepers() {
        let mut driven = Driven::start("keeper-ends", "runs_until_told", keeper);
        let plugins = driven.up();
        let keeper = driven.keeper(&plugins);
        driven.driver.tell("shutdown");
        driven.driver.wait_for("driver: shut down");
        keeper.expect_end("the keeper");
        assert_eq!(driven.driver.children(), [], "it is reaped as well");
        driven.driver.tell("exit");
        driven.driver.wait();
    }
}

#[test]
fn with_sigchld_ignored_nothing_is_left_either() {
    let test = command("keeper::driver::runs_until_told");
    let ignore = "import os, signal, sys\n\
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
        os.execv(sys.argv[1], sys.argv[1:])";
    let mut python = Command::new("python3");
    python
        .args(["-c", ignore])
        .arg(test.get_program())
        .args(test.get_args());
    let mut driven = Driven::start_by(python, "sigchld-ignored", "shell");
    let plugins = driven.up();
    driven.driver.tell("guarantees");
    let limitations = driven.driver.wait_for("driver: guarantees");
    assert!(limitations.contains("SIGCHLD is ignored"), "{limitations}");
    // Orderly: the groups cannot be signalled any more once their leaders are gone.
    driven.driver.tell("shutdown");
    driven.driver.wait_for("driver: shut down");
    for plugin in plugins {
        plugin.expect_end();
    }
    driven.driver.tell("exit");
    driven.driver.wait();
}

#[test]
fn a_host_says_what_it_guarantees() {
    let host = TestHost::new("no-keeper-yet");
    host.install(Record::external(manifest("outside")).unwrap());
    let guarantees = host.guarantees();
    assert!(guarantees.plugins_end_with_host, "{guarantees:?}");
    assert!(guarantees.descendants_are_found, "{guarantees:?}");
    assert_eq!(guarantees.escaped, 0);
    // What a shell cannot do is said, and that is all.
    let limitations = &guarantees.limitations;
    assert_eq!(limitations.len(), 1, "{limitations:?}");
    assert!(
        limitations[0].ends_with("the keeper is /bin/sh"),
        "{limitations:?}"
    );
}

#[test]
fn a_keeper_that_cannot_be_had_is_told_and_plugins_run_all_the_same() {
    let missing = Keeper::Command {
        program: PathBuf::from("/nowhere/keeper"),
        args: Vec::new(),
    };
    let short_lived = Keeper::Command {
        program: PathBuf::from("/bin/true"),
        args: Vec::new(),
    };
    for (keeper, problem) in [
        (Keeper::None, "the keeper is switched off"),
        (missing, "the keeper could not be started"),
        (
            short_lived,
            "the keeper ends as soon as it is started (exit status: 0)",
        ),
    ] {
        let host = TestHost::with("no-keeper", |setup| {
            setup.configure(|builder| builder.keeper(keeper));
        });
        let session = host.run(fixture(&host, Transport::Stdio, &["behave"]));
        // Its lives end one after another; each end is noticed like that of a plugin.
        wait_until(problem, || {
            call(&session, "echo", &serde_json::json!({})).unwrap();
            let limitations = host.guarantees().limitations;
            limitations
                .iter()
                .any(|limitation| limitation.contains(problem))
        });
        assert!(!host.guarantees().plugins_end_with_host);
    }
}

/// The hosts that things happen to.
mod driver {
    use super::*;

    fn host(keeper: &str) -> Host {
        let folder = PathBuf::from(std::env::var_os("DRIVER_FOLDER").unwrap());
        let keeper = match keeper {
            "shell" => Keeper::Shell,
            "program" => Keeper::Command {
                program: PROGRAM.expect("built with the program").into(),
                args: vec!["keeper".into()],
            },
            other => panic!("{other}"),
        };
        Host::builder()
            .data_dir(folder.join("data"))
            .keeper(keeper)
            .build()
            .unwrap()
    }

    fn record(args: &[&str], transport: Transport) -> Record {
        let folder = PathBuf::from(std::env::var_os("DRIVER_FOLDER").unwrap());
        let mut manifest = manifest("driven");
        env!("CARGO_BIN_EXE_plugin-runner-fixture").clone_into(&mut manifest.command);
        manifest.args = args.iter().map(|&arg| arg.to_owned()).collect();
        manifest.transport = transport;
        Record::supervised(manifest, Source::Directory(folder)).variable(
            "FIXTURE_LIFELINE",
            std::env::var("DRIVER_LIFELINE").unwrap(),
        )
    }

    #[test]
    #[ignore = "a host that something happens to; run by other tests, in a process of its own"]
    fn runs_until_told() {
        let host = host(&std::env::var("DRIVER_KEEPER").unwrap());
        let _listener = host.listen("127.0.0.1:0").unwrap();
        for args in BEHAVIOURS {
            for transport in TRANSPORTS {
                let record = record(args, transport);
                let id = record.id;
                host.store().put(record).unwrap();
                let session = host.load(id).unwrap();
                session.supervised().unwrap().start().unwrap();
                active(&session);
            }
        }
        // Before anybody does something to one of them.
        let own = rustix::process::getpid();
        let known = children(own);
        println!("driver: ready");
        for line in std::io::stdin().lock().lines() {
            match line.unwrap().as_str() {
                "exit" => std::process::exit(0),
                "shutdown" => {
                    let report = host.shutdown(LONG);
                    assert!(report.is_complete(), "{report:?}");
                    println!("driver: shut down");
                }
                "guarantees" => println!("driver: guarantees {:?}", host.guarantees()),
                "keeper" => {
                    while children(own).iter().all(|child| known.contains(child)) {
                        std::thread::yield_now();
                    }
                    println!("driver: another keeper");
                }
                "churn" => {
                    // More lines than fit into a pipe that nobody reads.
                    churn(&host, &known);
                    println!("driver: churned");
                }
                other => panic!("{other}"),
            }
        }
    }

    /// Starts and stops a plugin until one of the children that were there is gone.
    fn churn(host: &Host, known: &[Pid]) {
        let mut manifest = manifest("churned");
        "/bin/true".clone_into(&mut manifest.command);
        let folder = PathBuf::from(std::env::var_os("DRIVER_FOLDER").unwrap());
        let record = over_stdio(Record::supervised(manifest, Source::Directory(folder)));
        let id = record.id;
        host.store().put(record).unwrap();
        let session = host.load(id).unwrap();
        let all_are_there = || {
            let there = children(rustix::process::getpid());
            known.iter().all(|known| there.contains(known))
        };
        while all_are_there() {
            session.supervised().unwrap().start().unwrap();
            let _ = session.wait_for(ReportedState::Connecting, LONG);
            session.supervised().unwrap().stop(LONG).unwrap();
        }
        host.unload(id).unwrap();
    }

    #[test]
    #[ignore = "a host that something happens to; run by other tests, in a process of its own"]
    fn is_held_after_a_spawn() {
        let host = host(&std::env::var("DRIVER_KEEPER").unwrap());
        let record = record(&["linger", "ignore-signals"], Transport::Stdio);
        let id = record.id;
        host.store().put(record).unwrap();
        let hold = plugin_runner::fault::hold(plugin_runner::fault::SPAWNED, id);
        let session = host.load(id).unwrap();
        session.supervised().unwrap().start().unwrap();
        assert!(hold.reached(LONG), "nothing was spawned");
        println!("driver: held");
        // Until it is killed, or the test is gone.
        let _ = std::io::stdin().lock().lines().next();
    }
}
