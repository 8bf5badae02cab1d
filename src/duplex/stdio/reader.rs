//! The reading half of stdio: lines, sorted into messages and output.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::OutputHook;
use super::pipe::Pipe;
use crate::duplex::outgoing::Outgoing;
use crate::duplex::{DuplexReader, Message, Received};
use crate::error::Disconnect;

/// Bytes read at a time, and kept between lines.
const READ_BUFFER: usize = 8 * 1024;

/// Bytes still read after a write failed: more than a pipe holds, so that nothing the plugin said
/// before it went away is lost, and not without limit.
const LAST_BYTES: usize = 1024 * 1024;

pub(super) struct Reader {
    pipe: OwnedFd,
    outgoing: Outgoing<Pipe>,
    output: Option<OutputHook>,
    limit: usize,
    buffer: Vec<u8>,
    /// Where the line that is being read starts in the buffer.
    start: usize,
    /// Up to where it was searched for its end.
    searched: usize,
    last_bytes: usize,
    ended: Option<Disconnect>,
}

impl Reader {
    pub(super) fn new(
        pipe: OwnedFd,
        outgoing: Outgoing<Pipe>,
        output: Option<OutputHook>,
        limit: usize,
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
            ended: None,
        }
    }

    /// The next whole line, without its line feed.
    fn line(&mut self) -> Result<std::ops::Range<usize>, Disconnect> {
        loop {
            let unsearched = &self.buffer[self.searched..];
            let end = unsearched.iter().position(|byte| *byte == b'\n');
            let end = end.map(|length| self.searched + length);
            let length = end.unwrap_or(self.buffer.len()) - self.start;
            if length > self.limit {
                return Err(Disconnect::TooLarge { limit: self.limit });
            }
            if let Some(end) = end {
                let line = self.start..end;
                self.start = end + 1;
                self.searched = self.start;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.fill()? == 0 {
                // What was printed last often has no line end.
                let line = self.start..self.buffer.len();
                self.start = line.end;
                self.ended = Some(Disconnect::Lost);
                return Ok(line);
            }
        }
    }

    /// Reads once; 0 at the end of the stream.
    fn fill(&mut self) -> Result<usize, Disconnect> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.is_empty() {
            self.buffer.shrink_to(READ_BUFFER);
        }
        let length = self.buffer.len();
        let count = loop {
            let ready = self.outgoing.sink().wait_readable(self.pipe.as_fd())?;
            // A cut is at once. A failed write only wakes: what is in the pipe is read first.
            if self.outgoing.is_over() || !ready {
                return Err(Disconnect::Lost);
            }
            self.buffer.resize(length + READ_BUFFER, 0);
            match rustix::io::read(&self.pipe, &mut self.buffer[length..]) {
                // A child that opened its own end for reading took what was promised.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
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
        Ok(count)
    }

    fn output(&self, line: &[u8]) {
        match &self.output {
            Some(output) => output(line),
            None => log::debug!("dropped {} bytes of output", line.len()),
        }
    }
}

impl DuplexReader for Reader {
    fn receive(&mut self) -> Result<Received, Disconnect> {
        loop {
            if self.outgoing.is_over() {
                self.ended.get_or_insert(Disconnect::Lost);
            }
            if let Some(cause) = &self.ended {
                return Err(self.outgoing.end_from_reader(cause.clone()));
            }
            let range = match self.line() {
                Ok(range) => range,
                Err(cause) => {
                    self.ended = Some(cause);
                    continue;
                }
            };
            let line = &self.buffer[range];
            match line.iter().find(|byte| !byte.is_ascii_whitespace()) {
                None => continue,
                Some(b'{') => {
                    if let Ok(text) = std::str::from_utf8(line) {
                        return Ok(Received::Message(Message::from(text)));
                    }
                }
                Some(_) => {}
            }
            self.output(line);
            return Ok(Received::Alive);
        }
    }

    fn not_a_message(&mut self, message: &Message) -> bool {
        self.output(message.as_bytes());
        true
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.outgoing.end_from_reader(Disconnect::Lost);
    }
}
