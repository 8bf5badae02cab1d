//! Plugins that send as fast as they can, or read nothing: what they ask is refused over the limits,
//! what they hold is bounded, their own answers arrive, and nobody else notices.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::duplex::{Duplex as _, DuplexSettings, DuplexWriter};
use plugin_runner::error::{Disconnect, Phase};
use plugin_runner::protocol::{ResultObject, Transport};
use plugin_runner::{Error, ReportedState, Session};
use serde_json::{Value, json};

use crate::support::frames::{BINARY, FINAL, RawPeer, frame, text};
use crate::support::host::{TestHost, active};
use crate::support::plugin::{call, external, fixture};
use crate::support::{LONG, wait_until};

/// Calls that wait for their answer at any moment of a flood: more than the host takes in, and fewer
/// than make it close the connection of one that does not read the answers.
const WINDOW: usize = 4000;

/// A host whose method `held` waits until the sender is dropped.
fn with_held(test: &'static str) -> (TestHost, Sender<()>) {
    let (open, gate) = bounded::<()>(0);
    let host = TestHost::with(test, |setup| {
        setup.configure(move |builder| {
            builder.method_raw("held", move |_, _| {
                let _ = gate.recv();
                Ok(ResultObject::new())
            })
        });
    });
    (host, open)
}

/// A plugin that calls the host without pause on one thread, and reads on another: answers to its
/// calls are counted, calls of the host's are answered.
struct Flooder {
    writer: Arc<dyn DuplexWriter>,
    /// A place for each call that waits for its answer.
    places: (Sender<()>, Receiver<()>),
    /// For each answer, whether it was a refusal.
    answers: Receiver<bool>,
}

impl Flooder {
    #[track_caller]
    fn connect(host: &TestHost, target: &str) -> Self {
        let url = format!("ws://{}{target}", host.address());
        let socket = WebSocket::connect(&url, LONG).unwrap();
        let settings = DuplexSettings::new("flooder");
        let (mut reader, shared_writer) = Box::new(socket).split(&settings).unwrap();
        let writer = shared_writer.clone();
        let places = bounded(WINDOW);
        let (sender, answers) = unbounded();
        let place: Receiver<()> = places.1.clone();
        std::thread::spawn(move || {
            while let Ok(received) = reader.receive() {
                let Some(message) = received else {
                    continue;
                };
                let message: Value = serde_json::from_str(&message).unwrap();
                if message.get("method").is_some() {
                    let result = json!({"method": message["method"]});
                    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
                    let _ = writer.send(&answer.to_string(), Instant::now() + LONG);
                } else {
                    place.recv().unwrap();
                    let _ = sender.send(message.get("error").is_some());
                }
            }
        });
        Self {
            writer: shared_writer,
            places,
            answers,
        }
    }

    fn flood(&self, calls: usize) {
        for number in 0..calls {
            self.places.0.send_timeout((), LONG).unwrap();
            let call = format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"held"}}"#);
            assert!(self.writer.send(&call, Instant::now() + LONG).unwrap());
        }
    }

    /// Waits for this many answers; gives how many were refusals.
    #[track_caller]
    fn answers(&self, count: usize) -> usize {
        let answers = (0..count).map(|_| self.answers.recv_timeout(LONG).expect("an answer"));
        answers.filter(|is_refusal| *is_refusal).count()
    }
}

impl Drop for Flooder {
    fn drop(&mut self) {
        self.writer
            .close(1000, "done", Instant::now() + Duration::from_secs(1));
    }
}

/// The longest of many calls, one after the other.
#[track_caller]
fn longest_call(session: &Session) -> Duration {
    let calls = (0..200).map(|_| {
        let begun = Instant::now();
        call(session, "echo", &json!({})).unwrap();
        begun.elapsed()
    });
    calls.max().unwrap()
}

/// Floods the host with calls, all its handlers being busy; gives a line of figures.
#[track_caller]
fn flood(test: &'static str, calls: usize) -> String {
    let (host, gate) = with_held(test);
    let well = host.run(fixture(&host, Transport::WebSocket, &["behave"]));
    let (session, target) = external(&host, "flooder");
    let flooder = Flooder::connect(&host, &target);
    active(&session);
    let idle = host.thread_count();
    let begun = Instant::now();
    // Eight are handled and 1,024 wait; there is room for no more until the gate opens.
    let room = 8 + 1024;
    let (own, neighbour, most) = std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flooder.flood(calls));
        let neighbour = scope.spawn(|| longest_call(&well));
        let own = longest_call(&session);
        let mut most = 0;
        while !flooding.is_finished() {
            most = most.max(host.thread_count());
            std::thread::yield_now();
        }
        flooding.join().unwrap();
        (own, neighbour.join().unwrap(), most)
    });
    assert_eq!(flooder.answers(calls - room), calls - room, "refusals");
    let took = begun.elapsed();
    let counters = session.counters();
    let all = [
        counters.inbound_calls,
        counters.inbound_refused,
        counters.inbound_in_flight,
    ];
    let expected = [calls, calls - room, room].map(|count| u64::try_from(count).unwrap());
    assert_eq!(all, expected);
    // Its handlers, a writer, and whatever is on its way out.
    assert!(most <= idle + 8 + 4, "{most} threads, {idle} before");
    assert!(
        own < LONG / 3 && neighbour < LONG / 3,
        "{own:?}, {neighbour:?}"
    );
    drop(gate);
    assert_eq!(flooder.answers(room), 0, "what was taken in is answered");
    assert_eq!(
        (session.counters().connections, well.counters().connections),
        (1, 1)
    );
    format!(
        "{calls} calls in {took:?}; longest of 200 calls to the flooding plugin {own:?}, to its \
         neighbour {neighbour:?}; at most {most} threads, {idle} before"
    )
}

#[test]
fn a_flood_of_calls_is_refused_and_delays_neither_its_own_answers_nor_a_neighbour() {
    flood("flood", 20_000);
}

#[test]
#[ignore = "takes a while; for the figures"]
fn a_million_calls_leave_nothing() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let lines = status.lines().filter(|line| line.starts_with("VmRSS"));
        lines.collect::<String>()
    };
    flood("flood-before", 100_000);
    println!("{} after 100,000", resident());
    println!("{}", flood("flood-million", 1_000_000));
    println!("{} after 1,000,000 more", resident());
}

#[test]
fn over_the_limit_of_messages_a_second_a_flood_never_reaches_a_handler() {
    const CALLS: usize = 20_000;
    let (host, gate) = with_held("flood-limited");
    let (session, target) = external(&host, "flooder");
    let mut record = host.store().get(session.id()).unwrap().unwrap();
    record.overrides = record.overrides.inbound_per_second(1);
    host.store().put(record).unwrap();
    let flooder = Flooder::connect(&host, &target);
    active(&session);
    drop(gate);
    let own = std::thread::scope(|scope| {
        scope.spawn(|| flooder.flood(CALLS));
        longest_call(&session)
    });
    assert!(own < LONG / 3, "{own:?}");
    let refused = u64::try_from(flooder.answers(CALLS)).unwrap();
    let counters = session.counters();
    assert_eq!(counters.inbound_limited, refused);
    assert_eq!((counters.inbound_refused, counters.connections), (0, 1));
    assert!(counters.inbound_calls - refused < 100, "{counters:?}");
}

#[test]
fn a_flood_that_gets_no_answers_is_counted_to_the_last() {
    const TIMES: u64 = 20_000;
    let host = TestHost::new("flood-unanswered");
    let (session, target) = external(&host, "flooder");
    let mut peer = RawPeer::connect(host.address(), &target);
    active(&session);
    let idle = host.thread_count();
    let messages = [
        text(r#"{"jsonrpc":"2.0","method":"get_config","params":{}}"#),
        text("no JSON-RPC"),
        text(r#"{"jsonrpc":"2.0","id":"9m4e2mr0ui3e8a215n4g","result":{}}"#),
        frame(FINAL | BINARY, b"binary"),
    ]
    .concat();
    let mut answering = RawPeer(peer.0.try_clone().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..TIMES / 100 {
                peer.send(&messages.repeat(100));
            }
            peer.send(&text(r#"{"id":"last","method":"get_config"}"#));
        });
        let (_, answer) = answering.next().expect("the answer to the last");
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["id"], "last");
    });
    let counters = session.counters();
    assert_eq!(
        [
            counters.notifications,
            counters.unreadable,
            counters.stray_replies,
            counters.binary,
            counters.inbound_calls,
            counters.connections
        ],
        [TIMES, TIMES, TIMES, TIMES, 1, 1]
    );
    assert!(host.thread_count() <= idle + 3);
}

/// Connects a plugin that reads nothing. Over a Unix socket, which takes a fixed amount: over TCP the
/// system takes a little more from time to time, and slows down the other direction too.
#[track_caller]
fn connect_silent(session: &Session) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let socket = WebSocket::server(ours, Vec::new());
    session.connect(socket, "").unwrap();
    theirs
}

#[test]
fn who_asks_and_never_reads_is_closed_for_that() {
    // So little that the plugin need not ask for long; the write stall timeout is none of it.
    let host = TestHost::with("never-reads-answers", |setup| {
        setup.limits(|limits| limits.outbound_bytes(64 * 1024).inbound_queue(16));
        setup.timeouts(|timeouts| timeouts.write_stall(LONG * 2));
    });
    let (session, _) = external(&host, "flooder");
    let mut record = host.store().get(session.id()).unwrap().unwrap();
    let text_of_some_size = "x".repeat(64 * 1024);
    record
        .configuration
        .insert("text".to_owned(), text_of_some_size.into());
    host.store().put(record).unwrap();
    let mut plugin = connect_silent(&session);
    let waiting = session.start_call_raw("echo", &json!({}), LONG).unwrap();
    let mut events = host.events();
    let idle = host.thread_count();
    let calls = text(r#"{"jsonrpc":"2.0","id":1,"method":"get_config"}"#).repeat(100);
    let change = std::thread::scope(|scope| {
        // Until the host reads no more.
        scope.spawn(move || while std::io::Write::write_all(&mut plugin, &calls).is_ok() {});
        events.until(session.id(), ReportedState::Connecting)
    });
    assert!(host.thread_count() <= idle + 8 + 2);
    let cause = "the plugin asks faster than it reads the answers";
    assert_eq!(change.message(), Some(cause));
    let error = waiting.wait().unwrap_err();
    assert_eq!(error.to_string(), format!("not connected: {cause}"));
    let counters = session.counters();
    assert_eq!((counters.overflows, counters.stalls), (1, 0));
    // What it asked is not kept.
    wait_until("its calls to be answered", || {
        session.counters().inbound_in_flight == 0
    });
}

#[test]
fn callers_of_a_plugin_that_never_reads_have_their_own_deadlines() {
    let stall = Duration::from_secs(1);
    let host = TestHost::with("never-reads", |setup| {
        setup.timeouts(|timeouts| timeouts.write_stall(stall));
        setup.limits(|limits| limits.outbound_bytes(128 * 1024));
    });
    let (session, _) = external(&host, "deaf");
    let plugin = connect_silent(&session);
    let mut events = host.events();
    let params = json!({"padding": "x".repeat(64 * 1024)});
    let begun = Instant::now();
    // Fills what the system keeps, and then what we do.
    let mut on_their_way = Vec::new();
    let (mut begun_late, mut no_room) = (0, 0);
    let error = loop {
        assert!(begun.elapsed() < LONG, "it never ends");
        let asked = Instant::now();
        match session.start_call_raw("anything", &params, Duration::from_millis(100)) {
            Ok(call) => on_their_way.push(call),
            // Stuck half-way, or not begun.
            Err(Error::Timeout { phase, .. }) => {
                begun_late += usize::from(phase == Phase::Reply);
                no_room += usize::from(phase == Phase::Write);
                assert!(asked.elapsed() < LONG / 3, "{:?}", asked.elapsed());
            }
            Err(error) => break error,
        }
    };
    assert!(
        begun.elapsed() >= stall,
        "given up after {:?}",
        begun.elapsed()
    );
    assert!(begun_late > 0 && no_room > 0, "{begun_late}, {no_room}");
    let cause = Disconnect::Stalled { limit: stall }.to_string();
    let told = match error {
        Error::Disconnected(cause) => cause.to_string(),
        // It was over already when the last one asked.
        Error::State { message, .. } => message.unwrap().to_string(),
        other => panic!("{other}"),
    };
    assert_eq!(told, cause);
    // What was taken has failed with it, or had run out of time before.
    for call in on_their_way {
        let error = call.wait().unwrap_err();
        assert!(error.is_timeout() || error.is_disconnected(), "{error}");
    }
    let change = events.until(session.id(), ReportedState::Connecting);
    assert_eq!(change.message(), Some(&*cause));
    assert_eq!(session.counters().stalls, 1);
    drop(plugin);
}
