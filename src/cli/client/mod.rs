//! The operators' commands: clients of the HTTP API of `plugin-runner serve`.
//!
//! Every command speaks HTTP and nothing else. Where no server runs on a directory, those that need none get an API
//! of their own over it ([`host`]), so that there is one way to do each thing.

#![allow(dead_code, reason = "the commands that use it come next")]

mod api;
mod get;
mod host;
mod list;
mod output;
mod plugins;
mod table;
mod time;

use clap::Subcommand;

use super::error::CliError;

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// List what is installed, and the state of each.
    List(list::List),
    /// Show one plugin: its state, its manifest, and what is wrong with it.
    Get(get::Get),
}

impl ClientCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// [`CliError`] says what could not be done, and why.
    pub(crate) fn run(&self) -> Result<(), CliError> {
        match self {
            Self::List(list) => list.run(),
            Self::Get(get) => get.run(),
        }
    }
}
