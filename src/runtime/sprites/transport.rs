//! A [`Link`] under the HTTP client: the connector and the transport through which `ureq` uses one.
//!
//! The client's own time limits are not used: every wait is one of [`Within`], which can be cancelled.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::ClientConfig;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use super::interrupt::{Interrupt, Within};
use super::link::Link;
use crate::deadline::Deadline;
use crate::error::SpritesProblem;
use crate::thread::Threads;

/// Bytes of the buffers of a connection in use.
const BUFFER: usize = 64 * 1024;

/// Stands in the `Authorization` header for the HTTP client, which logs what it writes at trace; on the
/// way out the token takes its place. No path and no query has a space, so it is found nowhere before.
pub(super) const TOKEN_PLACE: &str = "Bearer <the token>";

/// What the connections of one agent share with the call that uses them; there is one call at a time.
#[derive(Clone, Default)]
pub(super) struct CallSlot(Arc<Mutex<Slot>>);

#[derive(Default)]
struct Slot {
    bounds: Option<(Deadline, std::time::Duration, Interrupt)>,
    /// Whether the head of the request, in which the token belongs, is not written yet.
    has_head: bool,
    /// Why the connection failed; the HTTP client's own error cannot hold it.
    problem: Option<SpritesProblem>,
}

impl CallSlot {
    /// Begins a call.
    pub(super) fn begin(&self, within: Within<'_>) {
        self.set_bounds(within);
        self.0.lock().has_head = true;
    }

    /// Changes the bounds of the call.
    pub(super) fn set_bounds(&self, within: Within<'_>) {
        let mut slot = self.0.lock();
        slot.bounds = Some((within.deadline, within.limit, within.interrupt.clone()));
        slot.problem = None;
    }

    /// Returns what an error of the HTTP client means.
    pub(super) fn problem(&self, error: ureq::Error) -> SpritesProblem {
        if let Some(problem) = self.0.lock().problem.take() {
            return problem;
        }
        match error {
            ureq::Error::Io(error) => SpritesProblem::Broken(error),
            ureq::Error::Protocol(error) => SpritesProblem::Protocol(error.to_string().into()),
            ureq::Error::LargeResponseHeader(_, limit) => SpritesProblem::TooLarge { limit },
            // It may name the URL.
            _ => SpritesProblem::Protocol("it is not HTTP".into()),
        }
    }

    /// Does a step of the call within its bounds.
    fn step<T>(
        &self,
        step: impl FnOnce(Within<'_>) -> Result<T, SpritesProblem>,
    ) -> Result<T, ureq::Error> {
        let Some((deadline, limit, interrupt)) = self.0.lock().bounds.clone() else {
            return Err(ureq::Error::ConnectionFailed);
        };
        let within = Within {
            deadline,
            limit,
            interrupt: &interrupt,
        };
        step(within).map_err(|problem| {
            self.0.lock().problem = Some(problem);
            ureq::Error::ConnectionFailed
        })
    }
}

impl fmt::Debug for CallSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallSlot").finish_non_exhaustive()
    }
}

/// Makes links to the service, and to nothing else.
pub(super) struct LinkConnector {
    pub(super) endpoint: Endpoint,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) token: Arc<Zeroizing<String>>,
    pub(super) threads: Threads,
    pub(super) slot: CallSlot,
}

impl Connector for LinkConnector {
    type Out = LinkTransport;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<LinkTransport>, ureq::Error> {
        let connect =
            |within: Within<'_>| Link::connect(&self.endpoint, &self.tls, &self.threads, within);
        Ok(Some(LinkTransport {
            link: self.slot.step(connect)?,
            secure: self.endpoint.secure,
            token: self.token.clone(),
            buffers: LazyBuffers::new(BUFFER, BUFFER),
            slot: self.slot.clone(),
        }))
    }
}

impl fmt::Debug for LinkConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkConnector").finish_non_exhaustive()
    }
}

pub(super) struct LinkTransport {
    link: Link,
    secure: bool,
    token: Arc<Zeroizing<String>>,
    buffers: LazyBuffers,
    slot: CallSlot,
}

impl Transport for LinkTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let Self {
            link,
            buffers,
            slot,
            token,
            ..
        } = self;
        let output = &buffers.output()[..amount];
        if !std::mem::take(&mut slot.0.lock().has_head) {
            return slot.step(|within| link.write_within(output, within));
        }
        slot.step(|within| {
            let place = memchr::memmem::find(output, TOKEN_PLACE.as_bytes()).ok_or(
                SpritesProblem::Input("the request has no place for the token"),
            )?;
            let (before, rest) = output.split_at(place);
            let mut head = Zeroizing::new(Vec::with_capacity(output.len() + token.len()));
            head.extend_from_slice(before);
            head.extend_from_slice(b"Bearer ");
            head.extend_from_slice(token.as_bytes());
            head.extend_from_slice(&rest[TOKEN_PLACE.len()..]);
            link.write_within(&head, within)
        })
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let Self {
            link,
            buffers,
            slot,
            ..
        } = self;
        let count = slot.step(|within| link.read_within(buffers.input_append_buf(), within))?;
        buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        self.link.is_idle()
    }

    fn is_tls(&self) -> bool {
        self.secure
    }
}

impl fmt::Debug for LinkTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkTransport").finish_non_exhaustive()
    }
}

/// Resolves nothing: [`Link::connect`] looks the service up, where it can be interrupted.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(
        &self,
        _: &Uri,
        _: &Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
