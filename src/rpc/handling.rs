//! Running the handler of a call from the peer, on the host's side and the plugin's. A handler is foreign
//! code: a panic in it becomes an error for the caller.

use std::panic::{self, AssertUnwindSafe};

use crate::error::RpcError;
use crate::protocol::jsonrpc::ResultObject;
use crate::text::Foreign;
use crate::thread::panic_text;

/// What a handler answers a call from the peer with.
pub(crate) type HandlerResult = Result<ResultObject, RpcError>;

/// Runs a handler; a panic becomes an error for the caller. `whose` begins the log line about that.
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
