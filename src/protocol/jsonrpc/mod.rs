//! The JSON-RPC envelope ([JSON-RPC](crate::protocol#json-rpc)): telling requests from responses without
//! copying their payload, and writing both. What params and results mean is in
//! [`method`](super::method); matching responses to calls is in `rpc`.

mod encode;
mod envelope;
mod request_id;
mod result_object;
mod traces;

pub use encode::{encode_error, encode_request, encode_result};
pub use envelope::{EnvelopeError, Incoming, ResultSpan};
pub use request_id::RemoteRequestId;
pub use result_object::ResultObject;
pub(crate) use result_object::to_object;
pub(crate) use traces::{find_answer, find_id, resembles_message};
