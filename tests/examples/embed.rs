//! Embeds a host: `cargo run --example embed -- FOLDER` runs the plugin in that folder, calls it
//! once and stops it.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use plugin_runner::protocol::Manifest;
use plugin_runner::protocol::method::{Empty, Ping};
use plugin_runner::store::{Record, Source};
use plugin_runner::{ActiveState, Host, ReportedState};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: embed FOLDER")?);
    let manifest = Manifest::parse(&std::fs::read(folder.join("manifest.json"))?)?;

    let data = std::env::temp_dir().join("plugin-runner-embed");
    let host = Host::builder().data_folder(data).build()?;
    let _listener = host.listen("127.0.0.1:0")?;
    let record = Record::supervised(manifest, Source::Folder(folder));
    let id = record.id;
    host.store().put(record)?;

    let session = host.load(id)?;
    session.set_active_state(ActiveState::Active)?;
    session.wait_for(ReportedState::Active, Duration::from_secs(300))?;
    let pong = session.call::<Ping>(&Empty {}, Duration::from_secs(10))?;
    println!("{} says {:?}", session.manifest().name, pong.status);

    let report = host.shutdown(Duration::from_secs(10));
    println!("everything has ended: {}", report.is_complete());
    Ok(())
}
