//! `Link`: one connection to the service, over TCP or TLS, in non-blocking mode.
//!
//! Nothing here waits but [`Link::connect`]: whoever reads or writes and is told `WouldBlock` polls the
//! socket, together with what may interrupt it.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::endpoint::Endpoint;
use super::interrupt::Within;
use crate::error::SpritesProblem;
use crate::thread::Threads;

/// The most addresses of the service that are tried, each with its share of the time.
const MOST_ADDRESSES: u32 = 8;

pub(super) struct Link {
    socket: Arc<TcpStream>,
    tls: Option<Box<ClientConnection>>,
    /// Bytes received so far: a sign of life also in the middle of a long message.
    pub(super) received: u64,
}

impl Link {
    /// Looks the service up, connects and, for `https`, secures the connection.
    ///
    /// # Errors
    /// [`Unreachable`](SpritesProblem::Unreachable), [`Insecure`](SpritesProblem::Insecure), and those of
    /// [`Within::check`].
    pub(super) fn connect(
        endpoint: &Endpoint,
        tls: &Arc<ClientConfig>,
        threads: &Threads,
        within: Within<'_>,
    ) -> Result<Self, SpritesProblem> {
        let addresses = look_up(endpoint, threads, within)?;
        let socket = connect_any(&addresses, within)?;
        // What is written at once belongs together already.
        socket
            .set_nodelay(true)
            .map_err(SpritesProblem::Unreachable)?;
        let mut link = Self {
            socket: Arc::new(socket),
            tls: None,
            received: 0,
        };
        if endpoint.secure {
            let insecure = |error: rustls::Error| SpritesProblem::Insecure(io::Error::other(error));
            let name = ServerName::try_from(endpoint.host.clone())
                .map_err(|error| SpritesProblem::Insecure(io::Error::other(error)))?;
            let client = ClientConnection::new(tls.clone(), name).map_err(insecure)?;
            link.tls = Some(Box::new(client));
            link.secure(within)?;
        }
        Ok(link)
    }

    /// Does the handshake of TLS.
    fn secure(&mut self, within: Within<'_>) -> Result<(), SpritesProblem> {
        loop {
            let Some(tls) = &mut self.tls else {
                return Ok(());
            };
            let step = if tls.wants_write() {
                tls.write_tls(&mut &*self.socket).map(|_| ())
            } else if tls.is_handshaking() {
                match tls.read_tls(&mut &*self.socket) {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(_) => tls.process_new_packets().map(|_| ()).map_err(|error| {
                        // The alert that says why, if there is room for it.
                        let _ = tls.write_tls(&mut &*self.socket);
                        io::Error::other(error)
                    }),
                    Err(error) => Err(error),
                }
            } else {
                return Ok(());
            };
            match step {
                Ok(()) => within.check()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within.wait(self.socket.as_fd(), self.interest())?;
                }
                Err(error) => return Err(SpritesProblem::Insecure(error)),
            }
        }
    }

    /// What the socket has to be polled for, for things to go on.
    pub(super) fn interest(&self) -> PollFlags {
        if self.tls.as_ref().is_some_and(|tls| tls.wants_write()) {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        }
    }

    /// Whether an idle connection can still be used. What arrives on one is no answer to anything.
    pub(super) fn is_idle(&mut self) -> bool {
        let mut byte = [0];
        let read = self.read(&mut byte);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// [`Broken`](SpritesProblem::Broken), and those of [`Within::check`].
    pub(super) fn write_within(
        &mut self,
        mut bytes: &[u8],
        within: Within<'_>,
    ) -> Result<(), SpritesProblem> {
        loop {
            let step = if bytes.is_empty() {
                match self.flush() {
                    Ok(()) => return Ok(()),
                    Err(error) => Err(error),
                }
            } else {
                self.write(bytes)
            };
            match step {
                Ok(count) => {
                    bytes = &bytes[count..];
                    // What is written whole is written, even if that is cancelled now.
                    if !bytes.is_empty() {
                        within.check()?;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within.wait(self.socket.as_fd(), PollFlags::OUT)?;
                }
                Err(error) => return Err(SpritesProblem::Broken(error)),
            }
        }
    }

    /// Reads what there is, and waits until there is something; 0 is the end.
    ///
    /// # Errors
    /// As [`write_within`](Self::write_within).
    pub(super) fn read_within(
        &mut self,
        buffer: &mut [u8],
        within: Within<'_>,
    ) -> Result<usize, SpritesProblem> {
        loop {
            // Also for a peer that sends without end.
            within.check()?;
            match self.read(buffer) {
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    within.wait(self.socket.as_fd(), self.interest())?;
                }
                Err(error) => return Err(SpritesProblem::Broken(error)),
            }
        }
    }

    /// Returns the socket, for other threads to poll it and to shut it down.
    pub(super) fn socket(&self) -> Arc<TcpStream> {
        self.socket.clone()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let count = (&*self.socket).read(buffer)?;
            self.received += count as u64;
            return Ok(count);
        };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            // At the end of the stream the next read says whether it was to be expected.
            let count = tls.read_tls(&mut &*self.socket)?;
            self.received += count as u64;
            let processed = tls.process_new_packets();
            // Alerts and answers to key updates; what finds no room now goes with what follows.
            if tls.wants_write() {
                let _ = tls.write_tls(&mut &*self.socket);
            }
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return (&*self.socket).write(bytes);
        };
        let mut count = tls.writer().write(bytes)?;
        if count == 0 && !bytes.is_empty() {
            // Its buffer is full, so this makes room or says that there is none.
            tls.write_tls(&mut &*self.socket)?;
            count = tls.writer().write(bytes)?;
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        match tls.write_tls(&mut &*self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(count),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        while tls.wants_write() {
            tls.write_tls(&mut &*self.socket)?;
        }
        Ok(())
    }
}

/// Returns the service's addresses. The system's resolver can neither be interrupted nor bounded, so it runs
/// on a thread of its own, which is left behind when the time is over.
fn look_up(
    endpoint: &Endpoint,
    threads: &Threads,
    within: Within<'_>,
) -> Result<Vec<SocketAddr>, SpritesProblem> {
    let port = endpoint.port;
    if let Ok(address) = endpoint.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    within.check()?;
    let (end, guard) = io::pipe().map_err(SpritesProblem::Unreachable)?;
    let found = Arc::new(Mutex::new(None));
    let name = endpoint.host.clone();
    let body = {
        let found = found.clone();
        move || {
            let addresses = (name.as_str(), port).to_socket_addrs();
            *found.lock() = Some(addresses.map(Iterator::collect::<Vec<_>>));
            // Closing it wakes who waits.
            drop(guard);
        }
    };
    threads
        .spawn("resolve", 256 * 1024, body)
        .map_err(|error| SpritesProblem::Thread(Box::new(error)))?;
    within.wait(end.as_fd(), PollFlags::IN)?;
    let found = found.lock().take();
    let gone = || Err(io::Error::other("its resolver ended"));
    let addresses = found
        .unwrap_or_else(gone)
        .map_err(SpritesProblem::Unreachable)?;
    if addresses.is_empty() {
        let none = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
        return Err(SpritesProblem::Unreachable(none));
    }
    Ok(addresses)
}

/// Connects to the first address that takes the connection.
fn connect_any(addresses: &[SocketAddr], within: Within<'_>) -> Result<TcpStream, SpritesProblem> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let mut left = u32::try_from(addresses.len())
        .unwrap_or(u32::MAX)
        .min(MOST_ADDRESSES);
    for address in addresses {
        if left == 0 {
            break;
        }
        // The last one has all that is left.
        let share = within.at_most(within.deadline.remaining() / left);
        left -= 1;
        match connect(*address, share) {
            Ok(socket) => return Ok(socket),
            Err(SpritesProblem::Timeout { .. }) if left > 0 => {}
            Err(SpritesProblem::Unreachable(error)) => last = error,
            Err(problem) => {
                within.check()?;
                return Err(problem);
            }
        }
    }
    within.check()?;
    Err(SpritesProblem::Unreachable(last))
}

fn connect(address: SocketAddr, within: Within<'_>) -> Result<TcpStream, SpritesProblem> {
    let unreachable = |error: Errno| SpritesProblem::Unreachable(error.into());
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    #[cfg(not(target_vendor = "apple"))]
    let socket = rustix::net::socket_with(
        family,
        SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )
    .map_err(unreachable)?;
    #[cfg(target_vendor = "apple")]
    let socket = {
        let socket = rustix::net::socket(family, SocketType::STREAM, None).map_err(unreachable)?;
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).map_err(unreachable)?;
        rustix::io::ioctl_fionbio(&socket, true).map_err(unreachable)?;
        sockopt::set_socket_nosigpipe(&socket, true).map_err(unreachable)?;
        socket
    };
    match rustix::net::connect(&socket, &address) {
        Ok(()) => {}
        // An interrupted connect goes on by itself.
        Err(Errno::INPROGRESS | Errno::INTR) => {
            within.wait(socket.as_fd(), PollFlags::OUT)?;
            sockopt::socket_error(&socket)
                .and_then(|outcome| outcome)
                .map_err(unreachable)?;
        }
        Err(error) => return Err(unreachable(error)),
    }
    Ok(TcpStream::from(socket))
}
