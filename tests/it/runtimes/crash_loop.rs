//! Plugins that fail as soon as they are started, and those that never connect: again and again, until they are
//! given up.

use std::fs;
use std::time::Duration;

use plugin_runner::ReportedState::{Active, Connecting, Errored, Restarting, Starting};
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{Record, Source};
use serde_json::{Value, json};

use super::place::Place;
use crate::start_failures::{errored_at_once, start};
use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::peer::Peer;
use crate::support::plugin::{command, manifest, package, printed_url, shell, target, url_printer};

pub(super) fn a_plugin_that_exits_42_is_errored_after_the_configured_attempts(place: &Place) {
    let host = place.host_with(|setup| {
        setup.policy(|policy| policy.max_restart_attempts(2));
    });
    let script = r#"echo start >> "$PLUGIN_DATA_DIR/starts"; echo hello; echo boom >&2; exit 42"#;
    let session = host.install(shell(&host, "crasher", script));
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
        assert_eq!(known("runtime_provider"), place.provider().as_str());
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
        let starts = place.data(&host, session.id()).join("starts");
        let lines = fs::read_to_string(starts).unwrap().lines().count();
        assert_eq!(lines, 3 * round);
    }
}

pub(super) fn an_exit_with_0_before_it_was_ever_active_is_a_crash(place: &Place) {
    let host = place.host_with(|setup| {
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

pub(super) fn a_wait_that_runs_out_says_what_went_wrong_last(place: &Place) {
    let host = place.host_with(|setup| {
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

pub(super) fn a_plugin_that_never_connects_is_killed_for_that(place: &Place) {
    let host = place.host_with(|setup| {
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

pub(super) fn a_process_that_outlives_its_connection_is_killed_after_the_grace(place: &Place) {
    let host = place.host_with(|setup| {
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

pub(super) fn a_missing_folder_is_errored_at_once(place: &Place) {
    let host = place.host();
    let record = command(&host, "gone", "./tool", &[]);
    fs::remove_dir(host.folder().join("plugin-gone")).unwrap();
    let message = errored_at_once(&host, record);
    assert!(
        message.starts_with("could not prepare: cannot open plugin directory /"),
        "{message}"
    );
}

pub(super) fn an_archive_that_does_not_unpack_is_errored_at_once(place: &Place) {
    let host = place.host();
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
