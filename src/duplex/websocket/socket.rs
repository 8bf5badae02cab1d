//! The socket under a WebSocket: one descriptor, read by one thread and written by others.
//!
//! It stays in blocking mode for the reader. Writes are non-blocking by their flag, so a timeout
//! on one side never touches the other.

use std::hint;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketType};

use crate::deadline::Deadline;
use crate::duplex::WaitPolicy;
use crate::duplex::outgoing::Sink;
use crate::poll;

/// A connected stream socket, TCP or Unix.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    is_tcp: bool,
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self {
            descriptor: stream.into(),
            is_tcp: true,
        }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self {
            descriptor: stream.into(),
            is_tcp: false,
        }
    }
}

impl Socket {
    /// Takes over a socket of either kind.
    pub(crate) fn of(descriptor: OwnedFd) -> Self {
        // What is no stream is refused by `prepare`.
        let name = rustix::net::getsockname(&descriptor);
        let is_tcp = name.is_ok_and(|name| SocketAddr::try_from(name).is_ok());
        Self { descriptor, is_tcp }
    }

    /// Undoes what a handshake may have set, and switches Nagle's algorithm off: frames are
    /// gathered here already.
    ///
    /// # Errors
    /// The system's, or that it is no stream.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let kind = sockopt::socket_type(self)?;
        // Sequenced packets come from one connection and in order, which is all that is needed.
        let is_connected = matches!(kind, SocketType::STREAM | SocketType::SEQPACKET);
        if !is_connected || self.is_listening()? {
            return Err(io::Error::other("not the stream of a connection"));
        }
        rustix::io::ioctl_fionbio(self, false)?;
        self.set_read_timeout(None)?;
        sockopt::set_socket_timeout(self, Timeout::Send, None)?;
        if self.is_tcp {
            sockopt::set_tcp_nodelay(self, true)?;
        }
        Ok(())
    }

    #[cfg(not(target_vendor = "apple"))]
    fn is_listening(&self) -> io::Result<bool> {
        Ok(sockopt::socket_acceptconn(self)?)
    }

    /// Cannot be asked there: such a socket fails when it is read.
    #[cfg(target_vendor = "apple")]
    fn is_listening(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Returns the address of the peer for log lines; empty when there is none.
    pub(crate) fn peer_address(&self) -> String {
        if !self.is_tcp {
            return "unix socket".to_owned();
        }
        let address = rustix::net::getpeername(self).ok().flatten();
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        address.map_or_else(String::new, |address| address.to_string())
    }

    /// Writes all of it by the deadline; for handshakes, before the connection is in use.
    pub(crate) fn write_within(&self, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait_writable(deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends the writing direction: the peer reads to the end of the stream.
    pub(crate) fn end_writing(&self) {
        self.shutdown(Shutdown::Write);
    }

    /// Ends the reading direction, on this side alone: a thread that waits for bytes is woken.
    pub(crate) fn end_reading(&self) {
        self.shutdown(Shutdown::Read);
    }

    /// Discards what has arrived, up to a limit; never blocks. A socket that is closed while bytes
    /// lie unread in it is reset, and the reset may destroy what was written last on its way.
    pub(crate) fn discard_arrived(&self) {
        const LIMIT: usize = 64 * 1024;
        let mut buffer = [0; 4096];
        let mut total = 0;
        while total < LIMIT {
            match rustix::net::recv(self, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((count, _)) if count > 0 => total += count,
                _ => return,
            }
        }
    }

    /// Reads once; blocks until there is something.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer, RecvFlags::empty())
    }

    /// Reads once what has arrived; `WouldBlock` when that is nothing.
    pub(crate) fn read_arrived(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer, RecvFlags::DONTWAIT)
    }

    /// Whether the peer has ended its writing direction, or the connection is broken, whatever lies unread. Never
    /// blocks.
    #[cfg(target_os = "linux")]
    pub(crate) fn has_ended(&self) -> bool {
        let mut descriptors = [PollFd::new(self, PollFlags::RDHUP)];
        let at_once = Deadline::after(Duration::ZERO);
        poll::wait(&mut descriptors, Some(at_once)).unwrap_or(false)
    }

    /// Whether the peer has ended its writing direction, or the connection is broken, and nothing lies unread.
    /// Never blocks.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn has_ended(&self) -> bool {
        match self.receive(&mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Writes what the system takes right now; `WouldBlock` when it takes nothing.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(not(target_vendor = "apple"))]
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // The standard library has switched the signal off for the whole socket there.
        #[cfg(target_vendor = "apple")]
        let flags = SendFlags::DONTWAIT;
        Ok(rustix::net::send(self, bytes, flags)?)
    }

    fn receive(&self, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let receive = || rustix::net::recv(self, &mut *buffer, flags);
        let (count, _) = rustix::io::retry_on_intr(receive)?;
        Ok(count)
    }

    /// Reads once, if something comes soon; `WouldBlock` when it does not. `limit` is the read timeout
    /// that is set, if one is: where that is exact enough, one system call will do instead of two.
    pub(super) fn read_within(
        &self,
        buffer: &mut [u8],
        policy: WaitPolicy,
        limit: Option<Duration>,
    ) -> io::Result<usize> {
        loop {
            let looks = policy
                .spin_until
                .is_some_and(|until| Instant::now() < until);
            let blocks = !looks && policy.is_coarse && limit.is_some();
            if !looks && !blocks && !self.wait_readable(policy.deadline)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let flags = if blocks {
                RecvFlags::empty()
            } else {
                RecvFlags::DONTWAIT
            };
            match rustix::net::recv(self, &mut *buffer, flags) {
                Ok((count, _)) => return Ok(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !blocks => hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sets how long a blocking read may take.
    pub(super) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(self, Timeout::Recv, limit)?)
    }

    /// Waits until there is something to read; false at the deadline.
    pub(super) fn wait_readable(&self, deadline: Deadline) -> io::Result<bool> {
        poll::readable(self.as_fd(), deadline)
    }

    /// Waits until there is something to read, or the socket is shut down.
    pub(super) fn await_readable(&self) -> io::Result<()> {
        poll::wait(&mut [PollFd::new(self, PollFlags::IN)], None).map(drop)
    }

    fn shutdown(&self, how: Shutdown) {
        if let Err(error) = rustix::net::shutdown(self, how) {
            // The peer was faster.
            log::trace!("shutdown: {error}");
        }
    }
}

impl Drop for Socket {
    /// The peer sees the end even if the embedder has kept another handle to the socket.
    fn drop(&mut self) {
        self.shutdown(Shutdown::Both);
    }
}

impl Sink for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.write_now(bytes)
    }

    fn wait_writable(&self, deadline: Deadline) -> io::Result<bool> {
        poll::writable(self.as_fd(), deadline)
    }

    fn shutdown_write(&self) {
        self.end_writing();
    }

    fn shutdown_both(&self) {
        self.shutdown(Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
