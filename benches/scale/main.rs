//! From one connected session to ten thousand on one host: what each costs in memory, threads,
//! descriptors and time, and what the host does when there is nothing to do. Beside it a bare server
//! with a thread for each connection, which only blocks in a read.
//!
//! The peers live in another process; and each run is a process of its own, because memory that one
//! has freed would be taken for free by the next. Linux only, which shows what a process holds.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod show;
#[cfg(target_os = "linux")]
mod stage;
#[path = "../support/mod.rs"]
mod support;

/// First arguments that make this program something else than the bench.
mod role {
    pub(crate) const PEERS: &str = "peers";
    pub(crate) const MUTE_PEERS: &str = "mute-peers";
    pub(crate) const HOST: &str = "host";
    pub(crate) const BARE: &str = "bare";
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("scale: Linux only");
}

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        [role::PEERS, address] => peers::run(address, false),
        [role::MUTE_PEERS, address] => peers::run(address, true),
        [who @ (role::HOST | role::BARE), plan] => {
            let plan: stage::Plan = serde_json::from_str(plan).unwrap();
            let figures = if *who == role::HOST {
                stage::run(servers::HostServer::new(plan), plan)
            } else {
                stage::run(servers::BareServer::new(), plan)
            };
            println!("{}", serde_json::to_string(&figures).unwrap());
        }
        _ => show::run(),
    }
}
