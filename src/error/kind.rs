//! The kinds of errors, each with its stable word and the HTTP status that fits it.

use std::fmt;

use serde::{Serialize, Serializer};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal $(, $retryable:ident)?;)+) => {
        /// What kind of error an [`Error`](super::Error) is, as a word that does not change from version to
        /// version. New kinds may be added. The [table](super#kinds) lists them all.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $name,)+
        }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns the word, such as `not_installed`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// Returns the HTTP status with which an HTTP API may answer.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// Returns whether the same operation may succeed later without any change; see
            /// [`Error::is_retryable`](super::Error::is_retryable).
            pub const fn is_retryable(self) -> bool {
                match self { $(Self::$name => kinds!(@ $($retryable)?),)+ }
            }
        }
    };
    (@ retryable) => { true };
    (@) => { false };
}

kinds! {
    /// Time ran out.
    Timeout = "timeout", 504, retryable;
    /// Processes of the plugin that left its process group still run.
    DescendantsLeft = "descendants_left", 504, retryable;
    /// The operation was cancelled.
    Cancelled = "cancelled", 409;
    /// The host is shut down.
    ShutDown = "shut_down", 503;
    /// Another operation on the same installation is in progress.
    Busy = "busy", 409, retryable;
    /// A limit on threads or waiting calls is reached for the moment.
    Overloaded = "overloaded", 503, retryable;

    /// A text is not an id, a name of a fixed set, a token or a URL; or a value cannot be encoded or stored.
    InvalidInput = "invalid_input", 400;
    /// A setting has a value that it cannot have, or one is missing.
    InvalidSetting = "invalid_setting", 400;
    /// The operation is not possible with this kind of plugin or store, or not built in.
    Unsupported = "unsupported", 501;
    /// Supervised plugins are disabled.
    Disabled = "disabled", 403;
    /// No plugin with this id is installed.
    NotInstalled = "not_installed", 404;
    /// No plugin with this id is loaded.
    NotLoaded = "not_loaded", 404;

    /// The plugin is not connected, or its connection ended.
    Disconnected = "disconnected", 503, retryable;
    /// The plugin is on its way to being active.
    NotReady = "not_ready", 503, retryable;
    /// The plugin is in a state in which the operation is not possible.
    WrongState = "wrong_state", 409;
    /// The plugin could not be started, or was given up.
    PluginFailed = "plugin_failed", 502;
    /// The plugin already has a connection.
    AlreadyConnected = "already_connected", 409, retryable;
    /// A connection was refused at its handshake.
    Refused = "refused", 403;
    /// A call with the same id is in flight.
    IdInUse = "id_in_use", 409;
    /// The message is larger than the plugin accepts.
    MessageTooLarge = "message_too_large", 413;
    /// The plugin answered with an error.
    Rpc = "rpc", 502;
    /// The plugin's answer cannot be read.
    InvalidReply = "invalid_reply", 502;

    /// The archive is damaged, or its content cannot be a plugin.
    InvalidPackage = "invalid_package", 422;
    /// The archive, a file of it or their number is over a limit.
    PackageTooLarge = "package_too_large", 413;
    /// The manifest cannot be used.
    InvalidManifest = "invalid_manifest", 422;
    /// The SHA-256 is not the expected one.
    DigestMismatch = "digest_mismatch", 422;
    /// The package or manifest is another plugin's.
    OtherPlugin = "other_plugin", 409;
    /// The version to go back to is not kept, or there is none.
    UnknownVersion = "unknown_version", 404;
    /// More than one installed plugin could be meant.
    Ambiguous = "ambiguous", 409;
    /// The limit on installations, or on the bytes of their archives, is reached.
    InstallationLimit = "installation_limit", 409;
    /// The plugin's own files are more than an update copies.
    MigrationTooLarge = "migration_too_large", 409;
    /// The new version did not become active; the old one runs again as before.
    RolledBack = "rolled_back", 502;
    /// The new version did not become active, and the old one does not run again either.
    RollbackFailed = "rollback_failed", 500;
    /// The URL leads to a private or local address.
    PrivateAddress = "private_address", 403;
    /// Fetching the package failed, and may succeed later.
    FetchFailed = "fetch_failed", 502, retryable;
    /// The package cannot be had at this URL.
    FetchRefused = "fetch_refused", 502;
    /// The service that runs plugins asks for fewer requests, or runs as many plugins as it may.
    RateLimited = "rate_limited", 429, retryable;
    /// The service that runs plugins cannot be reached, or fails for the moment.
    RuntimeUnavailable = "runtime_unavailable", 503, retryable;
    /// The service that runs plugins refused, or its answer cannot be used.
    RuntimeRefused = "runtime_refused", 502;

    /// Members of the configuration do not have the type of their fields.
    InvalidConfiguration = "invalid_configuration", 422;
    /// The plugin refused the configuration.
    ConfigurationRefused = "configuration_refused", 422;
    /// Whether the plugin accepted the configuration is not known.
    ConfigurationUncertain = "configuration_uncertain", 502;
    /// The plugin accepted the configuration, but it could not be stored.
    ConfigurationNotStored = "configuration_not_stored", 500;

    /// Another process, or another manager, uses the data directory.
    StoreInUse = "store_in_use", 503;
    /// A newer version wrote the store.
    NewerSchema = "newer_schema", 500;
    /// The store is damaged, or another program's.
    StoreDamaged = "store_damaged", 500;
    /// The record or the archive of one plugin is missing or damaged; others are usable.
    RecordDamaged = "record_damaged", 500;
    /// An installed plugin needs the archive.
    ArchiveInUse = "archive_in_use", 409;
    /// The store is locked by another program.
    StoreBusy = "store_busy", 503, retryable;
    /// The store failed in another way.
    StoreFailed = "store_failed", 500;
    /// No space is left on the device.
    StorageFull = "storage_full", 507;
    /// A file or its file system may not be written to.
    ReadOnly = "read_only", 500;
    /// The operating system returned another error.
    Io = "io", 500;
}

impl ErrorKind {
    /// Returns the kind of an error of the operating system.
    pub(crate) fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Kind;
        match error.kind() {
            Kind::StorageFull | Kind::QuotaExceeded => Self::StorageFull,
            Kind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Io,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The rows of the table in the documentation of the module.
    fn table() -> Vec<[&'static str; 5]> {
        let docs = include_str!("mod.rs");
        let (_, table) = docs.split_once("//! # Kinds\n").unwrap();
        table
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .filter(|line| line.starts_with("//! | [`ErrorKind::"))
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                <[&str; 5]>::try_from(&cells[1..6]).unwrap()
            })
            .collect()
    }

    #[test]
    fn the_table_lists_every_kind_with_its_word_and_status() {
        let table = table();
        assert_eq!(table.len(), ErrorKind::ALL.len());
        for (kind, [name, word, status, retryable, meaning]) in ErrorKind::ALL.iter().zip(table) {
            assert_eq!(name, format!("[`ErrorKind::{kind:?}`]"));
            assert_eq!(word, format!("`{kind}`"));
            assert_eq!(status, kind.http_status().to_string(), "{kind}");
            assert_eq!(retryable == "yes", kind.is_retryable(), "{kind}");
            assert!(meaning.len() > 10, "{kind}");
        }
    }

    #[test]
    fn words_are_distinct_snake_case_and_what_json_shows() {
        let words: HashSet<&str> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            let is_snake = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            assert!(kind.as_str().bytes().all(is_snake), "{kind}");
            assert!((400..=599).contains(&kind.http_status()), "{kind}");
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
