//! The reading half of stdio: lines, sorted into messages and output.

use std::hint;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::OutputHook;
use super::pipe::{Waited, WritePipe};
use crate::deadline::Deadline;
use crate::duplex::halves::{OwnReader, beginning};
use crate::duplex::outgoing::Outgoing;
use crate::duplex::{DuplexReader, Message, Received, WaitPolicy};
use crate::error::Disconnect;
use crate::line_splitter::LineSplitter;
use crate::protocol::jsonrpc::Incoming;
use crate::text::BYTE_ORDER_MARK;

/// Bytes read at a time, and kept between lines.
const READ_BUFFER: usize = 8 * 1024;

/// Bytes still read after a write failed: more than a pipe holds, so that nothing the plugin said
/// before it went away is lost, and not without limit.
const LAST_BYTES: usize = 1024 * 1024;

/// Output that comes as one line over the limit is passed to the hook in pieces of this length.
const PIECE: usize = 64 * 1024;

/// The members that a message may begin with.
const MEMBERS: [&[u8]; 6] = [b"jsonrpc", b"id", b"method", b"params", b"result", b"error"];

pub(in crate::duplex) struct StdioReader {
    pipe: OwnedFd,
    outgoing: Outgoing<WritePipe>,
    output: Option<OutputHook>,
    limit: usize,
    buffer: Vec<u8>,
    /// Where the line that is being read starts in the buffer.
    start: usize,
    /// Up to where it was searched for its end.
    searched: usize,
    last_bytes: usize,
    /// The pipe does not block.
    timed: bool,
    /// A line that a timed read came upon and that is the hook's.
    held: Option<Range<usize>>,
    /// The line that is being read is output over the limit, and goes to the hook as it comes.
    overlong: Option<LineSplitter>,
    ended: Option<Disconnect>,
}

impl StdioReader {
    pub(super) fn new(
        pipe: OwnedFd,
        outgoing: Outgoing<WritePipe>,
        output: Option<OutputHook>,
        limit: usize,
        timed: bool,
    ) -> Self {
        Self {
            pipe,
            outgoing,
            output,
            limit,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            last_bytes: LAST_BYTES,
            timed,
            held: None,
            overlong: None,
            ended: None,
        }
    }

    /// Returns the next whole line, without its line feed; `None` if it does not come within `policy`, and at
    /// the end of the stream, which `ended` tells then.
    fn line(&mut self, policy: Option<WaitPolicy>) -> Result<Option<Range<usize>>, Disconnect> {
        loop {
            let unsearched = &self.buffer[self.searched..];
            let end = memchr::memchr(b'\n', unsearched);
            let end = end.map(|length| self.searched + length);
            let line = self.start..end.unwrap_or(self.buffer.len());
            if self.overlong.is_some() || line.len() > self.limit {
                // The same, however much of it has come.
                let beginning = line.start..line.end.min(line.start + self.limit);
                if self.overlong.is_none() && begins_as_message(&self.buffer[beginning]) {
                    return Err(Disconnect::TooLarge { limit: self.limit });
                }
                if policy.is_some() {
                    // The hook may take any time.
                    return Ok(None);
                }
                self.output_overlong(line, end.is_some());
            } else if let Some(end) = end {
                self.start = end + 1;
                self.searched = self.start;
                return Ok(Some(line));
            } else {
                self.searched = self.buffer.len();
            }
            if end.is_some() {
                continue;
            }
            let Some(count) = self.fill(policy)? else {
                return Ok(None);
            };
            if count == 0 {
                if policy.is_none() {
                    self.ended = Some(self.end_of_stream());
                }
                return Ok(None);
            }
        }
    }

    /// Passes the hook a piece of a line that is over the limit.
    fn output_overlong(&mut self, piece: Range<usize>, is_last: bool) {
        let mut overlong = self
            .overlong
            .take()
            .unwrap_or_else(|| LineSplitter::new(PIECE));
        let end = piece.end;
        overlong.push(&self.buffer[piece], |line| self.output(line));
        self.start = end;
        if is_last {
            overlong.push(b"\n", |line| self.output(line));
            self.start += 1;
        } else {
            self.overlong = Some(overlong);
        }
        self.searched = self.start;
    }

    /// Takes what is left without a line end: it is output, whatever it looks like, since it may be half of what
    /// the plugin was about to say. What was printed last often has none.
    fn end_of_stream(&mut self) -> Disconnect {
        if let Some(mut overlong) = self.overlong.take() {
            overlong.finish(|line| self.output(line));
        }
        let left = self.start..self.buffer.len();
        self.start = left.end;
        self.searched = left.end;
        let left = &self.buffer[left];
        if left.iter().all(u8::is_ascii_whitespace) {
            return Disconnect::Lost;
        }
        self.output(left);
        match std::str::from_utf8(left).map(Incoming::parse_line) {
            Ok(Ok(_)) => Disconnect::NoLineEnd,
            _ => Disconnect::Lost,
        }
    }

    /// Reads once; 0 at the end of the stream, `None` if nothing comes within `policy`.
    fn fill(&mut self, policy: Option<WaitPolicy>) -> Result<Option<usize>, Disconnect> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(READ_BUFFER);
        }
        let length = self.buffer.len();
        self.buffer.resize(length + READ_BUFFER, 0);
        let until = policy.map(|policy| policy.deadline);
        let spin_until = policy.and_then(|policy| policy.spin_until);
        let count = loop {
            if until.is_some_and(Deadline::has_passed) {
                // Also for a program that prints without end.
                self.buffer.truncate(length);
                return Ok(None);
            }
            if spin_until.is_none_or(|until| Instant::now() >= until) {
                let waited = self
                    .outgoing
                    .sink()
                    .wait_readable(self.pipe.as_fd(), until)?;
                if waited == Waited::TimedOut {
                    self.buffer.truncate(length);
                    return Ok(None);
                }
                // A shutdown ends it at once. A failed write only wakes: what is in the pipe is read first.
                if self.outgoing.is_over() || waited == Waited::Woken {
                    self.buffer.truncate(length);
                    return Err(Disconnect::Lost);
                }
            }
            match rustix::io::read(&self.pipe, &mut self.buffer[length..]) {
                // A child that opened its own end for reading took what was promised.
                Err(Errno::INTR | Errno::AGAIN) => hint::spin_loop(),
                count => break count.map_err(io::Error::from),
            }
        };
        self.buffer.truncate(length + *count.as_ref().unwrap_or(&0));
        let count = count?;
        if self.outgoing.has_failed() {
            self.last_bytes = self.last_bytes.saturating_sub(count);
            if self.last_bytes == 0 {
                return Err(Disconnect::Lost);
            }
        }
        Ok(Some(count))
    }

    fn output(&self, line: &[u8]) {
        match &self.output {
            Some(output) => output(line),
            None => log::debug!("dropped {} bytes of output", line.len()),
        }
    }
}

impl StdioReader {
    /// Returns the next thing in the pipe, or why there will be none; `None` if it does not come within
    /// `policy`, and at the end of the stream.
    fn next(&mut self, policy: Option<WaitPolicy>) -> Result<Option<Received>, Disconnect> {
        loop {
            let Some(range) = self.line(policy)? else {
                return Ok(None);
            };
            let line = &self.buffer[range.clone()];
            if line.trim_ascii().is_empty() {
                continue;
            }
            if without_mark(line).starts_with(b"{")
                && let Ok(text) = std::str::from_utf8(line)
            {
                return Ok(Some(Received::Line(Message::from(text))));
            }
            if policy.is_some() {
                // Its hook may take any time.
                self.held = Some(range);
                return Ok(None);
            }
            return Ok(Some(self.take_output(range)));
        }
    }

    fn take_output(&self, range: Range<usize>) -> Received {
        let line = &self.buffer[range];
        self.output(line);
        Received::Output {
            beginning: beginning(line),
        }
    }
}

/// Returns a line without the white space and the byte order mark that it begins with.
fn without_mark(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii_start();
    let rest = line.strip_prefix(BYTE_ORDER_MARK.as_bytes());
    rest.unwrap_or(line).trim_ascii_start()
}

/// Returns whether a line begins as messages do, with an object and one of their members; log lines in JSON
/// do not.
fn begins_as_message(line: &[u8]) -> bool {
    let name = without_mark(line)
        .strip_prefix(b"{")
        .and_then(|members| members.trim_ascii_start().strip_prefix(b"\""));
    name.is_some_and(|name| {
        MEMBERS.iter().any(|member| {
            name.strip_prefix(*member)
                .is_some_and(|rest| rest.starts_with(b"\""))
        })
    })
}

impl DuplexReader for StdioReader {
    fn receive(&mut self) -> Result<Option<Arc<str>>, Disconnect> {
        match self.receive_any()? {
            Received::Message(message) => Ok(Some(message.into_text())),
            Received::Line(line) if Incoming::parse_line(&line).is_ok() => {
                Ok(Some(line.into_text()))
            }
            Received::Line(line) => {
                self.output(line.as_bytes());
                Ok(None)
            }
            Received::Output { .. } | Received::Binary { .. } | Received::Alive => Ok(None),
        }
    }
}

impl OwnReader for StdioReader {
    fn receive_any(&mut self) -> Result<Received, Disconnect> {
        if let Some(range) = self.held.take() {
            return Ok(self.take_output(range));
        }
        loop {
            if self.outgoing.is_over() {
                self.ended.get_or_insert(Disconnect::Lost);
            }
            if let Some(cause) = &self.ended {
                return Err(self.outgoing.end_from_reader(cause.clone()));
            }
            match self.next(None) {
                Ok(Some(received)) => return Ok(received),
                // The end.
                Ok(None) => {}
                Err(cause) => self.ended = Some(cause),
            }
        }
    }

    fn not_a_message(&mut self, message: &Message) -> bool {
        self.output(message.as_bytes());
        true
    }

    fn set_timed(&mut self, _: Option<Duration>) -> bool {
        self.timed
    }

    fn receive_within(&mut self, policy: WaitPolicy) -> Option<Received> {
        if self.held.is_some() || self.ended.is_some() || self.outgoing.is_over() {
            return None;
        }
        self.next(Some(policy)).unwrap_or_else(|cause| {
            self.ended = Some(cause);
            None
        })
    }
}

impl Drop for StdioReader {
    fn drop(&mut self) {
        self.outgoing.end_from_reader(Disconnect::Lost);
    }
}
