//! How many messages a plugin may send in a second. The limits are so low that no machine is too
//! slow to go over them.

use plugin_runner::{Limits, ReportedState, Session};
use serde_json::{Value, json};

use crate::support::plugin::With as _;
use crate::support::session::{Bench, Plugin};
use crate::support::{LONG, wait_until};

const CALLS: u64 = 300;

fn limits(per_second: u32) -> Limits {
    Limits::default().inbound_per_second(per_second)
}

/// Calls the host many times; gives how many calls were refused for the limit, as the plugin sees it.
#[track_caller]
fn refused(plugin: &Plugin) -> u64 {
    let mut refused = 0;
    for id in 0..CALLS {
        let answer = plugin.call(&id.to_string(), "get_config", "{}");
        match &answer["error"] {
            Value::Null => assert!(answer["result"].is_object(), "{answer}"),
            error => {
                let text = "this plugin may send 1 messages in a second; try again later";
                assert_eq!(*error, json!({"code": -32000, "message": text}));
                refused += 1;
            }
        }
    }
    refused
}

/// Loses the connection and waits until that is known.
fn disconnect(session: &Session, plugin: Plugin) {
    drop(plugin);
    session.wait_for(ReportedState::Connecting, LONG).unwrap();
}

#[test]
fn over_the_limit_calls_are_refused_and_answers_are_not() {
    let bench = Bench::with_host(|builder| builder.limits(limits(1)));
    let plugin = bench.connect();
    let first = refused(&plugin);
    assert!(first > CALLS / 2, "{first}");
    assert!(first < CALLS, "not one was let through");
    // Its answers are what the host waits for.
    for _ in 0..100 {
        bench.ping(&plugin);
    }
    let counters = bench.session.counters();
    assert_eq!(counters.inbound_calls, CALLS);
    assert_eq!(counters.inbound_limited, first);
    assert_eq!((counters.inbound_refused, counters.replies), (0, 100));
    // Nor does connecting anew help.
    disconnect(&bench.session, plugin);
    let second = refused(&bench.connect());
    assert!(second > CALLS / 2, "{second}");
    assert_eq!(bench.session.counters().inbound_limited, first + second);
}

#[test]
fn what_is_not_answered_uses_the_limit_up_too() {
    for rubbish in [
        r#"{"jsonrpc":"2.0","method":"get_config"}"#,
        r#"{"jsonrpc":"2.0","id":"9m4e2mr0ui3e8a215n4g","result":{}}"#,
        "rubbish",
    ] {
        // On a machine so slow that a second passes in between there is room again.
        wait_until("refusal of the only call", || {
            let bench = Bench::with_host(|builder| builder.limits(limits(1)));
            let plugin = bench.connect();
            plugin.send(rubbish);
            plugin.call("1", "get_config", "{}")["error"].is_object()
        });
    }
}

#[test]
fn a_record_overrides_the_limit_of_the_host() {
    let unlimited = Bench::with(
        |builder| builder.limits(limits(1)),
        |record| record.overrides(|own| own.inbound_per_second(0)),
    );
    assert_eq!(refused(&unlimited.connect()), 0);
    let limited = Bench::with_record(|record| record.overrides(|own| own.inbound_per_second(1)));
    let count = refused(&limited.connect());
    assert!(count > CALLS / 2, "{count}");
    assert_eq!(refused(&Bench::new().connect()), 0, "no limit by default");
}
