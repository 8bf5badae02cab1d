//! The HTTP API for administrators over real sockets, with real plugins.
//!
//! The shared parts are here: a server over a manager of the test's own, and requests to it.

use std::time::Duration;

use plugin_runner::InstallationId;
use plugin_runner::admin::{AdminServer, AdminSettings};
use plugin_runner::protocol::Manifest;
use serde_json::{Value, json};

use crate::manager::{Managed, settings};
use crate::support::LONG;
pub(super) use crate::support::event_stream::Events;
use crate::support::host::TestHost;

// The token, and where a request may come from.
mod access;
// Starting and stopping.
mod active;
// What is proposed to a plugin and what is stored.
mod configuration;
// Plugins that the host does not run.
mod external;
// Following what a plugin prints.
mod logs;
// The OpenAPI document.
mod openapi;
// A plugin's own settings.
mod overrides;
// Uploading, downloading and replacing a package.
mod package;
// What Prometheus reads.
mod metrics;
// Listing, showing, adding and removing plugins.
mod plugins;
// What supervisors are told.
mod probes;
// A host that runs no plugins from packages.
mod provider;
// Requests of all kinds, from a seed.
mod random;
// What is refused before there is an operation.
mod refusals;
// What nobody may see.
mod secrets;
// Calling plugins, and publishing events.
mod rpc;
// Starting plugins again, and their last runs.
mod runs;
// State changes as they happen.
mod stream;
// What plugins do and use.
mod usage;
// Versions that are kept.
mod versions;

pub(super) const TOKEN: &str = "the-token-of-these-tests";

/// An admin server under test, over a manager and a host of its own.
pub(super) struct Api {
    pub(super) server: AdminServer,
    pub(super) managed: Managed,
    agent: ureq::Agent,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) response: ureq::http::Response<Vec<u8>>,
}

impl Api {
    pub(super) fn new(test: &'static str) -> Self {
        Self::with(test, AdminSettings::default())
    }

    pub(super) fn with(test: &'static str, settings: AdminSettings) -> Self {
        Self::of(Managed::new(test), settings)
    }

    /// A server over this manager.
    pub(super) fn of(managed: Managed, settings: AdminSettings) -> Self {
        let manager = (*managed).clone();
        let server = AdminServer::start(manager, "127.0.0.1:0", TOKEN, settings).unwrap();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LONG))
            .build();
        Self {
            server,
            managed,
            agent: agent.into(),
        }
    }

    /// A server over a host whose stops soon run out of time.
    pub(super) fn with_short_stops(test: &'static str) -> Self {
        let host = TestHost::with(test, |setup| {
            setup.timeouts(|timeouts| {
                timeouts
                    .stop(Duration::from_millis(100))
                    .stop_grace(Duration::from_millis(10))
            });
        });
        Self::of(Managed::of(host, settings()), AdminSettings::default())
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server.url())
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// Sends a JSON body with the token.
    pub(super) fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        let headers = [("Content-Type", "application/json")];
        self.send(method, path, &headers, body.to_string().as_bytes())
    }

    /// Uploads a package.
    pub(super) fn zip(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.send(method, path, &[("Content-Type", "application/zip")], body)
    }

    /// What is answered of this plugin.
    #[track_caller]
    pub(super) fn shown(&self, id: InstallationId) -> Value {
        self.get(&format!("/api/plugins/{id}")).value(200)
    }

    /// Opens a stream of events, with the token.
    #[track_caller]
    pub(super) fn events(&self, path: &str, headers: &[(&str, &str)]) -> Events {
        let token = format!("Bearer {TOKEN}");
        let mut request = self.agent.get(self.url(path));
        for (name, value) in [&[("Authorization", &*token)], headers].concat() {
            request = request.header(name, value);
        }
        Events::of(request.call().unwrap())
    }

    /// Sends a request with the token.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let token = format!("Bearer {TOKEN}");
        let headers = [&[("Authorization", &*token)], headers].concat();
        self.send_without_token(method, path, &headers, body)
    }

    pub(super) fn send_without_token(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.agent.run(request.body(body).unwrap()).unwrap();
        let (head, mut body) = response.into_parts();
        let body = body.read_to_vec().unwrap();
        Answer {
            status: head.status.as_u16(),
            response: ureq::http::Response::from_parts(head, body),
        }
    }

    /// Stops everything; nothing may be left.
    pub(super) fn end(self) {
        assert_eq!(self.server.stop(LONG), 0, "requests are left");
    }
}

/// A plugin as it must be shown, with the times of `shown`, which must be times.
#[track_caller]
pub(super) fn expected(
    shown: &Value,
    id: &str,
    manifest: &Manifest,
    connection: &Value,
    mut status: Value,
) -> Value {
    let is_time = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        humantime::parse_rfc3339(text).is_ok()
    };
    let state = status["active_state"].as_str().unwrap();
    let at = match state {
        "inactive" => Some("deactivated_at"),
        "starting" => Some("starting_at"),
        "connecting" => Some("connecting_at"),
        "active" => Some("activated_at"),
        _ => None,
    };
    if let Some(at) = at {
        let time = &shown["status"][at];
        assert!(is_time(time), "{shown}");
        status[at] = time.clone();
    }
    assert!(is_time(&shown["added_at"]), "{shown}");
    json!({
        "id": id,
        "added_at": shown["added_at"],
        "name": manifest.name,
        "description": manifest.description,
        "version": manifest.version,
        "manifest": manifest,
        "connection": connection,
        "status": status,
    })
}

impl Answer {
    /// The body, which must be JSON, of an answer with this status.
    pub(super) fn value(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        serde_json::from_slice(self.response.body()).expect("JSON")
    }

    /// The kind of a problem with this status, and its detail.
    pub(super) fn problem(&self, status: u16) -> (String, String) {
        let value = self.value(status);
        assert_eq!(
            self.header("Content-Type"),
            Some("application/problem+json")
        );
        assert_eq!(value["status"], status);
        let text = |name: &str| value[name].as_str().expect(name).to_owned();
        assert_eq!(text("trace_id").len(), 32);
        (text("kind"), text("detail"))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.response.body()).into_owned()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }
}
