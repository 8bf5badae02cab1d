//! Descendants that leave their plugin's process group by the thousand, or faster than anybody looks: a stop
//! ends them, or says by name that it did not, and how many are left.
//!
//! More than the ordinary run does: `PLUGIN_RUNNER_STOPS=20` is how often plugins with many descendants are stopped,
//! with each number of them; `PLUGIN_RUNNER_CHAINS=20` how often each chain of forks is.

use std::time::{Duration, Instant};

use plugin_runner::{ReportedState, Session};
use serde_json::json;

use crate::support::alone::run_alone;
use crate::support::attack::{Attack, Busy, Said, bearers, said, trials};
use crate::support::host::TestHost;
use crate::support::lifeline::Lifeline;
use crate::support::plugin::{call, fixture};
use crate::support::{LONG, wait_until};

/// What a stop has, for all it has to do.
const STOP: Duration = Duration::from_secs(10);
/// What a stop may take beyond its time.
const NOISE: Duration = Duration::from_secs(5);

fn host(test: &'static str) -> TestHost {
    TestHost::with(test, |setup| {
        setup.timeouts(|timeouts| timeouts.stop_grace(Duration::from_secs(2)));
    })
}

/// Stops it within its time.
#[track_caller]
fn stop(session: &Session, timeout: Duration) -> Said {
    let began = Instant::now();
    let stopped = session.supervised().unwrap().stop(timeout);
    let took = began.elapsed();
    assert!(took < timeout + NOISE, "a stop took {took:?}: {stopped:?}");
    said(&stopped)
}

/// What a number of stops came to.
#[derive(Debug, Default)]
struct Tally {
    complete: usize,
    named: usize,
    other: Vec<String>,
    survivors: usize,
    /// Stops whose count was not the true one.
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, said: Said, before: usize, attack: &Attack) {
        // Those that are left go on dying meanwhile.
        let living = attack.living().len();
        match said {
            Said::Complete => {
                self.complete += 1;
                self.survivors += living.max(bearers(&attack.cookie()).len());
            }
            Said::Left(told) => {
                self.named += 1;
                if told.left < living || told.left + told.escaped > before + 1 {
                    self.wrong
                        .push(format!("{told:?}, {living} of {before} live"));
                }
            }
            Said::Other(error) => self.other.push(error),
        }
    }
}

/// Stops a plugin with so many descendants, a number of times.
#[track_caller]
fn stops_of(descendants: usize, rounds: usize) -> Tally {
    let host = host("escapes");
    let number = descendants.to_string();
    let mut tally = Tally::default();
    for round in 0..rounds {
        let name = format!("many-{descendants}-{round}");
        let attack = Attack::of(&host, &name);
        let session = attack.run(&host, &name, &["escape", &number]);
        let before = attack.living().len();
        assert_eq!(before, descendants, "not all came up");
        let said = stop(&session, STOP);
        let is_complete = said == Said::Complete;
        tally.count(said, before, &attack);
        if !is_complete {
            // Whatever is left is still being looked for.
            attack.expect_all_dead(LONG);
        }
        wait_until("the plugin to be inactive", || {
            session.reported_state() == ReportedState::Inactive
        });
    }
    println!("escapes: {descendants} descendants, {rounds} stops: {tally:?}");
    tally
}

#[track_caller]
fn check_stops_of(descendants: usize, rounds: usize) -> Tally {
    let tally = stops_of(descendants, rounds);
    assert_eq!(tally.survivors, 0, "after a stop that was complete");
    assert!(tally.wrong.is_empty(), "not the true count: {tally:?}");
    assert!(tally.other.is_empty(), "not by name: {tally:?}");
    tally
}

#[test]
fn a_complete_stop_leaves_none_of_ten_descendants() {
    let _busy = Busy::as_told();
    let rounds = trials("PLUGIN_RUNNER_STOPS", 5);
    let tally = check_stops_of(10, rounds);
    assert_eq!(tally.complete, rounds, "{tally:?}");
}

#[test]
fn a_complete_stop_leaves_none_of_a_thousand_descendants() {
    let _busy = Busy::as_told();
    check_stops_of(1_000, trials("PLUGIN_RUNNER_STOPS", 1));
}

#[test]
fn a_complete_stop_leaves_none_of_three_thousand_descendants() {
    let _busy = Busy::as_told();
    check_stops_of(3_000, trials("PLUGIN_RUNNER_STOPS", 0));
}

/// Stops a plugin that started this.
#[track_caller]
fn check_chain(name: &str, args: &[&str]) {
    let _busy = Busy::as_told();
    let host = host("chain");
    for round in 0..trials("PLUGIN_RUNNER_CHAINS", 2) {
        let id = format!("{name}-{round}");
        let attack = Attack::of(&host, &id);
        let session = attack.run(&host, &id, args);
        let timeout = Duration::from_secs(5);
        let said = stop(&session, timeout);
        let is_alive = attack.is_alive();
        println!("escapes: {name}: {said:?}, something lives: {is_alive}");
        match said {
            Said::Complete => assert!(!is_alive, "complete, and something lives"),
            Said::Left(told) => assert!(told.left + told.escaped > 0, "{told:?}"),
            Said::Other(error) => panic!("{error}"),
        }
        // Or it is stopped later, by looks that nobody waits for.
        attack.expect_all_dead(LONG);
        wait_until("the plugin to be inactive", || {
            session.reported_state() == ReportedState::Inactive
        });
    }
}

#[test]
fn a_chain_of_forks_is_ended_or_told_by_name() {
    check_chain("chain", &["chain"]);
}

#[test]
fn a_chain_of_programs_is_ended_or_told_by_name() {
    check_chain("exec-chain", &["exec-chain"]);
}

#[test]
fn a_chain_of_forks_in_python_is_ended_or_told_by_name() {
    let code = "import os, time
folder = os.environ['ATTACK_FOLDER']
if os.fork() == 0:
    until = time.monotonic() + 60
    while time.monotonic() < until and os.path.isdir(folder) and not os.path.exists(folder + '/end'):
        os.setsid()
        if os.fork():
            os._exit(0)
    os._exit(0)
os.wait()
open(folder + '/ready', 'w').close()
time.sleep(60)";
    check_chain("chain-python", &["run", "python3", "-c", code]);
}

#[test]
fn what_does_not_show_its_cookie_at_once_is_found_all_the_same() {
    let host = host("shown-late");
    for args in [
        &["threads", "10000"][..],
        &["large"],
        &["reordered"],
        &["vast", "1", "start", "0"],
        &["vast", "1", "start", "1"],
    ] {
        let name = args.join("-");
        let attack = Attack::of(&host, &name);
        let session = attack.run(&host, &name, args);
        let began = Instant::now();
        let said = stop(&session, STOP);
        println!("escapes: {name}: {said:?} in {:?}", began.elapsed());
        assert_eq!(said, Said::Complete, "{name}");
        attack.expect_all_dead(Duration::ZERO);
    }
}

#[test]
fn a_restart_does_not_begin_beside_descendants_of_the_run_before() {
    let host = host("restart-beside");
    let attack = Attack::of(&host, "crashing");
    let session = attack.run(&host, "crashing", &["escape", "200"]);
    let events = &mut host.events();
    for _ in 0..2 {
        attack.crash();
        events.until(session.id(), ReportedState::Restarting);
        attack.wait_until_ready();
        attack.expect_one_run_at_a_time();
    }
    assert_eq!(stop(&session, STOP), Said::Complete);
    attack.expect_all_dead(Duration::ZERO);
}

#[test]
fn a_restart_does_not_begin_beside_a_chain_of_the_run_before() {
    let host = host("restart-chain");
    let attack = Attack::of(&host, "crashing");
    let session = attack.run(&host, "crashing", &["chain"]);
    let events = &mut host.events();
    attack.crash();
    events.until(session.id(), ReportedState::Restarting);
    // It starts again once the chain is gone, or waits.
    let _ = session.wait_for(ReportedState::Connecting, Duration::from_secs(5));
    let said = stop(&session, STOP);
    attack.expect_one_run_at_a_time();
    if said == Said::Complete {
        attack.expect_all_dead(Duration::ZERO);
    }
    attack.expect_all_dead(LONG);
}

/// What a host does to those it looks at must not be seen on those it has nothing against.
#[test]
fn a_stop_leaves_the_descendants_of_another_plugin_alone() {
    let host = host("another");
    let (ours, others) = (Attack::of(&host, "ours"), Attack::of(&host, "others"));
    let innocent = host.run(fixture(
        &host,
        plugin_runner::protocol::Transport::Stdio,
        &["grandchild-detached"],
    ));
    let lives: Vec<Lifeline> = (0..2).map(|_| host.lifelines.next()).collect();
    let other = others.run(&host, "others", &["escape", "50"]);
    for round in 0..3 {
        let session = ours.run(&host, &format!("ours-{round}"), &["escape", "100"]);
        if round == 1 {
            ours.crash();
            ours.wait_until_ready();
        }
        assert_eq!(stop(&session, STOP), Said::Complete);
        assert_eq!(others.living().len(), 50, "of another plugin");
        assert_eq!(others.frozen(), [], "of another plugin");
        call(&innocent, "echo", &json!({})).unwrap();
        for life in &lives {
            assert!(life.is_alive());
        }
        ours.expect_all_dead(Duration::ZERO);
    }
    assert_eq!(stop(&other, STOP), Said::Complete);
    others.expect_all_dead(Duration::ZERO);
}

/// What executes a program without an environment while it is looked at may get away, which is documented;
/// but it is not left stopped.
#[test]
fn what_sheds_its_environment_during_a_look_is_not_left_frozen() {
    let host = host("undress");
    for round in 0..6 {
        let name = format!("undress-{round}");
        let attack = Attack::of(&host, &name);
        let session = attack.run(&host, &name, &["undress", "300"]);
        stop(&session, STOP);
        let frozen = attack.frozen();
        assert!(frozen.is_empty(), "{frozen:?}");
    }
}

#[test]
fn a_host_without_descriptors_takes_nothing_for_gone() {
    run_alone("escapes::alone::has_few_descriptors");
}

mod alone {
    use std::fs::File;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::*;

    #[test]
    #[ignore = "limits the process; run by another test, in a process of its own"]
    fn has_few_descriptors() {
        let host = host("few-descriptors");
        let limit = getrlimit(Resource::Nofile);
        // Enough for a look to begin, and too few for each of the processes that it finds.
        for spare in [2, 3, 5, 8, 13, 21, 34] {
            let name = format!("few-{spare}");
            let attack = Attack::of(&host, &name);
            let session = attack.run(&host, &name, &["escape", "40"]);
            let few = Rlimit {
                current: Some(256),
                ..limit
            };
            setrlimit(Resource::Nofile, few).unwrap();
            let mut held: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            held.truncate(held.len().saturating_sub(spare));
            let said = stop(&session, Duration::from_secs(3));
            drop(held);
            setrlimit(Resource::Nofile, limit).unwrap();
            let living = attack.living();
            match said {
                Said::Complete => assert!(living.is_empty(), "{spare} left: {living:?}"),
                Said::Left(_) => assert_eq!(stop(&session, STOP), Said::Complete),
                Said::Other(error) => panic!("{error}"),
            }
            attack.expect_all_dead(Duration::ZERO);
        }
    }
}
