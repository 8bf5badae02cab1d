//! The head of a handshake request: reading it under a deadline, and taking it apart.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags};

use super::places::Place;
use super::refusal::Refusal;
use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;
use crate::poll;

/// Largest head that is read, in bytes.
pub(super) const HEAD_LIMIT: usize = 8 * 1024;
/// Most header lines in a head.
const HEADERS: usize = 64;

/// Bytes up to the end of a head, and whatever came right behind it.
#[derive(Debug)]
pub(super) struct RawHead {
    pub(super) head: Vec<u8>,
    pub(super) rest: Vec<u8>,
}

/// Why there is no head to answer.
#[derive(Debug)]
pub(super) enum HeadError {
    /// Worth an answer.
    Refused(Refusal),
    /// The peer went away, or the listener stops.
    Gone,
    /// The deadline passed.
    Timeout,
}

/// What may end the reading of a head early, on a listener of ours.
#[derive(Clone, Copy)]
pub(super) struct Interruption<'a> {
    /// The end of its other end is the listener's.
    pub(super) stop: &'a io::PipeReader,
    pub(super) place: &'a Place,
}

/// Reads until the end of the head. Blocks at most until the deadline; an interruption wakes it.
pub(super) fn read_head(
    socket: &Socket,
    already_read: Vec<u8>,
    deadline: Deadline,
    interruption: Option<Interruption<'_>>,
) -> Result<RawHead, HeadError> {
    let mut bytes = already_read;
    let mut searched = 0;
    loop {
        // Also for one whose bytes keep coming.
        if interruption.is_some_and(|interruption| interruption.place.is_lost()) {
            return Err(HeadError::Refused(Refusal::BUSY));
        }
        if let Some(end) = end_of_head(&bytes, searched) {
            // An embedder may have read more than we would have.
            if end > HEAD_LIMIT {
                return Err(HeadError::Refused(Refusal::HEAD_TOO_LARGE));
            }
            let rest = bytes.split_off(end);
            return Ok(RawHead { head: bytes, rest });
        }
        if bytes.len() >= HEAD_LIMIT {
            return Err(HeadError::Refused(Refusal::HEAD_TOO_LARGE));
        }
        searched = bytes.len().saturating_sub(3);
        wait_readable(socket, deadline, interruption.map(|it| it.stop))?;
        let mut chunk = [0; 1024];
        let room = chunk.len().min(HEAD_LIMIT - bytes.len());
        match socket.read(&mut chunk[..room]) {
            // Ended by the peer, or from within: that is looked at above.
            Ok(0) if interruption.is_some_and(|it| it.place.is_lost()) => {}
            Ok(0) => return Err(HeadError::Gone),
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(_) => return Err(HeadError::Gone),
        }
    }
}

fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes[from..]
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?;
    Some(from + found + 4)
}

fn wait_readable(
    socket: &Socket,
    deadline: Deadline,
    stop: Option<&io::PipeReader>,
) -> Result<(), HeadError> {
    // Also for a peer whose bytes keep coming.
    if deadline.has_passed() {
        return Err(HeadError::Timeout);
    }
    let mut descriptors = vec![PollFd::new(socket, PollFlags::IN)];
    if let Some(stop) = stop {
        descriptors.push(PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN));
    }
    match poll::wait(&mut descriptors, Some(deadline)) {
        Ok(false) => Err(HeadError::Timeout),
        Ok(true) => match descriptors.get(1) {
            Some(stop) if !stop.revents().is_empty() => Err(HeadError::Gone),
            _ => Ok(()),
        },
        Err(_) => Err(HeadError::Gone),
    }
}

/// What matters of a head.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// Path and query as they came.
    pub(super) target: String,
    /// HTTP/1.1, and not older.
    pub(super) is_current: bool,
    pub(super) user_agent: String,
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) connection: Vec<String>,
    pub(super) upgrade: Vec<String>,
    pub(super) versions: Vec<String>,
    pub(super) keys: Vec<String>,
}

impl Head {
    /// Takes a whole head apart.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            // An empty line that ends in a bare line feed ends the head for the parser, but not for
            // who read it: what stands behind would be lost without a word.
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HEAD_TOO_LARGE),
            Ok(_) | Err(_) => return Err(Refusal::BAD_REQUEST),
        }
        let mut head = Self {
            method: request.method.unwrap_or_default().to_owned(),
            target: request.path.unwrap_or_default().to_owned(),
            is_current: request.version == Some(1),
            ..Self::default()
        };
        for header in request.headers.iter() {
            // Only the user agent may carry anything but ASCII, and is only looked at.
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            let list = || {
                value
                    .split(',')
                    .map(|item| item.trim().to_ascii_lowercase())
            };
            match header.name.to_ascii_lowercase().as_str() {
                "user-agent" => head.user_agent = value,
                // Two of them, and a proxy may have gone by the other.
                "host" if head.host.is_some() => return Err(Refusal::BAD_REQUEST),
                "host" => head.host = Some(value),
                // A body would be taken for frames here, and frames for a body elsewhere.
                "content-length" if value == "0" => {}
                "content-length" | "transfer-encoding" => return Err(Refusal::BAD_REQUEST),
                "origin" => head.origin = Some(value),
                "connection" => head.connection.extend(list()),
                "upgrade" => head.upgrade.extend(list()),
                "sec-websocket-version" => head.versions.push(value),
                "sec-websocket-key" => head.keys.push(value),
                _ => {}
            }
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_for_what_was_read_before_too() {
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Socket::from(socket);
        let filler = "GET / HTTP/1.1\r\nx: \r\n\r\n".len();
        for over in [0, 1] {
            let value = "y".repeat(HEAD_LIMIT - filler + over);
            let head = format!("GET / HTTP/1.1\r\nx: {value}\r\n\r\nrest").into_bytes();
            let deadline = Deadline::after(std::time::Duration::from_secs(30));
            match read_head(&socket, head, deadline, None) {
                Ok(raw) if over == 0 => assert_eq!(raw.rest, b"rest"),
                Err(HeadError::Refused(refusal)) if over == 1 => assert_eq!(refusal.status, 431),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_stands_behind_an_empty_line_is_not_lost() {
        let good = b"GET /rpc HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(Head::parse(good).unwrap().host.as_deref(), Some("h"));
        for bad in [
            &b"GET /rpc HTTP/1.1\r\nHost: h\r\n\nUpgrade: websocket\r\n\r\n"[..],
            b"GET /rpc HTTP/1.1\n\nHost: h\r\n\r\n",
        ] {
            assert!(matches!(Head::parse(bad), Err(refusal) if refusal.status == 400));
        }
    }
}
