//! The operators' commands: clients of the HTTP API of `plugin-runner serve`.
//!
//! Every command speaks HTTP and nothing else. Where no server runs on a directory, those that need none get an API
//! of their own over it ([`host`]), so that there is one way to do each thing.

mod api;
mod ask;
mod call;
mod config;
mod develop;
mod download;
mod environment;
mod events;
mod get;
mod history;
mod host;
pub(super) mod input;
mod install;
mod life;
mod limits;
mod list;
mod logs;
pub(super) mod output;
mod package;
mod plugins;
mod progress;
mod removal;
mod table;
mod time;
mod token;
mod top;
mod versions;

use clap::Subcommand;

use super::error::CliError;
pub(super) use develop::DevInstall;

#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// List what is installed, and the state of each.
    List(list::List),
    /// Show one plugin: its state, its manifest, and what is wrong with it.
    Get(get::Get),
    /// Install a package, or the manifest of a plugin that runs elsewhere.
    Install(install::Install),
    /// Replace a plugin by another version of it, and go back if that does not come up.
    Update(install::Update),
    /// Start plugins, and keep them running from now on. Waits until each is up.
    Activate(life::Activate),
    /// Stop plugins, and keep them stopped.
    Deactivate(life::Deactivate),
    /// Stop plugins and start them again. Waits until each is up.
    Restart(life::Restart),
    /// Stop a plugin and remove it. Its data and its log are kept unless they are purged.
    Remove(removal::Remove),
    /// Show what a plugin has printed, and with --follow what it prints.
    Logs(logs::Logs),
    /// Call a method of a plugin, and print what it answers.
    Call(call::Call),
    /// Publish an event to the plugins that consume it.
    Publish(call::Publish),
    /// A plugin's configuration.
    #[command(subcommand)]
    Config(config::Config),
    /// Variables in a plugin's environment.
    #[command(subcommand)]
    Env(environment::Env),
    /// Show or set what a plugin's processes may use. It counts from the next start on.
    Limits(limits::Limits),
    /// Show how a plugin's runs ended, and the last lines of its log.
    History(history::History),
    /// Download the package of a plugin.
    Download(download::Download),
    /// List the versions of a plugin that are kept.
    Versions(versions::Versions),
    /// Go back to an earlier version of a plugin.
    Rollback(versions::Rollback),
    /// Show what plugins do and use in a live table.
    ///
    /// On a terminal the table fits it, q or Ctrl-C ends it, and a host that goes away is waited for. Elsewhere one
    /// table is shown; with --json one round follows the other, and a host that goes away is waited for for a minute.
    ///
    /// CPU is what a plugin's process and its group use, in percent of one processor, and MEMORY what is resident of
    /// them; both are known of processes that the host has started on its own machine. The time within which 99 of
    /// 100 calls ended (p99) is that of all plugins together, as no host keeps it for each.
    Top(top::Top),
    /// Tokens of external plugins.
    #[command(subcommand)]
    Token(token::Token),
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
            Self::Install(install) => install.run(),
            Self::Update(update) => update.run(),
            Self::Download(download) => download.run(),
            Self::Activate(activate) => activate.run(),
            Self::Deactivate(deactivate) => deactivate.run(),
            Self::Restart(restart) => restart.run(),
            Self::Remove(remove) => remove.run(),
            Self::Logs(logs) => logs.run(),
            Self::Call(call) => call.run(),
            Self::Publish(publish) => publish.run(),
            Self::Config(config) => config.run(),
            Self::Env(env) => env.run(),
            Self::Limits(limits) => limits.run(),
            Self::History(history) => history.run(),
            Self::Versions(versions) => versions.run(),
            Self::Rollback(rollback) => rollback.run(),
            Self::Top(top) => top.run(),
            Self::Token(token) => token.run(),
        }
    }
}
