//! What the host keeps of a listener: how to stop it.

use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::session::context::HostContext;

/// Ends a listener's threads. Clones end the same listener.
#[derive(Clone)]
pub(crate) struct ListenerStop {
    context: Arc<HostContext>,
    base_url: Arc<str>,
    /// They poll the other end of this pipe.
    pipe: Arc<Mutex<Option<io::PipeWriter>>>,
}

impl ListenerStop {
    /// `pipe` is what the listener's threads poll the other end of; `base_url` is forgotten with it.
    pub(crate) fn new(context: Arc<HostContext>, base_url: Arc<str>, pipe: io::PipeWriter) -> Self {
        Self {
            context,
            base_url,
            pipe: Arc::new(Mutex::new(Some(pipe))),
        }
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.pipe.lock().is_none()
    }

    /// Never blocks.
    pub(crate) fn stop(&self) {
        if self.pipe.lock().take().is_some() {
            self.context.services.addresses.remove(&self.base_url);
        }
    }
}

impl fmt::Debug for ListenerStop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerStop").finish_non_exhaustive()
    }
}
