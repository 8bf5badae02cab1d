//! Errors of operations on installations.

use std::sync::Arc;
use std::time::Duration;

use super::{Error, ErrorKind, FieldProblem};
use crate::text::Foreign;

/// Why an operation on an installation failed. Unless a variant says otherwise, nothing has
/// changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    /// Another operation on the same installation did not finish in time.
    #[error(
        "{running} is in progress on this plugin and did not finish within {limit:?}; try again later"
    )]
    Busy {
        /// The operation in progress, by the name of its function.
        running: &'static str,
        /// How long this one waited for it.
        limit: Duration,
    },
    /// No more plugins can be installed.
    #[error(
        "{limit} plugins are installed, which is the limit; remove one, or raise `installations`"
    )]
    TooManyInstallations {
        /// The limit.
        limit: usize,
    },
    /// All archives together would take more bytes than the limit.
    #[error(
        "archives would take {needed} bytes in all, over the limit of {limit}; remove plugins, keep fewer `releases`, or raise `archive_bytes`"
    )]
    ArchivesTooLarge {
        /// Bytes of all archives, with the new one.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// The archive's SHA-256 is not the expected one.
    #[error("the archive's SHA-256 is {found}, expected {expected}")]
    OtherArchive {
        /// The SHA-256 found, in lower-case hexadecimal.
        found: Arc<str>,
        /// The expected SHA-256.
        expected: Arc<str>,
    },
    /// The package or manifest has another `id`, so it is another plugin's.
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
    /// No release with this SHA-256 is kept.
    #[error(
        "no version with the SHA-256 {wanted} is kept; kept are {}", versions(.kept)
    )]
    UnknownVersion {
        /// The SHA-256, in lower-case hexadecimal.
        wanted: Arc<str>,
        /// The SHA-256 and the version of each that is kept.
        kept: Vec<(String, String)>,
    },
    /// The plugin has no other release.
    #[error(
        "there is no version to go back to; `releases` sets how many are kept from the next update on"
    )]
    NoOtherVersion,
    /// More than one plugin with the package's manifest id is installed.
    #[error(
        "{count} plugins with the id {:?} are installed; update one of them by its installation id",
        Foreign::new(.manifest_id)
    )]
    Ambiguous {
        /// The manifest id.
        manifest_id: Arc<str>,
        /// How many are installed.
        count: usize,
    },
    /// The version that was put in place did not become active, and the previous one was put back.
    #[error(
        "the version put in place did not come up: {cause}{}; the one before was put back within {gap:?}{}",
        .problem.as_deref().map(|problem| format!(" ({problem})")).unwrap_or_default(),
        .restored.as_ref().map(|error| format!(", but did not come up either: {error}")).unwrap_or_default()
    )]
    RolledBack {
        /// Why that version did not become active.
        #[source]
        cause: Error,
        /// What last went wrong with it, if known, and the last line that it printed.
        problem: Option<Arc<str>>,
        /// Why the previous version is not running again; `None` when everything is as before.
        restored: Option<Error>,
        /// From the stop of the previous version until it was back or given up.
        gap: Duration,
    },
    /// Members of the proposed configuration do not have their fields' types.
    #[error("the configuration cannot be used: {}", super::listed(.problems))]
    Configuration {
        /// All of them.
        problems: Vec<FieldProblem>,
    },
    /// The plugin refused the configuration.
    #[error("the plugin did not take the configuration; its log may say why")]
    ConfigurationRefused,
    /// It is unknown whether the plugin accepted the configuration, because it did not answer properly.
    /// The previous one stays stored and is sent to the plugin again when it next connects.
    #[error(
        "whether the plugin took the configuration is not known: {cause}; the one before stays, and the plugin is told so when it next connects"
    )]
    ConfigurationUncertain {
        /// What happened instead of an answer.
        #[source]
        cause: Error,
    },
    /// The plugin accepted the configuration, but it could not be stored. The previous one stays stored
    /// and is sent to the plugin again when it next connects.
    #[error(
        "the plugin took the configuration, but it could not be stored: {cause}; the one before stays, and the plugin is told so when it next connects"
    )]
    ConfigurationNotStored {
        /// The store's error.
        #[source]
        cause: Error,
    },
}

impl OperationError {
    pub(super) const fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy { .. } => ErrorKind::Busy,
            Self::TooManyInstallations { .. } | Self::ArchivesTooLarge { .. } => {
                ErrorKind::InstallationLimit
            }
            Self::OtherArchive { .. } => ErrorKind::DigestMismatch,
            Self::OtherPlugin { .. } => ErrorKind::OtherPlugin,
            Self::UnknownVersion { .. } | Self::NoOtherVersion => ErrorKind::UnknownVersion,
            Self::Ambiguous { .. } => ErrorKind::Ambiguous,
            Self::RolledBack { restored: None, .. } => ErrorKind::RolledBack,
            Self::RolledBack { .. } => ErrorKind::RollbackFailed,
            Self::Configuration { .. } => ErrorKind::InvalidConfiguration,
            Self::ConfigurationRefused => ErrorKind::ConfigurationRefused,
            Self::ConfigurationUncertain { .. } => ErrorKind::ConfigurationUncertain,
            Self::ConfigurationNotStored { .. } => ErrorKind::ConfigurationNotStored,
        }
    }
}

/// Lists versions with their SHA-256. Those are whole, so that one can be given to the next attempt.
fn versions(kept: &[(String, String)]) -> String {
    let shown = kept.iter().map(|(sha256, version)| {
        let version = Foreign::new(version).limited_to(100);
        format!("{sha256} (version {version:?})")
    });
    shown.collect::<Vec<_>>().join(", ")
}
