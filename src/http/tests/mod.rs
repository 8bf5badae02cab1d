//! The server over real sockets, on loopback. A client sends what it is told, right or wrong.
//!
//! What other servers fail at, each with its test:
//!
//! | probe | test |
//! | --- | --- |
//! | a head byte by byte | `a_head_that_trickles_is_refused_at_its_deadline` |
//! | a body byte by byte | `a_body_that_trickles_is_refused_at_its_deadline` |
//! | silence | `a_silent_connection_ends_unanswered` |
//! | a head or request line of any length | `a_head_without_end_is_refused_and_not_read` |
//! | two lengths, lists, signs, too many digits | `lengths_that_are_not_one_number` |
//! | a length beside chunks | `a_length_beside_chunks` |
//! | codings that are nearly `chunked` | `codings_other_than_chunked` |
//! | sizes of chunks that are no numbers | `chunks_that_are_none` |
//! | chunk extensions of any length | `chunk_extensions_and_trailers_without_end` |
//! | NUL, no `Host` | `a_nul_and_a_host_that_is_missing_or_there_twice` |
//! | line feeds alone | `lines_that_end_in_half_a_line_end` |
//! | HTTP/1.0 | `an_old_client_is_answered_and_its_connection_ends` |
//! | pipelining, keep-alive, chunks | `requests_in_one_piece_are_answered_in_their_order` |
//! | HEAD | `head_gets_the_head_alone` |
//! | `Expect: 100-continue` | `a_body_is_asked_for_by_who_reads_it` |
//! | a body over the limit | `a_body_over_the_limit_is_refused_and_its_rest_not_waited_for` |
//! | an event each second | `an_event_arrives_when_it_is_sent` |
//! | a stuck reader of events from a fast source | `a_stuck_reader_is_given_up_and_holds_up_nobody` |
//! | 300 idle connections | `idle_connections_keep_nobody_out` |
//! | a stop with open streams | `a_stop_cuts_off_who_neither_reads_nor_sends` |

mod bodies;
mod capacity;
mod deadlines;
mod events;
mod malformed;
mod requests;
mod stopping;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::*;
use crate::deadline::Deadline;
use crate::testing::{LONG, wait_until};
use crate::thread::Threads;

/// Long enough for what comes at once, also on a busy machine, and short enough to be waited for.
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// Longer than any client here waits.
const NEVER: Duration = Duration::from_secs(3600);

/// Deadlines that no test reaches unless it sets one.
pub(super) fn patient() -> HttpSettings {
    HttpSettings {
        head: NEVER,
        idle: NEVER,
        body: NEVER,
        write: NEVER,
        ..HttpSettings::default()
    }
}

/// The answer to a request whose body cannot be read.
pub(super) fn refused(error: BodyError) -> Response {
    let answer = error.answer();
    Response::refusal(answer, answer.plain_text())
}

/// A server with a handler of one test's own. At its end nothing of it is left.
pub(super) struct TestServer {
    server: Option<Server>,
    threads: Threads,
    address: SocketAddr,
}

impl TestServer {
    pub(super) fn start(
        settings: HttpSettings,
        handler: impl Fn(&mut Request<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        let threads = Threads::with_limit(1000);
        let server = Server::start("127.0.0.1:0", settings, threads.clone(), handler).unwrap();
        Self {
            address: server.address(),
            server: Some(server),
            threads,
        }
    }

    /// A server that answers with method, target and body, and the targets that it was asked for.
    pub(super) fn echo(settings: HttpSettings) -> (Self, Targets) {
        let targets = Targets::default();
        let seen = targets.clone();
        let server = Self::start(settings, move |request| {
            seen.0.lock().push(request.target().to_owned());
            let begin = format!("{} {} ", request.method(), request.target());
            match request.read_body(1024 * 1024) {
                Ok(body) => Response::bytes(200, "text/plain", [begin.into_bytes(), body].concat()),
                Err(error) => refused(error),
            }
        });
        (server, targets)
    }

    pub(super) fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }

    pub(super) fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// Waits until so many connections wait for a request. An answer arrives a moment earlier.
    #[track_caller]
    pub(super) fn await_waiting(&self, count: usize) {
        let has_so_many = || self.server().waiting() == count;
        wait_until("connections to be idle", has_so_many);
    }

    /// How many threads it has.
    pub(super) fn threads(&self) -> usize {
        self.threads.count()
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else {
            return;
        };
        // In a test that fails, clients may wait for what does not come.
        let left = server.stop(Duration::from_secs(20));
        drop(server);
        let alive = self.threads.join_all(Deadline::after(LONG));
        if !std::thread::panicking() {
            assert_eq!((left, alive), (0, 0), "threads are left");
            let refused = TcpStream::connect(self.address).map(drop);
            assert_eq!(
                refused.map_err(|error| error.kind()),
                Err(ErrorKind::ConnectionRefused)
            );
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Targets(Arc<Mutex<Vec<String>>>);

impl Targets {
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().clone()
    }
}

#[derive(Debug)]
pub(super) struct Client(TcpStream);

impl Client {
    #[track_caller]
    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.0.write_all(bytes.as_ref()).unwrap();
        self
    }

    #[track_caller]
    pub(super) fn get(&mut self, target: &str) -> Answer {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        self.answer()
    }

    /// Reads an answer to anything but HEAD.
    #[track_caller]
    pub(super) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        if answer.status == 100 {
            return answer;
        }
        answer.body = if let Some(length) = answer.header("Content-Length") {
            let mut body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut body).unwrap();
            body
        } else if answer.header("Transfer-Encoding") == Some("chunked") {
            let mut body = Vec::new();
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
            body
        } else {
            self.rest()
        };
        answer
    }

    /// Reads the head of an answer.
    #[track_caller]
    pub(super) fn head(&mut self) -> Answer {
        let head = self.until("\r\n\r\n");
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: Vec::new(),
        }
    }

    /// Reads a chunk; none at the last.
    #[track_caller]
    pub(super) fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = self.until("\r\n");
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).unwrap();
        assert!(chunk.ends_with(b"\r\n"), "{chunk:?}");
        chunk.truncate(size);
        (size > 0).then_some(chunk)
    }

    #[track_caller]
    fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            // One by one, so that nothing behind it is taken.
            let mut byte = [0];
            let read = self.0.read_exact(&mut byte);
            read.unwrap_or_else(|error| {
                panic!("only {:?}: {error}", text.escape_ascii().to_string())
            });
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    /// Reads to the end of the connection.
    #[track_caller]
    pub(super) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            // What was sent and not read makes the system reset the connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection does not end: {error}"),
        }
        rest
    }

    /// Asserts that the connection ends, and nothing comes before that.
    #[track_caller]
    pub(super) fn ends(&mut self) {
        let rest = self.rest();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
    }

    /// Sends byte after byte until there is something to read. Returns how many were sent.
    #[track_caller]
    pub(super) fn trickle(&mut self, byte: u8) -> usize {
        let began = Instant::now();
        self.0.set_nonblocking(true).unwrap();
        let mut sent = 0;
        loop {
            match self.0.peek(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => break,
            }
            assert!(
                began.elapsed() < LONG,
                "no answer to {sent} bytes that trickle"
            );
            sent += usize::from(self.0.write(&[byte]).is_ok());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.0.set_nonblocking(false).unwrap();
        sent
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, wanted: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}
