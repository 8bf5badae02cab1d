//! Clients that are slow, many or stuck: the others are served, and the server stays small.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use plugin_runner::InstallationId;
use rustix::net::sockopt::set_socket_recv_buffer_size;
use serde_json::{Value, json};

use super::Server;
use crate::program::{Scratch, manifest};
use crate::support::event_stream::Events;
use crate::support::http::{Request, connect};
use crate::support::wait_until;

/// Slow clients of each port: more than it serves at once.
const SLOW: usize = 300;
/// What a whole request head may take on either port.
const HEAD: Duration = Duration::from_secs(10);

/// What may run in the server at most: its own threads, those of its port for plugins and of the API, each of
/// them twice for a moment.
const MOST_THREADS: u64 = 50 + 2 * 64 + 2 * 256;

/// Clients of one address that send a byte of a request each second, and come again when they are thrown out.
struct SlowClients {
    stop: Sender<()>,
    thread: JoinHandle<u64>,
}

impl SlowClients {
    /// Connects all of them.
    fn start(address: SocketAddr) -> Self {
        let head = Request::get("/api/plugins").to_text().into_bytes();
        let mut clients: Vec<_> = (0..SLOW).map(|_| (connect(address), 0)).collect();
        let (stop, stopped) = bounded(0);
        let thread = thread::spawn(move || {
            let mut again = 0;
            loop {
                for (stream, sent) in &mut clients {
                    let byte = [head[*sent % head.len()]];
                    *sent += 1;
                    if stream.write_all(&byte).is_err() {
                        (*stream, *sent) = (connect(address), 0);
                        again += 1;
                    }
                }
                match stopped.recv_timeout(Duration::from_secs(1)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => return again,
                }
            }
        });
        Self { stop, thread }
    }

    /// Ends them; gives how many were thrown out and came again.
    fn end(self) -> u64 {
        drop(self.stop);
        self.thread.join().unwrap()
    }
}

/// Asks again as long as the server is too busy for a moment; gives the body of the answer.
#[track_caller]
fn served(ask: &mut dyn FnMut() -> (u16, String)) -> String {
    let begun = Instant::now();
    loop {
        match ask() {
            (101 | 200 | 204, body) => return body,
            (503, _) if begun.elapsed() < HEAD => {}
            (status, body) => panic!("{status}: {body}"),
        }
    }
}

#[test]
fn slow_clients_on_both_ports_keep_nobody_out() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let plugins = server.plugin_address();
    let quiet = server.figure("Threads:");
    let slow = [plugins, server.admin_address()].map(SlowClients::start);
    wait_until("threads for the slow clients", || {
        server.figure("Threads:") > quiet + 64
    });
    let outside = json!({"mode": "external", "manifest": manifest("outside")});
    let outside = outside.to_string().into_bytes();
    let begun = Instant::now();
    let mut rounds = 0;
    // Until all that were there at the beginning have been thrown out.
    while begun.elapsed() < HEAD + Duration::from_secs(1) {
        let asked = Instant::now();
        let added =
            served(&mut || server.answer("POST", "/api/plugins", "application/json", &outside));
        let added: Value = serde_json::from_str(&added).unwrap();
        let token = added["connection"]["token"].as_str().unwrap();
        let request = Request::upgrade(&format!("/rpc?token={token}"));
        served(&mut || {
            let answer = request.send(plugins);
            (answer.status, answer.body)
        });
        let path = format!("/api/plugins/{}", added["id"].as_str().unwrap());
        served(&mut || server.answer("DELETE", &path, "", b""));
        // If the slow ones had to be waited for, it would take as long as they may.
        assert!(asked.elapsed() < HEAD, "served after {:?}", asked.elapsed());
        let threads = server.figure("Threads:");
        assert!(threads < MOST_THREADS, "{threads} threads");
        rounds += 1;
    }
    assert!(rounds > 1);
    for clients in slow {
        assert!(clients.end() > 0, "none of the slow clients was thrown out");
    }
    wait_until("the threads of the slow clients to end", || {
        server.figure("Threads:") <= quiet + 5
    });
    server.program.stop();
}

/// Readers of one log, as many again that never read, and the lines that they are sent.
const READERS: usize = 100;
const LINES: u32 = 100;
const LINE: usize = 32 * 1024;

/// Asks for a log and reads nothing of it, not even what fits into the buffer of a socket as large as usual.
fn stuck(server: &Server, id: InstallationId) -> TcpStream {
    let mut stream = connect(server.admin_address());
    set_socket_recv_buffer_size(&stream, 4096).unwrap();
    let request = format!(
        "GET /api/plugins/{id}/logs HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n",
        server.bearer()
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Lets the plugin print all lines to readers, who get all of them. Gives how many seconds it took the plugin.
#[track_caller]
fn print_to_readers(server: &Server, id: InstallationId) -> f64 {
    let reading: Vec<_> = (0..READERS)
        .map(|_| {
            let mut events = server.follow(id, None);
            assert!(events.data().starts_with("pid "));
            thread::spawn(move || read_all(events))
        })
        .collect();
    let printed = server.print(id, 0, LINES, LINE);
    for reader in reading {
        reader.join().expect("a reader with every line");
    }
    printed["seconds"].as_f64().unwrap()
}

#[test]
fn readers_that_are_stuck_hold_up_neither_others_nor_the_plugin() {
    let scratch = Scratch::new();
    let server = Server::start(&scratch, "");
    let (other, id) = (server.obedient(&scratch), server.obedient(&scratch));
    // On a busy machine readers alone take the plugin's turn at the processor.
    let threads = server.figure("Threads:");
    let usual = print_to_readers(&server, other);
    wait_until("the readers to be gone", || {
        server.figure("Threads:") <= threads + 5
    });
    let memory = server.figure("VmRSS:");
    let stuck: Vec<_> = (0..READERS).map(|_| stuck(&server, id)).collect();
    // A few that were there before may have ended.
    wait_until("those that are stuck to be served", || {
        server.figure("Threads:") + 10 >= threads + READERS as u64
    });
    let seconds = print_to_readers(&server, id);
    // A reader that is stuck is waited for ten seconds.
    assert!(
        seconds < 8.0 + 5.0 * usual,
        "printing took {seconds} s, and {usual} s where none is stuck"
    );
    let grown = server.figure("VmRSS:").saturating_sub(memory);
    // All that they do not read, if it were kept for each.
    let unread = READERS as u64 * u64::from(LINES) * LINE as u64 / 1024;
    assert!(grown < unread / 2, "{grown} KiB of memory more");
    server.call(id, "ping", &json!({}));
    let asked = Instant::now();
    server.program.stop();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(25), "the stop took {took:?}");
    drop(stuck);
}

/// Reads all lines that the plugin prints, in their order.
fn read_all(mut events: Events) {
    let mut next = 0;
    while next < LINES {
        let line = events.data();
        assert!(line.starts_with(&format!("line {next} x")), "{line:.20}");
        next += 1;
    }
}
