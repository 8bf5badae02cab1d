//! Records and packages of the plugins that tests run.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use plugin_runner::protocol::{Manifest, Transport};
use plugin_runner::store::{Overrides, Record, Source};
use plugin_runner::{Host, Result, Session};
use serde_json::Value;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::LONG;
use super::host::TestHost;

/// Changes of a record in one expression.
pub(crate) trait With: Sized {
    #[must_use]
    fn with(self, change: impl FnOnce(&mut Self)) -> Self;

    /// Changes the settings of the plugin's own.
    #[must_use]
    fn overrides(self, change: impl FnOnce(Overrides) -> Overrides) -> Self;

    /// Adds a variable to the process's environment.
    #[must_use]
    fn variable(self, name: &str, value: impl Into<String>) -> Self;
}

impl With for Record {
    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn overrides(self, change: impl FnOnce(Overrides) -> Overrides) -> Self {
        self.with(|record| record.overrides = change(std::mem::take(&mut record.overrides)))
    }

    fn variable(self, name: &str, value: impl Into<String>) -> Self {
        self.overrides(|own| own.environment([(name, value)]))
    }
}

/// A manifest that is complete but for what the plugin runs.
pub(crate) fn manifest(id: &str) -> Manifest {
    Manifest {
        id: id.to_owned(),
        author: "tests".to_owned(),
        name: format!("Test plugin {id}"),
        description: "for tests".to_owned(),
        version: "1".to_owned(),
        ..Manifest::default()
    }
}

/// Loads an external plugin; gives its session, and the path and query that it connects to.
pub(crate) fn external(host: &Host, id: &str) -> (Session, String) {
    connectable(host, Record::external(manifest(id)).unwrap())
}

/// The same for this record.
pub(crate) fn connectable(host: &Host, record: Record) -> (Session, String) {
    let installation = record.id;
    let token = record.external_token().unwrap();
    let target = format!("/rpc?token={}", token.expose());
    host.store().put(record).unwrap();
    (host.load(installation).unwrap(), target)
}

/// Runs this command, in an empty folder, as a plugin.
pub(crate) fn command(host: &TestHost, id: &str, command: &str, args: &[&str]) -> Record {
    let folder = host.folder().join(format!("plugin-{id}"));
    fs::create_dir_all(&folder).unwrap();
    let manifest = Manifest {
        command: command.to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        ..manifest(id)
    };
    Record::supervised(manifest, Source::Directory(folder))
}

/// Runs this shell script as a plugin.
pub(crate) fn shell(host: &TestHost, id: &str, script: &str) -> Record {
    command(host, id, "/bin/sh", &["-c", script])
}

/// A plugin that prints its connection URL and never uses it.
pub(crate) fn url_printer(host: &TestHost, id: &str) -> Record {
    shell(host, id, r#"echo "url $STORYDEN_RPC_URL"; exec sleep 1000"#)
}

/// The URL that a [`url_printer`] has printed at its start number `start`, counted from 0.
#[track_caller]
pub(crate) fn printed_url(host: &TestHost, session: &Session, start: usize) -> String {
    let id = session.id();
    host.output.wait_for_nth("with the URL", start, |line| {
        (line.plugin == id)
            .then(|| line.text.strip_prefix("url ").map(str::to_owned))
            .flatten()
    })
}

/// The path and query of a URL.
pub(crate) fn target(url: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap();
    rest[rest.find('/').unwrap()..].to_owned()
}

/// Writes a package: `manifest.json` and these files, each with its mode.
pub(crate) fn package(
    folder: &Path,
    name: &str,
    manifest: &Manifest,
    files: &[(&str, &[u8], u32)],
) -> PathBuf {
    let path = folder.join(name);
    let mut zip = ZipWriter::new(File::create(&path).unwrap());
    let options = SimpleFileOptions::default();
    zip.start_file("manifest.json", options.unix_permissions(0o644))
        .unwrap();
    zip.write_all(&serde_json::to_vec(manifest).unwrap())
        .unwrap();
    for (name, content, mode) in files {
        zip.start_file(*name, options.unix_permissions(*mode))
            .unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// Writes an executable file.
pub(crate) fn executable(path: &Path, content: &[u8]) {
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The same manifest over stdio.
pub(crate) fn over_stdio(mut record: Record) -> Record {
    record.manifest.transport = Transport::Stdio;
    record
}

/// A plugin in Python over stdio; see `tests/fixtures/stdio_plugin.py` for what it can do.
pub(crate) fn python(host: &TestHost, id: &str) -> Record {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/stdio_plugin.py"
    );
    over_stdio(command(host, id, "python3", &["-u", script]))
        .variable("FIXTURE_LIFELINE", host.lifelines.address())
}

/// Calls a method and reads its result.
pub(crate) fn call(session: &Session, method: &str, params: &Value) -> Result<Value> {
    session.call_raw(method, params, LONG)?.read()
}

/// Both ways for a plugin to talk to the host.
pub(crate) const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::Stdio];

/// The scripted plugin in Rust; see `tests/fixtures/plugin` for what it can do.
pub(crate) fn fixture(host: &TestHost, transport: Transport, args: &[&str]) -> Record {
    let id = format!("fixture-{transport}");
    let program = env!("CARGO_BIN_EXE_plugin-runner-fixture");
    let mut record = in_touch(host, command(host, &id, program, args));
    record.manifest.transport = transport;
    record
}

/// Adds what the scripted plugin has to know of its test.
pub(crate) fn in_touch(host: &TestHost, record: Record) -> Record {
    let is_attack = record.manifest.args.iter().any(|arg| arg == "attack");
    let record = record.variable("FIXTURE_LIFELINE", host.lifelines.address());
    if !is_attack {
        return record;
    }
    let attacker = super::attacker::attacker().to_str().unwrap();
    record.variable("FIXTURE_ATTACKER", attacker)
}
