//! The pipes between a run and the host: those that output is written to, and the one that input is read from.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::poll;
use crate::runtime::sprites::exec::ExecWriter;
use crate::runtime::sprites::interrupt::{Interrupt, Within};

/// The most bytes of input that are copied at once.
const PIECE: usize = 64 * 1024;

/// The most that a pipe holds by default on Linux.
const ROOM: usize = 1024 * 1024;

/// Where one of a program's streams is written to.
pub(super) struct OutputPipe(Option<PipeWriter>);

/// Returns the host's end of a new pipe, and the other.
pub(super) fn output() -> io::Result<(OwnedFd, OutputPipe)> {
    let (reader, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&writer, true)?;
    Ok((reader.into(), OutputPipe(Some(writer))))
}

/// Has a pipe hold much more, if the system allows it. Both streams are written by one thread: a log that is
/// slow must not hold up the messages on the other so soon.
pub(super) fn prefer_room(pipe: &OwnedFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, ROOM);
}

impl OutputPipe {
    /// Writes all of it, or drops it if it is not read any more. Waits for room for as long as the run goes on;
    /// false when it is over.
    pub(super) fn write(&mut self, mut bytes: &[u8], over: &Interrupt) -> bool {
        while let (Some(pipe), false) = (&mut self.0, bytes.is_empty()) {
            match pipe.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wait(PollFd::new(pipe, PollFlags::OUT), over) {
                        return false;
                    }
                }
                Err(_) => self.0 = None,
            }
        }
        true
    }

    /// Ends the stream.
    pub(super) fn close(&mut self) {
        self.0 = None;
    }
}

/// Copies what the host writes to the program's standard input, until its end, that of the run or that of the
/// socket.
pub(super) fn copy_input(pipe: &PipeReader, writer: &ExecWriter, over: &Interrupt) {
    let within = Within::new(Duration::MAX, over);
    let mut buffer = vec![0; PIECE];
    while wait(PollFd::new(pipe, PollFlags::IN), over) {
        let mut source: &PipeReader = pipe;
        let copied = match source.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Ok(0) | Err(_) => {
                // If this fails, the thread that follows the socket learns why.
                let _ = writer.end_stdin(within);
                return;
            }
            Ok(count) => writer.write(&buffer[..count], within),
        };
        if copied.is_err() {
            return;
        }
    }
}

/// Waits for a pipe; false when the run is over.
fn wait(pipe: PollFd<'_>, over: &Interrupt) -> bool {
    let over = PollFd::from_borrowed_fd(over.as_fd(), PollFlags::IN);
    let mut descriptors = [pipe, over];
    // The system refuses to wait only for want of memory: then the run cannot go on.
    poll::wait(&mut descriptors, None).is_ok() && descriptors[1].revents().is_empty()
}
