//! Health checks over transports that tests with real plugins do not have: in memory, and made by
//! embedders.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::duplex::{Duplex, DuplexReader, DuplexSettings, DuplexWriter, memory};
use plugin_runner::error::Disconnect;
use plugin_runner::{Health, ReportedState, Result};
use serde_json::json;

use crate::support::plugin::With as _;
use crate::support::session::{Bench, Plugin, connect, start_raw};
use crate::support::{LONG, wait_until};

/// Pings are frequent, and nobody is given up.
fn patient() -> Health {
    Health::default()
        .interval(Duration::from_millis(20))
        .timeout(LONG)
}

/// What is silent is given up after 60 ms.
fn impatient() -> Health {
    Health::default()
        .interval(Duration::from_millis(20))
        .timeout(Duration::from_millis(30))
        .misses_allowed(1)
}

#[test]
fn a_transport_without_a_ping_is_watched_on_demand_alone() {
    let bench = Bench::with_host(|builder| builder.health(impatient()));
    let before = bench.host.thread_count();
    let unwatched = bench.connect();
    assert_eq!(bench.host.thread_count(), before);
    let other = bench.load(|record| record.overrides(|own| own.health(impatient().rpc_ping(true))));
    let watched = connect(&other, "");
    let ping = watched.expect("ping");
    assert_eq!(ping.params, json!({}));
    // By the time it is given up, the other has been silent for longer.
    other.wait_for(ReportedState::Connecting, LONG).unwrap();
    let message = other.error_message().unwrap();
    assert_eq!(message, "unresponsive: no sign of life for 60ms");
    assert_eq!(bench.session.reported_state(), ReportedState::Active);
    assert!(unwatched.has_nothing_more());
    assert_eq!(bench.session.counters().pings_sent, 0);
}

#[test]
fn a_late_answer_to_a_ping_of_the_hosts_own_harms_nothing() {
    let bench = Bench::with_host(|builder| builder.health(patient().rpc_ping(true)));
    let plugin = bench.connect();
    let first = plugin.expect("ping");
    plugin.reply(&first, json!({"pong": true}));
    plugin.reply(&first, json!({"pong": true}));
    let call = start_raw(&bench.session, "echo", json!({}));
    let request = plugin.expect("echo");
    plugin.reply(&request, json!({}));
    call.wait().unwrap();
    let counters = bench.session.counters();
    assert_eq!((counters.stray_replies, counters.replies), (1, 1));
    assert_eq!(counters.calls, 1);
}

#[test]
fn a_transport_whose_ping_panics_loses_its_health_checks_and_no_more() {
    let bench = Bench::with_host(|builder| builder.health(patient()));
    let (ours, theirs) = memory::pair(16);
    bench.session.connect(Panicking(ours), "").unwrap();
    let plugin = Plugin::over(theirs);
    wait_until("ping", || bench.session.counters().pings_sent == 1);
    // Another is watched all the same.
    let other = bench.load(|record| record.overrides(|own| own.health(patient().rpc_ping(true))));
    connect(&other, "").expect("ping");
    bench.ping(&plugin);
    assert_eq!(bench.session.counters().pings_sent, 1);
}

#[test]
fn a_transport_that_is_not_ours_shows_its_signs_of_life() {
    let bench = Bench::with_host(|builder| builder.health(impatient()));
    let (ours, theirs) = UnixStream::pair().unwrap();
    let wrapped = Wrapped(WebSocket::server(ours, Vec::new()));
    bench.session.connect(wrapped, "").unwrap();
    let plugin = Plugin::over(WebSocket::client(theirs, Vec::new()));
    // More than it may miss.
    wait_until("pings", || bench.session.counters().pings_sent > 5);
    assert_eq!(bench.session.reported_state(), ReportedState::Active);
    bench.ping(&plugin);
    plugin.close(1000, "done");
    bench.wait_for(ReportedState::Connecting);
    let message = bench.session.error_message().unwrap();
    assert_eq!(message, "closed by the plugin (code 1000, done)");
}

/// A transport of an embedder's with a reader of its own.
struct Wrapped(WebSocket);

impl Duplex for Wrapped {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        let (reader, writer) = Box::new(self.0).split(settings)?;
        Ok((Box::new(WrappedReader(reader)), writer))
    }
}

struct WrappedReader(Box<dyn DuplexReader>);

impl DuplexReader for WrappedReader {
    fn receive(&mut self) -> std::result::Result<Option<Arc<str>>, Disconnect> {
        self.0.receive()
    }
}

/// A transport whose ping panics.
struct Panicking<D>(D);

impl<D: Duplex> Duplex for Panicking<D> {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        let (reader, writer) = Box::new(self.0).split(settings)?;
        Ok((reader, Arc::new(PanickingWriter(writer))))
    }
}

struct PanickingWriter(Arc<dyn DuplexWriter>);

impl DuplexWriter for PanickingWriter {
    fn send(&self, message: &str, deadline: Instant) -> std::result::Result<bool, Disconnect> {
        self.0.send(message, deadline)
    }

    fn post(&self, message: &str) -> std::result::Result<(), Disconnect> {
        self.0.post(message)
    }

    fn ping(&self) -> bool {
        panic!("on purpose")
    }

    fn has_ping(&self) -> bool {
        true
    }

    fn close(&self, code: u16, reason: &str, deadline: Instant) {
        self.0.close(code, reason, deadline);
    }

    fn interrupt(&self) {
        self.0.interrupt();
    }
}
