//! Hosts that are killed while their plugins are at their worst: starting helpers in a loop, forking in a chain,
//! stopping what keeps them. Each such host is a process of its own.
//!
//! More than the ordinary run does: `PLUGIN_RUNNER_TRIALS=2000` is how often a host is killed, with each
//! keeper, beside as many loops at the lowest priority as `PLUGIN_RUNNER_BUSY` says.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plugin_runner::protocol::Transport;
use plugin_runner::store::{Record, Source};
use plugin_runner::{Host, Keeper, Session};
use rustix::process::Signal;
use serde_json::json;

use crate::support::alone::{Driver, command};
use crate::support::attack::{Attack, Busy, Process, bearers, trials};
use crate::support::attacker::attacker;
use crate::support::host::active;
use crate::support::lifeline::{Lifeline, Lifelines};
use crate::support::plugin::{With as _, call, manifest};
use crate::support::{LONG, TestDir, wait_until};

/// By then nothing may be left of a host that was killed.
const LIMIT: Duration = Duration::from_secs(6);
/// Between the arguments of an attack in one variable.
const BETWEEN: char = '\u{1f}';

/// The program, which is not built with every set of features.
const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_plugin-runner");

fn keepers() -> Vec<&'static str> {
    if PROGRAM.is_some() {
        vec!["shell", "program"]
    } else {
        vec!["shell"]
    }
}

/// A host in a process of its own, with one plugin that does this, and one that is innocent.
struct Scene {
    driver: Driver,
    attack: Attack,
    innocent: Lifeline,
    _lifelines: Lifelines,
    is_killed: bool,
    _folder: TestDir,
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !self.is_killed && self.attack.has("cookie") {
            // A keeper that is stopped ends by nothing else.
            let keepers = self.keepers();
            self.driver.kill();
            keepers.into_iter().for_each(Process::kill);
        }
    }
}

impl Scene {
    #[track_caller]
    fn set(test: &str, keeper: &str, attack: &[&str]) -> Self {
        let (folder, lifelines) = (TestDir::new(test), Lifelines::new());
        let mut command = command("kills::driver::runs_an_attack");
        command
            .env("DRIVER_FOLDER", folder.path())
            .env("DRIVER_KEEPER", keeper)
            .env("DRIVER_LIFELINE", lifelines.address())
            .env("DRIVER_ATTACK", attack.join(&BETWEEN.to_string()));
        let attack = Attack::new(folder.path().join("attack"));
        let driver = Driver::start(&mut command);
        driver.wait_for("driver: ready");
        Self {
            driver,
            attack,
            innocent: lifelines.next(),
            _lifelines: lifelines,
            is_killed: false,
            _folder: folder,
        }
    }

    fn tell(&mut self, what: &str) {
        self.driver.tell(what);
    }

    /// What keeps the host now: its children that are no plugins, of which there may be one that is on its way out.
    fn keepers(&self) -> Vec<Process> {
        let known = bearers(&self.attack.cookie_of_host());
        let children = self.driver.children().into_iter();
        children
            .filter_map(|child| Process::of(child.as_raw_nonzero().get()))
            .filter(|child| !known.contains(child))
            .collect()
    }

    /// Waits until the host has a keeper that is neither stopped nor about to be: a signal to stop takes effect
    /// when the system gets to it. A keeper that is stopped together with its host's end ends nothing.
    #[track_caller]
    fn wait_until_kept(&self) {
        const ENDS: u64 = 1 << (Signal::STOP.as_raw() - 1) | 1 << (Signal::KILL.as_raw() - 1);
        let is_well = |keeper: &Process| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", keeper.pid));
            let status = status.unwrap_or_default();
            let pending = status
                .lines()
                .find_map(|line| line.strip_prefix("ShdPnd:"))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            let runs = matches!(keeper.state(), Some('S' | 'R'));
            runs && pending.is_some_and(|mask| mask & ENDS == 0)
        };
        wait_until("a keeper that runs", || {
            let keepers = self.keepers();
            !keepers.is_empty() && keepers.iter().all(is_well)
        });
    }

    /// Kills the host; gives what was left of it when the time was over.
    fn kill(&mut self) -> Vec<String> {
        let keepers = self.keepers();
        let cookie = self.attack.cookie_of_host();
        let written = self.attack.written().len();
        self.driver.kill();
        self.is_killed = true;
        let deadline = Instant::now() + LIMIT;
        let is_left = || {
            let keeper = keepers.iter().any(|keeper| keeper.is_alive());
            keeper || self.attack.is_alive() || self.innocent.is_alive()
        };
        while Instant::now() < deadline && is_left() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let mut left = Vec::new();
        if self.innocent.is_alive() {
            left.push("the innocent plugin".to_owned());
        }
        if self.attack.is_alive() {
            left.push(format!("something, after {written} were written down"));
        }
        for keeper in keepers.into_iter().filter(|keeper| keeper.is_alive()) {
            left.push(format!("its keeper, which is {:?}", keeper.state()));
            keeper.kill();
        }
        for process in self.attack.living() {
            left.push(format!("{process:?} is {:?}", process.state()));
        }
        for process in bearers(&cookie) {
            left.push(format!("{process:?} bears the cookie"));
            process.kill();
        }
        left
    }
}

/// Helpers of a shell, each started in a session of its own and as fast as it goes, up to a number that a
/// machine can bear.
const HELPERS: [&str; 4] = [
    "run",
    "/bin/sh",
    "-c",
    "n=0; : >\"$ATTACK_FOLDER/ready\"
    while [ $n -lt 400 ]; do
        n=$((n + 1))
        setsid /bin/sh -c 'read -r line </proc/self/stat; echo \"$line\" >>\"$ATTACK_FOLDER/pids\"
            exec sleep 30' &
    done
    wait",
];

#[test]
fn no_helper_outlives_a_host_that_is_killed_while_it_is_started() {
    let _busy = Busy::as_told();
    let trials = trials("PLUGIN_RUNNER_TRIALS", 10);
    for keeper in keepers() {
        let (mut failed, mut slowest) = (Vec::new(), Duration::ZERO);
        for trial in 0..trials {
            let mut scene = Scene::set("kills-helpers", keeper, &HELPERS);
            scene.tell("attack");
            // From the first on at any moment of the loop.
            let wanted = trial % 40;
            wait_until("helpers", || {
                scene.attack.has("ready") && scene.attack.written().len() >= wanted
            });
            let began = Instant::now();
            let left = scene.kill();
            slowest = slowest.max(began.elapsed());
            if !left.is_empty() {
                println!("kills: keeper {keeper}, trial {trial}: {left:?}");
                failed.push(trial);
            }
        }
        println!(
            "kills: keeper {keeper}: {trials} hosts killed, {} left something, slowest {slowest:?}",
            failed.len()
        );
        assert!(failed.is_empty(), "keeper {keeper}: trials {failed:?}");
    }
}

#[test]
fn many_descendants_die_with_a_host_that_is_killed() {
    for keeper in keepers() {
        let mut scene = Scene::set("kills-many", keeper, &["escape", "300"]);
        scene.tell("attack");
        scene.attack.wait_until_ready();
        assert_eq!(scene.kill(), [""; 0], "keeper {keeper}");
    }
}

/// A keeper in shell cannot be faster than a chain.
#[test]
fn a_chain_of_forks_dies_with_a_host_that_is_killed() {
    if PROGRAM.is_none() {
        return;
    }
    for chain in ["chain", "exec-chain"] {
        let mut scene = Scene::set("kills-chain", "program", &[chain]);
        scene.tell("attack");
        scene.attack.wait_until_ready();
        assert_eq!(scene.kill(), [""; 0], "{chain}");
    }
}

/// What a host has stopped in order to look at it, it may not have been able to let go.
#[test]
fn a_host_that_is_killed_in_the_middle_of_a_stop_leaves_nothing_frozen() {
    for keeper in keepers() {
        for trial in 0..trials("PLUGIN_RUNNER_TRIALS", 4).min(200) {
            let mut scene = Scene::set("kills-looks", keeper, &["escape", "150"]);
            scene.tell("attack");
            scene.attack.wait_until_ready();
            scene.tell("stop");
            scene.driver.wait_for("driver: stopping");
            // At any moment of what comes now.
            let pause = Duration::from_millis((trial as u64 * 13) % 100);
            std::thread::park_timeout(pause);
            let left = scene.kill();
            assert_eq!(left, [""; 0], "keeper {keeper}, after {pause:?}");
        }
    }
}

#[test]
fn a_stopped_keeper_is_replaced_and_nothing_outlives_the_host() {
    for keeper in keepers() {
        let mut scene = Scene::set("kills-stopped", keeper, &["stop-keeper", "once"]);
        scene.tell("attack");
        wait_until("the keeper to be stopped", || scene.attack.has("stopped"));
        scene.tell("until-guaranteed");
        scene.driver.wait_for("driver: guaranteed");
        scene.wait_until_kept();
        assert_eq!(scene.kill(), [""; 0], "keeper {keeper}");
    }
}

#[test]
fn a_keeper_that_is_stopped_again_and_again_is_told_and_innocents_go_on() {
    for keeper in keepers() {
        let mut scene = Scene::set("kills-stopping", keeper, &["stop-keeper", "loop"]);
        scene.tell("attack");
        scene.tell("until-limited");
        let limitations = scene.driver.wait_for("driver: limited");
        assert!(limitations.contains("stopped"), "{limitations}");
        scene.tell("call");
        scene.driver.wait_for("driver: called");
        scene.tell("stop");
        scene.driver.wait_for("driver: stopped");
        scene.wait_until_kept();
        assert_eq!(scene.kill(), [""; 0], "keeper {keeper}");
    }
}

/// The hosts that are killed.
mod driver {
    use super::*;

    fn record(id: &str, program: &str, args: Vec<String>) -> Record {
        let folder = PathBuf::from(std::env::var_os("DRIVER_FOLDER").unwrap());
        let mut manifest = manifest(id);
        program.clone_into(&mut manifest.command);
        manifest.args = args;
        manifest.transport = Transport::Stdio;
        Record::supervised(manifest, Source::Directory(folder)).variable(
            "FIXTURE_LIFELINE",
            std::env::var("DRIVER_LIFELINE").unwrap(),
        )
    }

    fn load(host: &Host, record: Record) -> Session {
        let id = record.id;
        host.store().put(record).unwrap();
        host.load(id).unwrap()
    }

    /// Waits for what the host says of its guarantees; gives its limitations.
    fn until_guarantees(host: &Host, are: impl Fn(bool, &str) -> bool) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let guarantees = host.guarantees();
            let limitations = format!("{:?}", guarantees.limitations);
            if are(guarantees.plugins_end_with_host, &limitations) || Instant::now() > deadline {
                return limitations;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[test]
    #[ignore = "a host that something happens to; run by other tests, in a process of its own"]
    fn runs_an_attack() {
        let folder = PathBuf::from(std::env::var_os("DRIVER_FOLDER").unwrap());
        let keeper = match std::env::var("DRIVER_KEEPER").unwrap().as_str() {
            "shell" => Keeper::Shell,
            _ => Keeper::Command {
                program: PROGRAM.expect("built with the program").into(),
                args: vec!["keeper".into()],
            },
        };
        let host = Host::builder()
            .data_dir(folder.join("data"))
            .keeper(keeper)
            .build()
            .unwrap();
        let args = vec![
            "behave".to_owned(),
            "linger".to_owned(),
            "ignore-signals".to_owned(),
        ];
        let fixture = env!("CARGO_BIN_EXE_plugin-runner-fixture");
        let innocent = load(&host, record("innocent", fixture, args));
        innocent.supervised().unwrap().start().unwrap();
        active(&innocent);
        let attack = std::env::var("DRIVER_ATTACK").unwrap();
        let args = [folder.join("attack").to_str().unwrap()]
            .into_iter()
            .chain(attack.split(BETWEEN))
            .map(str::to_owned)
            .collect();
        let attacking = load(
            &host,
            record("attacking", attacker().to_str().unwrap(), args),
        );
        let attacking = attacking.supervised().unwrap();
        println!("driver: ready");
        for line in std::io::stdin().lock().lines() {
            match line.unwrap().as_str() {
                "attack" => attacking.start().unwrap(),
                "stop" => {
                    println!("driver: stopping");
                    let stopped = attacking.stop(Duration::from_secs(10));
                    println!("driver: stopped {stopped:?}");
                }
                "call" => {
                    for _ in 0..100 {
                        call(&innocent, "echo", &json!({})).unwrap();
                    }
                    println!("driver: called");
                }
                "until-guaranteed" => {
                    let limitations = until_guarantees(&host, |guaranteed, _| guaranteed);
                    println!("driver: guaranteed {limitations}");
                }
                "until-limited" => {
                    let are = |guaranteed: bool, limitations: &str| {
                        !guaranteed && limitations.contains("stopped")
                    };
                    println!("driver: limited {}", until_guarantees(&host, are));
                }
                other => panic!("{other}"),
            }
        }
    }
}
