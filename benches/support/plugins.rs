//! Hosts and plugins for benches.

use std::path::{Path, PathBuf};

use plugin_runner::protocol::Manifest;
use plugin_runner::store::{Record, Source};
use plugin_runner::{Host, HostBuilder, InstallationId};
use serde_json::{Value, json};

/// A folder that goes with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("plugin-runner-bench-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The fixture: a plugin made with this crate's SDK.
pub(crate) fn fixture() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_plugin-runner-fixture"))
}

/// A host builder with a data folder.
pub(crate) fn builder(folder: &Folder) -> HostBuilder {
    Host::builder().data_dir(folder.path())
}

/// Stores a supervised plugin that runs a program as it stands, unpacked.
pub(crate) fn install(
    host: &Host,
    name: &str,
    program: &Path,
    args: &[&str],
    transport: &str,
) -> InstallationId {
    let manifest = manifest(&json!({
        "id": name, "author": "bench", "name": "bench",
        "command": program, "args": args, "transport": transport,
    }));
    let folder = program.parent().map(Path::to_owned).unwrap();
    put(
        host,
        Record::supervised(manifest, Source::Directory(folder)),
    )
}

/// Stores an external plugin.
pub(crate) fn install_external(host: &Host, name: &str) -> InstallationId {
    let manifest = manifest(&json!({"id": name, "author": "bench", "name": "bench"}));
    put(host, Record::external(manifest).unwrap())
}

fn put(host: &Host, record: Record) -> InstallationId {
    let id = record.id;
    host.store().put(record).unwrap();
    id
}

/// A manifest from its JSON.
pub(crate) fn manifest(json: &Value) -> Manifest {
    Manifest::parse(json.to_string().as_bytes()).unwrap()
}
