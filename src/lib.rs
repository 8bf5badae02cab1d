//! A plugin host that a blocking Rust server embeds: it installs plugins from zip archives, runs them as
//! supervised child processes or lets them connect in over an authenticated WebSocket, talks JSON-RPC with
//! them both ways, delivers events to them, restarts what crashes and stops what it started. Synchronous,
//! one OS thread per session, no async runtime anywhere.
//!
//! What goes over the wire is in [`protocol`]; how the crate is built, in `src/ARCHITECTURE.md`; how the program is
//! operated as a server, in `src/OPERATE.md`.
//!
//! # I want to …
//!
//! | … | take |
//! | --- | --- |
//! | embed a host | [`Host::builder`], [`HostBuilder`] |
//! | install, update, configure and remove plugins, and have them back after a restart | [`Manager`] |
//! | find plugins, and show them in an admin API | [`Manager::list_matching`], [`manager::Installation`], which serialises |
//! | give one plugin its own environment, limits or labels | [`Manager::set_overrides`], [`Manager::set_labels`] |
//! | keep records in SQLite, in memory, or in a database of my own | [`SqliteStore`], [`MemoryStore`], [`Store`] |
//! | check a package before it is installed | [`package::review`], [`package::Archive`] |
//! | run plugins in containers, on other machines, in sandboxes | [`HostBuilder::runtime`] with a [`runtime::Runtime`] of my own; [`HostBuilder::sprites`] |
//! | let plugins connect in | [`Host::listen`]; [`Host::accept`] for streams that I accept |
//! | let plugins connect on the port of my own HTTP server | [`Host::admit`] |
//! | let plugins connect in some other way | [`Session::connect`], with a [`duplex`] of my own |
//! | start, stop and watch one plugin | [`Session`], [`Session::supervised`], [`Session::wait_for`] |
//! | see state changes as they happen | [`Host::subscribe`], [`StateChange`] |
//! | call a plugin | [`Session::call`], [`Session::call_raw`], [`Session::start_call`] |
//! | answer calls from plugins | [`Services`] for the protocol's own, [`HostBuilder::method`] for mine; [`protocol::Method`] for types that both sides share |
//! | publish events | [`Host::publish`], [`Host::publish_and_wait`] |
//! | read what a plugin prints | [`Manager::follow_log`], [`Session::follow_log`], [`HostBuilder::on_output`] |
//! | know why a plugin ended | [`Session::problem`], [`Session::restart_history`] |
//! | set limits and timeouts | [`Limits`], [`Timeouts`], [`RestartPolicy`], [`Health`], [`ProcessLimits`] |
//! | count and measure | [`Manager::metrics`] for Prometheus; [`Session::counters`], [`Host::handshake_counters`], [`HostBuilder::on_call`] |
//! | serve an HTTP API for administrators | [`admin::AdminServer`] |
//! | end everything, and know that it has ended | [`Host::shutdown`] |
//! | write a plugin in Rust, pack and test it | [`sdk`] |
//!
//! Handles ([`Host`], [`Session`], [`Manager`], …) are cheap to clone and may be used from any thread. Every
//! call that can block takes a timeout or has one in the host's settings; its error, an [`Error`], says which
//! phase ran out. Dropping the last [`Host`] stops everything that it started.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `host` | yes | everything that runs plugins |
//! | `sdk` | yes | [`sdk`], for writing a plugin |
//! | `admin` | yes | [`admin`], an HTTP API for administrators |
//! | `cli` | yes | the `plugin-runner` program |
//! | `fetch` | yes | installing a package from a URL; needs a C compiler |
//! | `sprites` | yes | running plugins on [Sprites](https://sprites.dev), a service with remote sandboxes; needs a C compiler |
//! | `sqlite` | yes | [`SqliteStore`]; needs a C compiler |
//! | `conformance` | no | `store::conformance` and `runtime::conformance`, which test a store or a runtime of one's own |
//!
//! A plugin in Rust takes `plugin-runner = { version = "0.1", default-features = false, features = ["sdk"] }`,
//! which is 46 crates in all.
//!
//! # Threads
//!
//! A host has one reaper, which owns every run of a plugin; one thread per loaded session, which reads its
//! connection; one per listener; and, while there is work, one per handshake, log and handler. All come from
//! one budget, see [`Host::thread_limit`]. Handlers run on capped workers, never on a thread that reads.
//!
//! # Log levels
//!
//! `error`: an operator has to look: a plugin was given up, a handler panicked, the store or a listener
//! failed. `warn`: a plugin or the system misbehaves, and the host copes. `info`: refused connections and
//! retries. `debug`: the rest. Tokens, access keys, the values of variables, configurations, payloads and the
//! URLs of packages behind their host are logged at no level. But at `trace` the crates `tungstenite` and `ureq`
//! log messages and URLs under their own targets. What a plugin says of itself is shown: its errors, and the
//! user agent of its handshake.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]
// Docs of what a plugin has too link to what only a host has.
#![cfg_attr(not(feature = "host"), allow(rustdoc::broken_intra_doc_links))]
// A host and a plugin share modules, of which each uses a part.
#![cfg_attr(
    not(all(feature = "host", feature = "sdk")),
    allow(dead_code, unreachable_pub, unused_imports, unused_macros)
)]

#[cfg(feature = "admin")]
pub mod admin;
#[cfg(feature = "host")]
pub mod auth;
#[cfg(feature = "host")]
mod bus;
#[cfg(feature = "host")]
mod config;
mod counters;
mod deadline;
pub mod duplex;
pub mod error;
#[cfg(all(feature = "host", not(feature = "_fault")))]
mod fault;
#[cfg(all(feature = "host", feature = "_fault"))]
#[doc(hidden)]
pub mod fault;
#[cfg(feature = "fetch")]
mod fetch;
#[cfg(feature = "_fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "host")]
mod health;
#[cfg(feature = "host")]
mod host;
#[cfg(feature = "host")]
// Without an API only the listener for plugins uses it, and its parts alone.
#[cfg_attr(not(feature = "admin"), allow(dead_code, unused_imports))]
mod http;
mod id;
#[cfg(feature = "host")]
pub mod keeper;
mod line_splitter;
#[cfg(feature = "host")]
pub mod listener;
#[cfg(feature = "host")]
pub mod manager;
#[cfg(feature = "host")]
mod owner_lock;
#[cfg(feature = "host")]
pub mod package;
#[cfg(feature = "host")]
pub mod plugin_log;
mod poll;
#[cfg(feature = "host")]
mod process;
pub mod protocol;
#[cfg(feature = "host")]
mod reaper;
mod rpc;
#[cfg(feature = "host")]
pub mod runtime;
#[cfg(feature = "sdk")]
pub mod sdk;
#[cfg(feature = "host")]
mod session;
mod settings;
#[cfg(feature = "host")]
mod shown;
mod state;
#[cfg(feature = "host")]
pub mod store;
#[cfg(test)]
mod testing;
pub mod text;
mod thread;
mod url;

#[cfg(feature = "host")]
pub use config::{Limits, Timeouts};
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "host")]
pub use health::Health;
#[cfg(feature = "host")]
pub use host::{Host, HostBuilder, WeakHost};
pub use id::{InstallationId, RequestId, Xid};
#[cfg(feature = "host")]
pub use keeper::Keeper;
#[cfg(feature = "host")]
pub use manager::{Manager, ManagerSettings};
#[cfg(feature = "host")]
pub use package::PackageLimits;
#[cfg(feature = "host")]
pub use plugin_log::LogSettings;
#[cfg(feature = "host")]
pub use process::ProcessLimits;
#[cfg(feature = "host")]
pub use reaper::policy::RestartPolicy;
#[cfg(feature = "host")]
pub use runtime::RuntimeProvider;
#[cfg(feature = "host")]
pub use session::{Problem, Services, Session, StateChange, Supervised};
pub use state::{ActiveState, PluginMode, ReportedState};
#[cfg(all(feature = "host", feature = "sqlite"))]
pub use store::SqliteStore;
#[cfg(feature = "host")]
pub use store::{MemoryStore, Overrides, Record, Store};

/// Calls in both directions: what goes into one, what comes out of it, and what a handler and a hook see of it.
pub mod call {
    pub use crate::rpc::{Params, Reply};
    #[cfg(feature = "host")]
    pub use crate::session::{Batch, CallEvent, InboundCall, PendingCall};
}

/// What happened, in numbers and reports: how runs ended, what was delivered, what a shutdown left.
#[cfg(feature = "host")]
pub mod report {
    pub use crate::bus::PublishReport;
    pub use crate::host::{HandshakeCounters, ShutdownReport};
    pub use crate::process::ExitReason;
    pub use crate::reaper::{EndCause, StopReport};
    pub use crate::session::{Counters, Delivery, RunEnd};
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_shows_the_example_as_it_is() {
        let example = include_str!("../tests/examples/embed.rs");
        let (_, code) = example.split_once("\n\n").unwrap();
        assert!(include_str!("../README.md").contains(code));
    }
}
