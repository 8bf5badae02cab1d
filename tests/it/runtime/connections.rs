//! Plugins over WebSocket in places of the embedder's own, and runs that are over before they are handed over.

use std::sync::Arc;

use parking_lot::Mutex;
use plugin_runner::ReportedState::{Connecting, Errored, Restarting};
use plugin_runner::protocol::Transport;
use plugin_runner::report::ExitReason;
use plugin_runner::runtime::{Launch, Run, RunExit, RunHandle, Runtime, StopSignal};
use plugin_runner::{ActiveState, Error, ErrorKind, Manager, Overrides, ProcessLimits};

use super::own::{Behaviour, Own, plugin};
use crate::support::LONG;
use crate::support::events::Details as _;
use crate::support::host::{active, supervised};
use crate::support::peer::Peer;
use crate::support::plugin::{With as _, target};

#[test]
fn what_a_runtime_is_given_and_returns_goes_to_any_thread() {
    fn any_thread<T: Send + Sync>() {}
    fn may_move<T: Send + 'static>() {}
    // So that a start may upload a plugin's files from several threads.
    any_thread::<Launch<'_>>();
    any_thread::<Arc<dyn Runtime>>();
    may_move::<Run>();
    may_move::<RunExit>();
    may_move::<Box<dyn RunHandle>>();
}

#[test]
fn a_plugin_over_a_websocket_needs_no_pipes() {
    let urls = Arc::<Mutex<Vec<String>>>::default();
    let told = urls.clone();
    let own = Own::new().on_start(move |own, launch| {
        told.lock()
            .push(launch.connection_url().unwrap().to_owned());
        let text = format!("{launch:?}");
        let (_, token) = launch
            .connection_url()
            .unwrap()
            .split_once("token=")
            .unwrap();
        assert!(!text.contains(token), "{text}");
        launch.note("it runs far away");
        Ok(own.begin(Behaviour {
            is_mute: true,
            ignores: &[StopSignal::Interrupt],
            ..Behaviour::default()
        }))
    });
    let host = own.host("websocket");
    let record = plugin(&host, "far");
    let session =
        host.start(record.with(|record| record.manifest.transport = Transport::WebSocket));
    let mut events = host.events();
    let run = own.run(0);
    let line = session.follow_log().unwrap().next(LONG).unwrap();
    assert_eq!(line.to_string(), "[plugin-runner] it runs far away");
    let connect = |start: usize| {
        let url = urls.lock()[start].clone();
        let connected = Peer::connect(host.address(), &target(&url));
        active(&session);
        connected
    };
    let peer = connect(0);
    // Lost together: the end of the connection is told first, and is not the plugin's fault.
    drop(peer);
    events.until(session.id(), Connecting);
    run.end(RunExit::new(ExitReason::Unknown).lost("the line is down"));
    let change = events.until(session.id(), Restarting);
    assert_eq!(change.message(), Some("the line is down"));
    events.until(session.id(), Connecting);
    let _peer = connect(1);
    let report = supervised(&session).stop(LONG).unwrap();
    assert_eq!(report.exit, Some(ExitReason::Signal(15)));
    assert!(!report.killed);
    let signals = [StopSignal::Interrupt, StopSignal::Terminate];
    assert_eq!(own.run(1).signals(), signals);
}

#[test]
fn what_a_plugin_over_a_websocket_does_not_read_is_closed() {
    let own = Own::behaving(Behaviour {
        is_deaf: true,
        ..Behaviour::default()
    });
    let host = own.host("closed-input");
    let record = plugin(&host, "far");
    let session =
        host.start(record.with(|record| record.manifest.transport = Transport::WebSocket));
    own.run(0).expect_end_of_input();
    assert_eq!(session.reported_state(), Connecting);
    for stream in ["output", "errors"] {
        own.run(0).print(stream);
        host.output
            .wait_for(stream, |line| (line.text == stream).then_some(()));
    }
}

#[test]
fn a_run_that_is_over_when_it_is_handed_over_is_a_crash() {
    let own = Own::new().on_start(|own, _| {
        let run = own.begin(Behaviour::default());
        own.run(own.count() - 1)
            .end(RunExit::new(ExitReason::Code(9)));
        Ok(run)
    });
    let host = own.host("over-at-once");
    let mut events = host.events();
    let session = host.start(plugin(&host, "short"));
    let change = events.until(session.id(), Errored);
    assert_eq!(change.message(), Some("exit status 9"));
    assert_eq!(change.details()["attempts"], 4);
    assert_eq!(own.count(), 4);
}

#[test]
fn a_boot_tells_which_plugins_the_runtime_does_not_accept() {
    let own = Own::new().on_accept(|record| match &*record.manifest.id {
        "giant" => Err(Error::new(ErrorKind::Unsupported, "it is too large")),
        _ => Ok(()),
    });
    let host = own.host("boot");
    let manager = Manager::new(host.clone()).unwrap();
    let [giant, dwarf] = ["giant", "dwarf"].map(|id| {
        let record = plugin(&host, id).with(|record| record.active_state = ActiveState::Active);
        host.store().put(record.clone()).unwrap();
        record.id
    });
    let report = manager.boot(LONG).unwrap();
    assert_eq!(report.active, [dwarf]);
    let failed: Vec<_> = report
        .failed
        .iter()
        .map(|(id, error)| (*id, error.to_string()))
        .collect();
    assert_eq!(failed, [(giant, "it is too large".to_owned())]);
    let shown = manager.get(giant).unwrap();
    assert_eq!(
        (shown.reported_state(), shown.message()),
        (Errored, Some("it is too large"))
    );
    let error = manager.activate(giant, LONG).unwrap_err();
    assert_eq!(error.to_string(), "it is too large");
    drop(manager);
}

#[test]
fn overrides_that_the_runtime_does_not_accept_change_nothing() {
    let own = Own::new().on_accept(|record| {
        if record.overrides == Overrides::default() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unsupported, "it cannot be limited"))
    });
    let host = own.host("overrides");
    let manager = Manager::new(host.clone()).unwrap();
    let record = plugin(&host, "limited");
    host.store().put(record.clone()).unwrap();
    let limited = Overrides::default().process_limits(ProcessLimits::default().open_files(64));
    let error = manager.set_overrides(record.id, limited).unwrap_err();
    assert_eq!(error.to_string(), "it cannot be limited");
    assert_eq!(host.store().get(record.id).unwrap(), Some(record.clone()));
    // What is no business of the runtime's is not asked for.
    manager.set_labels(record.id, [("team", "blue")]).unwrap();
    drop(manager);
}
