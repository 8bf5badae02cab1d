//! The embedder's hook on calls, for metrics and traces: what it receives, and the calls it is waiting for.
//! It runs on the thread that ends the call, and never on one that reads.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::shared::SharedSession;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::thread::panic_text;

/// A call that has ended, as the hook of [`HostBuilder::on_call`](crate::HostBuilder::on_call) receives it.
#[derive(Clone, Copy, Debug)]
pub struct CallEvent<'a> {
    plugin: InstallationId,
    direction: CallDirection,
    method: &'a str,
    started_at: Instant,
    duration: Duration,
    end: CallEnd<'a>,
}

/// Who called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallDirection {
    /// The host called the plugin.
    ToPlugin,
    /// The plugin called the host.
    FromPlugin,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
enum CallEnd<'a> {
    /// It was answered with a result.
    Answered,
    /// It failed.
    Failed(&'a Error),
    /// Its caller dropped it before the answer was there.
    GivenUp,
}

impl CallEvent<'_> {
    /// Returns the id of the plugin that was called, or called.
    pub fn plugin(&self) -> InstallationId {
        self.plugin
    }

    /// Returns whether the plugin called the host; if not, the host called the plugin.
    pub fn is_from_plugin(&self) -> bool {
        self.direction == CallDirection::FromPlugin
    }

    /// Returns the method. In a call from a plugin it is the plugin's text, of any length and content,
    /// also where the host has no such method.
    pub fn method(&self) -> &str {
        self.method
    }

    /// Returns when the call was started, or arrived.
    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Returns the time from then until the caller had the answer or the error; for a call from a plugin,
    /// until the answer was written, with the time that it waited for a worker.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// Returns the error that the call ended with, if it failed. An answer that is an error is
    /// [`Error::Rpc`], in either direction. Its [`kind`](Error::kind) is a stable word, for the labels of metrics.
    pub fn error(&self) -> Option<&Error> {
        match self.end {
            CallEnd::Failed(error) => Some(error),
            CallEnd::Answered | CallEnd::GivenUp => None,
        }
    }

    /// Returns whether its caller dropped it before the answer was there. Only calls to a plugin end so.
    pub fn is_abandoned(&self) -> bool {
        matches!(self.end, CallEnd::GivenUp)
    }
}

/// The embedder's hook.
pub(crate) struct CallHook {
    hook: Box<dyn Fn(&CallEvent<'_>) + Send + Sync>,
    has_panicked: AtomicBool,
}

impl CallHook {
    pub(crate) fn new(hook: impl Fn(&CallEvent<'_>) + Send + Sync + 'static) -> Self {
        Self {
            hook: Box::new(hook),
            has_panicked: AtomicBool::new(false),
        }
    }

    fn run(&self, event: &CallEvent<'_>) {
        let hook = AssertUnwindSafe(|| (self.hook)(event));
        let run = AssertUnwindSafe(|| {
            if let Err(panic) = panic::catch_unwind(hook)
                && !self.has_panicked.swap(true, Ordering::Relaxed)
            {
                // Each call may panic, and the log must not be flooded.
                log::error!("the hook on calls panicked: {}", panic_text(&*panic));
            }
        });
        // Nor may a panic of the embedder's logger, or in dropping what the hook's carried, reach the caller.
        let _ = panic::catch_unwind(run);
    }
}

/// A call whose end the hook receives.
pub(super) struct HookedCall {
    shared: Arc<SharedSession>,
    direction: CallDirection,
    method: Box<str>,
    started_at: Instant,
    has_ended: bool,
}

impl HookedCall {
    /// Returns `None` where there is no hook.
    pub(super) fn begin(
        shared: &Arc<SharedSession>,
        direction: CallDirection,
        method: &str,
    ) -> Option<Self> {
        shared.context.settings.on_call.as_ref()?;
        Some(Self {
            shared: shared.clone(),
            direction,
            method: method.into(),
            started_at: Instant::now(),
            has_ended: false,
        })
    }

    pub(super) fn end<T>(call: Option<Self>, result: Result<T, &Error>) {
        if let Some(mut call) = call {
            call.report(result.map_or_else(CallEnd::Failed, |_| CallEnd::Answered));
        }
    }

    fn report(&mut self, end: CallEnd<'_>) {
        self.has_ended = true;
        if let Some(hook) = &self.shared.context.settings.on_call {
            hook.run(&CallEvent {
                plugin: self.shared.id,
                direction: self.direction,
                method: &self.method,
                started_at: self.started_at,
                duration: self.started_at.elapsed(),
                end,
            });
        }
    }
}

impl Drop for HookedCall {
    fn drop(&mut self) {
        // A call from the plugin whose handler does not run may be dropped on the reading thread.
        if !self.has_ended && self.direction == CallDirection::ToPlugin {
            self.report(CallEnd::GivenUp);
        }
    }
}
