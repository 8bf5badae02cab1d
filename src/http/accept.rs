//! Binding an address and accepting connections until a stop.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::poll;

/// Connections that the system keeps until they are accepted, as far as it lets us.
const ACCEPT_QUEUE: i32 = 1024;

/// How long accepting pauses after a failure.
const PAUSE: Duration = Duration::from_millis(100);

/// Binds a literal address, such as `127.0.0.1:8000` or `[::1]:0`. Host names are not resolved, because
/// resolving has no deadline. Returns the address that it is bound to as well.
///
/// # Errors
/// - [`Error::Setting`] when `address` is not a literal address.
/// - [`Error::Io`] when the address cannot be bound.
pub(crate) fn bind(address: &str) -> Result<(TcpListener, SocketAddr)> {
    let address: SocketAddr = address.parse().map_err(|_| Error::Setting {
        name: "address",
        problem: format!("{address:?} is not an address with a port, such as 127.0.0.1:8000")
            .into(),
    })?;
    let failed = |error: io::Error| {
        let way_out = match error.kind() {
            io::ErrorKind::AddrInUse => "take another port, or 0 for a free one",
            io::ErrorKind::AddrNotAvailable => "it is no address of this machine",
            _ => return Error::io(format!("listen on {address}"), error),
        };
        let error = io::Error::new(error.kind(), format!("{error}; {way_out}"));
        Error::io(format!("listen on {address}"), error)
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    // The standard library's backlog is short, and a peer that the system drops from it waits a
    // second or more before it tries again.
    rustix::net::listen(&listener, ACCEPT_QUEUE).map_err(|error| failed(io::Error::from(error)))?;
    // A peer that hangs up between poll and accept must not delay the others.
    listener.set_nonblocking(true).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Accepts connections until the other end of the pipe is closed. `failed` is called for each one that the
/// system refuses, such as for lack of descriptors.
///
/// # Blocking
/// Until the stop, which wakes it.
pub(crate) fn accept_until(
    stopped: &io::PipeReader,
    listener: &TcpListener,
    mut accepted: impl FnMut(TcpStream, SocketAddr),
    failed: impl Fn(),
) {
    let mut is_failing = false;
    while wait(stopped, Some(listener)) {
        match listener.accept() {
            Ok((stream, address)) => {
                is_failing = false;
                accepted(stream, address);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::Interrupted
                        | io::ErrorKind::ConnectionAborted
                ) => {}
            Err(error) => {
                // Out of descriptors, most likely: the connection stays in the queue, and
                // retrying at once would only spin.
                failed();
                if std::mem::replace(&mut is_failing, true) {
                    log::debug!("still cannot accept a connection: {error}");
                } else {
                    log::error!("cannot accept a connection, trying on: {error}");
                }
                if !wait(stopped, None) {
                    return;
                }
            }
        }
    }
}

/// Waits for a connection, or for the pause if there is no listener. Returns false at the stop.
fn wait(stopped: &io::PipeReader, listener: Option<&TcpListener>) -> bool {
    let stop = PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN);
    let mut descriptors = vec![stop];
    descriptors.extend(listener.map(|it| PollFd::from_borrowed_fd(it.as_fd(), PollFlags::IN)));
    let pause = listener.is_none().then(|| Deadline::after(PAUSE));
    match poll::wait(&mut descriptors, pause) {
        Ok(_) => descriptors[0].revents().is_empty(),
        Err(error) => {
            // Out of memory, say. It retries, but not at once.
            log::error!("cannot wait for connections: {error}");
            std::thread::park_timeout(PAUSE);
            true
        }
    }
}
