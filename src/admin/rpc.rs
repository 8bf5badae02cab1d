//! Calling a plugin, and publishing an event to all that consume it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::call::{Call, LOOK, json, time};
use super::problem::Problem;
use crate::deadline::Deadline;
use crate::http::Response;
use crate::id::InstallationId;
use crate::session::Delivery;

/// The longest time that a call may be waited for.
const LONGEST_CALL: Duration = Duration::from_secs(600);

/// How deep arrays and objects may stand in each other, as in every other body: decoders of plugins end at their own
/// depths, and some end the plugin.
const DEEPEST: usize = 127;

/// The longest time that deliveries may be waited for. A client that goes away does not end this wait.
const LONGEST_DELIVERY: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    method: String,
    /// As it came, so that the plugin reads the numbers that the client wrote.
    params: Option<Box<RawValue>>,
    /// In seconds.
    timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publication {
    event: String,
    #[serde(default)]
    payload: Map<String, Value>,
    /// In seconds.
    wait: Option<f64>,
}

#[derive(Serialize)]
struct Deliveries {
    deliveries: BTreeMap<InstallationId, Delivery>,
}

/// Answers with what the plugin answers.
pub(super) fn call(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let request: Request = call.json()?;
    let manager = call.manager();
    let timeout = match request.timeout {
        Some(seconds) => time("timeout", seconds, LONGEST_CALL)?,
        None => call.host_settings().timeouts.call,
    };
    let params = request.params.as_deref();
    // One level of the body is around them.
    if params.is_some_and(|params| depth(params.get()) >= DEEPEST) {
        return Err(Problem::bad_request(format!(
            "params has arrays and objects in each other more than {} deep",
            DEEPEST - 1
        )));
    }
    let session = manager.session(id)?;
    let method = &*request.method;
    let mut pending = match params {
        Some(params) => session.start_awaited(method, params, timeout)?,
        None => session.start_awaited(method, &Map::new(), timeout)?,
    };
    loop {
        if let Some(reply) = pending.wait_until(Deadline::after(LOOK)) {
            let response = Response::bytes(200, "application/json", reply?.as_json());
            return Ok(response.header("Cache-Control", "no-store"));
        }
        call.expect_client()?;
    }
}

/// Returns how deep arrays and objects stand in each other in a text that is JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            // To the end of the string.
            b'"' => {
                while let Some(b'\\') = bytes.find(|byte| matches!(byte, b'"' | b'\\')) {
                    bytes.next();
                }
            }
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Publishes an event, and waits for what becomes of it if that is asked for.
pub(super) fn publish(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let publication: Publication = call.json()?;
    let host = call.manager().host();
    let (event, payload) = (&publication.event, &publication.payload);
    match publication.wait {
        None => json(200, &host.publish(event, payload)?),
        Some(seconds) => {
            let timeout = time("wait", seconds, LONGEST_DELIVERY)?;
            let deliveries = host.publish_and_wait(event, payload, timeout)?;
            json(200, &Deliveries { deliveries })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_strings_is_not_deep() {
        for (json, deep) in [
            ("1", 0),
            ("{}", 1),
            (r#"{"a":[{}],"b":[]}"#, 3),
            (r#"{"[[[":"{{{"}"#, 1),
            (r#"{"a\"[[":"\\","b":[]}"#, 2),
            (r#"["\\\"[",[[]]]"#, 3),
        ] {
            assert_eq!(depth(json), deep, "{json}");
        }
    }
}
