//! `Events`: a stream of server-sent events that outlives connections: after one that broke it goes on behind the last
//! event that came.

use std::io::{BufRead, BufReader, Read as _};
use std::thread;
use std::time::{Duration, Instant};

use ureq::BodyReader;

use super::api::Api;
use crate::cli::error::{CliError, Status};
use crate::cli::run::say;

/// How long a stream may be silent. The host says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a host that has gone away is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts to reach it again.
pub(super) const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of an event: more than a host sends in one.
const EVENT: u64 = 16 * 1024 * 1024;

/// An event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    /// Empty for one without a name.
    pub(super) name: String,
    pub(super) data: String,
}

/// A stream of events.
pub(super) struct Events<'a> {
    api: Api,
    /// Finds the host again, which may have another address when it comes back.
    find: &'a dyn Fn() -> Result<Api, CliError>,
    path: String,
    reader: Option<BufReader<BodyReader<'static>>>,
    /// Since when the host has been away: until it has said something, not merely taken a connection.
    away: Option<Instant>,
    patience: Duration,
    /// The id of the last event that came whole.
    last_id: Option<String>,
}

impl<'a> Events<'a> {
    /// Opens a stream. `find` finds the host again after it was away.
    ///
    /// # Errors
    /// As [`Api::open`].
    pub(super) fn open(
        api: &Api,
        path: String,
        find: &'a dyn Fn() -> Result<Api, CliError>,
    ) -> Result<Self, CliError> {
        let mut events = Self {
            api: api.clone(),
            find,
            path,
            reader: None,
            away: None,
            patience: PATIENCE,
            last_id: None,
        };
        events.connect()?;
        Ok(events)
    }

    fn connect(&mut self) -> Result<(), CliError> {
        let response = self
            .api
            .stream(&self.path, self.last_id.as_deref(), SILENCE)?;
        self.reader = Some(BufReader::new(response.into_body().into_reader()));
        Ok(())
    }

    /// Waits for the next event. If the host goes away it is waited for, for a minute.
    ///
    /// # Errors
    /// [`CliError`] when the host does not come back, or refuses to go on.
    pub(super) fn next(&mut self) -> Result<Event, CliError> {
        loop {
            if let Some(reader) = &mut self.reader
                && let Some((event, id)) = read(reader)
            {
                self.away = None;
                self.last_id = id.or(self.last_id.take());
                if let Some(event) = event {
                    return Ok(event);
                }
                continue;
            }
            self.reader = None;
            self.reconnect()?;
        }
    }

    fn reconnect(&mut self) -> Result<(), CliError> {
        let is_first = self.away.is_none();
        let deadline = *self.away.get_or_insert_with(Instant::now) + self.patience;
        let base = self.api.base().to_owned();
        if is_first {
            say(&format!("the host at {base} has gone; waiting for it"));
        } else if Instant::now() >= deadline {
            return Err(CliError::no_host(format!(
                "the host at {base} takes connections, and ends them with nothing said"
            )));
        }
        loop {
            // Also before the first attempt: one that ends each connection at once must not be asked without end.
            thread::sleep(PAUSE);
            let found = (self.find)().and_then(|api| {
                self.api = api;
                self.connect()
            });
            match found {
                Ok(()) => {
                    if is_first {
                        say("the host is back");
                    }
                    return Ok(());
                }
                Err(failure)
                    if failure.status() != Status::NoHost || Instant::now() >= deadline =>
                {
                    return Err(failure);
                }
                Err(_) => {}
            }
        }
    }
}

/// What stands between two empty lines: an event, and the id from which a client goes on.
type Block = (Option<Event>, Option<String>);

/// Reads the next block; `None` if the stream ended or broke, also in the middle of one, or it is longer than any.
fn read(reader: &mut impl BufRead) -> Option<Block> {
    let mut event = Event::default();
    let mut data: Option<String> = None;
    let mut id = None;
    let mut reader = reader.take(EVENT);
    loop {
        let mut line = String::new();
        let size = reader.read_line(&mut line).ok()?;
        if size == 0 {
            return None;
        }
        let line = line.strip_suffix('\n')?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let event = data.map(|data| Event { data, ..event });
            return Some((event, id));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "id" => id = Some(value.to_owned()),
            "data" => match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            // A comment, or what this program does not know.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cli::serve;

    #[test]
    fn events_are_read_whole_or_not_at_all() {
        let text = ": hello\n\nid: 7\ndata: a\ndata:  b\n\nevent: gap\r\ndata: {}\r\n\r\nid: 8\ndata: \n\nid: 9\n\ndata: cut o";
        let mut reader = text.as_bytes();
        let mut next = || read(&mut reader);
        assert_eq!(next(), Some((None, None)));
        let event = |name: &str, data: &str| {
            Some(Event {
                name: name.to_owned(),
                data: data.to_owned(),
            })
        };
        assert_eq!(next(), Some((event("", "a\n b"), Some("7".to_owned()))));
        assert_eq!(next(), Some((event("gap", "{}"), None)));
        assert_eq!(next(), Some((event("", ""), Some("8".to_owned()))));
        assert_eq!(next(), Some((None, Some("9".to_owned()))));
        assert_eq!(next(), None);
    }

    #[test]
    fn an_event_has_an_end() {
        let mut endless = BufReader::new(std::io::repeat(b'a'));
        assert_eq!(read(&mut endless), None);
        let lines = "data: a\n".repeat(usize::try_from(EVENT).unwrap() / 8 + 1) + "\n";
        assert_eq!(read(&mut lines.as_bytes()), None);
    }

    #[test]
    fn a_host_that_ends_each_connection_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                if std::io::Read::read(&mut stream, &mut request).unwrap() == 0 {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let api = Api::new(&base, serve::check_token("t".repeat(32)).unwrap());
        let find = || Ok(api.clone());
        let mut events = Events::open(&api, "/".to_owned(), &find).unwrap();
        events.patience = Duration::ZERO;
        let failure = events.next().unwrap_err();
        assert_eq!(failure.status(), Status::NoHost);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        drop(TcpStream::connect(base.trim_start_matches("http://")).unwrap());
        server.join().unwrap();
    }
}
