//! The stdio transport: one JSON message per line, over the pipes of a child process or, on the
//! plugin's side, over its own stdin and stdout.
//!
//! What lives here: the connection type and its writing half. Beside it: the pipes as a medium,
//! and the reading half. Programs print other things to stdout too, so a line that is not a
//! JSON object is never an error: it goes to the output hook.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use self::pipe::Wake;
pub(super) use self::pipe::WritePipe;
use super::framed::{FramedWriter, Framing};
use super::outgoing::Outgoing;
use super::{Duplex, DuplexReader, DuplexSettings, DuplexWriter};
use crate::error::{Error, Result};
use crate::protocol::line_breaks;

mod pipe;
mod reader;

#[cfg(test)]
mod tests;

pub(super) use self::reader::StdioReader;

/// Takes a line that is not a message.
type OutputHook = Box<dyn Fn(&[u8]) + Send + Sync>;

/// A pair of pipes, not yet in use.
pub struct Stdio {
    reader: OwnedFd,
    writer: OwnedFd,
    shared_writer: bool,
    output: Option<OutputHook>,
}

impl Stdio {
    /// Returns a connection over the stdout (`reader`) and stdin (`writer`) of a child process. Any other
    /// pipe or stream socket will do.
    ///
    /// Both are switched to non-blocking mode when the connection is taken into use; with a pipe
    /// this does not touch the child's end. A program that has restored SIGPIPE's default action
    /// (Rust programs start with it ignored) is ended by a child that closes its stdin.
    pub fn new(reader: impl Into<OwnedFd>, writer: impl Into<OwnedFd>) -> Self {
        Self {
            reader: reader.into(),
            writer: writer.into(),
            shared_writer: false,
            output: None,
        }
    }

    /// Returns a connection over this process's own stdin and stdout, for a plugin. Nothing else should
    /// read stdin; what else is printed to stdout reaches the host as output, in whole lines.
    ///
    /// They may be shared with other processes, a terminal for example, so they stay in blocking
    /// mode: what is written goes in pieces that a pipe takes without blocking once it says it is
    /// ready. Closing the connection does not close the process's own descriptors; the host sees
    /// the end when the process ends.
    ///
    /// # Errors
    /// [`Error::Io`]: stdin or stdout is closed.
    pub fn own() -> Result<Self> {
        let reader = io::stdin().as_fd().try_clone_to_owned();
        let writer = io::stdout().as_fd().try_clone_to_owned();
        Ok(Self {
            reader: reader.map_err(|error| Error::io("duplicate stdin", error))?,
            writer: writer.map_err(|error| Error::io("duplicate stdout", error))?,
            shared_writer: true,
            output: None,
        })
    }

    /// Passes every line that is not a message to `output`: its bytes without the line feed, not necessarily
    /// UTF-8. One that is longer than the largest message comes in pieces of 64 KiB, each but the last marked
    /// as such (` [line continues]`). Without a hook such lines are dropped.
    ///
    /// It is called on the reading thread, so it must be quick.
    #[must_use]
    pub fn on_output(mut self, output: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        self.output = Some(Box::new(output));
        self
    }
}

impl Duplex for Stdio {
    fn split(
        self: Box<Self>,
        settings: &DuplexSettings,
    ) -> Result<(Box<dyn DuplexReader>, Arc<dyn DuplexWriter>)> {
        let wake = Wake::new().map_err(|error| Error::io("create a wake pipe", error))?;
        let pipe = WritePipe::new(self.writer, self.shared_writer, wake)
            .map_err(|error| Error::io("prepare the pipe to the plugin", error))?;
        if !self.shared_writer {
            // The reading end is ours alone, and a read must never block: only polls are woken.
            rustix::io::ioctl_fionbio(&self.reader, true)
                .map_err(|error| Error::io("prepare the pipe from the plugin", error))?;
        }
        let outgoing = Outgoing::new(pipe, settings);
        let reader = StdioReader::new(
            self.reader,
            outgoing.clone(),
            self.output,
            settings.inbound_message,
            !self.shared_writer,
        );
        let writer = FramedWriter {
            framing: Lines,
            outgoing,
        };
        Ok((Box::new(reader), Arc::new(writer)))
    }
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdio")
            .field("reader", &self.reader)
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

/// Messages as lines. Nothing but the end of the stream says that it is closed.
pub(super) struct Lines;

impl Framing for Lines {
    fn message(&self, message: &str) -> Vec<u8> {
        line(message)
    }

    fn ping(&self) -> Option<Vec<u8>> {
        None
    }

    fn close(&self, _code: u16, _reason: &str) -> Option<Vec<u8>> {
        None
    }
}

/// Returns the message as one line.
///
/// Encoders put no line breaks into JSON on their own, but hand-written JSON may have them. Between
/// tokens they mean nothing, and inside strings JSON does not allow them, so a space does as well.
fn line(message: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(message.len() + 1);
    line.extend_from_slice(message.as_bytes());
    line_breaks::replace(&mut line);
    line.push(b'\n');
    line
}
