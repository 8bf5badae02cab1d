//! What a host offers its plugins: the trait that an embedder implements, the methods it registers
//! beside it, and what they get to know of a call. Running them is `inbound`'s.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::Session;
use crate::error::RpcError;
use crate::protocol::access::AccessGrant;
use crate::protocol::jsonrpc::ResultObject;
use crate::protocol::manifest::Manifest;
use crate::protocol::method::{GetConfig, RobotRun, RobotRunReply};
use crate::rpc::Params;
use crate::store::Record;

/// A call from a plugin, as a handler sees it.
#[derive(Debug)]
pub struct InboundCall {
    session: Session,
    record: Arc<Record>,
    method: String,
}

impl InboundCall {
    pub(super) fn new(session: Session, record: Arc<Record>, method: String) -> Self {
        Self {
            session,
            record,
            method,
        }
    }

    /// Returns the session of the calling plugin. A handler may call it back.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Returns the plugin's record, as the store had it when the handler was started; the one known before
    /// if it is no longer stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns the plugin's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.record.manifest
    }

    /// Returns the method that was called.
    pub fn method(&self) -> &str {
        &self.method
    }
}

/// What the protocol's calls from plugins mean on this host. Every method has a default that
/// answers as the protocol says when the service is not there
/// ([Plugin to host](crate::protocol#plugin-to-host)).
///
/// Handlers run on worker threads of the calling plugin's session, several at once, never on a
/// reading thread: they may block and may call plugins. The plugin waits for as long as they take.
/// A handler that panics answers its caller with error -32603.
///
/// ```
/// use plugin_runner::call::InboundCall;
/// use plugin_runner::error::RpcError;
/// use plugin_runner::protocol::AccessGrant;
/// use plugin_runner::{Host, Services};
///
/// struct Forum {
///     access_key: String,
/// }
///
/// impl Services for Forum {
///     fn access_get(&self, call: &InboundCall) -> Result<AccessGrant, RpcError> {
///         log::info!("{} asks for access", call.manifest().name);
///         AccessGrant::new(&*self.access_key, "https://forum.example")
///             .map_err(|error| RpcError::new(RpcError::INTERNAL, error.to_string()))
///     }
/// }
///
/// # fn main() -> plugin_runner::Result<()> {
/// let access_key = "sdbak_3vK0exampleonly".to_owned();
/// let host = Host::builder().services(Forum { access_key }).build()?;
/// # Ok(())
/// # }
/// ```
pub trait Services: Send + Sync {
    /// Returns the stored configuration: all of it, or those of `keys` that exist.
    ///
    /// # Errors
    /// An error that becomes the answer.
    fn get_config(
        &self,
        call: &InboundCall,
        keys: &[String],
    ) -> Result<Map<String, Value>, RpcError> {
        let keys = keys.to_vec();
        Ok(GetConfig { keys }.select(&call.record().configuration))
    }

    /// Returns credentials for the host's API. Only asked when the manifest has an `access` block.
    ///
    /// # Errors
    /// An error that becomes the answer.
    fn access_get(&self, call: &InboundCall) -> Result<AccessGrant, RpcError> {
        let _ = call;
        Err(RpcError::new(
            RpcError::INTERNAL,
            "this host gives no API access",
        ))
    }

    /// Runs a Robot unattended, which may take minutes. Only asked when the manifest has an `access` block
    /// and the message is not blank; anything else is refused as the protocol says. A refusal, which is
    /// a reply with `error` and without `output`, need not name a session: the answer has the one that
    /// was asked for, or a new one.
    ///
    /// # Errors
    /// An error that becomes the answer; a run that fails is a reply with `error` instead.
    fn robot_run(&self, call: &InboundCall, params: RobotRun) -> Result<RobotRunReply, RpcError> {
        let _ = (call, params);
        Ok(RobotRunReply {
            error: Some("this host runs no Robots".to_owned()),
            ..RobotRunReply::default()
        })
    }

    /// Answers any other method; `None` when there is no such method, which is answered with -32601.
    ///
    /// # Errors
    /// An error that becomes the answer.
    fn call(&self, call: &InboundCall, params: &Params) -> Option<Result<ResultObject, RpcError>> {
        let _ = (call, params);
        None
    }
}

/// The services of a host that has none of its own.
impl Services for () {}

/// A handler of one method of the embedder's.
pub(crate) type MethodHandler =
    Arc<dyn Fn(&InboundCall, &Params) -> Result<ResultObject, RpcError> + Send + Sync>;

/// Methods that the embedder registered by name.
pub(crate) type Methods = HashMap<String, MethodHandler>;
