//! The embedder's hook on calls, for metrics and traces.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded, unbounded};
use plugin_runner::error::{Phase, RpcError};
use plugin_runner::protocol::method::Ping;
use plugin_runner::{Error, HostBuilder, InstallationId, Limits, ReportedState};
use serde_json::json;

use crate::support::alone::run_alone;
use crate::support::session::{Bench, SHORT, result, start_ping, start_raw};
use crate::support::{LONG, assert_matches};

/// What the hook received of a call.
#[derive(Debug)]
struct Seen {
    plugin: InstallationId,
    is_from_plugin: bool,
    method: String,
    started_at: Instant,
    duration: Duration,
    /// `None`: it was given up.
    end: Option<Result<(), Error>>,
    thread: thread::ThreadId,
}

/// A host whose hook sends what it receives.
fn hooked(settings: impl FnOnce(HostBuilder) -> HostBuilder + 'static) -> (Bench, Receiver<Seen>) {
    let (sender, calls) = unbounded();
    let bench = Bench::with(
        |builder| {
            settings(builder).on_call(move |call| {
                let seen = Seen {
                    plugin: call.plugin(),
                    is_from_plugin: call.is_from_plugin(),
                    method: call.method().to_owned(),
                    started_at: call.started_at(),
                    duration: call.duration(),
                    end: match call.error() {
                        Some(error) => Some(Err(error.clone())),
                        None if call.is_abandoned() => None,
                        None => Some(Ok(())),
                    },
                    thread: thread::current().id(),
                };
                sender.send(seen).unwrap();
            })
        },
        |mut record| {
            record.manifest.events_consumed = vec!["EventPostLiked".to_owned()];
            record
        },
    );
    (bench, calls)
}

#[track_caller]
fn next(calls: &Receiver<Seen>) -> Seen {
    calls.recv_timeout(LONG).expect("a call that ended")
}

/// What an end with an error is.
#[track_caller]
fn error(seen: Seen) -> Error {
    assert_matches!(seen.end, Some(Err(error)) => error)
}

#[test]
fn each_call_to_a_plugin_is_received_once_with_its_end() {
    let (bench, calls) = hooked(|builder| builder);
    let session = &bench.session;
    let call = |timeout| session.call_raw("greet", &json!({}), timeout);
    // Before it is connected.
    call(LONG).unwrap_err();
    let seen = next(&calls);
    assert_eq!((seen.plugin, &*seen.method), (session.id(), "greet"));
    assert_matches!(error(seen), Error::State { .. });

    let plugin = bench.connect();
    let before = Instant::now();
    bench.ping(&plugin);
    let seen = next(&calls);
    assert_matches!(seen.end, Some(Ok(())));
    assert!(!seen.is_from_plugin);
    assert_eq!(seen.method, "ping");
    assert!(seen.started_at >= before);
    assert!(seen.duration <= before.elapsed());
    assert_eq!(seen.thread, thread::current().id(), "another thread");

    // Refused, not decodable, and answered in time for one that only looks.
    let call = start_raw(session, "greet", json!({}));
    plugin.refuse(&plugin.expect("greet"), 7, "no");
    call.wait().unwrap_err();
    assert_matches!(error(next(&calls)), Error::Rpc(error) if error.code == 7);
    let call = start_ping(session);
    plugin.reply(&plugin.expect("ping"), json!({"pong": "odd"}));
    call.wait().unwrap_err();
    assert_matches!(error(next(&calls)), Error::InvalidReply { .. });
    let mut call = start_ping(session);
    assert!(call.try_wait().is_none());
    plugin.reply(&plugin.expect("ping"), json!({"pong": true}));
    // Later than the answer that it waits for.
    bench.ping(&plugin);
    assert!(call.try_wait().unwrap().unwrap().pong);
    drop(call);
    for _ in 0..2 {
        assert_matches!(next(&calls).end, Some(Ok(())));
    }

    // Out of time, given up, and over the end of the connection.
    session.call(&Ping {}, SHORT).unwrap_err();
    let seen = next(&calls);
    assert!(seen.duration >= SHORT);
    assert_matches!(
        error(seen),
        Error::Timeout {
            phase: Phase::Reply,
            ..
        }
    );
    drop(start_raw(session, "greet", json!({})));
    assert_matches!(next(&calls).end, None);
    let call = start_ping(session);
    drop(plugin);
    call.wait().unwrap_err();
    assert_matches!(error(next(&calls)), Error::Disconnected(_));
    assert!(calls.is_empty(), "{:?}", calls.recv());
    // The one that was given up, and none of those that ended.
    assert_eq!(session.counters().abandoned, 1);
}

#[test]
fn events_are_calls_of_the_method_event() {
    let (bench, calls) = hooked(|builder| builder);
    let plugin = bench.connect();
    bench.host.publish("EventPostLiked", &json!({})).unwrap();
    let event = plugin.expect("event");
    plugin.reply(&event, json!({"ok": true}));
    let seen = next(&calls);
    assert_eq!(seen.method, "event");
    assert_matches!(seen.end, Some(Ok(())));
}

#[test]
fn each_call_from_a_plugin_is_received_once_it_is_answered() {
    let (bench, calls) =
        hooked(|builder| builder.method_raw("fail", |_, _| Err(RpcError::new(7, "no"))));
    let plugin = bench.connect();
    plugin.call("1", "get_config", "{}");
    let seen = next(&calls);
    assert!(seen.is_from_plugin);
    let expected = (bench.session.id(), "get_config");
    assert_eq!((seen.plugin, &*seen.method), expected);
    assert_matches!(seen.end, Some(Ok(())));
    plugin.call("2", "fail", "{}");
    assert_matches!(error(next(&calls)), Error::Rpc(error) if error.code == 7);
    plugin.call("3", "nonsense", "{}");
    let seen = next(&calls);
    assert_eq!(seen.method, "nonsense");
    assert_matches!(error(seen), Error::Rpc(error) if error.code == RpcError::METHOD_NOT_FOUND);
}

#[test]
fn the_hook_never_runs_on_the_reading_thread() {
    let (begin, begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let (bench, calls) = hooked(move |builder| {
        let limits = Limits::default().inbound_workers(1).inbound_queue(1);
        builder.limits(limits).method_raw("slow", move |_, _| {
            begin.send(()).unwrap();
            assert!(released.recv_timeout(LONG).unwrap_err().is_disconnected());
            Ok(result(json!({})))
        })
    });
    let plugin = bench.connect();
    plugin.ask("1", "slow", "{}");
    begun.recv_timeout(LONG).expect("slow handler");
    plugin.ask("2", "slow", "{}");
    // Refused where it is read, so counted alone.
    assert!(plugin.call("3", "slow", "{}")["error"].is_object());
    assert_eq!(bench.session.counters().inbound_refused, 1);
    // The one that waits for a worker is not handled any more.
    drop(plugin);
    bench.wait_for(ReportedState::Connecting);
    drop(release);
    bench.host.drain(LONG).unwrap();
    assert_matches!(next(&calls).end, Some(Ok(())));
    assert!(calls.is_empty(), "{:?}", calls.recv());
}

#[test]
fn a_panic_in_the_hook_is_logged_once_and_costs_no_call() {
    run_alone("session::call_hook::alone::a_hook_that_panics");
}

mod alone {
    use std::panic::panic_any;

    use parking_lot::Mutex;

    use super::*;

    static LINES: Lines = Lines(Mutex::new(Vec::new()));

    /// A logger that keeps errors.
    struct Lines(Mutex<Vec<String>>);

    impl log::Log for Lines {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() == log::Level::Error
        }

        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                self.0.lock().push(record.args().to_string());
            }
        }

        fn flush(&self) {}
    }

    /// Panics when it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on purpose, again");
        }
    }

    #[test]
    #[ignore = "takes the process's logger; run by another test, in a process of its own"]
    fn a_hook_that_panics() {
        log::set_logger(&LINES).unwrap();
        log::set_max_level(log::LevelFilter::Error);
        let bench = Bench::with_host(|builder| {
            builder.on_call(|call| match call.method() {
                "greet" => panic_any(Bomb),
                _ => panic!("on purpose"),
            })
        });
        let plugin = bench.connect();
        for id in ["1", "2"] {
            bench.ping(&plugin);
            drop(start_raw(&bench.session, "greet", json!({})));
            plugin.expect("greet");
            assert!(plugin.call(id, "get_config", "{}")["result"].is_object());
        }
        let lines = LINES.0.lock();
        assert_eq!(*lines, ["the hook on calls panicked: on purpose"]);
    }
}
