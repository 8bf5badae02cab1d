//! Calls to a plugin as its session offers them: typed or raw, waited for at once or later, and counted while
//! they are in flight.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Session;
use super::call_hook::{CallDirection, HookedCall};
use super::guards::InFlight;
use super::shared::SharedSession;
use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::id::RequestId;
use crate::protocol::method::{Method, decode_reply};
use crate::rpc::{AwaitedReply, Connection, Reply, Start};

impl Session {
    /// Calls a method of the plugin and waits for its answer.
    ///
    /// # Blocking
    /// At most `timeout`, for the write and the answer together. The answer, the end of the
    /// connection and the timeout wake it.
    ///
    /// # Errors
    /// - [`Error::State`] when the plugin is not active, [`Error::NotLoaded`] when it is unloaded,
    ///   [`Error::ShutDown`] when the host is draining or shut down.
    /// - [`Error::TooManyPending`] over the cap on pending calls; nothing was sent.
    /// - [`Error::Encode`] or [`Error::MessageTooLarge`] when the params cannot be sent; nothing was.
    /// - [`Error::Timeout`] with the phase that ran out. After the phase of the reply, the plugin
    ///   may have acted.
    /// - [`Error::Disconnected`] when the connection ended first. The plugin may have acted.
    /// - [`Error::Rpc`] when the plugin answered with an error.
    /// - [`Error::InvalidReply`] when its answer cannot be read: at once, or over stdio a second after a line
    ///   that holds the answer and is not a message, such as one with text in front of it. Any other line
    ///   there is output: the call waits on, and [`Error::Timeout`] quotes one that looks like a message.
    pub fn call<M: Method>(&self, params: &M, timeout: Duration) -> Result<M::Reply> {
        self.send(RequestId::generate(), params, timeout)
    }

    /// Calls a method by name, with params and reply in raw form. `params` must
    /// encode to a JSON object. Only [`Reply::read`] looks at the result, so an answer without one, or with
    /// something else than an object, is `Ok` until it is read.
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// As [`call`](Self::call), except that [`Reply::read`] decodes the reply.
    pub fn call_raw(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<Reply> {
        self.start_awaited(method, params, timeout)?.wait()
    }

    /// Sends a call that this thread waits for right away, in as many waits as it likes.
    pub(crate) fn start_awaited(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<PendingCall> {
        let id = RequestId::generate();
        self.start_as(id, method, params, timeout, Start::Awaited)
    }

    /// Calls a method under an id of the caller's choice; otherwise as [`call`](Self::call).
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    ///
    /// # Errors
    /// - [`Error::IdInUse`] when a call with this id is in flight; nothing was sent.
    /// - And those of [`call`](Self::call).
    pub fn send<M: Method>(
        &self,
        id: RequestId,
        params: &M,
        timeout: Duration,
    ) -> Result<M::Reply> {
        let raw = self.start_as(id, M::NAME, params, timeout, Start::Awaited)?;
        raw.reading::<M>().wait()
    }

    /// Sends a call and returns as soon as it is on its way, so that one thread can have many in
    /// flight. `timeout` runs from now on and bounds the answer too.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use plugin_runner::protocol::method::Ping;
    /// use plugin_runner::{Host, Result};
    ///
    /// # fn main() -> Result<()> {
    /// # let host = Host::builder().build()?;
    /// let calls: Vec<_> = host
    ///     .sessions()
    ///     .iter()
    ///     .map(|session| session.start_call(&Ping {}, Duration::from_secs(10)))
    ///     .collect::<Result<_>>()?;
    /// for call in calls {
    ///     println!("{:?}", call.wait()?.status);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Blocking
    /// For the write alone, at most `timeout`: while the plugin reads too slowly and
    /// [`Limits::outbound_bytes`](crate::Limits::outbound_bytes) is used up. Room and the end of the connection
    /// wake it.
    ///
    /// # Errors
    /// As [`call`](Self::call), except those that come with the answer.
    pub fn start_call<M: Method>(
        &self,
        params: &M,
        timeout: Duration,
    ) -> Result<PendingCall<M::Reply>> {
        self.start_call_raw(M::NAME, params, timeout)
            .map(PendingCall::reading::<M>)
    }

    /// Begins a batch of calls, which go out together, in one write where they fit. With many small calls
    /// that costs less than sending each by itself, above all on a busy machine.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use plugin_runner::protocol::method::Ping;
    /// # fn main() -> plugin_runner::Result<()> {
    /// # let session = plugin_runner::Host::builder().build()?.sessions().remove(0);
    /// let mut batch = session.batch()?;
    /// let calls = (0..64)
    ///     .map(|_| batch.start_call(&Ping {}, Duration::from_secs(10)))
    ///     .collect::<Result<Vec<_>, _>>()?;
    /// batch.send();
    /// for call in calls {
    ///     call.wait()?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Never blocks.
    ///
    /// # Errors
    /// - [`Error::State`] when the plugin is not active, [`Error::NotLoaded`] when it is unloaded,
    ///   [`Error::ShutDown`] when the host is shut down.
    pub fn batch(&self) -> Result<Batch> {
        let shared = self.shared().clone();
        let connection = shared
            .active_connection()
            .inspect_err(|error| shared.counters.rpc.count_failure(error))?;
        Ok(Batch { shared, connection })
    }

    /// [`start_call`](Self::start_call) for a method by name.
    ///
    /// # Blocking
    /// As [`start_call`](Self::start_call).
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call).
    pub fn start_call_raw(
        &self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<PendingCall> {
        self.start_as(RequestId::generate(), method, params, timeout, Start::Later)
    }

    fn start_as(
        &self,
        id: RequestId,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
        start: Start,
    ) -> Result<PendingCall> {
        let shared = self.shared();
        shared.start_call(method, || {
            let connection = shared.active_connection()?;
            connection.start(id, method, params, timeout, start)
        })
    }
}

/// Calls of one plugin that go out together, from [`Session::batch`]. Dropping it sends what is left;
/// the calls stay.
#[derive(Debug)]
pub struct Batch {
    shared: Arc<SharedSession>,
    connection: Arc<Connection>,
}

impl Batch {
    /// Adds a call. It goes out with the others: at [`send`](Self::send), when the batch is dropped, or
    /// when its answer is waited for. `timeout` runs from now on.
    ///
    /// # Blocking
    /// As [`Session::start_call`], while [`Limits::outbound_bytes`](crate::Limits::outbound_bytes) is used up.
    ///
    /// # Errors
    /// As [`Session::start_call`]; [`Error::Disconnected`] also when the plugin has come back on
    /// another connection since the batch was begun.
    pub fn start_call<M: Method>(
        &mut self,
        params: &M,
        timeout: Duration,
    ) -> Result<PendingCall<M::Reply>> {
        self.start_call_raw(M::NAME, params, timeout)
            .map(PendingCall::reading::<M>)
    }

    /// [`start_call`](Self::start_call) for a method by name.
    ///
    /// # Blocking
    /// As [`start_call`](Self::start_call).
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call).
    pub fn start_call_raw(
        &mut self,
        method: &str,
        params: &(impl Serialize + ?Sized),
        timeout: Duration,
    ) -> Result<PendingCall> {
        let id = RequestId::generate();
        self.shared.start_call(method, || {
            let connection = &self.connection;
            connection.start(id, method, params, timeout, Start::Queued)
        })
    }

    /// Sends the calls that were added: writes them as far as the transport takes them right now, and
    /// has another thread write the rest. Never blocks.
    pub fn send(&mut self) {
        self.connection.flush();
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.send();
    }
}

impl SharedSession {
    /// Starts a call with `start`, unless the host is draining.
    pub(super) fn start_call(
        self: &Arc<Self>,
        method: &str,
        start: impl FnOnce() -> Result<AwaitedReply>,
    ) -> Result<PendingCall> {
        let hooked = HookedCall::begin(self, CallDirection::ToPlugin, method);
        let in_flight = InFlight::begin(self, |counters| &counters.calls_in_flight);
        let started = in_flight
            .ok_or(Error::ShutDown)
            .and_then(|in_flight| Ok((start()?, in_flight)));
        match started {
            Ok((waiting, in_flight)) => Ok(PendingCall {
                waiting,
                read: Ok,
                hooked,
                in_flight,
            }),
            Err(error) => {
                self.counters.rpc.count_failure(&error);
                self.context.totals.call_not_sent(&error);
                HookedCall::end::<()>(hooked, Err(&error));
                Err(error)
            }
        }
    }
}

/// A call in flight, as [`Session::start_call`] and [`Batch::start_call`] return it. Dropping it gives the call
/// up; a late answer is then dropped too.
#[must_use = "dropping it gives the call up"]
pub struct PendingCall<T = Reply> {
    waiting: AwaitedReply,
    read: fn(Reply) -> Result<T>,
    hooked: Option<HookedCall>,
    in_flight: InFlight,
}

impl PendingCall {
    /// Decodes the answer to a call of this method.
    pub(super) fn reading<M: Method>(self) -> PendingCall<M::Reply> {
        PendingCall {
            waiting: self.waiting,
            read: |reply| decode_reply::<M>(reply.as_json()),
            hooked: self.hooked,
            in_flight: self.in_flight,
        }
    }
}

impl<T> PendingCall<T> {
    /// Waits for the answer.
    ///
    /// # Blocking
    /// At most until the end of the timeout that the call was started with. The answer and the end
    /// of the connection wake it.
    ///
    /// # Errors
    /// As [`Session::call`]; for a call by name, as [`Session::call_raw`].
    pub fn wait(mut self) -> Result<T> {
        let result = self.waiting.wait();
        self.finish(result)
    }

    /// Waits for the answer until this deadline at the most; `None` if that came first. The end of the call's
    /// own time is an answer too. Returns one once.
    pub(crate) fn wait_until(&mut self, deadline: Deadline) -> Option<Result<T>> {
        let result = self.waiting.wait_until(deadline)?;
        Some(self.finish(result))
    }

    /// Returns the answer if it is there, or the error if the time is over; once. Never blocks.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Option<Result<T>> {
        let result = self.waiting.try_wait()?;
        Some(self.finish(result))
    }

    /// Decodes the reply. One that cannot be decoded is a call that failed.
    fn finish(&mut self, result: Result<Reply>) -> Result<T> {
        let result = result.and_then(|reply| {
            let counters = self.waiting.connection().counters();
            (self.read)(reply).inspect_err(|error| counters.count_failure(error))
        });
        let totals = &self.in_flight.session().context.totals;
        totals.call_ended(self.waiting.begun(), result.as_ref().err());
        HookedCall::end(self.hooked.take(), result.as_ref());
        result
    }
}

impl<T> std::fmt::Debug for PendingCall<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingCall").finish_non_exhaustive()
    }
}
