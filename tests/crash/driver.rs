//! The process that is killed, from inside and from outside.

use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use plugin_runner::manager::{Installation, PackageSource};
use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Overrides, SqliteStore};
use plugin_runner::{
    ActiveState, Host, InstallationId, Manager, ManagerSettings, PluginMode, ReportedState, fault,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::POINTS;
use crate::operation::{Entry, Operation};
use crate::random::Random;
use crate::support::{LONG, alone};

const FOLDER: &str = "PLUGIN_RUNNER_CRASH_FOLDER";
const SETTINGS: &str = "PLUGIN_RUNNER_CRASH_SETTINGS";
/// Each does operations on plugins of its own.
const THREADS: usize = 2;
/// Plugins of each thread.
const PLUGINS: usize = 5;
/// Versions of a plugin that are kept: more than one to go back to.
pub(crate) const RELEASES: usize = 3;
/// What its lines begin with, among what the test harness prints.
const MARK: &str = "@@";
/// The file that stands for what a plugin writes beside its program.
pub(crate) const OWN_FILE: &str = "own.txt";

/// What the driver is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// Whether it starts what is wanted active before anything else.
    pub(crate) boots: bool,
    /// Where it is killed.
    pub(crate) point: Option<String>,
    /// How often it comes past there before.
    pub(crate) spared: u32,
}

/// A host on the folder, as the driver and the test make it.
pub(crate) fn open(folder: &Path) -> (Arc<SqliteStore>, Manager) {
    let store = Arc::new(SqliteStore::open(folder).unwrap());
    let host = Host::builder()
        .data_dir(folder)
        .store(store.clone())
        .build()
        .unwrap();
    let settings = ManagerSettings::default().releases(RELEASES);
    (store, Manager::with_settings(host, settings).unwrap())
}

/// The driver, seen from outside.
pub(crate) struct Driver {
    process: alone::Driver,
    entries: Vec<Entry>,
}

impl Driver {
    pub(crate) fn start(folder: &Path, settings: &Settings) -> Self {
        let settings = serde_json::to_string(settings).unwrap();
        let mut command = alone::command("driver");
        command.env(FOLDER, folder).env(SETTINGS, settings);
        Self {
            process: alone::Driver::start(&mut command),
            entries: Vec::new(),
        }
    }

    /// Lets it go on until it has begun so many operations, and for a moment more; then it is killed.
    /// Gives whether it had killed itself.
    pub(crate) fn run_until(&mut self, begun: usize, linger: Duration) -> bool {
        let deadline = Instant::now() + LONG;
        let mut count = 0;
        let mut until = deadline;
        loop {
            match self.process.lines.recv_deadline(until) {
                Ok(line) => {
                    let entry = heard(&line);
                    count += usize::from(matches!(entry, Some(Entry::Begin { .. })));
                    self.entries.extend(entry);
                    if count >= begun && until == deadline {
                        until = Instant::now() + linger;
                    }
                }
                Err(RecvTimeoutError::Timeout) if until < deadline => break,
                Err(RecvTimeoutError::Timeout) => panic!("the driver hangs: {:?}", self.entries),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.process.kill();
        // What it had said by then.
        let last = self.process.lines.iter();
        self.entries.extend(last.filter_map(|line| heard(&line)));
        assert!(
            std::os::unix::process::ExitStatusExt::signal(&status) == Some(9),
            "the driver ended by itself: {status}; {:?}",
            self.entries.last()
        );
        until == deadline
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// What the driver says in a line. The last one may be cut off, and then it was not said.
fn heard(line: &str) -> Option<Entry> {
    let (_, text) = line.split_once(MARK)?;
    serde_json::from_str(text).ok()
}

/// The driver's own life; ends by being killed.
pub(crate) fn drive() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
    let settings: Settings = serde_json::from_str(&std::env::var(SETTINGS).unwrap()).unwrap();
    let (_store, manager) = open(&folder);
    let _listener = manager.host().listen("127.0.0.1:0").unwrap();
    if settings.boots {
        let report = manager.boot(LONG).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
    }
    if let Some(point) = &settings.point {
        let point = POINTS.iter().find(|known| *known == point).unwrap();
        fault::kill(point, settings.spared);
    }
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (manager, folder) = (&manager, &folder);
            let random = Random::new(settings.seed, thread as u64);
            scope.spawn(move || {
                let mut worker = Worker {
                    thread,
                    manager,
                    folder,
                    random,
                };
                loop {
                    worker.step();
                }
            });
        }
    });
}

struct Worker<'a> {
    thread: usize,
    manager: &'a Manager,
    folder: &'a Path,
    random: Random,
}

impl Worker<'_> {
    fn step(&mut self) {
        let own: Vec<Installation> = self
            .manager
            .list()
            .unwrap()
            .into_iter()
            .filter(|plugin| plugin.manifest().description == self.thread.to_string())
            .collect();
        let operation = self.choose(&own);
        let thread = self.thread;
        say(&Entry::Begin {
            thread,
            operation: operation.clone(),
        });
        match self.act(&operation) {
            Ok((id, token)) => say(&Entry::Done {
                thread,
                operation,
                id,
                token,
            }),
            Err(error) => say(&Entry::Failed {
                thread,
                operation,
                error: error.to_string(),
            }),
        }
    }

    fn choose(&mut self, own: &[Installation]) -> Operation {
        let number = self.random.next() % 1_000_000;
        if own.len() < 2 || (own.len() < PLUGINS && self.random.one_in(4)) {
            return if self.random.one_in(4) {
                Operation::InstallExternal { version: number }
            } else {
                Operation::Install { version: number }
            };
        }
        let plugin = self.random.choose(own);
        let id = plugin.id();
        if own.len() >= PLUGINS || self.random.one_in(8) {
            let keep_data = self.random.one_in(3);
            return Operation::Remove { id, keep_data };
        }
        if plugin.record().mode() == PluginMode::External {
            return match self.random.below(3) {
                0 => Operation::UpdateManifest {
                    id,
                    version: number,
                },
                1 => Operation::SetOverrides {
                    id,
                    value: number + 10_000,
                },
                _ => Operation::Rotate { id },
            };
        }
        if let [_, older @ ..] = &plugin.record().releases[..]
            && !older.is_empty()
            && self.random.one_in(3)
        {
            let release = self.random.choose(older);
            return Operation::Rollback {
                id,
                version: release.version.parse().unwrap(),
                sha256: release.sha256.clone(),
            };
        }
        let is_active = plugin.reported_state() == ReportedState::Active;
        match self.random.below(10) {
            0..=2 => Operation::Update {
                id,
                version: number,
            },
            3 => Operation::Write { id, text: number },
            4 => Operation::SetOverrides {
                id,
                value: number + 10_000,
            },
            5 if is_active => Operation::Restart { id },
            6 if plugin.record().active_state == ActiveState::Active => {
                Operation::Deactivate { id }
            }
            _ if is_active => Operation::Configure { id, value: number },
            _ => Operation::Activate { id },
        }
    }

    fn act(
        &self,
        operation: &Operation,
    ) -> plugin_runner::Result<(Option<InstallationId>, Option<String>)> {
        let manager = self.manager;
        match operation {
            Operation::Install { version } => {
                let source = PackageSource::bytes(self.package(*version));
                let installed = manager.install(source)?;
                return Ok((Some(installed.id()), None));
            }
            Operation::InstallExternal { version } => {
                let manifest = Manifest::parse(&self.manifest(*version, None)).unwrap();
                let (installed, token) = manager.install_external(manifest)?;
                return Ok((Some(installed.id()), Some(token.expose().to_owned())));
            }
            Operation::Update { id, version } => {
                let source = PackageSource::bytes(self.package(*version));
                manager.update_package(*id, source)?;
            }
            Operation::UpdateManifest { id, version } => {
                let manifest = Manifest::parse(&self.manifest(*version, None)).unwrap();
                manager.update_manifest(*id, manifest)?;
            }
            Operation::Rollback { id, sha256, .. } => {
                manager.rollback(*id, Some(sha256))?;
            }
            Operation::Activate { id } => drop(manager.activate(*id, LONG)?),
            Operation::Deactivate { id } => drop(manager.deactivate(*id, LONG)?),
            Operation::Configure { id, value } => {
                let proposal = Map::from_iter([("value".to_owned(), json!(value))]);
                manager.configure(*id, proposal)?;
            }
            Operation::SetOverrides { id, value } => {
                let bytes = usize::try_from(*value).unwrap();
                manager.set_overrides(*id, Overrides::default().outbound_message(bytes))?;
            }
            Operation::Restart { id } => drop(manager.restart(*id, LONG)?),
            Operation::Rotate { id } => {
                return Ok((None, Some(manager.rotate_token(*id)?.expose().to_owned())));
            }
            Operation::Remove { id, keep_data } => {
                if *keep_data {
                    manager.remove_keeping_data(*id)?;
                } else {
                    manager.remove(*id)?;
                }
            }
            Operation::Write { id, text } => {
                let plugin = manager.get(*id)?;
                let release = release(self.folder, plugin.record());
                let (new, old) = (release.join("own.new"), release.join(OWN_FILE));
                std::fs::write(&new, text.to_string()).unwrap();
                std::fs::rename(new, old).unwrap();
            }
        }
        Ok((None, None))
    }

    /// Says in the description which thread does operations on the plugin.
    fn manifest(&self, version: u64, command: Option<&Path>) -> Vec<u8> {
        json!({
            "id": "crash", "author": "test", "name": "crash", "version": version.to_string(),
            "description": self.thread.to_string(), "command": command, "args": ["behave"],
            "transport": "stdio",
        })
        .to_string()
        .into_bytes()
    }

    /// A package that runs the fixture where that is, so that it stays small.
    fn package(&self, version: u64) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let fixture = Path::new(env!("CARGO_BIN_EXE_plugin-runner-fixture"));
        let options = SimpleFileOptions::default();
        zip.start_file("manifest.json", options).unwrap();
        zip.write_all(&self.manifest(version, Some(fixture)))
            .unwrap();
        zip.start_file("assets/version.txt", options).unwrap();
        zip.write_all(version.to_string().as_bytes()).unwrap();
        zip.finish().unwrap().into_inner()
    }
}

/// Where the plugin of this record runs.
pub(crate) fn release(folder: &Path, record: &plugin_runner::store::Record) -> PathBuf {
    releases(folder, record.id).join(record.stored_archive().unwrap())
}

pub(crate) fn releases(folder: &Path, id: InstallationId) -> PathBuf {
    folder.join(id.to_string()).join("releases")
}

/// One write for each line, so that lines of two threads do not mix and none is said by halves.
fn say(entry: &Entry) {
    let line = format!("\n{MARK}{}\n", serde_json::to_string(entry).unwrap());
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    std::io::stdout().flush().unwrap();
}
