//! Calls from a plugin: from the reading thread to a worker, to the embedder's services, and back
//! as an answer. The reading thread only hands over; over the caps it refuses, without writing.

use std::sync::Arc;

use super::call_hook::{CallDirection, HookedCall};
use super::guards::{HeldBytes, InFlight};
use super::services::InboundCall;
use super::shared::SharedSession;
use crate::counters::count_by;
use crate::deadline::Deadline;
use crate::error::{Error, RpcError};
use crate::id::Xid;
use crate::protocol::access;
use crate::protocol::jsonrpc::{RemoteRequestId, ResultObject};
use crate::protocol::method::{AccessGet, GetConfig, Method, RobotRun, RobotRunReply};
use crate::rpc::handling::{HandlerResult, encode, guarded};
use crate::rpc::{Connection, InboundRequest, Params};

/// Hands a call to a worker, or refuses it. On the reading thread.
pub(super) fn dispatch(
    shared: &Arc<SharedSession>,
    connection: &Arc<Connection>,
    request: InboundRequest,
) {
    count_by(&shared.counters.rpc.inbound_calls, 1);
    let InboundRequest { id, method, params } = request;
    // One that comes in while the host is draining is answered too, since a call in flight may need it, but
    // not counted: draining would never end beside a plugin that calls and calls.
    let in_flight = InFlight::begin(shared, |counters| &counters.inbound_in_flight);
    let refuse = || {
        count_by(&shared.counters.rpc.inbound_refused, 1);
        let text = "too many calls from this plugin are in progress; try again later";
        connection.refuse(&id, &RpcError::new(RpcError::HANDLER_FAILED, text));
    };
    let hooked = HookedCall::begin(shared, CallDirection::FromPlugin, &method);
    let limit = shared.context.settings.limits.inbound_bytes;
    let bytes = params.held_bytes();
    let Some(held) = HeldBytes::take(shared, |shared| &shared.inbound_bytes, bytes, limit) else {
        return refuse();
    };
    let job = {
        let (shared, connection, id) = (shared.clone(), connection.clone(), id.clone());
        Box::new(move || {
            // Released with the job, also if it panics.
            let _held = held;
            if connection.has_ended() {
                // There is no peer left to answer, so nothing may happen in its name either.
                return;
            }
            let plugin = format!("plugin {}", shared.name);
            let answer = guarded(&plugin, &method, || {
                answer(&shared, &connection, &id, &method, &params)
            });
            let deadline = Deadline::after(shared.context.settings.timeouts.call);
            // Before it is sent, so that the plugin cannot have it uncounted.
            shared.context.totals.count_answer(answer.is_ok());
            connection.answer(&id, &method, answer.as_ref(), deadline);
            if hooked.is_some() {
                let answer = answer.map_err(Error::from);
                HookedCall::end(hooked, answer.as_ref());
            }
            drop(in_flight);
        })
    };
    if shared.workers.submit(job).is_err() {
        refuse();
    }
}

fn answer(
    shared: &Arc<SharedSession>,
    connection: &Connection,
    id: &RemoteRequestId,
    method: &str,
    params: &Params,
) -> HandlerResult {
    let context = &shared.context;
    // The stored record, not the one from the start: its configuration may have changed since.
    let record = match shared.current_record() {
        Ok(Some(record)) => record,
        Ok(None) => shared.record(),
        Err(error) => {
            log::error!("plugin {}: cannot read its record: {error}", shared.name);
            return Err(RpcError::new(
                RpcError::INTERNAL,
                "the host cannot read the plugin's record",
            ));
        }
    };
    let call = InboundCall::new(shared.session(), record, method.to_owned());
    match method {
        GetConfig::NAME => {
            let params: GetConfig = params.read()?;
            let config = context.services.handlers.get_config(&call, &params.keys)?;
            let mut result = serde_json::Map::new();
            result.insert("config".to_owned(), config.into());
            Ok(ResultObject::from(result))
        }
        AccessGet::NAME => {
            if call.manifest().access.is_none() {
                return Err(RpcError::new(
                    RpcError::METHOD_NOT_FOUND,
                    "this plugin's manifest asks for no access",
                ));
            }
            let grant = context.services.handlers.access_get(&call)?;
            Ok(access::reply(connection.access_shape(), &grant, id))
        }
        RobotRun::NAME => {
            let params: RobotRun = params.read()?;
            // Refusals of a run are results (PROTOCOL.md, "robot_run").
            let refusal = if call.manifest().access.is_none() {
                Some("this plugin's manifest asks for no access")
            } else if params.message.trim().is_empty() {
                Some("the message of a Robot run cannot be blank")
            } else {
                None
            };
            let asked = params.session_id;
            let mut reply = match refusal {
                Some(text) => RobotRunReply {
                    error: Some(text.to_owned()),
                    ..RobotRunReply::default()
                },
                None => context.services.handlers.robot_run(&call, params)?,
            };
            if reply.output.is_none() {
                // Storyden's host names a session in every answer, and makes one up for a run that
                // never was.
                let session = reply.session_id.or(asked);
                reply.session_id = Some(session.unwrap_or_else(Xid::generate));
            }
            encode(&reply)
        }
        _ => match context.services.methods.get(method) {
            Some(handler) => handler(&call, params),
            None => context
                .services
                .handlers
                .call(&call, params)
                .unwrap_or_else(|| {
                    Err(RpcError::new(
                        RpcError::METHOD_NOT_FOUND,
                        format!("unknown method \"{method}\""),
                    ))
                }),
        },
    }
}
