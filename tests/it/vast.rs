//! Processes that show an environment of gigabytes, which every look at the system comes by: they cost a host
//! neither its memory nor its time. The host is a process of its own, since its memory is measured.
//!
//! `PLUGIN_RUNNER_VAST_GIB=16` is how much they show.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::alone::command;
use crate::support::attack::{Attack, trials};
use crate::support::attacker::attacker;
use crate::support::{TestDir, wait_until};

/// A process of nobody's that shows so much.
struct Stranger(Child);

impl Stranger {
    #[track_caller]
    fn start(attack: &Attack, user: &str) -> Self {
        let gibibytes = trials("PLUGIN_RUNNER_VAST_GIB", 1).to_string();
        let child = Command::new(attacker())
            .arg(attack.folder())
            .args(["vast", &gibibytes, "here-none", user])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the stranger", || attack.has("vast"));
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn check_beside(user: &str) {
    let folder = TestDir::new("vast-stranger");
    let attack = Attack::new(folder.path().to_owned());
    let _stranger = Stranger::start(&attack, user);
    let output = command("vast::alone::stops_a_plugin").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.contains("vast: ")) {
        println!("{line}");
    }
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_vast_environment_of_another_user_costs_a_stop_nothing() {
    // Only root can become another user.
    if rustix::process::geteuid().is_root() {
        check_beside("1");
    }
}

#[test]
fn a_vast_environment_of_the_same_user_costs_a_stop_nothing() {
    check_beside("0");
}

mod alone {
    use std::fs;

    use super::*;
    use crate::support::attack::{Said, said};
    use crate::support::host::TestHost;

    /// By so much resident memory may grow for a look, in KiB.
    const GROWTH: u64 = 8 * 1024;
    const STOP: Duration = Duration::from_secs(10);

    fn memory(what: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(what)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    #[ignore = "measures the process; run by other tests, in a process of its own"]
    fn stops_a_plugin() {
        let host = TestHost::new("vast-beside");
        // What is made once and kept does not count.
        let mut before = 0;
        let mut problems = Vec::new();
        for round in 0..4 {
            let name = format!("stopped-{round}");
            let attack = Attack::of(&host, &name);
            let session = attack.run(&host, &name, &["escape", "3"]);
            if round == 1 {
                // The peak begins anew.
                fs::write("/proc/self/clear_refs", "5").unwrap();
                before = memory("VmRSS:");
            }
            let began = Instant::now();
            let stopped = session.supervised().unwrap().stop(STOP);
            let took = began.elapsed();
            println!("\nvast: {stopped:?} in {took:.1?}");
            if took >= STOP || said(&stopped) != Said::Complete || attack.is_alive() {
                problems.push(format!(
                    "{stopped:?} in {took:?}, {:?} live",
                    attack.living()
                ));
            }
        }
        let growth = memory("VmHWM:").saturating_sub(before);
        println!("vast: {growth} KiB more at the peak of four stops; {problems:?}");
        // Also of looks that nobody waited for.
        drop(host);
        let growth = memory("VmHWM:").saturating_sub(before);
        println!("vast: {growth} KiB more at the peak");
        if growth > GROWTH {
            problems.push(format!("{growth} KiB more"));
        }
        assert!(problems.is_empty(), "{problems:#?}");
    }
}
