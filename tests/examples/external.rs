//! An external plugin, which somebody else runs and which connects in: `cargo run --example external -- DATA`
//! installs one, prints the URL that it connects with, lets it connect, and replaces its token. The plugin is
//! a thread here; elsewhere it is a program that was given the URL in `STORYDEN_RPC_URL`.

use std::error::Error;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use plugin_runner::protocol::Manifest;
use plugin_runner::sdk::Plugin;
use plugin_runner::{Host, Manager, ReportedState};
use serde_json::{Map, Value, json};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the plugin until its host wants it no more. Until then it connects again whenever the connection is
/// lost.
fn plugin(url: &str) -> plugin_runner::Result<()> {
    Plugin::connect_to(url)?
        .method("shout", |_host, params: Map<String, Value>| {
            let text = params["text"].as_str().ok_or("a text is missing")?;
            Ok(json!({"text": text.to_uppercase()}))
        })
        .run()
}

fn main() -> Result<(), Box<dyn Error>> {
    let data = std::env::args_os().nth(1).map(PathBuf::from);
    let data = data.ok_or("usage: external DATA")?;
    let host = Host::builder().data_dir(data).build()?;
    let listener = host.listen("127.0.0.1:0")?;
    let base = listener.base_url();
    let manager = Manager::new(host.clone())?;

    // The host keeps a digest: neither the token nor the URL can be had a second time.
    let (installed, token) = manager.install_external(Manifest {
        id: "shouter".to_owned(),
        author: "example".to_owned(),
        name: "Shouter".to_owned(),
        ..Manifest::default()
    })?;
    let url = token.connection_url(&base)?;
    println!("connects with {url}");
    let running = start(url.clone());
    let session = host.load(installed.id())?;
    let shout = |text| -> plugin_runner::Result<Value> {
        session.wait_for(ReportedState::Active, TIMEOUT)?;
        let params = json!({"text": text});
        session.call_raw("shout", &params, TIMEOUT)?.read()
    };
    println!("answers {}", shout("hello")?);

    // A new token ends the connection that was made with the old one, which is worth nothing any more.
    let token = manager.rotate_token(installed.id())?;
    join(running)??;
    if let Err(error) = plugin(&url) {
        println!("with the old URL: {error}");
    }
    let running = start(token.connection_url(&base)?);
    println!("answers {}", shout("hello again")?);

    manager.remove(installed.id())?;
    join(running)??;
    let report = host.shutdown(TIMEOUT);
    println!("everything has ended: {}", report.is_complete());
    Ok(())
}

fn start(url: String) -> JoinHandle<plugin_runner::Result<()>> {
    thread::spawn(move || plugin(&url))
}

fn join<T>(thread: JoinHandle<T>) -> Result<T, &'static str> {
    thread.join().map_err(|_| "the plugin panicked")
}
