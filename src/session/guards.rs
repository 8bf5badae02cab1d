//! Guards over a session's gauges: each counts what it stands for until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::shared::SharedSession;
use crate::rpc::LiveRpcCounters;

/// Counts a call in flight, so that draining can wait for it.
pub(super) struct InFlight {
    shared: Arc<SharedSession>,
    gauge: fn(&LiveRpcCounters) -> &AtomicU64,
}

impl InFlight {
    /// Returns `None`, and counts nothing, when the host is draining.
    pub(super) fn begin(
        shared: &Arc<SharedSession>,
        gauge: fn(&LiveRpcCounters) -> &AtomicU64,
    ) -> Option<Self> {
        // Counted first and checked second; draining does it the other way round, so one of the two
        // sees the other.
        gauge(&shared.counters.rpc).fetch_add(1, Ordering::SeqCst);
        let in_flight = Self {
            shared: shared.clone(),
            gauge,
        };
        (!shared.context.drain.is_draining()).then_some(in_flight)
    }

    pub(super) fn session(&self) -> &SharedSession {
        &self.shared
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        (self.gauge)(&self.shared.counters.rpc).fetch_sub(1, Ordering::SeqCst);
        self.shared.context.drain.call_ended();
    }
}

/// Memory that waits or is worked on, under a limit.
pub(super) struct HeldBytes {
    shared: Arc<SharedSession>,
    gauge: fn(&SharedSession) -> &AtomicUsize,
    bytes: usize,
}

impl HeldBytes {
    /// Returns `None` when this would exceed `limit`, unless nothing else is held.
    pub(super) fn take(
        shared: &Arc<SharedSession>,
        gauge: fn(&SharedSession) -> &AtomicUsize,
        bytes: usize,
        limit: usize,
    ) -> Option<Self> {
        let room = |held: usize| (held == 0 || held + bytes <= limit).then_some(held + bytes);
        gauge(shared)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
            .ok()?;
        Some(Self {
            shared: shared.clone(),
            gauge,
            bytes,
        })
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        (self.gauge)(&self.shared).fetch_sub(self.bytes, Ordering::AcqRel);
    }
}
