//! `serve`: the server, met as operators and other programs meet it.
//!
//! The shared parts are here: installing plugins before it runs, starting it, and asking its HTTP API.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use plugin_runner::manager::PackageSource;
use plugin_runner::{ActiveState, Host, InstallationId, Manager, SqliteStore};
use rustix::process::Pid;
use serde_json::{Value, json};

use crate::program::{Program, Scratch, manifest, pid};
use crate::support::event_stream::Events;
use crate::support::{LONG, wait_for};

// Clients that are slow, many or stuck, and a plugin that prints much.
mod crowds;
// The documents for operators.
mod documents;
// The end while much is under way.
mod endings;
// A disk that is full.
mod full;
// From the start to the end, in order or at once, and after a kill.
mod lives;
// Installing, calling and following plugins.
mod operations;
// What keeps it from starting.
mod refusals;
// Reading the configuration again.
mod reload;
// Flags, variables, the file, and `--check`.
mod settings;
// A service manager, and the first process of a container.
#[cfg(target_os = "linux")]
mod systemd;
// The token of the HTTP API.
mod token;

/// Ports that are free.
const FREE: &str = "--listen 127.0.0.1:0 --admin 127.0.0.1:0";

/// The server with these arguments, and with none of the tests' own variables.
pub(crate) fn command(scratch: &Scratch, arguments: &str) -> Command {
    bare(scratch, &format!("serve {arguments}"))
}

/// The program with these arguments, and with none of the tests' own variables.
pub(crate) fn bare(scratch: &Scratch, arguments: &str) -> Command {
    let mut command = scratch.command(arguments);
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.as_encoded_bytes().starts_with(b"PLUGIN_")) {
        command.env_remove(name);
    }
    command
}

/// A plugin over stdio that does what its calls say: prints lines, keeps a text among its data or in a file beside
/// its program, says what it kept, waits for longer than any test. Lines go to its standard error, of which none is
/// lost.
pub(crate) const OBEDIENT: &str = r#"#!/usr/bin/env python3
import json, os, signal, sys, time
kept = os.path.join(os.environ["PLUGIN_DATA_DIR"], "kept")
print("pid", os.getpid(), file=sys.stderr, flush=True)

def answer(method, params):
    if method == "print":
        begun = time.monotonic()
        for number in range(params["from"], params["to"]):
            sys.stderr.write(f"line {number} {'x' * params.get('size', 0)}\n")
        sys.stderr.flush()
        return {"seconds": time.monotonic() - begun}
    if method == "keep":
        with open(params.get("path", kept), "w") as file:
            file.write(params["text"])
    if method == "kept":
        return {"text": open(params.get("path", kept)).read()}
    if method == "wait":
        print("waiting", file=sys.stderr, flush=True)
        signal.pause()
    return {"ok": True} if method in ("configure", "event") else {}

for line in sys.stdin:
    call = json.loads(line)
    result = answer(call["method"], call.get("params") or {})
    print(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}), flush=True)
"#;

/// Installs this program as a plugin that is wanted active, with a host that has ended when this returns.
fn install(scratch: &Scratch, data: &str, id: &str, program: &str) -> InstallationId {
    let data = scratch.path(data);
    let archive = scratch.zipped(&format!("{id}.zip"), &manifest(id), program);
    let store = Arc::new(SqliteStore::open(&data).unwrap());
    let host = Host::builder()
        .data_dir(&data)
        .store(store)
        .build()
        .unwrap();
    let manager = Manager::new(host.clone()).unwrap();
    let id = manager.install(PackageSource::file(archive)).unwrap().id();
    let mut record = host.store().get(id).unwrap().unwrap();
    record.set_active_state(ActiveState::Active);
    host.store().put(record).unwrap();
    assert!(host.shutdown(LONG).is_complete());
    id
}

/// The server, running on free ports with the data directory `data`.
pub(crate) struct Server {
    pub(crate) program: Program,
    data: PathBuf,
    url: String,
    token: String,
    agent: ureq::Agent,
}

impl Server {
    pub(crate) fn start(scratch: &Scratch, arguments: &str) -> Self {
        Self::of(
            scratch,
            command(scratch, &format!("--data data {FREE} {arguments}")),
        )
    }

    /// Starts the server with this command, and waits until it serves. Its token is the generated one.
    pub(crate) fn of(scratch: &Scratch, command: Command) -> Self {
        Self::on(scratch.path("data"), command)
    }

    /// As `of`, with this data directory.
    fn on(data: PathBuf, command: Command) -> Self {
        let program = Program::start(command);
        let pid = program.id().as_raw_nonzero().get();
        let served = wait_for("admin.json of this server", || {
            let text = fs::read_to_string(data.join("admin.json")).ok()?;
            let served: Value = serde_json::from_str(&text).unwrap();
            (served["pid"] == pid).then_some(served)
        });
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(LONG))
            .build();
        Self {
            program,
            url: served["url"].as_str().unwrap().to_owned(),
            token: fs::read_to_string(data.join("admin-token")).unwrap_or_default(),
            data,
            agent: agent.into(),
        }
    }

    /// Where its HTTP API is.
    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Where plugins connect to. It reads the log so far.
    fn plugin_address(&self) -> SocketAddr {
        let line = self.program.error_with("plugins connect to ws://");
        let (_, url) = line.rsplit_once("ws://").unwrap();
        url.trim_end()
            .strip_suffix("/rpc")
            .unwrap()
            .parse()
            .unwrap()
    }

    /// What the token is sent as.
    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.trim())
    }

    /// Status and body of an answer.
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        self.send("GET", path, headers, &[])
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> (u16, String) {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body).unwrap()).unwrap();
        let body = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), body)
    }

    /// Sends a body of this type with the token.
    fn answer(&self, method: &str, path: &str, content: &str, body: &[u8]) -> (u16, String) {
        let bearer = self.bearer();
        let headers = [("Authorization", &*bearer), ("Content-Type", content)];
        self.send(method, path, &headers, body)
    }

    /// The JSON that is answered to a request with the server's token and this type of body.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, content: &str, body: &[u8]) -> Value {
        let (status, body) = self.answer(method, path, content, body);
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The JSON that is answered to JSON.
    #[track_caller]
    fn json(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        self.ask(method, path, "application/json", body.as_bytes())
    }

    /// Installs a package, and does not start it.
    #[track_caller]
    pub(crate) fn install(&self, package: &Path) -> InstallationId {
        let package = fs::read(package).unwrap();
        let plugin = self.ask("POST", "/api/plugins", "application/zip", &package);
        plugin["id"].as_str().unwrap().parse().unwrap()
    }

    /// Installs the plugin that obeys, and starts it.
    #[track_caller]
    pub(crate) fn obedient(&self, scratch: &Scratch) -> InstallationId {
        let id = self.install(&scratch.zipped("obedient.zip", &manifest("obedient"), OBEDIENT));
        self.activate(id);
        id
    }

    /// Starts a plugin, which must come up.
    #[track_caller]
    fn activate(&self, id: InstallationId) {
        let path = format!("/api/plugins/{id}/active");
        let plugin = self.json("PATCH", &path, &json!({"active": "active"}));
        assert_eq!(plugin["status"]["active_state"], "active", "{plugin}");
    }

    /// What a plugin answers.
    #[track_caller]
    fn call(&self, id: InstallationId, method: &str, params: &Value) -> Value {
        let path = format!("/api/plugins/{id}/rpc");
        self.json("POST", &path, &json!({"method": method, "params": params}))
    }

    /// Lets the plugin that obeys print the lines with these numbers.
    #[track_caller]
    pub(crate) fn print(&self, id: InstallationId, from: u32, to: u32, size: usize) -> Value {
        self.call(id, "print", &json!({"from": from, "to": to, "size": size}))
    }

    /// Follows the log of a plugin, from behind the line with this id.
    #[track_caller]
    fn follow(&self, id: InstallationId, after: Option<&str>) -> Events {
        let request = self
            .agent
            .get(format!("{}/api/plugins/{id}/logs", self.url));
        let request = request.header("Authorization", self.bearer()).config();
        // Of the whole stream.
        let request = request.timeout_global(Some(4 * LONG)).build();
        let request = match after {
            Some(after) => request.header("Last-Event-ID", after),
            None => request,
        };
        Events::of(request.call().unwrap())
    }

    /// A figure that the system keeps of the server, from `/proc/<pid>/status`.
    fn figure(&self, name: &str) -> u64 {
        let pid = self.program.id().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// The plugins, by the server's token.
    fn plugins(&self) -> Value {
        self.ask("GET", "/api/plugins", "", &[])["plugins"].clone()
    }

    /// Waits until a plugin is active, and has said which process it is. Returns that process.
    fn active(&self, id: InstallationId) -> Pid {
        self.active_after(id, 0)
    }

    /// As `active`, of the run after so many.
    fn active_after(&self, id: InstallationId, runs: usize) -> Pid {
        let said = wait_for("the process of the plugin", || {
            self.log(id)
                .into_iter()
                .filter(|line| line.contains("pid "))
                .nth(runs)
        });
        self.expect_active(id);
        pid(&said)
    }

    /// Waits until a plugin is active.
    pub(crate) fn expect_active(&self, id: InstallationId) {
        wait_for("an active plugin", || {
            let plugins = self.plugins();
            let plugins = plugins.as_array().unwrap();
            plugins.iter().find(|plugin| {
                plugin["id"] == id.to_string() && plugin["status"]["active_state"] == "active"
            })?;
            Some(())
        });
    }

    /// The lines of a plugin's log, but for older files.
    fn log(&self, id: InstallationId) -> Vec<String> {
        let path = self.data.join(format!("{id}/logs/output.log"));
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
