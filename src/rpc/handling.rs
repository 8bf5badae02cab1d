//! Running a handler of a call from the peer, which is somebody else's code: what it answers with,
//! and what becomes of its panics. Common to the host's side and the plugin's.

use std::panic::{self, AssertUnwindSafe};

use crate::error::RpcError;
use crate::protocol::jsonrpc::ResultObject;
use crate::text::Foreign;
use crate::thread::panic_text;

/// What a call from the peer is answered with.
pub(crate) type HandlerResult = Result<ResultObject, RpcError>;

/// Runs a handler; a panic becomes an error for the caller. `whose` begins the log line about it.
pub(crate) fn guarded(
    whose: &str,
    method: &str,
    handler: impl FnOnce() -> HandlerResult,
) -> HandlerResult {
    panic::catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|panic| {
        log::error!(
            "{whose}: handler of {} panicked: {}",
            Foreign::new(method),
            panic_text(&*panic)
        );
        Err(RpcError::new(
            RpcError::INTERNAL,
            "the handler failed unexpectedly",
        ))
    })
}
