//! The stream of state changes.

use std::io::{self, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Instant;

use plugin_runner::InstallationId;
use plugin_runner::store::Record;
use serde_json::{Value, json};

use super::{Api, TOKEN};
use crate::support::LONG;
use crate::support::event_stream::Events;
use crate::support::plugin::{call, manifest};

const PATH: &str = "/api/stream";

/// The next event: its name and its data.
#[track_caller]
fn next(events: &mut Events) -> (String, Value) {
    let event = events.next().expect("an event, but the stream has ended");
    assert_eq!(event.id, None, "nothing can be resumed");
    let name = event.name.expect("a name");
    (name, serde_json::from_str(&event.data).unwrap())
}

/// The next event, which has this name.
#[track_caller]
fn expect(events: &mut Events, name: &str) -> Value {
    let (found, data) = next(events);
    assert_eq!(found, name, "{data}");
    data
}

/// What a client knows from a snapshot.
fn states(snapshot: &Value) -> Vec<(String, String)> {
    let plugins = snapshot["plugins"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    plugins
        .map(|plugin| (text(&plugin["id"]), text(&plugin["state"])))
        .collect()
}

#[test]
fn a_snapshot_comes_first_and_no_change_is_missing_after_it() {
    let api = Api::new("admin-stream");
    let managed = &api.managed;
    let plugin = managed.running(managed.package("1", &[]));
    let mut events = api.events(PATH, &[]);
    let snapshot = expect(&mut events, "snapshot");
    assert_eq!(states(&snapshot), [(plugin.to_string(), "active".into())]);
    assert_eq!(snapshot["plugins"][0]["version"], "1");
    assert_eq!(snapshot["plugins"][0]["mode"], "supervised");
    assert_eq!(snapshot["missed"], Value::Null);

    let _ = call(&managed.session(plugin), "exit", &json!({"code": 3}));
    let (mut last, mut state) = (snapshot["sequence"].as_u64().unwrap(), "active".to_owned());
    let mut changed = || {
        let change = expect(&mut events, "change");
        last += 1;
        assert_eq!(change["sequence"], last, "none is missing");
        assert_eq!(change["id"], plugin.to_string());
        assert_eq!(change["from"], state);
        assert!(change["at"].as_str().unwrap().ends_with('Z'), "{change}");
        state = change["to"].as_str().unwrap().to_owned();
        change
    };
    let problem = loop {
        let change = changed();
        if change["to"] == "restarting" {
            break change["problem"].clone();
        }
    };
    assert_eq!(problem["error"], "exit status 3");
    managed.deactivate(plugin, LONG).unwrap();
    while changed()["to"] != "inactive" {}

    // A client that comes again is told everything, whatever it had.
    let mut again = api.events(PATH, &[("Last-Event-ID", "1")]);
    let snapshot = expect(&mut again, "snapshot");
    assert_eq!(states(&snapshot), [(plugin.to_string(), "inactive".into())]);
    assert_eq!(snapshot["sequence"], last);

    // The stream ends with the server.
    assert_eq!(api.server.stop(LONG), 0);
    assert_eq!(again.next(), None);
    api.end();
}

#[test]
fn what_is_installed_updated_and_removed_shows_in_another_snapshot() {
    let api = Api::new("admin-stream-installed");
    let managed = &api.managed;
    let mut events = api.events(PATH, &[]);
    assert_eq!(states(&expect(&mut events, "snapshot")), []);
    let plugin = managed.installed(managed.package("1", &[]));
    let snapshot = expect(&mut events, "snapshot");
    assert_eq!(states(&snapshot), [(plugin.to_string(), "inactive".into())]);
    managed.update(plugin, managed.package("2", &[])).unwrap();
    assert_eq!(
        expect(&mut events, "snapshot")["plugins"][0]["version"],
        "2"
    );
    managed.remove(plugin).unwrap();
    assert_eq!(states(&expect(&mut events, "snapshot")), []);
    // An external plugin goes to connecting when it is installed.
    let (outside, _) = managed.install_external(manifest("outside")).unwrap();
    loop {
        let (name, data) = next(&mut events);
        if name == "snapshot" {
            let id = outside.id().to_string();
            assert_eq!(states(&data), [(id, "connecting".into())]);
            break;
        }
    }
    api.end();
}

/// A stream over a connection with room for few bytes that were not read. Comments do not keep it alive for ever.
struct Narrow {
    socket: TcpStream,
    deadline: Instant,
}

impl Narrow {
    fn open(address: SocketAddr) -> Events {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
        let (family, flags) = (AddressFamily::INET, SocketFlags::CLOEXEC);
        let socket: OwnedFd = socket_with(family, SocketType::STREAM, flags, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
        connect(&socket, &address).unwrap();
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(LONG)).unwrap();
        // Of HTTP/1.0, so that it comes without chunks.
        let head = format!("Authorization: Bearer {TOKEN}\r\n\r\n");
        write!(socket, "GET {PATH} HTTP/1.0\r\n{head}").unwrap();
        let deadline = Instant::now() + 3 * LONG;
        let mut events = Events::read_from(Self { socket, deadline });
        while events.line().expect("a head") != "\r" {}
        events
    }
}

impl Read for Narrow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(Instant::now() < self.deadline, "waited for an event");
        self.socket.read(buffer)
    }
}

#[test]
fn a_slow_reader_is_told_what_it_missed_and_gets_a_new_snapshot() {
    let api = Api::new("admin-stream-slow");
    let host = &api.managed.host;
    // With a long name, so that its changes soon fill what the kernel holds.
    let record = Record::external(manifest(&"long-name-".repeat(25))).unwrap();
    let id: InstallationId = record.id;
    host.store().put(record).unwrap();
    let mut events = Narrow::open(api.server.address());
    let snapshot = expect(&mut events, "snapshot");
    let mut last = snapshot["sequence"].as_u64().unwrap();
    for _ in 0..5000 {
        host.load(id).unwrap();
        host.unload(id).unwrap();
    }
    host.load(id).unwrap();
    let snapshot = loop {
        let (name, data) = next(&mut events);
        if name == "snapshot" {
            break data;
        }
        last += 1;
        assert_eq!(data["sequence"], last, "lost without a word");
    };
    let missed = snapshot["missed"].as_u64().expect("it missed some");
    assert!(missed > 0);
    assert!(snapshot["sequence"].as_u64().unwrap() >= last + missed);
    // What comes from then on has no gap again, and ends in how things are.
    last = snapshot["sequence"].as_u64().unwrap();
    let mut state = states(&snapshot)[0].1.clone();
    host.unload(id).unwrap();
    host.load(id).unwrap();
    let end = host.subscribe();
    host.unload(id).unwrap();
    let end = end.recv_timeout(LONG).unwrap().sequence;
    while last < end {
        let (name, data) = next(&mut events);
        last = match &*name {
            "change" => {
                assert_eq!(data["sequence"], last + 1);
                last + 1
            }
            _ => data["sequence"].as_u64().unwrap(),
        };
        state = match &*name {
            "change" => data["to"].as_str().unwrap().to_owned(),
            _ => states(&data)[0].1.clone(),
        };
    }
    assert_eq!(state, "inactive");
    host.store().delete(id).unwrap();
    api.end();
}
