//! A plugin on a sprite, with the service played on this machine: from the load until active where its sprite and
//! its files are there, beside a plain client that makes the same requests, until it has the plugin's first
//! answer or connection; and how often the host's threads wake while nothing happens.
//!
//! The service, its processes and the shell's login take most of the time, for both.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

// The fake of the service needs Linux.
#[cfg(target_os = "linux")]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with the tests, which use all of it"
)]
#[path = "../../tests/support/sprites/mod.rs"]
mod fake;
#[cfg(target_os = "linux")]
mod hand;
#[cfg(target_os = "linux")]
mod rows;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;

fn main() {
    #[cfg(target_os = "linux")]
    rows::measure();
}
