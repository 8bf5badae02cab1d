//! `serve`: the server, met as operators and other programs meet it.
//!
//! The shared parts are here: installing plugins before it runs, starting it, and asking its HTTP API.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use plugin_runner::manager::PackageSource;
use plugin_runner::{ActiveState, Host, InstallationId, Manager, SqliteStore};
use rustix::process::Pid;
use serde_json::Value;

use crate::program::{Program, Scratch, manifest, pid};
use crate::support::{LONG, wait_for};

// From the start to the end, in order or at once, and after a kill.
mod lives;
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
fn command(scratch: &Scratch, arguments: &str) -> Command {
    let mut command = scratch.command(&format!("serve {arguments}"));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.as_encoded_bytes().starts_with(b"PLUGIN_")) {
        command.env_remove(name);
    }
    command
}

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
struct Server {
    program: Program,
    data: PathBuf,
    url: String,
    token: String,
    agent: ureq::Agent,
}

impl Server {
    fn start(scratch: &Scratch, arguments: &str) -> Self {
        Self::of(
            scratch,
            command(scratch, &format!("--data data {FREE} {arguments}")),
        )
    }

    /// Starts the server with this command, and waits until it serves. Its token is the generated one.
    fn of(scratch: &Scratch, command: Command) -> Self {
        let data = scratch.path("data");
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

    /// The JSON that is answered to a request with the server's token and this type of body.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, content: &str, body: &[u8]) -> Value {
        let bearer = format!("Bearer {}", self.token.trim());
        let headers = [("Authorization", &*bearer), ("Content-Type", content)];
        let (status, body) = self.send(method, path, &headers, body);
        assert_eq!(status, 200, "{method} {path}: {body}");
        serde_json::from_str(&body).unwrap()
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
        wait_for("an active plugin", || {
            let plugins = self.plugins();
            let plugins = plugins.as_array().unwrap();
            plugins.iter().find(|plugin| {
                plugin["id"] == id.to_string() && plugin["status"]["active_state"] == "active"
            })?;
            Some(())
        });
        pid(&said)
    }

    /// The lines of a plugin's log.
    fn log(&self, id: InstallationId) -> Vec<String> {
        let path = self.data.join(format!("{id}/logs/output.log"));
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
