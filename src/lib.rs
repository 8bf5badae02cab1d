#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod auth;
mod bus;
mod config;
mod counters;
mod deadline;
pub mod duplex;
pub mod error;
#[cfg(not(feature = "_fault"))]
mod fault;
#[cfg(feature = "_fault")]
#[doc(hidden)]
pub mod fault;
#[cfg(feature = "fetch")]
mod fetch;
#[cfg(feature = "_fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod host;
mod id;
pub mod keeper;
mod listener;
mod manager;
mod owner_lock;
pub mod package;
pub mod plugin_log;
mod poll;
mod process;
pub mod protocol;
mod reaper;
mod rpc;
mod runtime;
pub mod sdk;
mod session;
mod settings;
mod state;
pub mod store;
#[cfg(test)]
mod testing;
pub mod text;
mod thread;
mod url;

pub use bus::PublishReport;
pub use config::{Limits, Timeouts};
pub use deadline::Deadline;
pub use error::{Error, Result};
#[cfg(feature = "fetch")]
pub use fetch::FetchSettings;
pub use health::Health;
pub use host::{HandshakeCounters, Host, HostBuilder, ShutdownReport, WeakHost};
pub use id::{InstallationId, RequestId, Xid};
pub use keeper::{Guarantees, Keeper};
pub use listener::Listener;
pub use manager::{
    BootReport, ConfigureMode, Installation, InstalledExternal, Manager, ManagerSettings,
    PackageSource, Remainder, Removed, Status, Update, UpdateOptions, WeakManager,
};
pub use process::{ExitReason, ProcessLimits};
pub use reaper::policy::RestartPolicy;
pub use reaper::{EndCause, StopReport};
pub use rpc::{Params, Reply, RpcCounters};
pub use runtime::RuntimeProvider;
pub use session::{
    Batch, Counters, InboundCall, NoServices, Peer, PendingCall, PendingReply, RestartDecision,
    RunEnd, Services, Session, StateChange, Supervised,
};
pub use state::{ActiveState, PluginMode, ReportedState};
pub use thread::Threads;

#[cfg(test)]
mod tests {
    #[test]
    fn the_readme_shows_the_example_as_it_is() {
        let example = include_str!("../tests/examples/embed.rs");
        let (_, code) = example.split_once("\n\n").unwrap();
        assert!(include_str!("../README.md").contains(code));
    }
}
