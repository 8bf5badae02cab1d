//! One connection, on its own thread: request after request until one side has enough.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::body::Body;
use super::head::HeadError;
use super::refusal::RefusalAnswer;
use super::request::{HEAD_LIMIT, Head, Request};
use super::response::{Exchange, Response};
use super::settings::HttpSettings;
use super::slots::Slot;
use super::wire::Wire;
use crate::deadline::Deadline;
use crate::thread::panic_text;

/// What answers requests. It runs on the thread of the connection, so it may block, but should ask
/// [`Request::is_awaited`] when it waits for long.
pub(crate) trait Handler: Send + Sync + 'static {
    fn handle(&self, request: &mut Request<'_>) -> Response;
}

impl<F: Fn(&mut Request<'_>) -> Response + Send + Sync + 'static> Handler for F {
    fn handle(&self, request: &mut Request<'_>) -> Response {
        self(request)
    }
}

pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) slot: Slot,
    pub(super) peer: SocketAddr,
    pub(super) settings: Arc<HttpSettings>,
    pub(super) handler: Arc<dyn Handler>,
}

/// What comes after one request.
enum Next {
    Request,
    /// The connection ends, after its last response has arrived.
    Linger,
    /// The connection ends at once.
    Close,
}

impl Connection {
    /// Serves requests until the connection ends.
    pub(super) fn run(mut self) {
        // A new connection has no longer than a head to begin one.
        let mut patience = self.settings.head;
        loop {
            match self.serve(Deadline::after(patience)) {
                Next::Request => patience = self.settings.idle,
                Next::Linger => {
                    self.slot.wait_again(&self.wire.socket);
                    return self.wire.linger(self.settings.linger);
                }
                Next::Close => return,
            }
        }
    }

    /// Serves one request, whose first byte comes by the deadline.
    fn serve(&mut self, idle: Deadline) -> Next {
        let head = match self.read_head(idle) {
            Ok(head) => head,
            Err(Some(answer)) => return self.refuse(answer),
            Err(None) => return Next::Close,
        };
        let Head {
            parsed,
            framing,
            expects_continue,
            persists,
        } = head;
        let (is_head, minor) = (parsed.method == "HEAD", parsed.minor);
        let mut request = Request {
            body: Body::new(&mut self.wire, framing, expects_continue, &self.settings),
            head: parsed,
            peer: self.peer,
        };
        let refusal = |answer: &RefusalAnswer| {
            Response::refusal(answer, (self.settings.refusal_body)(answer))
        };
        let handled = catch_unwind(AssertUnwindSafe(|| self.handler.handle(&mut request)));
        let (response, has_panicked) = match handled {
            Ok(response) if response.is_wrong() => (refusal(RefusalAnswer::INTERNAL), false),
            Ok(response) => (response, false),
            Err(panic) => {
                log::error!("a handler of requests panicked: {}", panic_text(&*panic));
                (refusal(RefusalAnswer::INTERNAL), true)
            }
        };
        let mut body = request.body;
        let is_stopping = body.wire.stop().begun.has_come();
        let is_last = !persists || has_panicked || is_stopping || !body.may_be_skipped();
        let exchange = Exchange {
            is_head,
            minor,
            is_last,
        };
        let written = response.write(body.wire, exchange);
        // What still comes of a request that was answered is of less use than a new one.
        self.slot.wait_again(&body.wire.socket);
        match written {
            Ok(()) if is_last || !body.skip(self.settings.linger) => Next::Linger,
            Ok(()) => Next::Request,
            Err(error) => {
                log::debug!("a response to {} was not sent: {error}", self.peer);
                Next::Close
            }
        }
    }

    /// Reads a head that is right.
    ///
    /// # Errors
    /// The answer to one that is not, or none for a connection that ends without one.
    fn read_head(&mut self, idle: Deadline) -> Result<Head, Option<&'static RefusalAnswer>> {
        let read = self
            .wire
            .read_head(HEAD_LIMIT, idle, self.settings.head, &self.slot);
        let has_begun = !self.wire.ahead().is_empty();
        let end = read.map_err(|error| match error {
            HeadError::TooLarge => Some(RefusalAnswer::HEAD_TOO_LARGE),
            HeadError::SlotLost if has_begun => Some(RefusalAnswer::TOO_MANY_CONNECTIONS),
            HeadError::Timeout if has_begun => Some(RefusalAnswer::REQUEST_TIMEOUT),
            HeadError::SlotLost | HeadError::Timeout | HeadError::Gone => None,
        })?;
        if !self.slot.keep() {
            return Err(Some(RefusalAnswer::TOO_MANY_CONNECTIONS));
        }
        Head::parse(self.wire.take(end)).map_err(Some)
    }

    /// Answers a request that was refused before it had a handler.
    fn refuse(&self, answer: &'static RefusalAnswer) -> Next {
        let answer = answer.to_bytes_with(&(self.settings.refusal_body)(answer));
        match self.wire.write(&answer) {
            Ok(()) => Next::Linger,
            Err(_) => Next::Close,
        }
    }
}
