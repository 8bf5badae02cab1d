//! A plugin in Python over its standard input and output, with the standard library alone.

use plugin_runner::Error;
use plugin_runner::ReportedState::{Active, Connecting, Restarting, Starting};
use plugin_runner::plugin_log::LogStream;
use plugin_runner::protocol::method::Ping;
use rustix::process::Signal;
use serde_json::json;

use crate::support::events::Details as _;
use crate::support::host::{TestHost, active};
use crate::support::plugin::{With as _, call, python};
use crate::support::{LONG, assert_matches};

#[test]
fn python_answers_and_asks_over_stdio() {
    let host = TestHost::new("python");
    let mut configuration = serde_json::Map::new();
    configuration.insert("greeting".to_owned(), "grüß dich".into());
    let mut events = host.events();
    let session =
        host.run(python(&host, "python").with(|record| record.configuration = configuration));
    events.expect(session.id(), &[Starting, Connecting, Active]);
    assert!(session.started_at().is_some());

    let pong = session.call(&Ping {}, LONG).unwrap();
    assert_eq!(pong.status.as_deref(), Some("healthy"));
    let params = json!({"text": "a\nb\u{2028}ü\"", "list": [1, 2.5, null]});
    let answer = call(&session, "echo", &params).unwrap();
    assert_eq!(answer["echo"], params);
    let answer = call(&session, "call_back", &json!({})).unwrap();
    assert_eq!(answer["config"], json!({"greeting": "grüß dich"}));
    let refused = call(&session, "dance", &json!({})).unwrap_err();
    assert_matches!(&refused, Error::Rpc(error) if error.code == -32601);
    assert_eq!(session.reported_state(), Active);
}

#[test]
fn what_is_no_json_rpc_on_stdout_is_logged_and_harms_nothing() {
    let host = TestHost::new("python-noise");
    let session = host.run(python(&host, "python"));
    call(&session, "noise", &json!({})).unwrap();
    let find = |stream, text: &'static str| {
        host.output.wait_for(text, |line| {
            (line.stream == stream && line.text == text).then_some(())
        });
    };
    find(LogStream::Stdout, "this is no JSON");
    find(LogStream::Stdout, r#"{"neither": "is this JSON-RPC"}"#);
    find(LogStream::Stderr, "nor this");
    call(&session, "echo", &json!({})).unwrap();
    let log = host.installation_folder(&session).join("logs/output.log");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("this is no JSON\n"), "{log}");
    // Messages are no output.
    assert!(!log.contains("pong"), "{log}");
}

#[test]
fn python_that_is_killed_comes_back() {
    let host = TestHost::new("python-killed");
    let session = host.run(python(&host, "python"));
    let first = host.lifelines.next();
    let mut events = host.events();
    first.signal(Signal::KILL);
    first.expect_end();
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.message(), Some("signal: killed"));
    assert_eq!(change.details()["exit_code"], -1);
    let second = host.lifelines.next();
    assert_ne!(first.pid, second.pid);
    active(&session);
    call(&session, "echo", &json!({})).unwrap();
    let report = session.supervised().unwrap().stop(LONG).unwrap();
    assert!(!report.killed, "{report:?}");
    second.expect_end();
}
