//! A caller that waits alone and is answered quickly comes to read from the connection itself. Nobody
//! may be worse off for it: neither it, nor those that come meanwhile, nor the plugin's own calls.

use std::time::{Duration, Instant};

use plugin_runner::Session;
use plugin_runner::protocol::{ResultObject, Transport};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::host::TestHost;
use crate::support::plugin::{TRANSPORTS, call, fixture};
use crate::support::{LONG, wait_for, wait_until};

/// Calls, one after the other, until callers read for themselves: right now, one would.
fn warm_up(session: &Session) {
    let before = session.counters().read_by_caller;
    let deadline = Instant::now() + LONG;
    let mut turn = 0;
    while session.counters().read_by_caller < before + 3 {
        assert!(Instant::now() < deadline, "no caller ever read for itself");
        let params = json!({"turn": turn});
        assert_eq!(call(session, "echo", &params).unwrap()["echo"], params);
        turn += 1;
    }
}

#[test]
fn a_caller_that_waits_alone_reads_its_own_answers() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("lone", transport, &["behave"]);
        warm_up(&session);
        let counters = session.counters();
        assert_eq!(counters.calls_in_flight, 0);
        assert_eq!(counters.replies, counters.calls);
        assert_eq!(counters.stray_replies, 0);
    }
}

#[test]
fn callers_that_come_while_one_reads_get_their_answers() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("lone-company", transport, &["behave"]);
        for _ in 0..20 {
            warm_up(&session);
            std::thread::scope(|scope| {
                for caller in 0..4 {
                    let session = &session;
                    scope.spawn(move || {
                        for turn in 0..10 {
                            let params = json!({"caller": caller, "turn": turn});
                            assert_eq!(call(session, "echo", &params).unwrap()["echo"], params);
                        }
                    });
                }
            });
        }
    }
}

#[test]
fn a_call_that_is_started_and_not_waited_for_is_answered_all_the_same() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("lone-started", transport, &["behave"]);
        for _ in 0..20 {
            warm_up(&session);
            let mut started = session.start_call_raw("echo", &json!({}), LONG).unwrap();
            let answer = wait_for("the answer", || started.try_wait());
            assert_eq!(answer.unwrap().as_json(), r#"{"method":"echo","echo":{}}"#);
        }
    }
}

#[test]
fn the_plugins_own_calls_are_handled_whoever_reads() {
    for transport in TRANSPORTS {
        let host = TestHost::with("lone-inbound", |setup| {
            setup.configure(|builder| {
                builder.method_raw("double", |_, params| {
                    let params: Value = params.read()?;
                    let doubled = params["number"].as_u64().unwrap() * 2;
                    Ok(ResultObject::from_serialize(&json!({"doubled": doubled})).unwrap())
                })
            });
        });
        let session = host.run(fixture(&host, transport, &["behave"]));
        for number in 0..100 {
            if number % 10 == 0 {
                warm_up(&session);
            }
            let params = json!({"method": "double", "params": {"number": number}});
            let answer = call(&session, "call_back", &params).unwrap();
            assert_eq!(answer["answer"]["doubled"], number * 2);
        }
    }
}

#[test]
fn a_caller_that_reads_keeps_its_own_deadline() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("lone-deadline", transport, &["behave"]);
        for timeout in [Duration::from_micros(100), Duration::from_millis(20)] {
            warm_up(&session);
            let params = json!({"ms": 600_000});
            let error = session.call_raw("sleep", &params, timeout).unwrap_err();
            assert!(error.is_timeout(), "{error}");
            // The late answer of the one is not taken for that of the next.
            assert_eq!(
                call(&session, "echo", &json!({})).unwrap()["echo"],
                json!({})
            );
        }
    }
}

#[test]
fn a_tap_that_takes_its_time_holds_up_no_caller() {
    let (returned, has_returned) = crossbeam_channel::bounded::<()>(0);
    let host = TestHost::with("lone-tap", |setup| {
        setup.deaf();
        setup.configure(move |builder| {
            let has_returned = has_returned.clone();
            builder.on_output(move |_, _, line| {
                if line.text == "slow" {
                    let late = has_returned.recv_timeout(LONG * 2);
                    // Disconnected: the caller has returned.
                    assert!(late.is_err_and(|error| error.is_disconnected()), "{line:?}");
                }
            })
        });
    });
    let session = host.run(fixture(&host, Transport::Stdio, &["behave"]));
    warm_up(&session);
    // The line comes before the answer, which lies behind it.
    let params = json!({"line": "slow", "stream": "stdout"});
    for _ in 0..2 {
        call(&session, "log", &params).unwrap();
    }
    drop(returned);
    assert_eq!(
        call(&session, "echo", &json!({})).unwrap()["echo"],
        json!({})
    );
}

#[test]
fn the_end_of_the_connection_reaches_a_caller_that_reads() {
    for transport in TRANSPORTS {
        let (host, session) = TestHost::running("lone-end", transport, &["behave"]);
        let process = host.lifelines.next();
        warm_up(&session);
        let sent = session.counters().bytes_sent;
        std::thread::scope(|scope| {
            let sleeping = scope.spawn(|| call(&session, "sleep", &json!({"ms": 600_000})));
            wait_until("the call to be sent", || {
                session.counters().bytes_sent > sent
            });
            process.signal(Signal::KILL);
            let error = sleeping.join().unwrap().unwrap_err();
            assert!(error.is_disconnected(), "{error}");
        });
    }
}

#[test]
fn a_stop_meets_callers_that_read_and_fails_them_all() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("lone-stop", transport, &["behave"]);
        let supervised = session.supervised().unwrap();
        for _ in 0..10 {
            warm_up(&session);
            std::thread::scope(|scope| {
                let calling = scope.spawn(|| {
                    loop {
                        if let Err(error) = call(&session, "echo", &json!({})) {
                            return error;
                        }
                    }
                });
                let report = supervised.stop(LONG).unwrap();
                assert!(!report.killed, "{report:?}");
                let error = calling.join().unwrap();
                assert!(!error.is_timeout(), "{error}");
            });
            supervised.start().unwrap();
            crate::support::host::active(&session);
        }
    }
}

#[test]
fn a_batch_goes_out_when_it_is_sent_dropped_or_waited_for() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("batch", transport, &["behave"]);
        for end in ["sent", "dropped", "waited for"] {
            let mut batch = session.batch().unwrap();
            let calls: Vec<_> = (0..100)
                .map(|number| {
                    batch
                        .start_call_raw("echo", &json!({"number": number}), LONG)
                        .unwrap()
                })
                .collect();
            match end {
                "sent" => batch.send(),
                "dropped" => drop(batch),
                _ => {}
            }
            for (number, call) in calls.into_iter().enumerate() {
                let answer: Value = call.wait().unwrap().read().unwrap();
                assert_eq!(answer["echo"]["number"], number, "{end}");
            }
        }
    }
}

#[test]
fn a_batch_ends_with_its_connection() {
    let (_host, session) = TestHost::running("batch-end", Transport::WebSocket, &["behave"]);
    let mut batch = session.batch().unwrap();
    let waiting = batch.start_call_raw("echo", &json!({}), LONG).unwrap();
    let supervised = session.supervised().unwrap();
    supervised.stop(LONG).unwrap();
    assert!(waiting.wait().unwrap_err().is_disconnected());
    supervised.start().unwrap();
    crate::support::host::active(&session);
    // It is of the connection before.
    let late = batch.start_call_raw("echo", &json!({}), LONG);
    assert!(late.unwrap_err().is_disconnected());
    assert!(call(&session, "echo", &json!({})).is_ok());
}
