//! Transports of an embedder's that panic: each costs its own connection, and no call, stop or shutdown panics.

use std::sync::Arc;
use std::time::Instant;

use plugin_runner::duplex::{Duplex, DuplexReader, DuplexSettings, DuplexWriter, memory};
use plugin_runner::error::Disconnect;
use plugin_runner::protocol::Transport;
use plugin_runner::protocol::method::Ping;
use plugin_runner::{ActiveState, ErrorKind, ReportedState, Result, Session, sdk};

use crate::support::LONG;
use crate::support::plugin::fixture;
use crate::support::session::{Bench, Plugin};

/// A transport that panics in one of its methods.
struct Panicking {
    inner: Box<dyn Duplex>,
    place: &'static str,
}

impl Duplex for Panicking {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        trip(self.place, "split");
        let (reader, writer) = self.inner.split(settings)?;
        let place = self.place;
        let reader = PanickingReader { reader, place };
        Ok((
            Box::new(reader),
            Arc::new(PanickingWriter { writer, place }),
        ))
    }

    fn peer_address(&self) -> String {
        trip(self.place, "peer_address");
        String::new()
    }
}

struct PanickingReader {
    reader: Box<dyn DuplexReader>,
    place: &'static str,
}

impl DuplexReader for PanickingReader {
    fn receive(&mut self) -> std::result::Result<Option<Arc<str>>, Disconnect> {
        trip(self.place, "receive");
        self.reader.receive()
    }
}

struct PanickingWriter {
    writer: Arc<dyn DuplexWriter>,
    place: &'static str,
}

fn trip(place: &str, here: &str) {
    assert_ne!(place, here, "on purpose");
}

impl DuplexWriter for PanickingWriter {
    fn send(&self, message: &str, deadline: Instant) -> std::result::Result<bool, Disconnect> {
        trip(self.place, "send");
        self.writer.send(message, deadline)
    }

    fn queue(&self, message: &str, deadline: Instant) -> std::result::Result<bool, Disconnect> {
        trip(self.place, "queue");
        self.writer.queue(message, deadline)
    }

    fn flush(&self) {
        trip(self.place, "flush");
        self.writer.flush();
    }

    fn post(&self, message: &str) -> std::result::Result<(), Disconnect> {
        trip(self.place, "post");
        self.writer.post(message)
    }

    fn has_ping(&self) -> bool {
        trip(self.place, "has_ping");
        false
    }

    fn begin_close(&self, code: u16, reason: &str) -> bool {
        trip(self.place, "begin_close");
        self.writer.begin_close(code, reason)
    }

    fn close(&self, code: u16, reason: &str, deadline: Instant) {
        trip(self.place, "close");
        self.writer.close(code, reason, deadline);
    }

    fn interrupt(&self) {
        trip(self.place, "interrupt");
        self.writer.interrupt();
    }
}

/// Connects an external plugin with such a transport. Dropping what is returned with it is losing the connection.
#[track_caller]
fn connect(session: &Session, place: &'static str) -> (Result<()>, Plugin) {
    let (ours, theirs) = memory::pair(16);
    let inner = Box::new(ours);
    let connected = session.connect(Panicking { inner, place }, "tests");
    (connected, Plugin::over(theirs))
}

#[test]
fn a_transport_that_panics_when_it_is_taken_into_use_is_refused_and_keeps_no_other_out() {
    let bench = Bench::new();
    let (connected, _theirs) = connect(&bench.session, "split");
    let error = connected.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("on purpose"), "{error}");
    bench.wait_for(ReportedState::Connecting);
    // These only leave something unknown.
    for place in ["peer_address", "has_ping"] {
        let (connected, plugin) = connect(&bench.session, place);
        connected.unwrap();
        if place == "peer_address" {
            bench.ping(&plugin);
        }
        drop(plugin);
        bench.wait_for(ReportedState::Connecting);
    }
    let plugin = bench.connect();
    bench.ping(&plugin);
}

#[test]
fn a_transport_that_panics_when_it_sends_fails_the_call_and_ends_the_connection() {
    let bench = Bench::new();
    for place in ["send", "queue", "flush"] {
        let (connected, _theirs) = connect(&bench.session, place);
        connected.unwrap();
        let error = if place == "send" {
            bench.session.call(&Ping {}, LONG).unwrap_err()
        } else {
            let mut batch = bench.session.batch().unwrap();
            batch
                .start_call(&Ping {}, LONG)
                .and_then(|call| {
                    batch.send();
                    call.wait()
                })
                .unwrap_err()
        };
        assert!(error.is_disconnected(), "{place}: {error}");
        assert!(error.to_string().contains("on purpose"), "{place}: {error}");
        bench.wait_for(ReportedState::Connecting);
        let message = bench.session.error_message().unwrap();
        assert!(message.contains("on purpose"), "{place}: {message}");
    }
    let plugin = bench.connect();
    bench.ping(&plugin);
}

#[test]
fn a_transport_that_panics_when_it_is_closed_keeps_nothing_from_ending() {
    for place in ["begin_close", "close", "interrupt"] {
        let bench = Bench::new();
        let (connected, _theirs) = connect(&bench.session, place);
        connected.unwrap();
        bench.set(ActiveState::Inactive);
        bench.wait_for(ReportedState::Inactive);
        bench.set(ActiveState::Active);
        bench.ping(&bench.connect());
        // Unloading, and the shutdown at the end, meet it as well.
        let (unloaded, shut_down) = (bench.load(|record| record), bench.load(|record| record));
        let (first, theirs) = connect(&unloaded, place);
        let (second, _theirs) = connect(&shut_down, place);
        first.and(second).unwrap();
        // What does not wake its reader can only end when the peer does.
        drop(theirs);
        bench.host.unload(unloaded.id()).unwrap();
        let program = fixture(&bench.host, Transport::Stdio, &[]);
        bench.host.run(program);
    }
}

#[test]
fn a_plugin_whose_transport_panics_ends_as_if_it_had_lost_its_connection() {
    for place in ["split", "receive", "send"] {
        let (ours, theirs) = memory::pair(16);
        let inner = Box::new(ours);
        let theirs = Plugin::over(theirs);
        if place == "send" {
            theirs.send(r#"{"jsonrpc":"2.0","id":"1","method":"ping"}"#);
        }
        let ran = sdk::Plugin::over(Panicking { inner, place }).run();
        assert_eq!(ran.is_err(), place == "split", "{place}: {ran:?}");
    }
}
