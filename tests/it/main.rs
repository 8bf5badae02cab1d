//! Tests with real parts: real child processes, real sockets, real folders.
//!
//! One binary, so that it is linked once. What all of them share is in `support`; each other module
//! is named after what a user would look for.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/random.rs"]
#[allow(dead_code, reason = "shared with the fuzz tests, which use all of it")]
mod random;
// A service that runs plugins elsewhere, played on this machine.
#[cfg(target_os = "linux")]
#[path = "../support/sprites/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    reason = "has every switch, whichever are used"
)]
mod sprites;
#[path = "../support/mod.rs"]
mod support;

// Archives that are hostile or damaged.
mod archives;
// Disks that are full or cannot be written.
mod disk;
// Plugins that an embedder's own HTTP server lets in.
mod admission;
// Who may connect, and what everybody else is told.
mod handshake;
// Handshakes that mean no good.
mod handshake_attacks;
// Handshakes that are slow, silent or too many.
mod handshake_load;
// Plugins that send as fast as they can, or read nothing.
mod flood;
// Frames that no plugin should send.
mod hostile_frames;
// Answers that answer nothing, and calls that cannot be answered.
mod hostile_replies;
// What plugins say, in the host's log and errors.
mod foreign_text;
// Which module may use which.
mod layers;
// How plugins live, in every runtime.
mod runtimes;
// The output of plugins.
mod logs;
// What a plugin's process may use of the machine.
mod process_limits;
// Records that outlive the process, however that ends.
#[cfg(feature = "sqlite")]
mod sqlite_store;
// What a plugin over stdio prints between its messages.
mod odd_lines;
mod stdio_output;
// A plugin in Python over a WebSocket, as strict as the SDK.
mod python_websocket;
// Clients and servers that other people wrote.
mod third_party;
// The fake of the Sprites service, by the tables of its protocol and by its faults.
#[cfg(target_os = "linux")]
mod fake_sprites;
// What is easily got wrong with plugins on sprites.
#[cfg(all(target_os = "linux", feature = "sprites"))]
mod sprites_weaknesses;
// The service itself, where there is an account of it; else its fake.
#[cfg(all(target_os = "linux", feature = "sprites"))]
mod sprites_live;
// Sessions, with plugins that the tests play themselves, message by message.
mod session;
// The SDK, over memory and over real sockets.
mod sdk;
// Why a run ended, and the history of runs.
mod causes;
// What an embedder may do with signals.
mod embedder_signals;
// What a plugin finds when it starts.
mod environment;
// The examples.
#[cfg(feature = "sqlite")]
mod example;
// A store of one's own, which is an example as well.
mod json_store;
// External plugins, and embedders that accept connections themselves.
mod external;
// The line of the log for each attempt to connect.
mod access_log;
// What is known of handshakes that were refused.
mod refusals;
// Messages up to the limits and over them.
mod sizes;
// What cannot be started, and what never connects.
mod start_failures;
// Plugins that show no sign of life.
mod health;
// Plugins that end by themselves, or are ended for their own good.
mod restart;
// Places of the embedder's own in which plugins run.
mod runtime;
// A runtime of one's own, which is an example as well.
mod wrapped;
// Ending a host.
mod shutdown;
// Hosts that are killed, and what keeps their plugins from outliving them.
mod keeper;
// Descendants by the thousand, and chains of forks.
#[cfg(target_os = "linux")]
mod escapes;
// Hosts that are killed while their plugins are at their worst.
#[cfg(target_os = "linux")]
mod kills;
// Hosts that are killed while their plugins run on sprites.
#[cfg(all(target_os = "linux", feature = "sprites", feature = "sqlite"))]
mod sprites_kills;
// What is lost of a sprite, or of the way to it.
#[cfg(all(target_os = "linux", feature = "sprites"))]
mod sprites_losses;
// Descendants that no look can end.
#[cfg(target_os = "linux")]
mod waits;
// Processes that show an environment of gigabytes.
#[cfg(target_os = "linux")]
mod vast;
// Named pipes, links and folders in the place of files.
#[cfg(target_os = "linux")]
mod hostile_paths;
// Stopping, in every state.
mod stop;
// Many calls, calls within calls, floods.
mod traffic;
// A caller that waits alone, and one that calls in batches.
mod lone_callers;
// Races at points where the host is held on purpose.
mod fault_points;
// A thousand times the same, and nothing more than before.
#[cfg(target_os = "linux")]
mod leaks;
// Requests that meet each other.
mod interleavings;
// Operations on installations.
mod manager;
// The HTTP API for administrators.
#[cfg(feature = "admin")]
mod admin;
// The bounds, and which tests reach them.
mod bounds;
// The rules that always hold, and which tests hold them.
mod rules;
