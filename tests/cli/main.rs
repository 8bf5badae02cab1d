//! The program as people and other programs meet it: the real binary as a child process, with real
//! plugins written in shell and Python.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

// The operators' commands.
mod client;
// Scratch folders, plugins, and the program with its output read line by line.
mod program;
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "../support/mod.rs"]
mod support;

// A program on a terminal.
#[cfg(target_os = "linux")]
#[path = "../support/terminal.rs"]
mod terminal;

// A service that runs plugins elsewhere, played on this machine.
#[cfg(all(target_os = "linux", feature = "sprites"))]
#[allow(
    dead_code,
    unused_imports,
    reason = "shared with other tests, which use all of it"
)]
#[path = "../support/sprites/mod.rs"]
mod fake;

// What the program's parent left open.
#[cfg(target_os = "linux")]
mod descriptors;
// `dev install`.
mod develop;
// `completions` and `man`.
mod documents;
// The program as the first process of a container.
#[cfg(target_os = "linux")]
mod init;
// Temporary folders of killed runs.
mod leftovers;
// From the first state to the end on request, and what ends a run early.
mod lives;
// What is printed, and what happens when nobody reads it.
mod output;
// `dev package`.
mod package;
// Programs that may not be executed, and where archives are unpacked then.
#[cfg(target_os = "linux")]
mod permissions;
// The built-in sample.
mod sample;
// The server.
mod serve;
// Arguments that set things: data, variables, external plugins.
mod settings;
// Plugins that run on sprites.
#[cfg(all(target_os = "linux", feature = "sprites"))]
mod sprites;
// Talking with plugins while they run.
mod talk;
// Talking with plugins on a terminal.
#[cfg(target_os = "linux")]
mod typed;
// Arguments that cannot work.
mod usage;
// `validate`.
mod validate;
// `run --watch`.
mod watch;
