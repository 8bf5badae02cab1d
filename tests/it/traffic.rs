//! Many calls at once, calls from inside calls, and plugins that flood or do not read.

use std::time::{Duration, Instant};

use plugin_runner::protocol::{ResultObject, Transport};
use plugin_runner::{Error, ReportedState};
use serde_json::{Value, json};

use crate::support::host::TestHost;
use crate::support::plugin::{TRANSPORTS, call, fixture};
use crate::support::{LONG, assert_matches};

fn result(value: &Value) -> ResultObject {
    ResultObject::from_serialize(value).unwrap()
}

#[test]
fn two_hundred_callers_get_their_own_answers() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("callers", transport, &["behave"]);
        std::thread::scope(|scope| {
            for caller in 0..200 {
                let session = &session;
                scope.spawn(move || {
                    for turn in 0..5 {
                        let params = json!({"caller": caller, "turn": turn});
                        let answer = call(session, "echo", &params).unwrap();
                        assert_eq!(answer["echo"], params);
                    }
                });
            }
        });
        let counters = session.counters();
        assert_eq!(counters.replies, 1000);
        assert_eq!(counters.calls_in_flight, 0);
    }
}

#[test]
fn a_handler_may_call_the_plugin_that_calls_it() {
    for transport in TRANSPORTS {
        let host = TestHost::with("call-back", |setup| {
            setup.configure(|builder| {
                builder.method_raw("ask_again", |inbound, params| {
                    let params: Value = params.read()?;
                    let depth = params["depth"].as_u64().unwrap();
                    if depth == 0 {
                        return Ok(result(&json!({"bottom": true})));
                    }
                    let next = json!({"method": "ask_again", "params": {"depth": depth - 1}});
                    let answer = call(inbound.session(), "call_back", &next).unwrap();
                    Ok(result(&json!({"inner": answer["answer"]})))
                })
            });
        });
        let session = host.run(fixture(&host, transport, &["behave"]));
        let params = json!({"method": "ask_again", "params": {"depth": 3}});
        let answer = call(&session, "call_back", &params).unwrap();
        assert_eq!(answer["answer"]["inner"]["inner"]["inner"]["bottom"], true);
    }
}

#[test]
fn a_slow_handler_delays_no_reply() {
    for transport in TRANSPORTS {
        let (open, gate) = crossbeam_channel::bounded::<()>(0);
        let host = TestHost::with("slow-handler", |setup| {
            setup.configure(move |builder| {
                builder.method_raw("wait", move |_, _| {
                    // Until the test lets go of its end.
                    let _ = gate.recv();
                    Ok(result(&json!({"waited": true})))
                })
            });
        });
        let session = host.run(fixture(&host, transport, &["behave"]));
        let waiting = session
            .start_call_raw("call_back", &json!({"method": "wait"}), LONG)
            .unwrap();
        for _ in 0..20 {
            call(&session, "echo", &json!({})).unwrap();
        }
        let other = json!({"method": "get_config"});
        call(&session, "call_back", &other).unwrap();
        drop(open);
        let answer: Value = waiting.wait().unwrap().read().unwrap();
        assert_eq!(answer["answer"]["waited"], true);
    }
}

#[test]
fn a_plugin_that_says_no_or_panics_goes_on() {
    for transport in TRANSPORTS {
        let (_host, session) = TestHost::running("says-no", transport, &["behave"]);
        for (method, params, code) in [
            ("fail", json!({"message": "not today"}), -32000),
            ("panic", json!({}), -32603),
            ("dance", json!({}), -32601),
        ] {
            let error = call(&session, method, &params).unwrap_err();
            assert_matches!(&error, Error::Rpc(answer) if answer.code == code, "{method}");
        }
        call(&session, "echo", &json!({})).unwrap();
        assert_eq!(session.counters().refusals, 3);
        assert_eq!(session.counters().connections, 1);
    }
}

#[test]
fn a_plugin_that_floods_or_never_reads_hurts_only_itself() {
    for args in [
        &["flood-socket"][..],
        &["flood-socket", "never-read"],
        &["never-read"],
    ] {
        for transport in TRANSPORTS {
            let host = TestHost::with("flood-socket", |setup| {
                setup.timeouts(|timeouts| timeouts.write_stall(Duration::from_millis(500)));
            });
            let sick = host.run(fixture(&host, transport, args));
            let mut well = fixture(&host, Transport::WebSocket, &["behave"]);
            well.manifest.id = "well".to_owned();
            let well = host.run(well);
            let began = Instant::now();
            for _ in 0..50 {
                call(&well, "echo", &json!({})).unwrap();
            }
            assert!(began.elapsed() < LONG / 2, "{:?}", began.elapsed());
            // A call to the sick one ends with a named error, in time.
            let params = json!({"padding": "x".repeat(1024 * 1024)});
            let error = sick
                .call_raw("echo", &params, Duration::from_millis(300))
                .unwrap_err();
            assert!(
                error.is_timeout()
                    || error.is_disconnected()
                    || matches!(error, Error::State { .. }),
                "{args:?}: {error}"
            );
            sick.supervised().unwrap().stop(LONG).unwrap();
            assert_eq!(well.reported_state(), ReportedState::Active);
        }
    }
}
