//! A server: the thread that accepts, the connections, and their end.

use std::fmt;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::accept::{accept_until, bind};
use super::connection::{Connection, Handler};
use super::refusal::{RefusalAnswer, refuse};
use super::settings::HttpSettings;
use super::slots::Slots;
use super::wire::{Stop, Wire};
use crate::deadline::Deadline;
use crate::duplex::websocket::Socket;
use crate::error::{Error, Result};
use crate::thread::Threads;

/// The stack of the thread that accepts, in bytes.
const ACCEPT_STACK: usize = 128 * 1024;

/// An HTTP server on one address. Dropping it stops it without waiting: connections are cut off.
#[must_use = "dropping it stops the server"]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<Stop>,
    #[cfg(test)]
    slots: Arc<Slots>,
    live: Arc<Live>,
}

impl Server {
    /// Binds a literal address, such as `127.0.0.1:8001`, and serves requests. Does not block.
    ///
    /// # Errors
    /// - [`Error::Setting`] when `address` is not a literal address.
    /// - [`Error::Io`] when the address cannot be bound, or no thread can be started.
    /// - [`Error::ThreadLimit`] when no thread is left.
    pub(crate) fn start(
        address: &str,
        settings: HttpSettings,
        threads: Threads,
        handler: impl Handler,
    ) -> Result<Self> {
        let (listener, address) = bind(address)?;
        let stop = Stop::new().map_err(|error| Error::io(format!("listen on {address}"), error))?;
        let (stop, live) = (Arc::new(stop), Arc::new(Live::default()));
        let slots = Slots::new(settings.connections, "connections");
        let acceptor = Acceptor {
            listener,
            stop: stop.clone(),
            slots: slots.clone(),
            settings: Arc::new(settings),
            threads: threads.clone(),
            handler: Arc::new(handler),
            live: live.clone(),
            lacks_threads: AtomicBool::new(false),
        };
        let counted = Counted::new(&live);
        threads.spawn("http-accept", ACCEPT_STACK, move || {
            let _counted = counted;
            acceptor.run();
        })?;
        Ok(Self {
            address,
            stop,
            #[cfg(test)]
            slots,
            live,
        })
    }

    /// Returns the address that it is bound to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many connections wait for a request.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.slots.waiting()
    }

    /// Stops the server: no connection is accepted, none serves a further request, and streams of events end.
    /// Requests that have begun may be finished: in the first quarter of the time with what their handlers wait
    /// for, in the second [without it](super::Request::is_awaited). In the second half whatever waits for a client
    /// is cut off. Returns how many threads are left, which are handlers that wait for something else.
    ///
    /// # Blocking
    /// Until all connections have ended, at most for the timeout.
    pub(crate) fn stop(&self, timeout: Duration) -> usize {
        let deadline = Deadline::after(timeout);
        let mut left = 0;
        for (signal, until) in [
            (&self.stop.begun, Deadline::after(timeout / 4)),
            (&self.stop.late, Deadline::after(timeout / 2)),
            (&self.stop.cut, deadline),
        ] {
            signal.give();
            left = self.live.wait(until);
            if left == 0 {
                break;
            }
        }
        left
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for signal in [&self.stop.begun, &self.stop.late, &self.stop.cut] {
            signal.give();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// How many threads a server has.
#[derive(Default)]
struct Live {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Live {
    /// Waits until there are none. Returns how many there are at the deadline.
    fn wait(&self, deadline: Deadline) -> usize {
        let mut count = self.count.lock();
        while *count > 0 {
            let waited = self.changed.wait_until(&mut count, deadline.instant());
            if waited.timed_out() {
                break;
            }
        }
        *count
    }
}

/// Counts one thread while it lives.
struct Counted(Arc<Live>);

impl Counted {
    fn new(live: &Arc<Live>) -> Self {
        *live.count.lock() += 1;
        Self(live.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut count = self.0.count.lock();
        *count -= 1;
        if *count == 0 {
            self.0.changed.notify_all();
        }
    }
}

struct Acceptor {
    listener: TcpListener,
    stop: Arc<Stop>,
    slots: Arc<Slots>,
    settings: Arc<HttpSettings>,
    threads: Threads,
    handler: Arc<dyn Handler>,
    live: Arc<Live>,
    /// Whether it was logged that there is no thread for a connection.
    lacks_threads: AtomicBool,
}

impl Acceptor {
    fn run(self) {
        let accepted = |stream, address| self.accepted(stream, address);
        accept_until(self.stop.begun.pipe(), &self.listener, accepted, || ());
    }

    fn accepted(&self, stream: TcpStream, peer: SocketAddr) {
        // Responses and events are written whole, so waiting for more would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("connection from {peer} dropped: {error}");
            return;
        }
        let socket = Arc::new(Socket::from(stream));
        let Some(slot) = self.slots.take(&socket) else {
            log::debug!("connection from {peer} refused: too many connections");
            self.refuse(&socket);
            return;
        };
        let connection = Connection {
            wire: Wire::new(socket.clone(), self.stop.clone(), self.settings.write),
            slot,
            peer,
            settings: self.settings.clone(),
            handler: self.handler.clone(),
        };
        let counted = Counted::new(&self.live);
        let started = self.threads.spawn("http", self.settings.stack, move || {
            let _counted = counted;
            connection.run();
        });
        match started {
            Ok(()) => self.lacks_threads.store(false, Ordering::Relaxed),
            Err(error) => {
                // Once, since a client may come again at any rate.
                if !self.lacks_threads.swap(true, Ordering::Relaxed) {
                    log::warn!("no connection can be served: {error}");
                }
                self.refuse(&socket);
            }
        }
    }

    /// Tells a client to come back, as far as it can be told at once.
    fn refuse(&self, socket: &Socket) {
        let answer = RefusalAnswer::TOO_MANY_CONNECTIONS;
        let answer = answer.to_bytes_with(&(self.settings.refusal_body)(answer));
        refuse(socket, &answer, Deadline::after(Duration::ZERO));
    }
}
