//! Plugins that cannot be started, or never come to connect: what is said, and whether it is tried
//! again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Inactive, Restarting, Starting};
use plugin_runner::store::Record;
use plugin_runner::{ErrorKind, Session};

use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::events::Events;
use crate::support::host::{Setup, TestHost};
use crate::support::plugin::{command, executable, shell};

pub(super) fn start(session: &Session) {
    session.supervised().unwrap().start().unwrap();
}

/// Starts it; it must go to errored at once and without another try. Gives the message.
#[track_caller]
pub(super) fn errored_at_once(host: &TestHost, record: Record) -> String {
    let mut events = host.events();
    let session = host.start(record);
    let change = events.expect(session.id(), &[Starting, Errored]);
    assert_eq!(change.details()["stage"], "start");
    assert_eq!(change.details()["runtime_provider"], host.runtime_name());
    assert_eq!(change.details()["attempts"], 1);
    assert_eq!(change.details().get("exit_code"), None);
    let message = session.error_message().unwrap();
    assert_eq!(change.message(), Some(message.as_str()));
    assert_eq!(change.details()["error"], message.as_str());
    let error = session.wait_for(Active, LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PluginFailed);
    assert_eq!(error.to_string(), message);
    message
}

#[test]
fn a_missing_command_is_errored_at_once() {
    let host = TestHost::new("missing-command");
    let message = errored_at_once(&host, command(&host, "relative", "./nope", &[]));
    assert!(message.starts_with("could not start /"), "{message}");
    assert!(message.ends_with("/nope: not found"), "{message}");
    let message = errored_at_once(&host, command(&host, "bare", "no-such-program-here", &[]));
    let expected = "could not start no-such-program-here: not found on PATH";
    assert!(message.starts_with(expected), "{message}");
    let message = errored_at_once(&host, command(&host, "empty", "", &[]));
    assert_eq!(message, "the manifest names no command");
}

#[test]
fn a_command_that_cannot_be_executed_is_errored_at_once() {
    let host = TestHost::new("not-executable");
    let message_with = |id: &str, make: fn(&Path)| {
        let record = command(&host, id, "./tool", &[]);
        make(&host.folder().join(format!("plugin-{id}/tool")));
        errored_at_once(&host, record)
    };
    let message = message_with("mode", |tool| fs::write(tool, "#!/bin/sh\n").unwrap());
    assert!(message.contains("/tool: not executable; "), "{message}");
    let message = message_with("folder", |tool| fs::create_dir(tool).unwrap());
    assert!(message.ends_with("/tool: not a file"), "{message}");
    let message = message_with("interpreter", |tool| {
        executable(tool, b"#!/no/such/interpreter\n");
    });
    let expected =
        "/tool: the interpreter \"/no/such/interpreter\" that its first line names is not found";
    assert!(message.ends_with(expected), "{message}");
    let message = message_with("format", |tool| {
        executable(tool, b"\x7fELF but for another machine");
    });
    let expected = "/tool: not a program for this system; ";
    assert!(message.contains(expected), "{message}");
}

/// Starts a plugin whose program is still open for writing.
fn start_while_written(host: &TestHost) -> (Session, fs::File, Events) {
    let record = command(host, "busy", "./tool", &[]);
    let tool = host.folder().join("plugin-busy/tool");
    executable(&tool, b"#!/bin/sh\nexec sleep 1000\n");
    let writing = fs::File::options().append(true).open(&tool).unwrap();
    let session = host.install(record);
    let events = host.events();
    start(&session);
    (session, writing, events)
}

#[test]
fn a_program_that_is_still_being_written_is_waited_for() {
    let host = TestHost::new("busy-program");
    let (session, writing, mut events) = start_while_written(&host);
    let waited = session
        .wait_for(Connecting, Duration::from_millis(50))
        .unwrap_err();
    assert!(waited.is_timeout(), "{waited}");
    drop(writing);
    events.expect(session.id(), &[Starting, Connecting]);
}

#[test]
fn a_program_that_is_waited_for_can_be_stopped() {
    let host = TestHost::new("busy-stopped");
    let (session, _writing, mut events) = start_while_written(&host);
    session
        .wait_for(Connecting, Duration::from_millis(50))
        .unwrap_err();
    session.supervised().unwrap().stop(LONG).unwrap();
    events.until(session.id(), Inactive);
    assert_eq!(session.error_message(), None);
}

#[test]
fn a_program_that_stays_open_for_writing_is_tried_again_later() {
    let host = TestHost::new("busy-for-long");
    let (session, writing, mut events) = start_while_written(&host);
    let change = events.until(session.id(), Restarting);
    let message = change.message().unwrap_or_default();
    assert!(message.contains("Text file busy"), "{message}");
    drop(writing);
    events.until(session.id(), Connecting);
}

#[test]
fn without_an_address_a_websocket_plugin_is_errored_before_it_is_spawned() {
    let host = TestHost::with("no-address", Setup::deaf);
    let record = shell(&host, "lonely", r#"touch "$PLUGIN_DATA_DIR/spawned""#);
    let id = record.id;
    let message = errored_at_once(&host, record);
    assert_eq!(
        message,
        "no address for the plugin to connect to: start a listener or set rpc_base_url"
    );
    let data = host.folder().join("data").join(id.to_string()).join("data");
    assert!(!data.join("spawned").exists());
    // Once there is an address it starts.
    let _listener = host.listen("127.0.0.1:0").unwrap();
    let session = host.session(id).unwrap();
    start(&session);
    session.wait_for(Connecting, LONG).unwrap();
}

#[test]
fn what_is_too_long_for_the_system_is_said_at_once() {
    let host = TestHost::new("too-long");
    let long = "x".repeat(4 << 20);
    let message = errored_at_once(
        &host,
        command(&host, "long", "/bin/sh", &["-c", ":", &long]),
    );
    assert_eq!(
        message,
        "could not start /bin/sh: its arguments and environment are too long for the system"
    );
}
