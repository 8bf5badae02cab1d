//! Where supervised plugins run: the provider's name, and [`Runtime`], the trait by which plugins are started
//! somewhere.
//!
//! What lives here: starting a run, and what can be done to it while it lasts ([`RunHandle`]). What does not:
//! when that happens. Restarts, stops, states, causes and logs are the same for all runtimes; the host's
//! reaper sees to them.
//!
//! # Two runtimes, and one of your own
//!
//! [`RuntimeProvider::Local`] runs plugins as child processes of the host, [`RuntimeProvider::Sprites`] in remote
//! sandboxes. To run them anywhere else, implement [`Runtime`]. A start goes like this:
//!
//! 1. The host calls [`Runtime::start`] with a [`Launch`]: the plugin's record, what it is to run, and whether the
//!    start has been cancelled.
//! 2. The runtime starts the program. For a process on this machine it returns what [`Launch::spawn`] does. For any
//!    other it makes a [`Run`] of its own, from a [`RunHandle`] and the host's ends of the program's standard streams
//!    ([`RunPipes`]).
//! 3. The host reads the output into the plugin's log, or speaks the protocol over it, and polls
//!    [`RunHandle::ended`]. It stops the run with [`RunHandle::signal`].
//! 4. Once the run has ended, [`RunHandle::finish`] says how ([`RunExit`]), and the host decides what follows.
//!
//! What is easily missed: signals must not block; [`ended`](RunHandle::ended) comes after the last of the output
//! and after the last process; and while the place where a plugin runs cannot be reached, its run has not ended.

#[cfg(feature = "conformance")]
pub mod conformance;
pub(crate) mod interrupt;
mod launch;
pub(crate) mod local;
mod process_run;
mod run;
#[cfg(feature = "sprites")]
pub(crate) mod sprites;

use std::fmt;
use std::str::FromStr;

pub use launch::Launch;
pub(crate) use run::ExitFinding;
pub use run::{Run, RunExit, RunHandle, RunPipes, StopSignal};
#[cfg(feature = "sprites")]
pub use sprites::SpritesSettings;

use crate::error::{Error, Result};
use crate::id::InstallationId;
pub use crate::process::PluginCommand;
use crate::state::UnknownName;
use crate::store::{Record, Store};

/// Where supervised plugins run ([State names](crate::protocol#state-names)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RuntimeProvider {
    /// Nowhere: supervised plugins are disabled, and external ones work.
    None,
    /// As child processes of the host.
    #[default]
    Local,
    /// In the remote sandboxes of [Sprites](https://sprites.dev), for which
    /// [`HostBuilder::sprites`](crate::HostBuilder::sprites) has the settings.
    Sprites,
}

impl RuntimeProvider {
    /// Returns the name used in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Local => "local",
            Self::Sprites => "sprites",
        }
    }
}

impl fmt::Display for RuntimeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for RuntimeProvider {
    type Err = Error;

    /// Parses a name, ignoring case and surrounding space; an empty text is `local`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): there is no such provider.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text.trim().to_lowercase().as_str() {
            "none" => Ok(Self::None),
            "" | "local" => Ok(Self::Local),
            "sprites" => Ok(Self::Sprites),
            _ => Err(UnknownName::new("plugin runtime provider", text, &[]).into()),
        }
    }
}

/// A place where supervised plugins run. An embedder who has machines, containers or sandboxes of its own
/// implements it, and hands it to [`HostBuilder::runtime`](crate::HostBuilder::runtime); the host does the rest.
///
/// The feature `conformance` adds `runtime::conformance`, with which an implementation's tests check what is
/// asked for here. The example `tests/examples/wrapped.rs` is a whole implementation for programs that are
/// started through a command, such as `nice` or `docker run`.
///
/// ```
/// use plugin_runner::runtime::{Launch, Run, Runtime};
///
/// /// Starts every plugin through `nice`.
/// #[derive(Debug)]
/// struct Nice;
///
/// impl Runtime for Nice {
///     fn name(&self) -> &'static str {
///         "nice"
///     }
///
///     fn start(&self, launch: &Launch<'_>) -> plugin_runner::Result<Run> {
///         let mut command = launch.command()?;
///         let program = std::mem::replace(&mut command.program, "/usr/bin/nice".into());
///         command.args.insert(0, program.into());
///         launch.spawn(command)
///     }
/// }
///
/// # fn main() -> plugin_runner::Result<()> {
/// let host = plugin_runner::Host::builder().runtime(Nice).build()?;
/// # Ok(())
/// # }
/// ```
pub trait Runtime: fmt::Debug + Send + Sync {
    /// Returns its name, in lower case, for error details (`runtime_provider`) and log lines.
    fn name(&self) -> &'static str;

    /// Checks whether this plugin can run here at all. Called before a plugin is installed, updated, given other
    /// [overrides](crate::Overrides) or loaded, which
    /// fails with the error that this returns; not before each start. The default implementation accepts every one.
    ///
    /// # Blocking
    /// It may read the plugin's package.
    ///
    /// # Errors
    /// Say what is wrong with the plugin; [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) fits.
    fn accept(&self, record: &Record, store: &dyn Store) -> Result<()> {
        let _ = (record, store);
        Ok(())
    }

    /// Starts one run of a plugin, and returns it when the plugin's program is running or about to.
    ///
    /// The host never has two runs of a plugin: it starts none before the last one has
    /// [ended](RunHandle::ended). Where a run may [outlive the host](Self::outlives_host), this method first ends
    /// what earlier hosts have left of the plugin, since [`clear`](Self::clear) is not called before a start.
    ///
    /// # Blocking
    /// On a thread of its own, with a stack of 512 KiB. It may take as long as it must, but returns soon after
    /// [`Launch::cancelled`], and then has started nothing, or ended it.
    ///
    /// # Errors
    /// - Those of [`Launch::command`] and [`Launch::spawn`], unchanged.
    /// - [`ErrorKind::RuntimeUnavailable`](crate::ErrorKind::RuntimeUnavailable),
    ///   [`RateLimited`](crate::ErrorKind::RateLimited) or [`Timeout`](crate::ErrorKind::Timeout): it may work
    ///   later. The host tries again, after 1, 2, 4 … s up to [`max_backoff`](crate::RestartPolicy::max_backoff),
    ///   for as long as the plugin is wanted.
    /// - [`ErrorKind::RuntimeRefused`](crate::ErrorKind::RuntimeRefused) or
    ///   [`Unsupported`](crate::ErrorKind::Unsupported): trying again cannot help. The plugin is `errored`.
    /// - [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled): it was cancelled.
    /// - Any other counts as a crash, and so does a panic.
    ///
    /// The cause of an error of the runtime's own is
    /// [`CouldNotPrepare`](crate::report::EndCause::CouldNotPrepare), and its text what the operator reads.
    /// [`Error::new`] makes one of any kind.
    fn start(&self, launch: &Launch<'_>) -> Result<Run>;

    /// Returns why runs may go on when the host is killed, as one sentence for
    /// [`Guarantees::limitations`](crate::keeper::Guarantees::limitations); `None`, the default, if they end
    /// with it.
    fn outlives_host(&self) -> Option<&'static str> {
        None
    }

    /// Ends what earlier hosts have left of this plugin, and returns once nothing is left. Called when a plugin is loaded
    /// and not started at once, if runs may [outlive the host](Self::outlives_host).
    ///
    /// # Blocking
    /// On a thread of its own, with a stack of 512 KiB; returns soon after [`Launch::cancelled`]. A start of the
    /// plugin waits for it.
    ///
    /// # Errors
    /// Are logged. The plugin is started all the same.
    fn clear(&self, launch: &Launch<'_>) -> Result<()> {
        let _ = launch;
        Ok(())
    }

    /// Called when a plugin is being removed for good, before its record is deleted: what the runtime keeps of
    /// it elsewhere is to be deleted once the record is, and has to be remembered until then, or for as long as
    /// that fails. With `keep_data` the plugin's own data has to stay. May be called again for the same removal.
    ///
    /// # Blocking
    /// For I/O on this machine.
    ///
    /// # Errors
    /// Keep the plugin from being removed.
    fn removing(&self, id: InstallationId, keep_data: bool) -> Result<()> {
        let _ = (id, keep_data);
        Ok(())
    }

    /// Called when the record is deleted, after [`removing`](Self::removing); or with `false` when that failed
    /// and the plugin stays. Returns what could not be deleted yet, in words, for
    /// [`RemoveReport::left`](crate::manager::RemoveReport::left).
    ///
    /// # Blocking
    /// A removal waits for it, so it should not take longer than a few seconds.
    fn removed(&self, id: InstallationId, is_gone: bool) -> Option<String> {
        let _ = (id, is_gone);
        None
    }

    /// Called once, when the host shuts down: nothing is started any more, and what could not be stopped in time
    /// is about to be dropped. It must not block; work of the runtime's own on threads has to end soon.
    fn shut_down(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_seed_reads_them() {
        assert_eq!(
            "".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::Local
        );
        assert_eq!(
            "  Local ".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::Local
        );
        assert_eq!(
            "NONE".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::None
        );
        assert_eq!(
            "sprites".parse::<RuntimeProvider>().unwrap(),
            RuntimeProvider::Sprites
        );
        assert_eq!(
            "docker".parse::<RuntimeProvider>().unwrap_err().to_string(),
            "unknown plugin runtime provider: \"docker\""
        );
    }
}
