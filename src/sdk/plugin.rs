//! `Plugin`: registering handlers, and running: connect, read, hand calls to workers, and reconnect where
//! that is right.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ConnectionUrl;
use super::endpoint::Endpoint;
use super::handler_error::HandlerError;
use super::handlers::Handlers;
use super::host::{self, HostHandle};
use super::retry::{self, Backoff};
use crate::deadline::Deadline;
use crate::duplex::stdio::Stdio;
use crate::duplex::websocket::WebSocket;
use crate::duplex::{Duplex, DuplexSettings, Halves};
use crate::error::{Disconnect, Result, RpcError};
use crate::protocol::configuration::Configuration;
use crate::protocol::jsonrpc::ResultObject;
use crate::protocol::method::{Ack, Configure, Method};
use crate::protocol::peer::PeerKind;
use crate::rpc::Params;
use crate::rpc::handling::typed;
use crate::rpc::workers::{WorkerSettings, Workers};
use crate::rpc::{Connection, ConnectionSettings, InboundRequest, spin_limit};
use crate::text::Foreign;
use crate::thread::Threads;

/// Handlers that run at once, unless set otherwise.
const HANDLERS_AT_ONCE: usize = 16;
/// Calls that may wait beyond those: as many as a host of this crate keeps in flight.
const WAITING_CALLS: usize = 1024;
/// Calls to the host that may wait for an answer.
const PENDING_CALLS: usize = 1024;
/// The stack of a handler's thread, in bytes; the standard library's default.
const HANDLER_STACK: usize = 2 * 1024 * 1024;
/// For looking up the name, connecting and the handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// For writing an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For handlers still running at the end. A supervised plugin must be gone soon after its connection.
const END_GRACE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(1);

/// A plugin: its handlers, and where its host is. See the [module](super) for an example.
///
/// Handlers run on worker threads, several at once; they may block, and may call the host through
/// the handle they are given. A handler that fails answers its caller with an error, see
/// [`HandlerError`]; one that panics, with -32603. Registering another handler for the same thing
/// replaces the first.
#[must_use = "a plugin does nothing until `run`"]
pub struct Plugin {
    endpoint: Endpoint,
    handlers: Handlers,
    host: HostHandle,
    handlers_at_once: usize,
}

impl Plugin {
    /// Returns a plugin of the host that the environment names: in `STORYDEN_RPC_URL` with a URL to connect
    /// to, or by `PLUGIN_RUNNER_TRANSPORT=stdio`. With both, the URL counts. Does not block: [`run`](Self::run) connects.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting): neither variable names a host, or the URL cannot be used.
    pub fn from_env() -> Result<Self> {
        Endpoint::from_env().map(Self::new)
    }

    /// Returns a plugin of the host with this connection URL, token included. Does not block:
    /// [`run`](Self::run) connects.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the URL cannot be used.
    pub fn connect_to(url: &str) -> Result<Self> {
        let url = ConnectionUrl::parse(url)?;
        Ok(Self::new(Endpoint::Url(Box::new(url))))
    }

    /// Returns a plugin of the host at the other end of this connection, such as one end of
    /// [`memory::pair`](crate::duplex::memory::pair). So handlers can be tested without a process:
    /// `tests/examples/plugin_test.rs` shows how.
    pub fn over(duplex: impl Duplex) -> Self {
        Self::new(Endpoint::Duplex(Box::new(duplex)))
    }

    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            handlers: Handlers::default(),
            host: HostHandle::new(),
            handlers_at_once: HANDLERS_AT_ONCE,
        }
    }

    /// Runs this after each connect, in parallel with the calls that come in. An error is logged.
    pub fn on_connect(
        mut self,
        handler: impl Fn(&HostHandle) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.handlers.connected = Some(Box::new(handler));
        self
    }

    /// Handles an event; the payload is its fields without the name, as a type of the handler's own: a
    /// `Map<String, Value>` takes all of them, [`IgnoredAny`](serde::de::IgnoredAny) none. Events without a handler
    /// are answered as handled. A failure answers with an error that begins `handler error: `, and a payload
    /// that does not decode to a `P` with -32602.
    pub fn on_event<P: DeserializeOwned>(
        mut self,
        name: impl Into<String>,
        handler: impl Fn(&HostHandle, P) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Self {
        let handler = move |host: &HostHandle, payload: Map<String, Value>| {
            let payload = P::deserialize(Value::Object(payload)).map_err(|error| {
                HandlerError::new(
                    RpcError::INVALID_PARAMS,
                    format!("invalid payload: {error}"),
                )
            })?;
            handler(host, payload).map_err(|error| {
                HandlerError::new(error.code(), format!("handler error: {}", error.message()))
            })
        };
        self.handlers.events.insert(name.into(), Box::new(handler));
        self
    }

    /// Checks a configuration that an administrator wants to save: it is stored if the handler returns
    /// true. False, an error and a panic all refuse it. Without a handler every configuration is accepted.
    pub fn on_configure(
        self,
        handler: impl Fn(&HostHandle, &Configuration) -> Result<bool, HandlerError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.on(move |host, Configure(configuration)| {
            let ok = handler(host, &configuration)?;
            Ok(Ack { ok })
        })
    }

    /// Handles a method whose params implement [`Method`], one of the protocol's or a host's own:
    /// `.on(|host, call: RobotToolCall| …)`. Replaces what is built in:
    /// [`Ping`](crate::protocol::method::Ping) is answered `healthy` by itself, and
    /// [`Event`](crate::protocol::method::Event) goes to the handlers of
    /// [`on_event`](Self::on_event).
    pub fn on<M: Method>(
        self,
        handler: impl Fn(&HostHandle, M) -> Result<M::Reply, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.method(M::NAME, handler)
    }

    /// Handles a method by name, with params and reply of the handler's own types; otherwise as
    /// [`on`](Self::on). The reply must encode to a JSON object. Params that do not decode to a `P` are
    /// answered with -32602 and the field that is at fault. Of a method without params, `P` is an empty
    /// struct or [`IgnoredAny`](serde::de::IgnoredAny); [`Map::new()`](serde_json::Map::new) is an empty
    /// reply.
    ///
    /// ```no_run
    /// use plugin_runner::sdk::Plugin;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Deserialize)]
    /// struct Greet {
    ///     name: String,
    /// }
    ///
    /// #[derive(Serialize)]
    /// struct Greeting {
    ///     text: String,
    /// }
    ///
    /// # fn main() -> plugin_runner::Result<()> {
    /// Plugin::from_env()?
    ///     .method("greet", |_host, Greet { name }| {
    ///         let text = format!("hello {name}");
    ///         Ok(Greeting { text })
    ///     })
    ///     .run()
    /// # }
    /// ```
    pub fn method<P: DeserializeOwned, R: Serialize>(
        self,
        name: impl Into<String>,
        handler: impl Fn(&HostHandle, P) -> Result<R, HandlerError> + Send + Sync + 'static,
    ) -> Self {
        self.method_raw(name, typed(handler))
    }

    /// Handles a method by name, with params and result in raw form.
    pub fn method_raw(
        mut self,
        name: impl Into<String>,
        handler: impl Fn(&HostHandle, &Params) -> Result<ResultObject, HandlerError>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.handlers.methods.insert(name.into(), Box::new(handler));
        self
    }

    /// Sets how many handlers may run at once; at least 1. Default 16. Up to 1,024 more calls wait, and
    /// any beyond those are refused with an error.
    pub fn handlers_at_once(mut self, number: usize) -> Self {
        self.handlers_at_once = number.max(1);
        self
    }

    /// Returns the host, for threads of the plugin's own. Until [`run`](Self::run) has connected, calls on
    /// it fail.
    pub fn host(&self) -> HostHandle {
        self.host.clone()
    }

    /// Connects and serves.
    ///
    /// A supervised plugin connects once: if its connection ends, whichever side ended it, this returns
    /// `Ok`, the program should end with status 0, and its host starts it again if it is to run. The
    /// same holds over stdio. An external plugin reconnects: after 250 ms, doubling up to 10 s, for
    /// as long as the host cannot be reached, answers 5xx, or ends the connection in a way that says
    /// so. It gives up when the host refuses it with a 4xx, and ends with `Ok` when the host closes
    /// for good (1000, 1008 and the like;
    /// [Refused or disconnected](crate::protocol#refused-or-disconnected)).
    ///
    /// # Blocking
    /// Until then. [`HostHandle::close`] ends it; while it is connecting, up to half a minute later.
    /// Handlers that still run at the end have two seconds to finish.
    ///
    /// # Errors
    /// - [`Error::Disconnected`](crate::Error::Disconnected) with [`Disconnect::Refused`]: the host refused the connection.
    /// - [`Error::Io`](crate::Error::Io), [`Error::Timeout`](crate::Error::Timeout): it could not be reached; supervised plugins only.
    /// - [`Error::Unsupported`](crate::Error::Unsupported): a `wss://` URL.
    pub fn run(self) -> Result<()> {
        let Self {
            endpoint,
            handlers,
            host,
            handlers_at_once,
        } = self;
        // Handlers, and a few for writers, of which the one of an old connection may linger.
        let threads = Threads::with_limit(handlers_at_once + 8);
        let workers = Workers::new(WorkerSettings {
            name: "handler".to_owned(),
            threads: threads.clone(),
            stack: HANDLER_STACK,
            cap: handlers_at_once,
            queue: WAITING_CALLS,
            idle: IDLE,
        });
        let runner = Arc::new(Runner {
            handlers: Arc::new(handlers),
            host,
            workers,
            threads: threads.clone(),
        });
        let result = match endpoint {
            Endpoint::Url(url) => runner.run_at(&url),
            Endpoint::Stdio => {
                Stdio::own().and_then(|stdio| runner.serve(Box::new(stdio)).map(drop))
            }
            Endpoint::Duplex(duplex) => runner.serve(duplex).map(drop),
        };
        drop(runner);
        let left = threads.join_all(Deadline::after(END_GRACE));
        if left > 0 {
            log::warn!("{left} handlers are still running and are left behind");
        }
        result
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("endpoint", &self.endpoint)
            .field("handlers", &self.handlers)
            .finish_non_exhaustive()
    }
}

/// A running plugin.
struct Runner {
    handlers: Arc<Handlers>,
    host: HostHandle,
    workers: Workers,
    threads: Threads,
}

impl Runner {
    fn run_at(self: &Arc<Self>, url: &ConnectionUrl) -> Result<()> {
        let link = self.host.link();
        let mut backoff = Backoff::new();
        while !link.is_closed() {
            match WebSocket::connect(url.expose(), CONNECT_TIMEOUT) {
                Ok(socket) => {
                    backoff.reset();
                    let cause = self.serve(Box::new(socket))?;
                    if !url.is_external() || !retry::comes_back(&cause) {
                        return Ok(());
                    }
                }
                Err(_) if link.is_closed() => return Ok(()),
                Err(error) if url.is_external() && retry::may_pass(&error) => {
                    log::warn!("cannot connect to {url}: {error}");
                }
                Err(error) => return Err(error),
            }
            let wait = backoff.next_wait();
            log::info!("trying again in {wait:?}");
            if !link.pause(wait) {
                break;
            }
        }
        Ok(())
    }

    /// Serves one connection until it ends; returns why it did.
    fn serve(self: &Arc<Self>, duplex: Box<dyn Duplex>) -> Result<Arc<Disconnect>> {
        let settings = DuplexSettings::with_threads("host", self.threads.clone());
        let halves = Halves::of(duplex, &settings)?;
        let settings = ConnectionSettings {
            peer: "host".to_owned(),
            pending_limit: PENDING_CALLS,
            access_shape: PeerKind::Other.access_shape(),
            message_limit: PeerKind::Other.message_limit(),
            rate: None,
            spin: spin_limit(),
        };
        let (connection, reader) = Connection::new(halves, settings, Arc::default());
        let link = self.host.link();
        if link.attach(&connection) {
            log::info!("connected");
            self.connected();
        } else {
            host::close(&connection);
        }
        let dispatch = {
            let (runner, connection) = (self.clone(), connection.clone());
            Box::new(move |request| runner.dispatch(&connection, request))
        };
        let cause = connection.read_until_end(reader, dispatch);
        link.detach(&cause);
        log::info!("{}", ending(&cause));
        Ok(cause)
    }

    fn connected(&self) {
        if self.handlers.connected.is_none() {
            return;
        }
        let (handlers, host) = (self.handlers.clone(), self.host.clone());
        let job = Box::new(move || handlers.connected(&host));
        if self.workers.submit(job).is_err() {
            log::error!("no thread for the handler of the connection");
        }
    }

    /// Hands a call to a worker, or refuses it. On the reading thread.
    fn dispatch(&self, connection: &Arc<Connection>, request: InboundRequest) {
        let InboundRequest { id, method, params } = request;
        let (handlers, host) = (self.handlers.clone(), self.host.clone());
        let job = {
            let (connection, id) = (connection.clone(), id.clone());
            Box::new(move || {
                if connection.has_ended() {
                    // The caller's call has failed, and it may call again on the next connection.
                    return;
                }
                let answer = handlers.answer(&host, &method, &params);
                let deadline = Deadline::after(ANSWER_TIMEOUT);
                connection.answer(&id, &method, answer.as_ref(), deadline);
            })
        };
        if self.workers.submit(job).is_err() {
            let text = "the plugin is handling too many calls; try again later";
            connection.refuse(&id, &RpcError::new(RpcError::HANDLER_FAILED, text));
        }
    }
}

/// Describes why a connection ended from the plugin's side; the crate's texts are the host's.
fn ending(cause: &Disconnect) -> String {
    match cause {
        Disconnect::ByPeer { code, reason } => {
            let code = code.map_or_else(|| "no code".to_owned(), |code| format!("code {code}"));
            format!(
                "the host closed the connection: {code} {}",
                Foreign::new(reason)
            )
        }
        Disconnect::ByHost { reason, .. } => format!("connection closed: {reason}"),
        Disconnect::Lost => "connection lost".to_owned(),
        other => format!("connection ended: {other}"),
    }
}
