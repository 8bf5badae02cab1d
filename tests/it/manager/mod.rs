//! The manager with real processes, sockets and directories: each operation when it succeeds, when it fails in
//! any way that a test can cause, and when it meets another operation.
//!
//! The shared parts are here: a manager of a host of the test's own, packages of the scripted plugin, and
//! checks of what is left on disk. A store that fails or waits is in `store`.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plugin_runner::manager::{Installation, PackageSource, UpdateReport};
use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::Store;
use plugin_runner::{Error, InstallationId, Manager, ManagerSettings, Session, fault};
use serde_json::json;

use crate::support::host::{Setup, TestHost};
use crate::support::lock::Lock;
use crate::support::plugin::{call, manifest, package};
use crate::support::{LONG, TestDir, names, object};

pub(super) mod store;

// Starting and stopping, and operations that meet each other.
mod activation;
// Starting all plugins that are wanted active.
mod boot;
// Whether everything is alive that must be.
mod check;
// The stored configuration and the plugin's.
pub(super) mod configuration;
// A full disk, and a read-only one.
#[cfg(feature = "sqlite")]
mod disk;
// Plugins that the host does not run.
mod external;
// Packages from an HTTP server.
#[cfg(feature = "fetch")]
pub(super) mod fetch;
// Installing a plugin, completely or not at all.
mod install;
// One installation for each plugin.
mod install_or_update;
// Following what a plugin prints.
mod logs;
// Finding plugins and their sessions.
mod lookup;
// What Prometheus is told.
mod metrics;
// Many operations at once.
mod meetings;
// What must not be removed, and what must not stay.
mod leftovers;
// What nobody may see.
mod secrets;
// What authors may not have meant.
mod review;
// A plugin's own settings, and the embedder's labels.
mod overrides;
// The same plugin once more.
mod restart;
// Removing a plugin.
mod removal;
// Two connections with one token.
mod tokens;
// Pipes and links that a plugin puts in the place of the host's files.
#[cfg(feature = "sqlite")]
mod traps;
// What an admin API may show.
mod view;
// What an admin API may answer with.
mod json;
// Replacing one version by another.
mod update;
// Which versions are kept, and going back to one.
mod versions;

/// A manager under test, over a host of its own.
pub(super) struct Managed {
    manager: Manager,
    pub(super) host: TestHost,
    store: Arc<dyn Store>,
}

impl Deref for Managed {
    type Target = Manager;

    fn deref(&self) -> &Manager {
        &self.manager
    }
}

impl Managed {
    pub(super) fn new(test: &'static str) -> Self {
        Self::with(test, settings())
    }

    pub(super) fn with(test: &'static str, settings: ManagerSettings) -> Self {
        Self::of(TestHost::new(test), settings)
    }

    /// A manager of a host with this store.
    pub(super) fn over(
        store: Arc<dyn Store>,
        test: &'static str,
        settings: ManagerSettings,
    ) -> Self {
        let over = |setup: &mut Setup| setup.configure(|builder| builder.store(store));
        Self::of(TestHost::with(test, over), settings)
    }

    pub(super) fn of(host: TestHost, settings: ManagerSettings) -> Self {
        let manager = Manager::with_settings((*host).clone(), settings).unwrap();
        let store = host.store().clone();
        Self {
            manager,
            host,
            store,
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.host.folder().join("data")
    }

    /// The directory of an installation.
    pub(super) fn folder(&self, id: InstallationId) -> PathBuf {
        self.data().join(id.to_string())
    }

    pub(super) fn session(&self, id: InstallationId) -> Session {
        self.host.session(id).expect("it is loaded")
    }

    /// A package of the scripted plugin, which says its version with `describe`.
    pub(super) fn package(&self, version: &str, arguments: &[&str]) -> Vec<u8> {
        self.package_of("scripted", version, Transport::WebSocket, arguments)
    }

    pub(super) fn package_of(
        &self,
        id: &str,
        version: &str,
        transport: Transport,
        arguments: &[&str],
    ) -> Vec<u8> {
        let words = ["version", version].into_iter();
        let words = words.chain(arguments.iter().copied());
        let manifest = Manifest {
            command: "./run".to_owned(),
            args: words.map(str::to_owned).collect(),
            version: version.to_owned(),
            transport,
            ..manifest(id)
        };
        self.package_with(&manifest, &[])
    }

    /// A package with this manifest, and more files, whose command may be `./run`.
    pub(super) fn package_with(
        &self,
        manifest: &Manifest,
        files: &[(&str, &[u8], u32)],
    ) -> Vec<u8> {
        let script = format!(
            "#!/bin/sh\nexport FIXTURE_LIFELINE={}\nexec {} \"$@\"\n",
            self.host.lifelines.address(),
            env!("CARGO_BIN_EXE_plugin-runner-fixture")
        );
        let mut all: Vec<(&str, &[u8], u32)> = vec![("run", script.as_bytes(), 0o755)];
        all.extend_from_slice(files);
        let path = package(self.host.folder(), "package.zip", manifest, &all);
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    }

    /// Updates it with the usual options.
    pub(super) fn update(
        &self,
        id: InstallationId,
        package: Vec<u8>,
    ) -> Result<UpdateReport, Error> {
        self.update_package(id, PackageSource::bytes(package))
    }

    #[track_caller]
    pub(super) fn installed(&self, package: Vec<u8>) -> InstallationId {
        self.install(PackageSource::bytes(package)).unwrap().id()
    }

    /// Installed, and active.
    #[track_caller]
    pub(super) fn running(&self, package: Vec<u8>) -> InstallationId {
        let id = self.installed(package);
        self.activate(id, LONG).unwrap();
        id
    }

    /// The version of the process that answers.
    #[track_caller]
    pub(super) fn answering_version(&self, id: InstallationId) -> String {
        let described = call(&self.session(id), "describe", &json!({})).unwrap();
        described["arguments"][1].as_str().unwrap().to_owned()
    }

    /// The plugin's own file beside its program.
    #[track_caller]
    pub(super) fn own_file(&self, id: InstallationId, path: &str) -> Option<String> {
        let read = call(&self.session(id), "read", &json!({ "path": path })).unwrap();
        read["text"].as_str().map(str::to_owned)
    }

    #[track_caller]
    pub(super) fn write_own_file(&self, id: InstallationId, path: &str, text: &str) {
        let params = json!({"path": path, "text": text});
        call(&self.session(id), "write", &params).unwrap();
    }

    /// Stops or removes the plugin while `run` tries another version of it, which hangs: at this point, or once
    /// its process is there. Returns what came of that.
    fn ended_during<T: Send>(
        &self,
        id: InstallationId,
        point: Option<&'static str>,
        removes: bool,
        run: impl FnOnce() -> T + Send,
    ) -> T {
        let hold = point.map(|point| fault::hold(point, id));
        std::thread::scope(|scope| {
            let run = scope.spawn(run);
            match &hold {
                Some(hold) => assert!(hold.reached(LONG), "it did not come so far"),
                None => drop(self.host.lifelines.next()),
            }
            let ending = scope.spawn(|| {
                if removes {
                    self.remove(id).map(drop)
                } else {
                    self.deactivate(id, LONG).map(drop)
                }
            });
            if let Some(hold) = hold {
                // Known to what runs when it goes on.
                std::thread::yield_now();
                hold.release();
            }
            ending.join().unwrap().unwrap();
            run.join().unwrap()
        })
    }

    fn lock(&self, id: InstallationId) -> Lock {
        Lock::in_folder(self.folder(id).join("data"))
    }

    /// Names of the releases that are on disk.
    fn releases(&self, id: InstallationId) -> Vec<String> {
        names(&self.folder(id).join("releases"))
    }

    /// Checks that nothing is in progress on disk, nor in the directory of any installation, and that every
    /// archive in the store is named by a record.
    #[track_caller]
    pub(super) fn expect_nothing_left_over(&self) {
        assert_eq!(names(&self.data().join("incoming")), [""; 0]);
        assert_eq!(names(&self.data().join("operations")), [""; 0]);
        let records = self.store.list().unwrap();
        for name in names(&self.data()) {
            if let Ok(id) = name.parse() {
                assert_eq!(names(&self.folder(id).join("staging")), [""; 0]);
            }
        }
        let kept = records.iter().flat_map(|record| &record.releases);
        let mut named: Vec<_> = records
            .iter()
            .filter_map(|record| record.stored_archive())
            .chain(kept.map(|release| &*release.sha256))
            .collect();
        named.sort_unstable();
        named.dedup();
        let archives = self.store.list_archives().unwrap();
        let stored: Vec<_> = archives.keys().map(String::as_str).collect();
        assert_eq!(stored, named);
    }

    /// Checks that the disk is as if nothing had ever been installed.
    #[track_caller]
    pub(super) fn expect_nothing_at_all(&self) {
        self.expect_nothing_left_over();
        assert!(self.list().unwrap().is_empty());
        let folders = names(&self.data());
        let known = ["incoming", "operations", "manager.lock"];
        assert!(
            folders.iter().all(|name| known.contains(&&**name)),
            "{folders:?}"
        );
    }
}

/// Settings with long timeouts where a test waits for success.
pub(super) fn settings() -> ManagerSettings {
    ManagerSettings::default()
        .install_timeout(LONG)
        .busy_timeout(LONG)
        .activate_timeout(LONG)
}

/// The error from which this one came.
#[track_caller]
fn source(error: &Error) -> &Error {
    std::error::Error::source(error)
        .unwrap()
        .downcast_ref()
        .unwrap()
}

/// The SHA-256 of an installation's package.
fn sha256(installation: &Installation) -> &str {
    installation.record().stored_archive().unwrap()
}
