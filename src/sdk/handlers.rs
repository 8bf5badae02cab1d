//! The plugin's handlers, and the answer to a call: a handler's or a built-in one. `plugin` runs them and
//! sends the answers.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value};

use super::handler_error::HandlerError;
use super::host::HostHandle;
use crate::error::RpcError;
use crate::protocol::jsonrpc::ResultObject;
use crate::protocol::method::{Ack, Configure, Event, Method, Ping, PingReply};
use crate::rpc::Params;
use crate::rpc::handling::{HandlerResult, encode, guarded};
use crate::text::Foreign;

type RawHandler =
    Box<dyn Fn(&HostHandle, &Params) -> Result<ResultObject, HandlerError> + Send + Sync>;
type EventHandler =
    Box<dyn Fn(&HostHandle, Map<String, Value>) -> Result<(), HandlerError> + Send + Sync>;
type ConnectHandler = Box<dyn Fn(&HostHandle) -> Result<(), HandlerError> + Send + Sync>;

/// The handlers of a plugin, and the built-in ones.
#[derive(Default)]
pub(super) struct Handlers {
    pub(super) methods: HashMap<String, RawHandler>,
    pub(super) events: HashMap<String, EventHandler>,
    pub(super) connected: Option<ConnectHandler>,
}

impl Handlers {
    /// Runs the handler for a new connection.
    pub(super) fn connected(&self, host: &HostHandle) {
        if let Some(handler) = &self.connected
            && let Err(error) = handler(host)
        {
            log::error!("handler of the connection failed: {error}");
        }
    }

    /// Returns the answer to a call, whatever the handler does.
    pub(super) fn answer(&self, host: &HostHandle, method: &str, params: &Params) -> HandlerResult {
        let answer = guarded("plugin", method, || {
            self.handle(host, method, params)
                .map_err(HandlerError::into_rpc)
        });
        match answer {
            // Never an error: a plugin that cannot answers 'no' (PROTOCOL.md, "Error codes").
            Err(error) if method == Configure::NAME => {
                log::error!("configuration refused: {error}");
                Ok(refused())
            }
            Err(error) => {
                log::warn!("{} answered with an error: {error}", Foreign::new(method));
                Err(error)
            }
            answer => answer,
        }
    }

    fn handle(
        &self,
        host: &HostHandle,
        method: &str,
        params: &Params,
    ) -> Result<ResultObject, HandlerError> {
        if let Some(handler) = self.methods.get(method) {
            return handler(host, params);
        }
        match method {
            Event::NAME => self.event(host, params),
            Ping::NAME => Ok(encode(&PingReply {
                pong: true,
                uptime_seconds: Some(host.link().uptime().as_secs_f64()),
                status: Some("healthy".to_owned()),
            })?),
            // A plugin without a handler asks for its configuration when it needs it.
            Configure::NAME => Ok(encode(&Ack { ok: true })?),
            _ => Err(HandlerError::new(
                RpcError::METHOD_NOT_FOUND,
                format!("this plugin has no method \"{method}\""),
            )),
        }
    }

    /// An event without a handler is not an error ([Strictness and order](crate::protocol#strictness-and-order)).
    fn event(&self, host: &HostHandle, params: &Params) -> Result<ResultObject, HandlerError> {
        let event: Event = params.read()?;
        if let Some(handler) = self.events.get(&event.name) {
            handler(host, event.payload)?;
        } else {
            log::debug!("no handler for event {}", Foreign::new(&event.name));
        }
        Ok(encode(&Ack { ok: true })?)
    }
}

fn refused() -> ResultObject {
    let mut members = Map::new();
    members.insert("ok".to_owned(), false.into());
    members.into()
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers")
            .field("methods", &self.methods.keys())
            .field("events", &self.events.keys())
            .finish_non_exhaustive()
    }
}
