//! Embedders that treat signals in their own way: statuses of children that are lost, an interrupt that
//! is ignored, and handlers that interrupt whatever a thread is waiting in.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plugin_runner::plugin_log::Followed;
use plugin_runner::protocol::ResultObject;
use plugin_runner::report::{EndCause, ExitReason};
use plugin_runner::{ReportedState, Session};
use rustix::process::Signal;
use serde_json::json;

use crate::support::LONG;
use crate::support::alone::{after_python, run_alone, run_under};
use crate::support::events::Details as _;
use crate::support::host::{TestHost, active};
use crate::support::plugin::{TRANSPORTS, call, fixture};

/// Python that has a signal ignored by whatever it executes.
fn ignoring(signal: &str) -> Command {
    after_python(&format!(
        "import signal\nsignal.signal(signal.{signal}, signal.SIG_IGN)"
    ))
}

#[test]
fn an_embedder_that_ignores_sigchld_gets_its_plugins_restarted_and_stopped() {
    let test = "embedder_signals::alone::statuses_are_lost";
    run_under(&mut ignoring("SIGCHLD"), test);
}

#[test]
fn an_embedder_that_ignores_sigint_gets_its_plugins_stopped_by_sigterm() {
    let test = "embedder_signals::alone::an_interrupt_is_ignored";
    run_under(&mut ignoring("SIGINT"), test);
}

#[test]
fn signals_at_every_thread_disturb_nothing() {
    run_alone("embedder_signals::alone::every_thread_is_interrupted");
}

/// Sends SIGUSR1 to every thread of the process that is its argument, over and over; says how many it
/// has sent.
const SIGNALLER: &str = "
import ctypes, os, platform, signal, sys
tgkill = {'x86_64': 234, 'aarch64': 131}[platform.machine()]
libc, pid, sent = ctypes.CDLL(None), int(sys.argv[1]), 0
for turn in range(int(sys.argv[2])):
    for thread in os.listdir(f'/proc/{pid}/task'):
        sent += libc.syscall(tgkill, pid, int(thread), signal.SIGUSR1) == 0
print(sent)
";

/// Tests of which each needs an embedder of its own.
mod alone {
    use super::*;

    #[test]
    #[ignore = "needs SIGCHLD to be ignored; run by another test, in a process of its own"]
    fn statuses_are_lost() {
        let mut child = Command::new("true").spawn().unwrap();
        let lost = child.wait().expect_err("SIGCHLD is not ignored");
        assert_eq!(
            lost.raw_os_error(),
            Some(rustix::io::Errno::CHILD.raw_os_error())
        );
        for transport in TRANSPORTS {
            let host = TestHost::with("no-statuses", |setup| {
                setup.policy(|policy| policy.max_restart_attempts(2));
            });
            let session = host.run(fixture(&host, transport, &["behave"]));
            let mut events = host.events();
            // Whatever it exits with, nobody can know.
            for code in [3, 0] {
                let process = host.lifelines.next();
                call(&session, "exit", &json!({"code": code})).unwrap_err();
                let change = events.until(session.id(), ReportedState::Restarting);
                assert_eq!(change.message(), Some("exit status unknown"));
                assert_eq!(change.details()["cause"], "exited");
                assert_eq!(change.details()["exit_code"], -1);
                assert_eq!(change.details().get("signal"), None);
                process.expect_end();
                active(&session);
            }
            let process = host.lifelines.next();
            process.signal(Signal::KILL);
            let change = events.until(session.id(), ReportedState::Errored);
            assert_eq!(change.details()["cause"], "exited");
            assert_eq!(change.details()["attempts"], 3);
            session.supervised().unwrap().start().unwrap();
            active(&session);
            let process = host.lifelines.next();
            let report = session.supervised().unwrap().stop(LONG).unwrap();
            assert_eq!(report.exit, Some(ExitReason::Unknown));
            assert!(!report.killed, "{report:?}");
            process.expect_end();
            let end = session.restart_history().pop().unwrap();
            assert_eq!(end.problem.cause(), Some(EndCause::Stopped));
            assert_eq!(host.lifelines.most_at_once(), 1);
        }
    }

    #[test]
    #[ignore = "needs SIGINT to be ignored; run by another test, in a process of its own"]
    fn an_interrupt_is_ignored() {
        for transport in TRANSPORTS {
            let grace = Duration::from_secs(4);
            let host = TestHost::with("no-interrupt", |setup| {
                setup.timeouts(|timeouts| timeouts.stop_grace(grace));
            });
            // Over stdio the end of its input would be enough.
            let session = host.run(fixture(&host, transport, &["behave", "linger"]));
            let process = host.lifelines.next();
            // It has inherited that this signal does nothing.
            process.signal(Signal::INT);
            call(&session, "echo", &json!({})).unwrap();
            let report = session.supervised().unwrap().stop(LONG).unwrap();
            let terminated = ExitReason::Signal(Signal::TERM.as_raw());
            assert_eq!(report.exit, Some(terminated));
            assert!(!report.killed, "{report:?}");
            assert!(report.took >= grace / 2, "{report:?}");
            process.expect_end();
        }
    }

    #[test]
    #[ignore = "interrupts all threads; run by another test, in a process of its own"]
    fn every_thread_is_interrupted() {
        const TURNS: &str = "400";

        let caught = Arc::new(AtomicBool::new(false));
        // Reads and locks are begun anew by the system after a handler that is registered thus; waits
        // with a time limit, `poll` above all, are not.
        signal_hook::flag::register(Signal::USR1.as_raw(), caught.clone()).unwrap();

        let host = TestHost::with("interrupted", |setup| {
            setup.configure(|builder| {
                builder.method_raw("ask", |_, _| Ok(ResultObject::from(serde_json::Map::new())))
            });
        });
        let [socket, pipe] =
            TRANSPORTS.map(|transport| host.run(fixture(&host, transport, &["behave"])));
        let crashing = host.run(fixture(&host, TRANSPORTS[1], &["behave"]));
        let mut events = host.events();
        let mut signaller = Command::new("python3");
        signaller.args(["-c", SIGNALLER, &std::process::id().to_string(), TURNS]);
        let over = AtomicBool::new(false);
        let (rounds, followed) = std::thread::scope(|scope| {
            let calling = [&socket, &pipe].map(|session| scope.spawn(|| serve(session, &over)));
            let following = scope.spawn(|| follow(&pipe));
            let crashes = scope.spawn(|| {
                let mut crashes = 0;
                while !over.load(Ordering::SeqCst) || crashes == 0 {
                    // Exit 0 after a good run: it can go on for ever.
                    call(&crashing, "exit", &json!({"code": 7})).unwrap_err();
                    let change = events.until(crashing.id(), ReportedState::Restarting);
                    assert_eq!(change.message(), Some("exit status 7"));
                    events.until(crashing.id(), ReportedState::Active);
                    crashing.supervised().unwrap().stop(LONG).unwrap();
                    crashing.supervised().unwrap().start().unwrap();
                    active(&crashing);
                    events.until(crashing.id(), ReportedState::Active);
                    crashes += 1;
                }
                crashes
            });
            let said = signaller.output().unwrap();
            over.store(true, Ordering::SeqCst);
            assert!(crashes.join().unwrap() > 0);
            let rounds = calling.map(|thread| thread.join().unwrap());
            let sent = String::from_utf8(said.stdout).unwrap();
            let sent: usize = sent.trim().parse().unwrap();
            assert!(sent > 1000, "only {sent} signals were sent");
            assert!(caught.load(Ordering::SeqCst), "no signal was caught");
            (rounds, following.join().unwrap())
        });
        assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
        assert!(followed > 0);
        for session in [&socket, &pipe] {
            assert_eq!(session.counters().connections, 1, "it was disconnected");
            assert_eq!(session.restart_history(), []);
        }
    }

    /// Calls both ways until it is over; gives how often.
    fn serve(session: &Session, over: &AtomicBool) -> usize {
        let mut rounds = 0;
        while !over.load(Ordering::SeqCst) || rounds == 0 {
            let params = json!({"round": rounds});
            let echo = call(session, "echo", &params).unwrap();
            assert_eq!(echo["echo"], params);
            // Long enough that everybody waits.
            call(session, "sleep", &json!({"ms": 2})).unwrap();
            call(session, "call_back", &json!({"method": "ask"})).unwrap();
            let line = json!({"line": format!("round {rounds}"), "stream": "stderr"});
            call(session, "log", &line).unwrap();
            rounds += 1;
        }
        call(session, "log", &json!({"line": "done", "stream": "stderr"})).unwrap();
        rounds
    }

    /// Follows the log until it is done; gives how many rounds it told of, of which none is missing.
    fn follow(session: &Session) -> usize {
        let mut follower = session.follow_log().unwrap();
        let mut rounds = 0;
        loop {
            match follower.next(LONG).unwrap() {
                Followed::Line(line) if line == "done" => return rounds,
                Followed::Line(line) if line.starts_with("round ") => {
                    assert_eq!(line, format!("round {rounds}"));
                    rounds += 1;
                }
                Followed::Line(_) => {}
                gap => panic!("{gap:?}"),
            }
        }
    }
}
