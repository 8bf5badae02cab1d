//! `Api`: requests to the HTTP API, and its refusals as errors of the program.

use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use ureq::http::request::Builder;
use ureq::http::{Method, Request, Response};
use ureq::{Agent, Body, SendBody};

use crate::cli::error::CliError;
use crate::cli::serve::Secret;

/// How long a connection may take to be made, TLS included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a host may be silent: longer than any operation takes there, which wait for plugins to start and to stop.
pub(super) const SILENCE: Duration = Duration::from_secs(15 * 60);
/// Bytes of an answer that is read whole: more than a host with 10,000 plugins has to say.
const ANSWER_SIZE: u64 = 64 * 1024 * 1024;
/// Bytes of a refusal.
const PROBLEM_SIZE: u64 = 1024 * 1024;

pub(super) const JSON: &str = "application/json";

/// A host's HTTP API.
#[derive(Clone)]
pub(super) struct Api {
    agent: Agent,
    /// Without a slash at its end.
    base: String,
    token: Secret,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Api").field(&self.base).finish()
    }
}

/// What is sent.
pub(super) struct Upload<'a> {
    pub(super) content_type: &'static str,
    /// In bytes.
    pub(super) length: u64,
    pub(super) content: &'a mut (dyn Read + 'a),
}

/// What a host says when it refuses ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).
#[derive(Deserialize)]
struct Problem {
    detail: String,
    kind: String,
    #[serde(default)]
    trace_id: String,
    #[serde(default)]
    fields: Vec<FieldProblem>,
    rpc_error: Option<RpcError>,
}

#[derive(Deserialize)]
struct FieldProblem {
    field: String,
    message: String,
}

#[derive(Deserialize)]
struct RpcError {
    /// Code and message are in the detail.
    data: Option<Value>,
}

impl Api {
    pub(super) fn new(base: &str, token: Secret) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The token is for this host alone, and there is nothing to be redirected to.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            // A package is worth the wait for a refusal.
            .timeout_await_100(Some(CONNECT))
            .user_agent(concat!("plugin-runner/", env!("CARGO_PKG_VERSION")));
        // What is on this machine is not asked for elsewhere.
        let config = if is_local(base) {
            config.proxy(None)
        } else {
            config
        };
        Self {
            agent: config.build().new_agent(),
            base: base.to_owned(),
            token,
        }
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Asks for something, and returns the answer.
    ///
    /// # Errors
    /// [`CliError`] when the host cannot be reached, refuses, or answers with what this program does not know.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.json(self.open(path)?)
    }

    /// Asks for a change, with JSON if it takes any, and returns the answer: `null` for an empty one.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(super) fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, CliError> {
        let text = body.map(Value::to_string);
        let mut bytes = text.as_deref().unwrap_or_default().as_bytes();
        let body = text.is_some().then_some(Upload {
            content_type: JSON,
            length: bytes.len() as u64,
            content: &mut bytes,
        });
        self.json(self.send(method, path, body)?)
    }

    /// Uploads something, and returns the answer.
    ///
    /// # Errors
    /// As [`get`](Self::get), and when it cannot be read.
    pub(super) fn upload<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        upload: Upload<'_>,
    ) -> Result<T, CliError> {
        self.json(self.send(method, path, Some(upload))?)
    }

    /// Asks for something that is read by and by. A read fails once the host has been silent for fifteen minutes.
    ///
    /// # Errors
    /// [`CliError`] when the host cannot be reached or refuses.
    pub(super) fn open(&self, path: &str) -> Result<Response<Body>, CliError> {
        self.send(Method::GET, path, None)
    }

    /// Asks for a stream of events, from behind this one on. A read fails after this silence.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) fn stream(
        &self,
        path: &str,
        after: Option<&str>,
        silence: Duration,
    ) -> Result<Response<Body>, CliError> {
        let mut request = self.request(Method::GET, path);
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let opened = request
            .body(())
            .map_err(ureq::Error::from)
            .and_then(|request| {
                let request = self.agent.configure_request(request);
                self.agent
                    .run(request.timeout_per_read(Some(silence)).build())
            });
        self.judged(opened)
    }

    fn request(&self, method: Method, path: &str) -> Builder {
        Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", self.token.0))
    }

    fn judged(
        &self,
        sent: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, CliError> {
        let mut response = sent.map_err(|error| self.failure(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.refusal(&mut response))
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        upload: Option<Upload<'_>>,
    ) -> Result<Response<Body>, CliError> {
        let request = self.request(method, path);
        let sent = match upload {
            Some(upload) => {
                let request = request
                    .header(CONTENT_TYPE, upload.content_type)
                    .header(CONTENT_LENGTH, upload.length);
                self.run(request, SendBody::from_reader(upload.content))
            }
            None => self.run(request, SendBody::none()),
        };
        self.judged(sent)
    }

    fn run(&self, request: Builder, body: SendBody<'_>) -> Result<Response<Body>, ureq::Error> {
        self.agent.run(request.body(body)?)
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`CliError`] when it breaks off, or is what this program does not know.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        mut response: Response<Body>,
    ) -> Result<T, CliError> {
        let mut text = String::new();
        let body = response.body_mut().as_reader();
        body.take(ANSWER_SIZE)
            .read_to_string(&mut text)
            .map_err(|error| self.broken(&error))?;
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text).map_err(|error| {
            let base = &self.base;
            format!("{base} answered with what no plugin-runner does: {error}").into()
        })
    }

    /// Says that an answer broke off.
    pub(super) fn broken(&self, error: &io::Error) -> CliError {
        CliError::no_host(format!("the host at {} has gone: {error}", self.base))
    }

    fn failure(&self, error: &ureq::Error) -> CliError {
        let base = &self.base;
        let said = match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                format!("no host is running at {base}: {error}")
            }
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                format!("cannot reach the host at {base} within {CONNECT:?}")
            }
            ureq::Error::Timeout(_) => format!("the host at {base} does not answer"),
            error => format!("cannot reach the host at {base}: {error}"),
        };
        CliError::no_host(said)
    }

    /// Words what the host refused.
    fn refusal(&self, response: &mut Response<Body>) -> CliError {
        let status = response.status();
        let mut text = Vec::new();
        // Without a text the status has to do.
        let _ = response
            .body_mut()
            .as_reader()
            .take(PROBLEM_SIZE)
            .read_to_end(&mut text);
        let Ok(problem) = serde_json::from_slice::<Problem>(&text) else {
            let base = &self.base;
            let said = format!(
                "{base} answered {status}, as no plugin-runner does; is it the URL of its HTTP API?"
            );
            return CliError::no_host(said);
        };
        let mut said = problem.detail;
        for FieldProblem { field, message } in &problem.fields {
            let _ = write!(said, "; {field}: {message}");
        }
        if let Some(RpcError { data: Some(data) }) = &problem.rpc_error {
            let _ = write!(said, "; its data: {data}");
        }
        if status.is_server_error() && problem.kind == "internal" {
            let _ = write!(said, "; the host's log has more of {}", problem.trace_id);
        }
        match (status.as_u16(), &*problem.kind) {
            (401, _) => CliError::no_host(format!(
                "the host at {} does not take this token: {said}",
                self.base
            )),
            (404, "not_installed") => CliError::no_such_plugin(said),
            (_, "not_loaded") => "it does not run; plugin-runner activate starts it".into(),
            _ => said.into(),
        }
    }
}

/// Whether a URL is of this machine itself.
fn is_local(base: &str) -> bool {
    let rest = base.split("://").nth(1).unwrap_or(base);
    let authority = rest.split('/').next().unwrap_or(rest);
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
        .map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    is_loopback || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked_without_a_proxy() {
        for local in [
            "http://127.0.0.1:8001",
            "http://127.9.9.9",
            "https://[::1]:8001/under",
            "http://localhost:1",
        ] {
            assert!(is_local(local), "{local}");
        }
        for other in [
            "http://127.evil.example",
            "http://localhost.evil.example:1",
            "https://10.0.0.1/localhost",
            "http://[fe80::1]:1",
        ] {
            assert!(!is_local(other), "{other}");
        }
    }
}
