//! Loading, unloading, draining and shutting down; and that handles may go to any thread.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use plugin_runner::call::{InboundCall, Params, PendingCall, Reply};
use plugin_runner::duplex::{Duplex, memory};
use plugin_runner::error::{Disconnect, Phase};
use plugin_runner::protocol::ResultObject;
use plugin_runner::protocol::method::{Ping, PingReply};
use plugin_runner::report::{Counters, PublishReport, ShutdownReport};
use plugin_runner::store::Record;
use plugin_runner::{
    ActiveState, Error, Host, HostBuilder, InstallationId, ReportedState, Services, Session,
    StateChange, Supervised,
};
use serde_json::{Value, json};

use crate::support::plugin::manifest;
use crate::support::session::{Bench, SHORT, connect, ping, start_ping};
use crate::support::{LONG, assert_matches, timed_out, wait_until};

#[test]
fn handles_go_to_any_thread() {
    fn any_thread<T: Send + Sync + 'static>() {}
    fn handle<T: Send + Sync + Clone + 'static>() {}
    fn may_move<T: Send + 'static>() {}
    handle::<Host>();
    handle::<Session>();
    handle::<Supervised>();
    handle::<Reply>();
    handle::<Params>();
    handle::<StateChange>();
    handle::<Counters>();
    handle::<PublishReport>();
    handle::<ShutdownReport>();
    handle::<Error>();
    any_thread::<PendingCall<PingReply>>();
    any_thread::<PendingCall>();
    any_thread::<InboundCall>();
    any_thread::<Arc<dyn Services>>();
    may_move::<HostBuilder>();
    may_move::<Box<dyn Duplex>>();
}

#[test]
fn loading_twice_gives_the_same_session_and_changes_nothing() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let id = bench.session.id();
    let again = bench.host.load(id).unwrap();
    for session in [&again, &bench.host.session(id).unwrap()] {
        assert_eq!(session.reported_state(), ReportedState::Active);
        assert_eq!(session.counters().connections, 1);
    }
    assert_eq!(bench.host.sessions().len(), 1);
    bench.ping(&plugin);
}

#[test]
fn many_threads_that_load_at_once_get_one_session() {
    let bench = Bench::new();
    let record = Record::external(manifest("tested")).unwrap();
    let id = record.id;
    bench.host.store().put(record).unwrap();
    let sessions: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| bench.host.load(id).unwrap()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let plugin = connect(&sessions[0], "");
    for session in &sessions {
        ping(session, &plugin);
    }
    assert_eq!(bench.host.sessions().len(), 2);
}

#[test]
fn loading_what_is_not_installed_is_an_error() {
    let bench = Bench::new();
    let unknown = InstallationId::generate();
    let error = bench.host.load(unknown).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no plugin {unknown} is installed")
    );
}

#[test]
fn unloading_an_unknown_plugin_does_nothing() {
    let bench = Bench::new();
    bench.host.unload(InstallationId::generate()).unwrap();
    assert_eq!(bench.host.sessions().len(), 1);
}

#[test]
fn after_unloading_handles_say_not_loaded() {
    let bench = Bench::new();
    let _plugin = bench.connect();
    let (session, id) = (&bench.session, bench.session.id());
    bench.host.unload(id).unwrap();
    bench.host.unload(id).unwrap();
    assert!(bench.host.session(id).is_none());
    assert!(bench.host.sessions().is_empty());
    assert_eq!(session.reported_state(), ReportedState::Inactive);

    let (ours, _theirs) = memory::pair(1);
    let (through_host, _other) = memory::pair(1);
    let errors = [
        session.call(&Ping {}, LONG).unwrap_err(),
        session.call_raw("any", &json!({}), LONG).unwrap_err(),
        session.start_call(&Ping {}, LONG).unwrap_err(),
        session.connect(ours, "").unwrap_err(),
        session.set_active_state(ActiveState::Active).unwrap_err(),
        session.set_active_state(ActiveState::Inactive).unwrap_err(),
        session.wait_for(ReportedState::Active, LONG).unwrap_err(),
        bench.host.connect(id, through_host, "").unwrap_err(),
    ];
    for error in errors {
        assert_matches!(error, Error::NotLoaded(found) if found == id);
        assert_eq!(error.to_string(), format!("no plugin {id} is loaded"));
    }
}

#[test]
fn an_unloaded_plugin_can_be_loaded_again() {
    let bench = Bench::new();
    let id = bench.session.id();
    for _ in 0..3 {
        bench.host.unload(id).unwrap();
        let session = bench.host.load(id).unwrap();
        let plugin = connect(&session, "");
        ping(&session, &plugin);
        assert_eq!(session.counters().connections, 1);
    }
    assert!(bench.session.call(&Ping {}, LONG).is_err());
}

#[test]
fn unloading_leaves_no_thread() {
    let bench = Bench::new();
    let mut record = Record::external(manifest("tested")).unwrap();
    record.manifest.events_consumed = vec!["EventPostLiked".to_owned()];
    let id = record.id;
    bench.host.store().put(record).unwrap();
    let before = bench.host.thread_count();
    let session = bench.host.load(id).unwrap();
    let plugin = connect(&session, "");
    // A worker for calls and one for events; both stay for a while.
    plugin.call("1", "get_config", "{}");
    bench.host.publish("EventPostLiked", &json!({})).unwrap();
    let event = plugin.expect("event");
    plugin.reply(&event, json!({"ok": true}));
    ping(&session, &plugin);
    assert!(bench.host.thread_count() > before);
    bench.host.unload(id).unwrap();
    wait_until("end of the plugin's threads", || {
        bench.host.thread_count() == before
    });
}

#[test]
fn an_address_that_is_taken_is_named_with_the_way_out() {
    let host = Host::builder().build().unwrap();
    let listener = host.listen("127.0.0.1:0").unwrap();
    let address = listener.address().to_string();
    let taken = host.listen(&address).unwrap_err().to_string();
    assert!(
        taken.starts_with(&format!("cannot listen on {address}: ")),
        "{taken}"
    );
    assert!(taken.contains("take another port"), "{taken}");
    // The address of a network for documentation.
    let foreign = host.listen("192.0.2.1:0").unwrap_err().to_string();
    assert!(foreign.contains("no address of this machine"), "{foreign}");
    host.shutdown(LONG);
}

#[test]
fn draining_refuses_new_calls_and_waits_for_those_in_flight() {
    let bench = Bench::new();
    let plugin = bench.connect();
    let call = start_ping(&bench.session);
    let request = plugin.expect("ping");
    let error = bench.host.drain(SHORT).unwrap_err();
    assert_eq!(timed_out(&error), (Phase::Drain, SHORT));
    for error in [
        bench.session.call(&Ping {}, LONG).unwrap_err(),
        bench.host.publish("any", &json!({})).unwrap_err(),
    ] {
        assert_matches!(error, Error::ShutDown);
    }
    // The end of the last call ends the wait.
    thread::scope(|scope| {
        let drained = scope.spawn(|| bench.host.drain(LONG));
        plugin.reply(&request, json!({"pong": true}));
        assert!(call.wait().unwrap().pong);
        drained.join().unwrap().unwrap();
    });
    // The plugin is still there.
    assert_eq!(bench.session.reported_state(), ReportedState::Active);
    assert!(plugin.has_nothing_more());
}

#[test]
fn draining_waits_for_calls_from_plugins_too() {
    let (begin, begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let bench = Bench::with_host(|builder| {
        builder.method_raw("slow", move |_, _| {
            begin.send(()).unwrap();
            assert!(released.recv_timeout(LONG).unwrap_err().is_disconnected());
            Ok(ResultObject::new())
        })
    });
    let plugin = bench.connect();
    plugin.ask("1", "slow", "{}");
    begun.recv_timeout(LONG).expect("slow handler");
    let error = bench.host.drain(SHORT).unwrap_err();
    assert_eq!(timed_out(&error).0, Phase::Drain);
    thread::scope(|scope| {
        let drained = scope.spawn(|| bench.host.drain(LONG));
        drop(release);
        drained.join().unwrap().unwrap();
    });
    assert_eq!(plugin.answer("1")["result"], json!({"method": "slow"}));
}

#[test]
fn draining_an_idle_host_does_not_wait() {
    let bench = Bench::new();
    bench.ping(&bench.connect());
    bench.host.drain(Duration::ZERO).unwrap();
}

#[test]
fn after_shutdown_everything_says_so() {
    let bench = Bench::new();
    let host = &bench.host;
    let report = host.shutdown(LONG);
    assert!(
        report.is_complete() && report.killed.is_empty(),
        "{report:?}"
    );
    assert_eq!(host.shutdown(LONG), report, "another report");
    assert!(host.sessions().is_empty());

    let (ours, _theirs) = memory::pair(1);
    let errors = [
        host.load(bench.session.id()).unwrap_err(),
        host.publish("any", &json!({})).unwrap_err(),
        bench.session.connect(ours, "").unwrap_err(),
        bench.session.call(&Ping {}, LONG).unwrap_err(),
        bench
            .session
            .set_active_state(ActiveState::Active)
            .unwrap_err(),
    ];
    for error in errors {
        assert_matches!(error, Error::ShutDown);
    }
}

#[test]
fn a_handler_that_goes_on_is_reported_and_nothing_waits_for_it_for_ever() {
    let (begin, begun) = unbounded();
    let (release, released) = bounded::<()>(0);
    let mut bench = Bench::with_host(|builder| {
        builder.method_raw("slow", move |_, _| {
            begin.send(()).unwrap();
            let _ = released.recv_timeout(LONG);
            Ok(ResultObject::new())
        })
    });
    let plugin = bench.connect();
    plugin.ask("1", "slow", "{}");
    begun.recv_timeout(LONG).expect("slow handler");
    let report = bench.host.take().shutdown(SHORT);
    assert!(!report.is_complete());
    assert_eq!(report.threads, ["call-tested"]);
    assert!(report.unfinished.is_empty() && report.killed.is_empty());
    assert_eq!(plugin.expect_close().0, 1012);
    drop(release);
    bench.host.expect_no_threads();
}

#[test]
fn dropping_the_last_handle_shuts_the_host_down() {
    let mut bench = Bench::new();
    let plugin = bench.connect();
    let call = start_ping(&bench.session);
    plugin.expect("ping");
    let host = bench.host.take();
    let second = host.clone();
    drop(host);
    bench.ping(&plugin);
    drop(second);
    assert_eq!(
        plugin.expect_close(),
        (1012, "host is shutting down".to_owned())
    );
    match call.wait() {
        Err(Error::Disconnected(cause)) => {
            assert_matches!(*cause, Disconnect::ByHost { code: 1012, .. });
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.host.thread_count(), 0);
}

#[test]
fn two_hosts_in_a_process_do_not_know_each_others_plugins() {
    let (one, other) = (Bench::new(), Bench::new());
    let (plugin, other_plugin) = (one.connect(), other.connect());
    one.ping(&plugin);
    assert!(one.host.session(other.session.id()).is_none());
    one.host.shutdown(LONG);
    other.ping(&other_plugin);
    assert_eq!(other.host.sessions().len(), 1);
    let answer: Value = other_plugin.call("1", "get_config", "{}");
    assert!(answer["result"].is_object());
}

#[test]
fn over_the_thread_budget_a_plugin_is_not_loaded_and_the_error_says_why() {
    // One for the reaper, one for the first session.
    let bench = Bench::with_host(|builder| builder.thread_limit(2));
    let record = Record::external(manifest("tested")).unwrap();
    let id = record.id;
    bench.host.store().put(record).unwrap();
    let error = bench.host.load(id).unwrap_err();
    assert_matches!(error, Error::ThreadLimit { limit: 2, .. });
    assert!(bench.host.session(id).is_none());
    // Calls out need none; calls in are refused, not left unanswered.
    let plugin = bench.connect();
    bench.ping(&plugin);
    assert_eq!(
        plugin.call("1", "get_config", "{}")["error"]["code"],
        -32000
    );
}
