//! Inner parts that fuzzing has to reach, behind the private feature `_fuzzing`. No logic, and not
//! part of the API: everything else that is fuzzed is public anyway.

pub use crate::listener::fuzzing::{HeadVerdict, judge_head};
pub use crate::protocol::jsonrpc::{
    EnvelopeError, Incoming, RemoteRequestId, ResultSpan, encode_error, encode_request,
    encode_result,
};
