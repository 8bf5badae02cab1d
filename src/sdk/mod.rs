//! The plugin's side: write a plugin in Rust, synchronously.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use plugin_runner::protocol::method::{RobotToolCall, ToolCallReply};
//! use plugin_runner::sdk::Plugin;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct ThreadPublished {
//!     id: String,
//! }
//!
//! #[derive(Deserialize)]
//! struct Greet {
//!     name: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Greeting {
//!     text: String,
//! }
//!
//! fn main() -> plugin_runner::Result<()> {
//!     Plugin::from_env()?
//!         .on_event("EventThreadPublished", |host, thread: ThreadPublished| {
//!             let configuration = host.get_config(&["channel"], Duration::from_secs(10))?;
//!             eprintln!("{}: {}", configuration["channel"], thread.id);
//!             Ok(())
//!         })
//!         .on_configure(|_host, configuration| Ok(configuration.contains_key("channel")))
//!         .on(|_host, call: RobotToolCall| {
//!             let mut reply = ToolCallReply::default();
//!             reply.output.insert("echo".to_owned(), call.arguments.into());
//!             Ok(reply)
//!         })
//!         .method("greet", |_host, Greet { name }| {
//!             let text = format!("hello {name}");
//!             Ok(Greeting { text })
//!         })
//!         .run()
//! }
//! ```
//!
//! # Transports
//!
//! A host says how to reach it in the environment: a URL in `STORYDEN_RPC_URL`, or
//! `PLUGIN_RUNNER_TRANSPORT=stdio` for the program's own standard input and output.
//! [`Plugin::from_env`] follows that. **Over stdio, stdout belongs to the protocol**: print nothing
//! there, and log to stderr on every transport; hosts keep stderr as the plugin's log. This module
//! itself only uses the `log` crate.
//!
//! There is no TLS: a `wss://` URL is an error. Where plugins connect to their host with `wss://`, as they should
//! on [sprites](crate::HostBuilder::sprites), take stdio.
//!
//! # Package and tests
//!
//! A package is a zip of `manifest.json` and the program, neither in a directory; `command` is `./` and the
//! program's name, which the host makes executable ([Archive](crate::protocol#archive)). Take a release build: with
//! its debug information, a program may well be over the 50 MiB that one file may have. Tests need no process:
//! they give [`Plugin::over`] one end of [`memory::pair`](crate::duplex::memory::pair), and a host the other
//! (`tests/examples/plugin_test.rs`).
//!
//! # Threads
//!
//! [`Plugin::run`] reads on the thread that calls it, and nothing else happens there. Handlers run on
//! worker threads, started when they are needed and capped, so a slow handler delays no other and a
//! handler may call the host. A writer thread exists while the host is slow to read. No signal
//! handler is installed: SIGINT and SIGTERM end the process, as hosts expect.
//!
//! What does not live here: the wire ([`protocol`](crate::protocol)), the transports
//! ([`duplex`](crate::duplex)), and anything a host does.

mod connection_url;
mod endpoint;
mod handler_error;
mod handlers;
mod host;
mod plugin;
mod retry;

pub(crate) use connection_url::ConnectionUrl;
pub use handler_error::HandlerError;
pub use host::HostHandle;
pub use plugin::Plugin;
