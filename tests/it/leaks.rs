//! What is done a thousand times leaves no more behind than what was done once: threads,
//! descriptors, children, memory. Each test in a process of its own; what it counted is printed.

use crate::support::alone::run_alone;

#[test]
fn a_thousand_crashes_and_restarts_leave_nothing() {
    report(&run_alone("leaks::alone::crashes_and_restarts"));
}

#[test]
fn crashes_that_leave_descendants_leave_nothing() {
    report(&run_alone("leaks::alone::crashes_with_descendants"));
}

#[test]
fn a_thousand_connections_leave_nothing() {
    report(&run_alone("leaks::alone::connections"));
}

/// Prints what a test said of its counts.
fn report(text: &str) {
    for line in text.lines().filter(|line| line.starts_with("leaks: ")) {
        println!("{line}");
    }
}

mod alone {
    use std::fs;
    use std::time::{Duration, Instant};

    use plugin_runner::ReportedState;
    use plugin_runner::duplex::memory;
    use plugin_runner::store::Record;

    use crate::support::LONG;
    use crate::support::alone::Holdings;
    use crate::support::attack::Attack;
    use crate::support::attacker::attacker;
    use crate::support::events::Events;
    use crate::support::host::TestHost;
    use crate::support::peer;
    use crate::support::plugin::{command, connectable, manifest, over_stdio, shell};

    const CYCLES: usize = 1_000;
    /// Before the counting, for what is made once and kept: buffers, tables, arenas of the allocator.
    const WARM_UP: usize = 200;
    /// By so much resident memory may have grown after all of the cycles, in KiB: one for each. What
    /// the allocator moves about is a tenth of that.
    const SLACK: u64 = 1_024;

    /// Resident memory, in KiB.
    fn resident() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1))
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Does it for a while, counts, does it a thousand times, and counts again. `act` must leave
    /// everything at rest.
    fn compare(what: &str, host: &TestHost, keepers: usize, act: impl FnMut(usize)) {
        compare_after(WARM_UP, CYCLES, what, host, keepers, act);
    }

    /// The same, with fewer of what takes longer.
    fn compare_after(
        warm_up: usize,
        cycles: usize,
        what: &str,
        host: &TestHost,
        keepers: usize,
        mut act: impl FnMut(usize),
    ) {
        let (idle, threads) = (host.thread_count(), Holdings::now().threads);
        // Each is watched by a thread, from the first process on.
        let (idle, threads) = (idle + keepers, threads + keepers);
        act(warm_up);
        host.expect_threads(idle);
        let (before, memory) = (Holdings::at_rest(threads), resident());
        let began = Instant::now();
        act(cycles);
        let took = began.elapsed();
        before.expect();
        let now = resident();
        println!(
            "\nleaks: {cycles} {what} in {took:.1?}: {before}, before and after; \
             resident {memory} KiB before, {now} KiB after"
        );
        assert!(now <= memory + SLACK, "{memory} KiB have become {now} KiB");
    }

    /// Waits until the plugin has gone to this state so many times.
    fn count(
        events: &mut Events,
        plugin: plugin_runner::InstallationId,
        state: ReportedState,
        times: usize,
    ) {
        for _ in 0..times {
            events.until(plugin, state);
        }
    }

    #[test]
    #[ignore = "counts what the process has; run by another test, in a process of its own"]
    fn crashes_and_restarts() {
        let host = TestHost::with("leaks-crashes", |setup| {
            setup.policy(|policy| {
                policy
                    .max_restart_attempts(u32::MAX)
                    .max_backoff(Duration::ZERO)
            });
        });
        // Active each time: it answers the first ping, with an error, and exits.
        let script = r#"read -r line; id=${line#*\"id\":\"}; id=${id%%\"*}
            printf '{"jsonrpc":"2.0","id":"%s","error":{"code":-32601,"message":"no"}}\n' "$id"
            exit 3"#;
        let session = host.install(over_stdio(shell(&host, "crashing", script)));
        let supervised = session.supervised().unwrap();
        compare("crashes and restarts", &host, 1, |cycles| {
            let mut events = host.events();
            supervised.start().unwrap();
            count(&mut events, session.id(), ReportedState::Restarting, cycles);
            supervised.stop(LONG).unwrap();
        });
        assert!(session.counters().connections >= u64::try_from(CYCLES).unwrap() / 2);
    }

    #[test]
    #[ignore = "counts what the process has; run by another test, in a process of its own"]
    fn crashes_with_descendants() {
        let host = TestHost::with("leaks-descendants", |setup| {
            setup.policy(|policy| {
                policy
                    .max_restart_attempts(u32::MAX)
                    .max_backoff(Duration::from_millis(1))
            });
        });
        let attack = Attack::of(&host, "left");
        // A crash with all of them there.
        let script =
            r#""$0" "$1" escape 4 & until [ -e "$1/ready" ]; do :; done; rm "$1/ready"; exit 3"#;
        let folder = attack.folder().to_str().unwrap();
        let program = attacker().to_str().unwrap();
        let args = ["-c", script, program, folder];
        let session = host.install(over_stdio(command(&host, "crashing", "/bin/sh", &args)));
        let supervised = session.supervised().unwrap();
        compare_after(20, 80, "crashes with descendants", &host, 1, |cycles| {
            let mut events = host.events();
            supervised.start().unwrap();
            count(&mut events, session.id(), ReportedState::Restarting, cycles);
            supervised.stop(LONG).unwrap();
            attack.expect_all_dead(Duration::ZERO);
        });
        attack.expect_one_run_at_a_time();
    }

    #[test]
    #[ignore = "counts what the process has; run by another test, in a process of its own"]
    fn connections() {
        let host = TestHost::new("leaks-connections");
        let record = Record::external(manifest("coming-and-going")).unwrap();
        let (session, target) = connectable(&host, record);
        let mut events = host.events();
        compare("connections", &host, 0, |cycles| {
            for cycle in 0..cycles {
                if cycle % 4 == 0 {
                    let (ours, theirs) = memory::pair(1);
                    session.connect(ours, "").unwrap();
                    events.expect(session.id(), &[ReportedState::Active]);
                    drop(theirs);
                } else {
                    let mut peer = peer::Peer::connect(host.address(), &target);
                    events.expect(session.id(), &[ReportedState::Active]);
                    if cycle % 2 == 0 {
                        peer.socket.close(None).unwrap();
                        peer.read_to_close();
                    }
                }
                events.expect(session.id(), &[ReportedState::Connecting]);
            }
        });
    }
}
