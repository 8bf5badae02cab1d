//! The service manager's watchdog: it is fed as long as every part of the server answers, and is told nothing as
//! soon as one does not. The service manager then ends the program and starts it again.

use std::env;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use plugin_runner::Manager;

use super::ServiceManager;

/// How soon what did not answer is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the end of the thread is waited for, in case it is just asking a part that hangs.
const LAST_QUESTION: Duration = Duration::from_secs(1);

/// Starts to feed the watchdog, if the service manager wants a sign of life from this process.
pub(crate) fn watch(
    service_manager: &Arc<ServiceManager>,
    parts: impl FnOnce() -> Vec<Part>,
) -> Option<Watchdog> {
    let interval = interval()?;
    // Without it, the service manager ends the program, and this is why.
    Watchdog::start(service_manager.clone(), interval, parts())
        .inspect_err(|error| {
            log::error!("cannot start the thread that feeds the watchdog: {error}");
        })
        .ok()
}

/// Returns the time within which it wants one.
fn interval() -> Option<Duration> {
    let variable = |name| env::var(name).ok();
    interval_of(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"))
}

fn interval_of(micros: Option<String>, pid: Option<String>) -> Option<Duration> {
    // Another process may be meant, from which this one has inherited the variables.
    let is_meant = pid.is_none_or(|pid| pid == std::process::id().to_string());
    let micros = micros.filter(|_| is_meant)?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// Something that must answer: within the time that it is given, or else it says why not.
pub(crate) struct Part(Box<dyn Fn(Duration) -> Result<(), String> + Send>);

impl Part {
    /// The reaper and the store of this manager's host.
    pub(crate) fn manager(manager: Manager) -> Self {
        // The error names the part.
        Self(Box::new(move |limit| {
            manager.check(limit).map_err(|error| error.to_string())
        }))
    }

    /// A port of this program that is bound to this address and answers over HTTP, whatever the answer says: a
    /// refusal, for example because all connections are in use, is a sign of life as well. The port for plugins
    /// answers 404, and counts that.
    pub(crate) fn port(name: String, address: SocketAddr) -> Self {
        Self(Box::new(move |limit| {
            answers(address, limit).map_err(|error| format!("{name} at {address}: {error}"))
        }))
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Part")
    }
}

/// Feeds the watchdog until it is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    stop: Option<Sender<()>>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread that asks all parts at every half of the interval, and feeds the watchdog if they answer
    /// within the next half.
    fn start(
        service_manager: Arc<ServiceManager>,
        interval: Duration,
        parts: Vec<Part>,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let (end, ended) = bounded(0);
        let thread = thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                feed(&service_manager, interval / 2, &parts, &stopped);
                drop(end);
            })?;
        Ok(Self {
            stop: Some(stop),
            ended,
            thread: Some(thread),
        })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Nothing is ever sent: it ends when the thread does.
        if self.ended.recv_timeout(LAST_QUESTION) == Err(RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn feed(manager: &ServiceManager, half: Duration, parts: &[Part], stopped: &Receiver<()>) {
    let mut failing = None;
    loop {
        let begun = Instant::now();
        let found = ask(parts, begun + half);
        if found.is_none() {
            manager.alive();
        }
        let now_failing = found.as_ref().map(|(part, _)| *part);
        // Once for each part, however its words change.
        if now_failing != failing {
            match &found {
                Some((_, problem)) => log::error!("the watchdog is not fed: {problem}"),
                None => log::warn!("the watchdog is fed again"),
            }
        }
        failing = now_failing;
        let pause = if failing.is_some() {
            half.min(AGAIN)
        } else {
            half
        };
        if stopped.recv_deadline(begun + pause) == Err(RecvTimeoutError::Disconnected) {
            return;
        }
    }
}

/// Asks all parts until the deadline. Returns the first that does not answer, by its place, and what is wrong.
fn ask(parts: &[Part], deadline: Instant) -> Option<(usize, String)> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let answers = parts.iter().map(|Part(ask)| ask(left()));
    answers
        .enumerate()
        .find_map(|(place, answer)| Some((place, answer.err()?)))
}

/// Connects, asks, and reads the beginning of the answer.
fn answers(address: SocketAddr, limit: Duration) -> io::Result<()> {
    let deadline = Instant::now() + limit;
    let left = || match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {limit:.1?}"),
        )),
        left => Ok(left),
    };
    let address = reachable(address);
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut begin = [0; b"HTTP/1.1 ".len()];
    let mut read = 0;
    while read < begin.len() {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut begin[read..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                left()?;
            }
            Err(error) => return Err(error),
        }
    }
    if &begin == b"HTTP/1.1 " {
        Ok(())
    } else {
        Err(io::Error::other("it answers something else than HTTP/1.1"))
    }
}

/// Returns where this machine reaches what is bound to this address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::tests::Played;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn only_the_process_that_is_meant_has_a_watchdog() {
        let interval = |micros: &str, pid: Option<u32>| {
            interval_of(Some(micros.to_owned()), pid.map(|pid| pid.to_string()))
        };
        let own = std::process::id();
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval("1000000", None), second);
        assert_eq!(interval("1000000", Some(own)), second);
        assert_eq!(interval("1000000", Some(own + 1)), None);
        for none in ["0", "", "-1", "1s"] {
            assert_eq!(interval(none, None), None, "{none}");
        }
        assert_eq!(interval_of(None, None), None);
    }

    #[test]
    fn it_is_fed_while_all_parts_answer_and_only_then() {
        let played = Played::new("watchdog");
        let manager = played.manager.clone();
        let (asks, asked) = bounded(0);
        let well = Arc::new(AtomicBool::new(true));
        let is_well = well.clone();
        let parts = vec![
            Part(Box::new(|_| Ok(()))),
            Part(Box::new(move |limit| {
                assert!(limit <= Duration::from_millis(5));
                // The test goes on when it is asked.
                let _ = asks.send(());
                is_well
                    .load(Ordering::SeqCst)
                    .then_some(())
                    .ok_or_else(|| "no".to_owned())
            })),
        ];
        let watchdog = Watchdog::start(manager, Duration::from_millis(10), parts).unwrap();
        let next = || asked.recv_timeout(LONG).expect("a question");
        for _ in 0..3 {
            next();
            assert_eq!(played.told(), "WATCHDOG=1\n");
        }
        well.store(false, Ordering::SeqCst);
        for _ in 0..5 {
            next();
        }
        // The last answer is not yet acted upon, but four are.
        assert_eq!(played.untold(), None);
        well.store(true, Ordering::SeqCst);
        next();
        next();
        assert_eq!(played.told(), "WATCHDOG=1\n");
        drop(asked);
        drop(watchdog);
    }

    #[test]
    fn a_port_answers_with_anything_that_is_http() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = |reply: &'static [u8], limit| {
            thread::scope(|scope| {
                let played = scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        head.push(byte[0]);
                    }
                    stream.write_all(reply).unwrap();
                    stream
                });
                let result = (Part::port("--listen".to_owned(), address).0)(limit);
                drop(played.join().unwrap());
                result
            })
        };
        asked(b"HTTP/1.1 503 Service Unavailable\r\n\r\n", LONG).unwrap();
        let error = asked(b"SSH-2.0-x\r\n", LONG).unwrap_err();
        assert!(error.ends_with("something else than HTTP/1.1"), "{error}");
        let error = asked(b"HTTP/", Duration::from_millis(50)).unwrap_err();
        assert_eq!(
            error,
            format!("--listen at {address}: no answer within 50.0ms")
        );
        drop(listener);
        let refused = (Part::port("--admin".to_owned(), address).0)(LONG).unwrap_err();
        assert!(
            refused.starts_with(&format!("--admin at {address}: ")),
            "{refused}"
        );
    }

    #[test]
    fn an_address_for_all_is_reached_on_this_machine() {
        for (bound, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            let bound: SocketAddr = bound.parse().unwrap();
            assert_eq!(reachable(bound).to_string(), reached);
        }
    }
}
