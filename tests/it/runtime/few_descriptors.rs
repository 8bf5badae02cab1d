//! Starts for which the process has no descriptors left.

use crate::support::alone::run_alone;

#[test]
fn starts_without_descriptors_fail_and_leave_nothing() {
    run_alone("runtime::few_descriptors::alone::starts");
}

mod alone {
    use plugin_runner::ReportedState::{Connecting, Errored};
    use plugin_runner::Session;
    use rustix::process::{Resource, getrlimit, setrlimit};

    use crate::support::alone::Holdings;
    use crate::support::host::{TestHost, supervised};
    use crate::support::plugin::shell;
    use crate::support::{LONG, wait_until};

    #[test]
    #[ignore = "uses up the process's descriptors; run by another test, in a process of its own"]
    fn starts() {
        let host = TestHost::with("few-descriptors-to-start", |setup| {
            setup.policy(|policy| policy.max_restart_attempts(0));
        });
        let plugins: Vec<_> = (0..60)
            .map(|number| {
                let record = shell(&host, &format!("plugin-{number}"), "exec sleep 1000");
                host.install(record)
            })
            .collect();
        let start_and_stop = |is_short: bool| {
            for plugin in &plugins {
                supervised(plugin).start().unwrap();
            }
            wait_until("each to run or fail", || {
                let states = plugins.iter().map(Session::reported_state);
                let mut states: Vec<_> = states.collect();
                states.retain(|state| ![Connecting, Errored].contains(state));
                states.is_empty()
            });
            let errored = plugins
                .iter()
                .filter(|plugin| plugin.reported_state() == Errored)
                .count();
            assert_eq!(errored > 0, is_short);
            for plugin in &plugins {
                supervised(plugin).stop(LONG).unwrap();
            }
        };
        // The keeper, which comes with the first process, is watched by a thread.
        let threads = Holdings::now().threads + 1;
        start_and_stop(false);
        let before = Holdings::at_rest(threads);
        let usual = getrlimit(Resource::Nofile);
        for room in [1, 2, 3, 5, 8, 13, 20, 40, 100] {
            let mut few = usual;
            few.current = Some(before.descriptors as u64 + room);
            setrlimit(Resource::Nofile, few).unwrap();
            start_and_stop(true);
            setrlimit(Resource::Nofile, usual).unwrap();
            before.expect();
        }
        start_and_stop(false);
        before.expect();
    }
}
