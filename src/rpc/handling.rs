//! Running the handler of a call from the peer, on the host's side and the plugin's. A handler is foreign
//! code: a panic in it becomes an error for the caller.

use std::panic::{self, AssertUnwindSafe};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Params;
use crate::error::RpcError;
use crate::protocol::jsonrpc::ResultObject;
use crate::text::Foreign;
use crate::thread::panic_text;

/// What a handler answers a call from the peer with.
pub(crate) type HandlerResult = Result<ResultObject, RpcError>;

/// Makes a handler of raw params and results from one that has types for them. Params that do not decode
/// are answered with -32602, a reply that does not encode to an object with -32603.
pub(crate) fn typed<C, P, R, E>(
    handler: impl Fn(&C, P) -> Result<R, E> + Send + Sync + 'static,
) -> impl Fn(&C, &Params) -> Result<ResultObject, E> + Send + Sync + 'static
where
    P: DeserializeOwned,
    R: Serialize,
    E: From<RpcError>,
{
    move |caller, params| Ok(encode(&handler(caller, params.read()?)?)?)
}

/// Encodes a handler's reply as a result.
pub(crate) fn encode<R: Serialize>(reply: &R) -> HandlerResult {
    ResultObject::from_serialize(reply)
        .map_err(|error| RpcError::new(RpcError::INTERNAL, error.to_string()))
}

/// Runs a handler; a panic becomes an error for the caller. `whose` begins the log line about that.
pub(crate) fn guarded(
    whose: &str,
    method: &str,
    handler: impl FnOnce() -> HandlerResult,
) -> HandlerResult {
    panic::catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|panic| {
        // A panic of the embedder's logger, or in dropping what the handler's carried, must not keep the answer
        // from the caller.
        let _ = panic::catch_unwind(AssertUnwindSafe(move || {
            log::error!(
                "{whose}: handler of {} panicked: {}",
                Foreign::new(method),
                panic_text(&*panic)
            );
        }));
        Err(RpcError::new(
            RpcError::INTERNAL,
            "the handler failed unexpectedly",
        ))
    })
}
