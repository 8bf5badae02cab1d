//! Errors of operations on installations.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use crate::text::Foreign;

/// Why an operation on an installation was not done. Unless a variant says otherwise, everything is
/// as it was before.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperationError {
    /// Another operation on the same installation was not over in time.
    #[error(
        "{running} is under way on this plugin, and was not over within {limit:?}; try again later"
    )]
    Busy {
        /// The operation that is under way, by the name of its function.
        running: &'static str,
        /// How long this one waited for it.
        limit: Duration,
    },
    /// So many plugins are installed that no more are taken.
    #[error(
        "{limit} plugins are installed, which is the limit; remove one, or raise `installations`"
    )]
    TooManyInstallations {
        /// The limit.
        limit: usize,
    },
    /// All archives together would take more room than the limit.
    #[error(
        "archives would take {needed} bytes in all, over the limit of {limit}; remove plugins, or raise `archive_bytes`"
    )]
    ArchivesTooLarge {
        /// Bytes of all archives, with the new one.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The archive is not the one that was expected.
    #[error("the archive's SHA-256 is {found}, expected {expected}")]
    OtherArchive {
        /// What it is, in lower-case hexadecimal.
        found: Arc<str>,
        /// What was expected.
        expected: Arc<str>,
    },
    /// The package, or manifest, is another plugin's: it has another `id`.
    #[error(
        "the package is of the plugin {:?}, installed is {:?}; install it as a plugin of its own",
        Foreign::new(.found), Foreign::new(.installed)
    )]
    OtherPlugin {
        /// The manifest id that is installed.
        installed: Arc<str>,
        /// The manifest id of the new one.
        found: Arc<str>,
    },
    /// The new version did not come up, and the one before is in its place again.
    #[error(
        "the new version did not come up: {cause}{}; the one before was put back{}",
        .problem.as_deref().map(|problem| format!(" ({problem})")).unwrap_or_default(),
        .restored.as_ref().map(|error| format!(", but did not come up either: {error}")).unwrap_or_default()
    )]
    RolledBack {
        /// Why the new version did not come up.
        cause: Error,
        /// What went wrong with it last, where that is known, and the last line that it printed.
        problem: Option<Arc<str>>,
        /// Why the version before is not running again; `None` when all is as before.
        restored: Option<Error>,
        /// From the stop of the version before until now, when it is back or given up.
        gap: Duration,
    },
    /// Members of a proposed configuration that do not have their fields' types.
    #[error("{}", super::lines(.problems))]
    Configuration {
        /// All of them.
        problems: Vec<ConfigurationProblem>,
    },
    /// The plugin did not take the configuration: it said no.
    #[error("the plugin did not take the configuration; its log may say why")]
    ConfigurationRefused,
    /// It is not known whether the plugin took the configuration: it gave no answer that says so. The
    /// one before stays stored, and the plugin is told that one again when it next connects.
    #[error(
        "whether the plugin took the configuration is not known: {cause}; the one before stays, and the plugin is told so when it next connects"
    )]
    ConfigurationUncertain {
        /// What happened instead of an answer.
        cause: Error,
    },
    /// The plugin took the configuration, but it could not be stored. The one before stays stored, and
    /// the plugin is told that one again when it next connects.
    #[error(
        "the plugin took the configuration, but it could not be stored: {cause}; the one before stays, and the plugin is told so when it next connects"
    )]
    ConfigurationNotStored {
        /// What the store says.
        cause: Error,
    },
}

/// A member of a proposed configuration that does not have its field's type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field {:?} must be {expected}, found {found}", Foreign::new(.field))]
#[non_exhaustive]
pub struct ConfigurationProblem {
    /// The field.
    pub field: String,
    /// What it should be, such as `a number`.
    pub expected: &'static str,
    /// What it is.
    pub found: &'static str,
}
