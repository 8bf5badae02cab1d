//! The host that is killed: a process of its own, which does what it is told.

use std::io::{BufRead as _, Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use plugin_runner::manager::{Installation, PackageSource};
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::report::EndCause;
use plugin_runner::runtime::SpritesSettings;
use plugin_runner::{
    ActiveState, Host, InstallationId, Manager, RestartPolicy, Result, RuntimeProvider, SqliteStore,
};
use serde::{Deserialize, Serialize};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::operation::Operation;
use crate::support::LONG;
use crate::support::alone;
use crate::support::host::reserve;
use crate::support::plugin::manifest;

/// The ignored test that is this process.
const TEST: &str = "sprites_kills::driver::runs_a_host";
const SETTINGS: &str = "DRIVER_SETTINGS";
/// What its lines begin with, among what the test harness prints.
const MARK: &str = "@@";

/// What it is told at its start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) folder: PathBuf,
    pub(super) url: String,
    pub(super) token: String,
}

/// What it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// The operation that was begun last is done.
    Done,
    Failed(String),
    Plugins(Vec<Shown>),
}

/// A plugin, as the manager shows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) version: String,
    pub(super) sha256: String,
    pub(super) is_wanted: bool,
    pub(super) state: String,
    /// How its runs under this host have ended, but for those that no plugin is to blame for.
    pub(super) ends: Vec<String>,
}

/// It, seen from outside.
pub(super) struct Driver(alone::Driver);

impl Driver {
    pub(super) fn start(settings: &Settings) -> Self {
        let mut command = alone::command(TEST);
        command.env(SETTINGS, serde_json::to_string(settings).unwrap());
        Self(alone::Driver::start(&mut command))
    }

    pub(super) fn tell(&mut self, operation: &Operation) {
        self.0.tell(&serde_json::to_string(operation).unwrap());
    }

    /// What it has said since, if anything.
    pub(super) fn hear(&self) -> Option<Said> {
        let mut lines = self.0.lines.try_iter();
        lines.find_map(|line| heard(&line))
    }

    #[track_caller]
    pub(super) fn wait(&self) -> Said {
        serde_json::from_str(&self.0.wait_for(MARK)).unwrap()
    }

    /// Kills it; returns what it had said by then.
    pub(super) fn kill(mut self) -> Option<Said> {
        let status = self.0.kill();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9),
            "the host ended by itself: {status}"
        );
        self.0.lines.iter().find_map(|line| heard(&line))
    }
}

/// The last line may be cut off, and then it was not said.
fn heard(line: &str) -> Option<Said> {
    let (_, text) = line.split_once(MARK)?;
    serde_json::from_str(text).ok()
}

#[test]
#[ignore = "a host that is killed; run by other tests, in a process of its own"]
fn runs_a_host() {
    let settings: Settings = serde_json::from_str(&std::env::var(SETTINGS).unwrap()).unwrap();
    // One of its own, as a host that comes up elsewhere.
    let (_reserved, port) = reserve();
    let address = format!("127.0.0.1:{port}");
    let store = Arc::new(SqliteStore::open(&settings.folder).unwrap());
    let policy = RestartPolicy::default();
    let host = Host::builder()
        .data_dir(&settings.folder)
        .store(store)
        .runtime_provider(RuntimeProvider::Sprites)
        .sprites(SpritesSettings::new(settings.token).api_url(settings.url))
        .rpc_base_url(format!("http://{address}"))
        // The first failure that counts is the last.
        .restart_policy(
            policy
                .max_restart_attempts(0)
                .crash_threshold(Duration::from_secs(3600)),
        )
        .build()
        .unwrap();
    let _listener = host.listen(&address).unwrap();
    let manager = Manager::new(host).unwrap();
    for line in std::io::stdin().lock().lines() {
        let operation = serde_json::from_str(&line.unwrap()).unwrap();
        say(&act(&manager, operation).unwrap_or_else(|error| Said::Failed(error.to_string())));
    }
}

fn act(manager: &Manager, operation: Operation) -> Result<Said> {
    let id = |text: String| text.parse::<InstallationId>().unwrap();
    match operation {
        Operation::Boot => {
            let report = manager.boot(LONG)?;
            if !report.failed.is_empty() || !report.starting.is_empty() {
                return Ok(Said::Failed(format!("{report:?}")));
            }
        }
        Operation::Install { is_stdio, version } => {
            let package = PackageSource::bytes(package(is_stdio, version));
            let installed = manager.install(package)?;
            manager.activate(installed.id(), LONG)?;
        }
        Operation::Update {
            id: plugin,
            is_stdio,
            version,
        } => {
            let package = PackageSource::bytes(package(is_stdio, version));
            manager.update_package(id(plugin), package)?;
        }
        Operation::Activate { id: plugin } => drop(manager.activate(id(plugin), LONG)?),
        Operation::Deactivate { id: plugin } => drop(manager.deactivate(id(plugin), LONG)?),
        Operation::Remove {
            id: plugin,
            keeps_data: false,
        } => drop(manager.remove(id(plugin))?),
        Operation::Remove {
            id: plugin,
            keeps_data: true,
        } => drop(manager.remove_keeping_data(id(plugin))?),
        Operation::ShutDown => {
            let report = manager.host().clone().shutdown(LONG);
            if !report.is_complete() {
                return Ok(Said::Failed(format!("{report:?}")));
            }
        }
        Operation::Show => {
            let all = manager.list()?;
            return Ok(Said::Plugins(
                all.iter().map(|one| shown(manager, one)).collect(),
            ));
        }
    }
    Ok(Said::Done)
}

fn shown(manager: &Manager, plugin: &Installation) -> Shown {
    let session = manager.session(plugin.id());
    let ends = session.map_or_else(|_| Vec::new(), |session| session.restart_history());
    Shown {
        id: plugin.id().to_string(),
        version: plugin.manifest().version.clone(),
        sha256: plugin.record().stored_archive().unwrap().to_owned(),
        is_wanted: plugin.record().active_state == ActiveState::Active,
        state: format!("{:?}", plugin.reported_state()),
        ends: ends
            .iter()
            .filter(|end| match end.problem.cause() {
                Some(EndCause::Stopped) => false,
                // Failures of the service, if they are not counted.
                Some(EndCause::CouldNotPrepare | EndCause::ConnectionLost) => end.given_up,
                _ => true,
            })
            .map(|end| format!("{end:?}"))
            .collect(),
    }
}

/// A package with files in directories. It runs the fixture where that is, so that it stays small.
fn package(is_stdio: bool, version: u64) -> Vec<u8> {
    let mut args = vec!["alone", "write-file", "starts"];
    if !is_stdio {
        // Or it would end with its connection to the host that was killed.
        args.push("linger");
    }
    let manifest = Manifest {
        command: "./run".to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        version: version.to_string(),
        transport: if is_stdio {
            Transport::Stdio
        } else {
            Transport::WebSocket
        },
        ..manifest("killed")
    };
    let fixture = Path::new(env!("CARGO_BIN_EXE_plugin-runner-fixture"));
    let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", fixture.display());
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let files: [(&str, &[u8], u32); 5] = [
        ("manifest.json", &manifest, 0o644),
        ("run", script.as_bytes(), 0o755),
        ("assets/one.txt", b"one", 0o644),
        ("assets/more/two.txt", &version.to_le_bytes(), 0o600),
        ("assets/more/three.txt", b"", 0o644),
    ];
    for (name, content, mode) in files {
        let options = SimpleFileOptions::default().unix_permissions(mode);
        zip.start_file(name, options).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// One write, so that no line is said by halves.
fn say(said: &Said) {
    let line = format!("\n{MARK}{}\n", serde_json::to_string(said).unwrap());
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}
