//! The protocol's methods, each as the type of its params, and their replies
//! ([Host to plugin](crate::protocol#host-to-plugin) and
//! [Plugin to host](crate::protocol#plugin-to-host)). `access_get` and `get_config` are functions of
//! [`HostHandle`](crate::sdk::HostHandle) and [`Services`](crate::Services) alone. An embedder adds methods of its
//! own by implementing [`Method`].
//!
//! What one more method of the protocol takes: its types here, `check_method` in `protocol/tests.rs` and an
//! example in `PROTOCOL.md`; if plugins call it, an arm in `session/inbound.rs`, a function of
//! [`Services`](crate::Services) and one of [`HostHandle`](crate::sdk::HostHandle).
//!
//! Decoding is lenient where the SDKs differ: unknown members are ignored, and `null` stands for
//! an empty list or object, because that is how Go writes one. Encoding is strict, because the
//! Python SDK is: optional members that are empty are left out, and nothing is ever `null`.
//!
//! Unlike the envelope, params and replies are decoded by recursion, up to 127 levels deep; deeper
//! ones are refused. A thread that does it needs a stack of half a mebibyte (a debug build uses
//! close to 256 KiB of it, a release build less than 64).

mod host_to_plugin;
mod plugin_to_host;

use std::collections::HashMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

pub use host_to_plugin::{
    Ack, Configure, Event, GenerateMessage, GenerateReply, GenerateRole, GenerateTool,
    GenerateToolCall, ListModelsReply, Model, Ping, PingReply, RobotModelProviderGenerate,
    RobotModelProviderListModels, RobotToolCall, ToolCallReply,
};
#[cfg(test)]
pub(crate) use plugin_to_host::GetConfigReply;
pub(crate) use plugin_to_host::{AccessGet, GetConfig};
pub use plugin_to_host::{
    RobotRun, RobotRunAttention, RobotRunOutput, RobotRunReason, RobotRunReply, RobotRunStatus,
    RobotRunWorkspace,
};

use super::kind_of_text;
use super::unquoted::unquoted;
use crate::error::{Error, Result, RpcError};

/// A method, implemented by the type of its params, so that both sides can share it: a host calls it with
/// [`Session::call`](crate::Session::call) and handles it with [`HostBuilder::on`](crate::HostBuilder::on), a
/// plugin with [`HostHandle::call`](crate::sdk::HostHandle::call) and
/// [`Plugin::on`](crate::sdk::Plugin::on). Where only one side is in Rust, a closure with types of its own
/// does: [`HostBuilder::method`](crate::HostBuilder::method) and
/// [`Plugin::method`](crate::sdk::Plugin::method).
///
/// Params and reply must encode to JSON objects. The reply needs no member `method`: it is added
/// when the reply is sent and ignored when one is read.
///
/// ```no_run
/// use plugin_runner::protocol::Method;
/// use plugin_runner::sdk::Plugin;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Greet {
///     name: String,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// struct Greeting {
///     text: String,
/// }
///
/// impl Method for Greet {
///     const NAME: &'static str = "greet";
///     type Reply = Greeting;
/// }
///
/// # fn main() -> plugin_runner::Result<()> {
/// Plugin::from_env()?
///     .on(|_host, Greet { name }| {
///         let text = format!("hello {name}");
///         Ok(Greeting { text })
///     })
///     .run()
/// # }
/// ```
///
/// The host then calls it with `session.call(&Greet { name }, timeout)?.text`.
pub trait Method: Serialize + DeserializeOwned {
    /// The name on the wire.
    const NAME: &'static str;
    /// The reply.
    type Reply: Serialize + DeserializeOwned;
}

/// Decodes the params of a request, given as JSON.
///
/// # Errors
/// An error response with -32602 that says what is wrong with the params, and in which member.
pub(crate) fn decode_params<P: DeserializeOwned>(params: &str) -> Result<P, RpcError> {
    object_from_text(params).map_err(|error| {
        let member = find_member(params, &error).map_or_else(String::new, |m| format!(" {m:?}:"));
        let problem = unquoted(error);
        RpcError::new(
            RpcError::INVALID_PARAMS,
            format!("invalid params:{member} {problem}"),
        )
    })
}

/// Returns the name of the member of `object` whose value was being decoded when the error occurred. The
/// error itself names a missing field, but not the field of a value of the wrong type.
fn find_member(object: &str, error: &serde_json::Error) -> Option<String> {
    let lines = object.split_inclusive('\n').map(str::len);
    let line: usize = lines.take(error.line().saturating_sub(1)).sum();
    let position = line + error.column();
    let members: HashMap<String, &RawValue> = serde_json::from_str(object).ok()?;
    let is_there = |value: &RawValue| {
        let start = value.get().as_ptr().addr() - object.as_ptr().addr();
        (start..=start + value.get().len()).contains(&position)
    };
    let mut members = members.into_iter();
    members.find_map(|(name, value)| is_there(value).then_some(name))
}

/// Decodes the result of a response, given as JSON.
///
/// # Errors
/// [`Error::InvalidReply`] if it is not an object, lacks a required member, or has one of the wrong
/// type.
pub(crate) fn decode_reply<M: Method>(result: &str) -> Result<M::Reply> {
    object_from_text(result).map_err(|error| Error::InvalidReply {
        method: M::NAME.into(),
        source: Arc::new(unquoted(error)),
    })
}

/// Decodes an object, and nothing else: derived decoders accept an array too, by position.
pub(crate) fn object_from_text<T: DeserializeOwned>(json: &str) -> serde_json::Result<T> {
    match kind_of_text(json) {
        "an object" => serde_json::from_str(json),
        found => Err(serde::de::Error::custom(format_args!(
            "expected an object, found {found}"
        ))),
    }
}

/// Decodes a member that Go writes as `null` if it is empty.
fn null_is_empty<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Whether optional text is missing or empty, which means the same.
// The signature is serde's.
#[expect(clippy::ref_option)]
fn is_blank(text: &Option<String>) -> bool {
    text.as_deref().is_none_or(str::is_empty)
}

/// Returns the `error` member of a result unless it is empty.
fn failure(error: Option<&str>) -> Option<&str> {
    error.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
