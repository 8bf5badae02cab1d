//! The true cause of every end: its word, its message, its details, and the history of runs.

use std::fs;
use std::time::{Duration, SystemTime};

use plugin_runner::ReportedState::{Connecting, Errored, Restarting, Starting, Stopping};
use plugin_runner::Timeouts;
use plugin_runner::fault;
use plugin_runner::protocol::Transport;
use plugin_runner::report::{EndCause, ExitReason};
use serde_json::json;

use super::place::{Place, packed};
use crate::causes::{errored, last, start, stop};
use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::host::{Setup, TestHost, active};
use crate::support::plugin::{TRANSPORTS, call, shell};

/// A host on which every crash is the last.
fn unforgiving(place: &Place, timeouts: impl FnOnce(Timeouts) -> Timeouts) -> TestHost {
    place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(0));
        setup.timeouts(timeouts);
    })
}

pub(super) fn a_signal_from_elsewhere_is_told_with_its_number_and_name(place: &Place) {
    let host = unforgiving(place, |timeouts| timeouts);
    for (signal, name, words) in [
        (11, "SIGSEGV", "segmentation fault"),
        (9, "SIGKILL", "killed"),
        (15, "SIGTERM", "terminated"),
    ] {
        // No core: whether one is left is the machine's business.
        let script = format!("ulimit -c 0; echo last words; kill -{signal} $$");
        let session = host.install(shell(&host, name, &script));
        let change = errored(&host, &session);
        let details = &change.details();
        assert_eq!(change.message(), Some(&*format!("signal: {words}")));
        assert_eq!(details["cause"], "killed_by_signal");
        assert_eq!(details["stage"], "exit");
        assert_eq!(details["signal"], signal);
        assert_eq!(details["signal_name"], name);
        assert_eq!(details["exit_code"], -1);
        assert_eq!(details["exit_status"], format!("signal: {words}"));
        assert_eq!(details["output"], json!(["last words"]));
        assert_eq!(details["attempts"], 1);
        assert!(details["uptime_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(details.get("active_seconds"), None);
        assert_eq!(details.get("core_dumped"), None);
        let end = last(&session);
        assert_eq!(end.problem.cause(), Some(EndCause::KilledBySignal));
        assert_eq!(end.problem.exit(), Some(ExitReason::Signal(signal)));
        assert_eq!(
            details.get("pid").cloned(),
            end.problem.pid().map(Into::into)
        );
    }
}

pub(super) fn a_plugin_that_reads_nothing_is_told_as_unresponsive(place: &Place) {
    let host = unforgiving(place, |timeouts| {
        timeouts
            .write_stall(Duration::from_millis(200))
            .disconnect_grace(Duration::from_millis(50))
    });
    let session = host.run(packed(&host, Transport::WebSocket, &["never-read"]));
    let mut events = host.events();
    let params = json!({"text": "x".repeat(1 << 20)});
    let mut waiting = Vec::new();
    // The system takes some; then nothing more can be written.
    while let Ok(call) = session.start_call_raw("echo", &params, LONG) {
        waiting.push(call);
    }
    let change = events.until(session.id(), Errored);
    assert_eq!(change.details()["cause"], "unresponsive", "{change:?}");
    let message = change.message().unwrap();
    assert_eq!(message, "the plugin read nothing for 200ms");
}

pub(super) fn who_was_killed_by_the_host_is_told_why_with_all_that_is_known(place: &Place) {
    let host = unforgiving(place, |timeouts| {
        timeouts.connect(Duration::from_millis(300))
    });
    let script = "for line in $(seq 25); do echo line $line; done; exec sleep 1000";
    let session = host.install(shell(&host, "idler", script));
    let change = errored(&host, &session);
    let details = &change.details();
    assert_eq!(details["cause"], "never_connected");
    assert_eq!(details["signal_name"], "SIGKILL");
    assert!(details["uptime_seconds"].as_f64().unwrap() >= 0.3);
    assert_eq!(details["attempts"], 1);
    let pid = last(&session).problem.pid();
    assert_eq!(details.get("pid").cloned(), pid.map(Into::into));
    assert_eq!(pid.is_some(), place.has_children());
    let newest: Vec<String> = (6..=25).map(|line| format!("line {line}")).collect();
    assert_eq!(details["output"], json!(newest));
}

pub(super) fn the_history_tells_every_end_and_what_came_of_it(place: &Place) {
    for transport in TRANSPORTS {
        let host = place.host_with(|setup| {
            setup.policy(|policy| policy.max_restart_attempts(1));
        });
        let session = host.install(packed(&host, transport, &["behave"]));
        assert_eq!(session.restart_history(), []);
        let before = SystemTime::now();
        let mut events = host.events();
        let run = || {
            start(&session);
            active(&session);
        };
        run();
        let first = host.lifelines.next();
        stop(&session);
        run();
        for state in [Restarting, Errored] {
            active(&session);
            let _ = call(&session, "exit", &json!({"code": 7}));
            events.until(session.id(), state);
        }
        let history = session.restart_history();
        let told: Vec<_> = history
            .iter()
            .map(|end| {
                (
                    end.run,
                    end.problem.cause(),
                    end.problem.message(),
                    end.problem.restart_after(),
                    end.given_up,
                )
            })
            .collect();
        let after = Duration::from_millis(20);
        assert_eq!(
            told[1..],
            [
                (
                    2,
                    Some(EndCause::Exited),
                    "exit status 7",
                    Some(after),
                    false
                ),
                (3, Some(EndCause::Exited), "exit status 7", None, true),
            ]
        );
        let (run, cause, message, after, given_up) = told[0];
        assert_eq!((run, cause), (1, Some(EndCause::Stopped)));
        assert_eq!((after, given_up), (None, false));
        assert!(message.starts_with("stopped ("), "{message}");
        assert_eq!(history[0].problem.pid(), place.pid(&first));
        let mut time = before;
        for end in &history {
            assert!(end.problem.active_for().is_some(), "{end:?}");
            assert!(time <= end.started_at, "{end:?}");
            assert!(end.started_at <= end.ended_at, "{end:?}");
            time = end.ended_at;
        }
    }
}

pub(super) fn the_history_keeps_as_many_ends_as_its_limit_says(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(33));
    });
    let session = host.install(shell(&host, "crasher", "exit 3"));
    errored(&host, &session);
    let runs: Vec<u64> = session
        .restart_history()
        .iter()
        .map(|end| end.run)
        .collect();
    assert!(runs.into_iter().eq(3..=34));
}

pub(super) fn a_run_that_is_stopped_before_it_has_a_process_is_in_the_history(place: &Place) {
    let host = place.host();
    let session = host.install(shell(&host, "never", "exit 3"));
    let held = fault::hold(fault::PREPARING, session.id());
    start(&session);
    assert!(held.reached(LONG), "nothing is prepared");
    std::thread::scope(|scope| {
        let mut events = host.events();
        let stopping = scope.spawn(|| stop(&session));
        events.expect(session.id(), &[Stopping]);
        held.release();
        stopping.join().unwrap();
    });
    let [end] = &session.restart_history()[..] else {
        panic!("{:?}", session.restart_history());
    };
    assert_eq!(
        (end.problem.cause(), end.problem.pid()),
        (Some(EndCause::Stopped), None)
    );
    assert!(!end.given_up && end.problem.restart_after().is_none());
    assert_eq!(session.error_message(), None);
}

pub(super) fn a_stop_starts_the_counting_over_and_a_start_while_backing_off_does_not(
    place: &Place,
) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(5));
    });
    let flag = host.folder().join("go-on");
    let script = format!("[ -e '{}' ] && exec sleep 1000; exit 3", flag.display());
    let mut events = host.events();
    let session = host.start(shell(&host, "counter", &script));
    for restarts in 0..3 {
        let change = events.until(session.id(), Restarting);
        assert_eq!(change.details()["restarts"], restarts);
    }
    fs::write(&flag, "").unwrap();
    events.until(session.id(), Connecting);
    stop(&session);
    fs::remove_file(&flag).unwrap();
    let mut events = host.events();
    start(&session);
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.details()["restarts"], 0, "the stop did not reset");
    stop(&session);

    let host = place.host_with(|setup| {
        setup.policy(|policy| {
            policy
                .max_restart_attempts(1)
                .max_backoff(Duration::from_secs(3600))
        });
    });
    let session = host.install(shell(&host, "impatient", "exit 3"));
    // The wait is a second; who starts it does not wait so long.
    let mut events = host.events();
    start(&session);
    events.until(session.id(), Restarting);
    start(&session);
    let change = events.expect(session.id(), &[Starting, Connecting, Errored]);
    assert_eq!(change.details()["attempts"], 2);
}

pub(super) fn a_good_run_that_crashes_is_in_the_history_with_its_length(place: &Place) {
    let host = place.host_with(Setup::stay_down_after_a_crash);
    let session = host.run(packed(&host, Transport::Stdio, &["behave"]));
    let mut events = host.events();
    let _ = call(&session, "exit", &json!({"code": 7}));
    let change = events.until(session.id(), Restarting);
    let end = last(&session);
    let after = Duration::from_secs(3600);
    assert_eq!(end.problem.restart_after(), Some(after));
    let active_for = end.problem.active_for().unwrap();
    assert_eq!(change.details()["active_seconds"], active_for.as_secs_f64());
    assert!(active_for.as_secs_f64() <= change.details()["uptime_seconds"].as_f64().unwrap());
}
