//! Embeds a host that keeps what it is given: `cargo run --example embed -- DATA [PACKAGE]` starts the
//! plugins that were active when it last ran, installs and starts the package if there is one, calls
//! them all once, and stops them.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use plugin_runner::manager::PackageSource;
use plugin_runner::protocol::method::Ping;
use plugin_runner::{Host, Manager, ReportedState, SqliteStore};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // One sentence, where `main` would print what `Debug` shows.
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let data = arguments.next().ok_or("usage: embed DATA [PACKAGE]")?;

    let store = Arc::new(SqliteStore::open(&data)?);
    let host = Host::builder().data_dir(&data).store(store).build()?;
    let _listener = host.listen("127.0.0.1:0")?;
    let manager = Manager::new(host.clone())?;

    let up = manager.boot(Duration::from_secs(300))?;
    println!("up again: {}, failed: {}", up.active.len(), up.failed.len());
    if let Some(package) = arguments.next() {
        let source = PackageSource::file(package);
        let plugin = manager.install_or_update(source)?.installation;
        manager.activate(plugin.id(), Duration::from_secs(300))?;
    }
    for plugin in manager.list()? {
        println!("{} is {}", plugin.manifest().name, plugin.reported_state());
        if plugin.reported_state() == ReportedState::Active {
            let session = manager.session(plugin.id())?;
            let pong = session.call(&Ping {}, Duration::from_secs(10))?;
            println!("and says {:?}", pong.status);
        }
    }

    let report = host.shutdown(Duration::from_secs(10));
    println!("everything has ended: {}", report.is_complete());
    Ok(())
}
