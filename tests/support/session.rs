//! A host with external plugins loaded, and a plugin at the other end of the connection, played by the
//! test message by message.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};
use parking_lot::Mutex;
use plugin_runner::call::PendingCall;
use plugin_runner::duplex::websocket::WebSocket;
use plugin_runner::duplex::{Duplex, DuplexSettings, DuplexWriter, memory};
use plugin_runner::error::Disconnect;
use plugin_runner::protocol::ResultObject;
use plugin_runner::protocol::method::{Ping, PingReply};
use plugin_runner::store::Record;
use plugin_runner::{ActiveState, HostBuilder, ReportedState, Session};
use serde_json::{Value, json};

use super::host::TestHost;
use super::plugin::manifest;
use super::{LONG, object};

/// For waits that are meant to run out.
pub(crate) const SHORT: Duration = Duration::from_millis(30);

/// What the SDKs say in their handshakes.
pub(crate) const GO: &str = "Go-http-client/1.1";
pub(crate) const PYTHON: &str = "Python/3.11 websockets/15.0.1";

/// A host with one external plugin, which waits for its connection.
pub(crate) struct Bench {
    pub(crate) host: TestHost,
    pub(crate) session: Session,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder, |record| record)
    }

    pub(crate) fn with_record(record: impl FnOnce(Record) -> Record) -> Self {
        Self::with(|builder| builder, record)
    }

    pub(crate) fn with_host(settings: impl FnOnce(HostBuilder) -> HostBuilder + 'static) -> Self {
        Self::with(settings, |record| record)
    }

    pub(crate) fn with(
        settings: impl FnOnce(HostBuilder) -> HostBuilder + 'static,
        record: impl FnOnce(Record) -> Record,
    ) -> Self {
        let host = TestHost::with("session", |setup| {
            setup.deaf();
            setup.configure(settings);
        });
        let session = load(&host, record);
        Self { host, session }
    }

    /// Loads one more external plugin.
    pub(crate) fn load(&self, record: impl FnOnce(Record) -> Record) -> Session {
        load(&self.host, record)
    }

    /// Connects the plugin in memory.
    pub(crate) fn connect(&self) -> Plugin {
        connect(&self.session, "")
    }

    /// Connects the plugin in memory as a program with this user agent.
    pub(crate) fn connect_as(&self, user_agent: &str) -> Plugin {
        connect(&self.session, user_agent)
    }

    /// Connects the plugin over a WebSocket.
    pub(crate) fn connect_socket(&self) -> Plugin {
        Plugin::over_socket(self.connect_silent())
    }

    /// Connects the plugin over a WebSocket that the test does not read.
    pub(crate) fn connect_silent(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket = WebSocket::server(ours, Vec::new());
        self.session.connect(socket, "").unwrap();
        theirs
    }

    /// A call there and back. Messages of the plugin that came before it have been dealt with when
    /// it returns, as far as that is the reading thread's business.
    #[track_caller]
    pub(crate) fn ping(&self, plugin: &Plugin) {
        ping(&self.session, plugin);
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, state: ReportedState) {
        self.session.wait_for(state, LONG).unwrap();
    }

    #[track_caller]
    pub(crate) fn set(&self, state: ActiveState) {
        self.session.set_active_state(state).unwrap();
    }
}

/// Loads an external plugin.
pub(crate) fn load(host: &TestHost, record: impl FnOnce(Record) -> Record) -> Session {
    host.install(record(Record::external(manifest("tested")).unwrap()))
}

/// Connects a session's plugin in memory.
pub(crate) fn connect(session: &Session, user_agent: &str) -> Plugin {
    let (ours, theirs) = memory::pair(256);
    session.connect(ours, user_agent).unwrap();
    Plugin::over(theirs)
}

/// See [`Bench::ping`].
#[track_caller]
pub(crate) fn ping(session: &Session, plugin: &Plugin) {
    let call = start_ping(session);
    let request = plugin.expect("ping");
    plugin.reply(&request, json!({"pong": true}));
    assert!(call.wait().unwrap().pong);
}

/// A ping on its way.
#[track_caller]
pub(crate) fn start_ping(session: &Session) -> PendingCall<PingReply> {
    session.start_call(&Ping {}, LONG).unwrap()
}

/// A call by name on its way.
#[track_caller]
pub(crate) fn start_raw(session: &Session, method: &str, params: Value) -> PendingCall {
    session.start_call_raw(method, &params, LONG).unwrap()
}

/// A result with these members.
pub(crate) fn result(value: Value) -> ResultObject {
    object(value).into()
}

/// The plugin's end of a connection. Dropping it is losing the connection.
pub(crate) struct Plugin {
    writer: Arc<dyn DuplexWriter>,
    incoming: Receiver<Result<String, Disconnect>>,
    /// Requests that arrived while something else was waited for.
    kept: Mutex<VecDeque<String>>,
}

/// A call to the plugin.
#[derive(Debug)]
pub(crate) struct Request {
    /// The message as it came.
    pub(crate) message: Value,
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) params: Value,
}

impl Plugin {
    pub(crate) fn over(duplex: impl Duplex) -> Self {
        let settings = DuplexSettings::new("plugin");
        let (mut reader, writer) = Box::new(duplex).split(&settings).unwrap();
        let (sender, incoming) = unbounded();
        thread::spawn(move || {
            loop {
                let message = match reader.receive() {
                    Ok(Some(message)) => Ok(message.to_string()),
                    Ok(None) => continue,
                    Err(cause) => Err(cause),
                };
                let is_last = message.is_err();
                if sender.send(message).is_err() || is_last {
                    return;
                }
            }
        });
        Self {
            writer,
            incoming,
            kept: Mutex::default(),
        }
    }

    pub(crate) fn over_socket(socket: UnixStream) -> Self {
        Self::over(WebSocket::client(socket, Vec::new()))
    }

    /// Sends a message as it is.
    #[track_caller]
    pub(crate) fn send(&self, text: &str) {
        assert!(self.writer.send(text, Instant::now() + LONG).unwrap());
    }

    /// Closes in an orderly way.
    pub(crate) fn close(&self, code: u16, reason: &str) {
        self.writer.close(code, reason, Instant::now() + LONG);
    }

    /// The next message, as it came.
    #[track_caller]
    pub(crate) fn next_text(&self, awaited: &str) -> String {
        if let Some(text) = self.kept.lock().pop_front() {
            return text;
        }
        self.arrive(awaited)
    }

    #[track_caller]
    fn arrive(&self, awaited: &str) -> String {
        match self.incoming.recv_timeout(LONG) {
            Ok(Ok(text)) => text,
            Ok(Err(cause)) => panic!("{cause}, while waiting for {awaited}"),
            Err(RecvTimeoutError::Timeout) => panic!("no {awaited} within {LONG:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("{awaited} awaited after the end"),
        }
    }

    /// The next message, which must be a call.
    #[track_caller]
    pub(crate) fn next_request(&self, awaited: &str) -> Request {
        let text = self.next_text(awaited);
        let message: Value = serde_json::from_str(&text).unwrap();
        let member = |name: &str| match &message[name] {
            Value::String(text) => text.clone(),
            other => panic!("{awaited}: {name} is {other} in {text}"),
        };
        Request {
            id: member("id"),
            method: member("method"),
            params: message["params"].clone(),
            message,
        }
    }

    /// The next message, which must be a call of this method.
    #[track_caller]
    pub(crate) fn expect(&self, method: &str) -> Request {
        let request = self.next_request(method);
        assert_eq!(request.method, method, "{:?}", request.message);
        request
    }

    /// Answers a call with a result; its `method` is added.
    #[track_caller]
    pub(crate) fn reply(&self, request: &Request, result: Value) {
        let mut result = object(result);
        result.insert("method".to_owned(), request.method.as_str().into());
        let response = json!({"jsonrpc": "2.0", "id": request.id, "result": result});
        self.send(&response.to_string());
    }

    /// Answers a call with an error.
    #[track_caller]
    pub(crate) fn refuse(&self, request: &Request, code: i64, message: &str) {
        let error = json!({"code": code, "message": message});
        let response = json!({"jsonrpc": "2.0", "id": request.id, "error": error});
        self.send(&response.to_string());
    }

    /// Sends a call to the host; id and params are JSON text.
    #[track_caller]
    pub(crate) fn ask(&self, id: &str, method: &str, params: &str) {
        self.send(&format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#
        ));
    }

    /// The answer to the plugin's call with this id (JSON text), as it came. Calls to the plugin
    /// that arrive before it are kept.
    #[track_caller]
    pub(crate) fn answer_text(&self, id: &str) -> String {
        let beginning = format!(r#"{{"jsonrpc":"2.0","id":{id},"#);
        loop {
            let text = self.arrive(&format!("answer to {id}"));
            let message: Value = serde_json::from_str(&text).unwrap();
            if message.get("method").is_some() {
                self.kept.lock().push_back(text);
                continue;
            }
            assert!(
                text.starts_with(&beginning),
                "not the answer to {id}: {text}"
            );
            return text;
        }
    }

    /// [`answer_text`](Self::answer_text), decoded.
    #[track_caller]
    pub(crate) fn answer(&self, id: &str) -> Value {
        serde_json::from_str(&self.answer_text(id)).unwrap()
    }

    /// Calls the host and gives its answer.
    #[track_caller]
    pub(crate) fn call(&self, id: &str, method: &str, params: &str) -> Value {
        self.ask(id, method, params);
        self.answer(id)
    }

    /// Whether no message has arrived that was not looked at. Of use only after a message that
    /// was sent later has arrived.
    pub(crate) fn has_nothing_more(&self) -> bool {
        self.incoming.is_empty() && self.kept.lock().is_empty()
    }

    /// The end of the connection, as the plugin sees it. No message may come before it.
    #[track_caller]
    pub(crate) fn expect_end(&self) -> Disconnect {
        match self.incoming.recv_timeout(LONG) {
            Ok(Err(cause)) => cause,
            Ok(Ok(text)) => panic!("instead of the end: {text}"),
            Err(error) => panic!("the connection has not ended within {LONG:?}: {error}"),
        }
    }

    /// The end of the connection, which must be a close of the host's.
    #[track_caller]
    pub(crate) fn expect_close(&self) -> (u16, String) {
        match self.expect_end() {
            Disconnect::ByPeer {
                code: Some(code),
                reason,
            } => (code, reason),
            other => panic!("no close but {other:?}"),
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.writer.interrupt();
    }
}
