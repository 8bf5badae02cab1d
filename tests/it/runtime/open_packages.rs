//! What a host keeps open of the packages of plugins that run on sprites: nothing.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use plugin_runner::protocol::Transport;
use plugin_runner::store::{Record, Source, SqliteStore};

use crate::manager::{Managed, settings};
use crate::runtimes::place::Place;
use crate::support::TestDir;
use crate::support::plugin::manifest;

#[test]
fn no_package_is_open_while_its_plugin_runs_or_rests() {
    let place = Place::sprites("open-packages");
    let stored = TestDir::new("open-packages-store");
    let store = SqliteStore::open(stored.path()).unwrap();
    let host = place.host_with(|setup| setup.configure(|builder| builder.store(Arc::new(store))));
    let managed = Managed::of(host, settings());
    let folder = managed.host.folder();
    let open = || -> Vec<PathBuf> {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        let of_packages = ["directory", "archives"];
        let is_of_package = |path: &PathBuf| {
            let ours = path.starts_with(folder) || path.starts_with(stored.path());
            ours && path
                .iter()
                .any(|part| of_packages.iter().any(|name| part == *name))
        };
        targets.filter(is_of_package).collect()
    };
    let before = open();
    let package = managed.package_of("stored", "1", Transport::WebSocket, &[]);
    managed.running(package);
    assert_eq!(open(), before, "it runs");
    // Loaded, and never started.
    let package = managed.package_of("resting", "1", Transport::WebSocket, &[]);
    managed.installed(package);
    assert_eq!(open(), before, "it rests");
    let directory = folder.join("directory");
    fs::create_dir(&directory).unwrap();
    let source = Source::Directory(directory);
    let session = managed
        .host
        .install(Record::supervised(manifest("unloaded"), source));
    managed.host.unload(session.id()).unwrap();
    assert_eq!(open(), before, "it was unloaded");
    drop(managed);
    place.finish();
}
