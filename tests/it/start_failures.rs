//! Plugins that cannot be started, or never come to connect: what is said, and whether it is tried
//! again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Inactive, Restarting, Starting};
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{Record, Source};
use plugin_runner::{ErrorKind, Session};
use serde_json::{Value, json};

use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::events::Events;
use crate::support::host::{Setup, TestHost};
use crate::support::peer::Peer;
use crate::support::plugin::{
    command, executable, manifest, package, printed_url, shell, target, url_printer,
};

fn start(session: &Session) {
    session.supervised().unwrap().start().unwrap();
}

/// Starts it; it must go to errored at once and without another try. Gives the message.
#[track_caller]
fn errored_at_once(host: &TestHost, record: Record) -> String {
    let mut events = host.events();
    let session = host.start(record);
    let change = events.expect(session.id(), &[Starting, Errored]);
    assert_eq!(change.details()["stage"], "start");
    assert_eq!(change.details()["runtime_provider"], "local");
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
fn a_missing_folder_is_errored_at_once() {
    let host = TestHost::new("missing-folder");
    let record = command(&host, "gone", "./tool", &[]);
    fs::remove_dir(host.folder().join("plugin-gone")).unwrap();
    let message = errored_at_once(&host, record);
    assert!(
        message.starts_with("could not prepare: cannot open plugin directory /"),
        "{message}"
    );
}

#[test]
fn an_archive_that_does_not_unpack_is_errored_at_once() {
    let host = TestHost::new("bad-archive");
    let from = |id: &str, path| Record::supervised(manifest(id), Source::Archive(path));
    let commanded = |id: &str| Manifest {
        command: "./tool".to_owned(),
        ..manifest(id)
    };

    let missing = host.folder().join("missing.zip");
    let mut record = from("missing", missing.clone());
    record.manifest = commanded("missing");
    let message = errored_at_once(&host, record);
    assert!(message.starts_with("could not unpack: "), "{message}");
    assert!(message.contains(&*missing.to_string_lossy()), "{message}");

    let garbage = host.folder().join("garbage.zip");
    fs::write(&garbage, "this is no archive").unwrap();
    let mut record = from("garbage", garbage);
    record.manifest = commanded("garbage");
    let message = errored_at_once(&host, record);
    assert!(message.starts_with("could not unpack: "), "{message}");

    let escaping: (&str, &[u8], u32) = ("../../../escaped", b"evil", 0o644);
    let path = package(
        host.folder(),
        "escaping.zip",
        &commanded("escaping"),
        &[escaping],
    );
    let mut record = from("escaping", path);
    record.manifest = commanded("escaping");
    let message = errored_at_once(&host, record);
    assert!(message.contains("../../../escaped"), "{message}");
    assert!(!host.folder().join("escaped").exists());
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
fn a_plugin_that_exits_42_is_errored_after_the_configured_attempts() {
    let host = TestHost::with("exit-42", |setup| {
        setup.policy(|policy| policy.max_restart_attempts(2));
    });
    let script = r#"echo start >> "$PLUGIN_DATA_DIR/starts"; echo hello; echo boom >&2; exit 42"#;
    let session = host.install(shell(&host, "crasher", script));
    let starts = host.installation_folder(&session).join("data/starts");
    let mut events = host.events();
    // Leaving errored by a start begins the counting anew, so both rounds look the same.
    for round in 1..=2 {
        start(&session);
        for restarts in 0..2 {
            let change = events.expect(session.id(), &[Starting, Connecting, Restarting]);
            assert_eq!(change.message(), Some("exit status 42"));
            assert_eq!(change.details()["restarts"], restarts);
            assert_eq!(change.details()["restarting_after_seconds"], 0.02);
        }
        let change = events.expect(session.id(), &[Starting, Connecting, Errored]);
        assert_eq!(change.message(), Some("exit status 42"));
        let details = session.error_details();
        assert_eq!(details, change.details());
        let known = |key: &str| details[key].clone();
        assert_eq!(known("runtime_provider"), "local");
        assert_eq!(known("stage"), "exit");
        assert_eq!(known("error"), "exit status 42");
        assert_eq!(known("exit_status"), "exit status 42");
        assert_eq!(known("exit_code"), 42);
        assert_eq!(known("cause"), "exited");
        assert_eq!(known("attempts"), 3);
        let mut output = known("output").as_array().unwrap().clone();
        // Two pipes: the order between them is not known.
        output.sort_by_key(Value::to_string);
        assert_eq!(Value::from(output), json!(["boom", "hello"]));
        let lines = fs::read_to_string(&starts).unwrap().lines().count();
        assert_eq!(lines, 3 * round);
    }
}

#[test]
fn an_exit_with_0_before_it_was_ever_active_is_a_crash() {
    let host = TestHost::with("exit-0", |setup| {
        setup.policy(|policy| {
            policy
                .max_restart_attempts(1)
                .max_backoff(Duration::from_millis(20))
        });
    });
    for (transport, expected) in [
        (
            Transport::WebSocket,
            "ended (exit status 0) before it connected; it must connect to the URL in \
             STORYDEN_RPC_URL, or have \"transport\": \"stdio\" in its manifest and answer on its \
             standard output",
        ),
        (
            Transport::Stdio,
            "ended (exit status 0) before it answered its first ping; it must read requests from its \
             standard input until that ends; each answer must be one JSON object on a line of its own on \
             standard output, and be flushed",
        ),
    ] {
        let mut record = shell(&host, &format!("quitter-{transport}"), "exit 0");
        record.manifest.transport = transport;
        let mut events = host.events();
        let session = host.start(record);
        for state in [Restarting, Errored] {
            let change = events.until(session.id(), state);
            assert_eq!(change.message(), Some(expected));
            assert_eq!(change.details()["error"], expected);
            assert_eq!(change.details()["cause"], "exited");
            assert_eq!(change.details()["exit_status"], "process exited cleanly");
            assert_eq!(change.details().get("exit_code"), None);
        }
        assert_eq!(session.restart_history()[1].problem.message(), expected);
    }
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

#[test]
fn a_wait_that_runs_out_says_what_went_wrong_last() {
    let host = TestHost::with("wait-problem", |setup| {
        setup.policy(|policy| policy.max_backoff(Duration::from_secs(3600)));
    });
    let mut events = host.events();
    let session = host.start(shell(&host, "failing", "exit 1"));
    events.until(session.id(), Restarting);
    let error = session
        .wait_for(Active, Duration::from_millis(100))
        .unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    // Also if it is just being started again.
    let text = error.to_string();
    assert!(
        text.ends_with(
            " timed out after 100ms; it ended with exit status 1 and is being restarted"
        ),
        "{text}"
    );
    session.supervised().unwrap().stop(LONG).unwrap();
    // What was wrong before a stop does not count.
    let idler = host.install(shell(&host, "idler", "exec sleep 1000"));
    start(&idler);
    idler.wait_for(Connecting, LONG).unwrap();
    let error = idler
        .wait_for(Active, Duration::from_millis(100))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "waiting for the plugin to connect timed out after 100ms"
    );
}

#[test]
fn a_plugin_that_never_connects_is_killed_for_that() {
    let host = TestHost::with("never-connects", |setup| {
        setup.timeouts(|timeouts| timeouts.connect(Duration::from_secs(1)));
        setup.policy(|policy| policy.max_restart_attempts(1));
    });
    let session = host.install(shell(&host, "idler", "echo idling; exec sleep 1000"));
    let mut events = host.events();
    start(&session);
    let text = "did not connect within 1s and was killed";
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.message(), Some(text));
    let change = events.until(session.id(), Errored);
    assert_eq!(change.message(), Some(text));
    assert_eq!(change.details()["cause"], "never_connected");
    assert_eq!(change.details()["exit_code"], -1);
    assert_eq!(change.details()["exit_status"], "signal: killed");
    assert_eq!(change.details()["output"], json!(["idling"]));
}

#[test]
fn a_process_that_outlives_its_connection_is_killed_after_the_grace() {
    let host = TestHost::with("connection-lost", |setup| {
        setup.timeouts(|timeouts| timeouts.disconnect_grace(Duration::from_millis(200)));
        setup.policy(|policy| policy.max_restart_attempts(0));
    });
    let mut events = host.events();
    let session = host.start(url_printer(&host, "survivor"));
    let url = printed_url(&host, &session, 0);
    let peer = Peer::connect(host.address(), &target(&url));
    events.until(session.id(), Active);
    drop(peer);
    let change = events.expect(session.id(), &[Connecting]);
    assert_eq!(change.message(), Some("connection lost"));
    let change = events.expect(session.id(), &[Errored]);
    assert_eq!(
        change.message(),
        Some("connection lost, but the process did not end within 200ms and was killed")
    );
    assert_eq!(change.details()["cause"], "connection_lost");
    assert_eq!(change.details()["exit_status"], "signal: killed");
}
