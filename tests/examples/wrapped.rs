//! A runtime of one's own that starts plugins through a command. `cargo run --example wrapped -- DIR nice -n 5`
//! runs a sample plugin, which is this program itself, through `nice`, and prints its life; without a command it
//! is started as it is. Any command will do that executes what its last arguments say, in the directory and the
//! environment that it is given: `sh -c 'ulimit -t 60; exec "$0" "$@"'`, `taskset 1`, `bwrap …`.
//!
//! What the command starts has to end with it, because it is the command that the host watches and signals: the
//! command executes the plugin in its own place, as those above do, or starts it in its own process group.
//!
//! A container takes more, because the plugin is no child of the command `docker run`, which is a client:
//!
//! - `-i` connects the standard input, `--init` has signals take effect, and `--rm` leaves nothing behind.
//! - Variables: `-e NAME` for each one of `PluginCommand::environment`, without its value. The client finds that in its
//!   own environment, and a token does not stand among arguments, which everybody can read.
//! - Files: `-v DIR:DIR -w DIR` with `PluginCommand::directory`, and `-v DATA:DATA` with the value of `PLUGIN_DATA_DIR`.
//!   A plugin over WebSocket also has to reach the host's listener, for example with `--network host`.
//! - Signals: the client passes them on (`--sig-proxy`, which is the default), but not SIGKILL, which ends the client
//!   and leaves the container. So the runtime does not return what `Launch::spawn` does, but makes a `Run` with a
//!   handle of its own: the container has a `--name`, `RunHandle::signal` has a thread call `docker kill --signal`
//!   with it, and the descriptor of `RunHandle::ended` is closed once `docker wait` has returned.
//! - The keeper ends the client of a host that is killed, and not the container. So `Runtime::outlives_host` says that
//!   one may be left, and `Runtime::start` and `Runtime::clear` begin with `docker rm --force`.

use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use plugin_runner::protocol::Manifest;
use plugin_runner::runtime::{Launch, Run, Runtime};
use plugin_runner::sdk::Plugin;
use plugin_runner::store::Source;
use plugin_runner::{Host, Record, ReportedState};
use serde_json::{Map, Value, json};

const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let done = match arguments.next() {
        None => Err("usage: wrapped DIR [COMMAND…]".into()),
        Some(word) if word == "plugin" => sample().map_err(Box::from),
        Some(directory) => host(directory, Wrapped::new(arguments)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Starts plugins through a command.
#[derive(Debug)]
pub(crate) struct Wrapped(Vec<OsString>);

impl Wrapped {
    /// The command is a program, looked for on the plugin's `PATH`, and its first arguments.
    pub(crate) fn new(command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self(command.into_iter().map(Into::into).collect())
    }
}

impl Runtime for Wrapped {
    fn name(&self) -> &'static str {
        "wrapped"
    }

    fn start(&self, launch: &Launch<'_>) -> plugin_runner::Result<Run> {
        let mut plugin = launch.command()?;
        if !self.0.is_empty() {
            // `env` looks for the command, and is replaced by it.
            let program = std::mem::replace(&mut plugin.program, "/usr/bin/env".into());
            let before = self.0.iter().cloned().chain([program.into()]);
            plugin.args.splice(0..0, before);
        }
        // Its process is in the host's care from here on, with all that it starts.
        launch.spawn(plugin)
    }
}

/// Hosts the sample, and prints what becomes of it.
fn host(directory: OsString, runtime: Wrapped) -> Result<(), Box<dyn Error>> {
    let directory = std::path::absolute(directory)?;
    let files = directory.join("sample");
    std::fs::create_dir_all(&files)?;
    let host = Host::builder()
        .data_dir(directory.join("data"))
        .runtime(runtime)
        .on_output(|_, plugin, line| println!("{plugin} prints: {}", line.text))
        .build()?;
    let manifest = json!({
        "id": "sample", "author": "example", "name": "Sample", "transport": "stdio",
        "command": std::env::current_exe()?, "args": ["plugin"],
    });
    let manifest = Manifest::parse(manifest.to_string().as_bytes())?;
    let record = Record::supervised(manifest, Source::Directory(files));
    let id = record.id;
    host.store().put(record)?;
    let changes = host.subscribe();
    let session = host.load(id)?;
    let supervised = session.supervised().ok_or("it is supervised")?;

    supervised.start()?;
    session.wait_for(ReportedState::Active, TIMEOUT)?;
    println!(
        "it is {} in {}",
        session.reported_state(),
        host.runtime_name()
    );
    let reply: Value = session.call_raw("niceness", &json!({}), TIMEOUT)?.read()?;
    println!("its niceness is {}", reply["niceness"]);
    let report = supervised.stop(TIMEOUT)?;
    println!(
        "it is {}, killed: {}",
        session.reported_state(),
        report.killed
    );
    let states = changes.try_iter().map(|change| change.to.to_string());
    println!("it was {}", states.collect::<Vec<_>>().join(", "));
    let report = host.shutdown(TIMEOUT);
    println!("everything has ended: {}", report.is_complete());
    Ok(())
}

/// The plugin.
fn sample() -> plugin_runner::Result<()> {
    Plugin::from_env()?
        .method("niceness", |_, _: Map<String, Value>| {
            let niceness = rustix::process::nice(0);
            Ok(json!({"niceness": niceness.unwrap_or_default()}))
        })
        .run()
}
