//! Methods and events of one's own, with types, on both sides: a host that keeps values for its plugins,
//! and a plugin that greets people with what it finds there. `cargo run --example own_methods` runs both in
//! one program; elsewhere the plugin is a program of its own, and begins with `Plugin::from_env()`.

use std::collections::HashMap;
use std::error::Error;
use std::thread;
use std::time::Duration;

use plugin_runner::duplex::{Duplex, memory};
use plugin_runner::protocol::Manifest;
use plugin_runner::protocol::method::Method;
use plugin_runner::sdk::Plugin;
use plugin_runner::{Host, Record, ReportedState};
use serde::{Deserialize, Serialize};

const TIMEOUT: Duration = Duration::from_secs(10);

/// What the plugin calls the host with: a method's name, and params and reply of any type.
#[derive(Serialize, Deserialize)]
struct Get {
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Got {
    value: Option<String>,
}

/// What the host calls the plugin with. With `Method` the name and the types are in one place, which a
/// host and its plugins can share.
#[derive(Serialize, Deserialize)]
struct Greet {
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Greeting {
    text: String,
}

impl Method for Greet {
    const NAME: &'static str = "greet";
    type Reply = Greeting;
}

/// What the host publishes.
#[derive(Serialize, Deserialize)]
struct Arrival {
    name: String,
}

/// The plugin's side.
fn plugin(connection: impl Duplex) -> plugin_runner::Result<()> {
    Plugin::over(connection)
        .on(|host, Greet { name }| {
            let key = "greeting".to_owned();
            let reply: Got = host.call_raw("kv_get", &Get { key }, TIMEOUT)?.read()?;
            let greeting = reply.value.unwrap_or_else(|| "hello".to_owned());
            let text = format!("{greeting}, {name}");
            Ok(Greeting { text })
        })
        .on_event("arrival", |_host, Arrival { name }| {
            println!("the plugin hears that {name} has arrived");
            Ok(())
        })
        .run()
}

/// The host's side.
fn main() -> Result<(), Box<dyn Error>> {
    let values = HashMap::from([("greeting".to_owned(), "good morning".to_owned())]);
    let host = Host::builder()
        .method("kv_get", move |_call, Get { key }| {
            let value = values.get(&key).cloned();
            Ok(Got { value })
        })
        .build()?;

    let record = Record::external(Manifest {
        id: "greeter".to_owned(),
        author: "example".to_owned(),
        name: "Greeter".to_owned(),
        events_consumed: vec!["arrival".to_owned()],
        ..Manifest::default()
    })?;
    let id = record.id;
    host.store().put(record)?;
    let session = host.load(id)?;
    let (ours, theirs) = memory::pair(16);
    let running = thread::spawn(|| plugin(theirs));
    session.connect(ours, "")?;
    session.wait_for(ReportedState::Active, TIMEOUT)?;

    let name = "Ada".to_owned();
    let greeting = session.call(&Greet { name: name.clone() }, TIMEOUT)?;
    println!("the plugin says: {}", greeting.text);
    let delivered = host.publish_and_wait("arrival", &Arrival { name }, TIMEOUT)?;
    println!("the event is {:?}", delivered[&id]);

    host.shutdown(TIMEOUT);
    running.join().map_err(|_| "the plugin panicked")??;
    Ok(())
}
