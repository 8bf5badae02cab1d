//! An installation as Storyden's API shows it: its object `Plugin`.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::id::InstallationId;
use crate::manager::Installation;
use crate::protocol::manifest::Manifest;
use crate::session::Problem;
use crate::state::{PluginMode, ReportedState};

#[derive(Serialize)]
pub(super) struct Plugin<'a> {
    id: InstallationId,
    added_at: String,
    name: &'a str,
    description: &'a str,
    version: &'a str,
    manifest: &'a Manifest,
    connection: Connection<'a>,
    status: Status<'a>,
}

#[derive(Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum Connection<'a> {
    Supervised,
    External {
        #[serde(skip_serializing_if = "Option::is_none")]
        token: Option<&'a str>,
    },
}

#[derive(Serialize)]
#[serde(tag = "active_state", rename_all = "lowercase")]
enum Status<'a> {
    Inactive {
        deactivated_at: String,
    },
    Starting {
        starting_at: String,
    },
    Connecting {
        connecting_at: String,
    },
    Active {
        activated_at: String,
    },
    Error {
        message: &'a str,
        details: Map<String, Value>,
    },
    Restarting {
        message: &'a str,
        details: Map<String, Value>,
    },
}

impl<'a> Plugin<'a> {
    /// Shows an installation, without the token of an external plugin.
    pub(super) fn new(installation: &'a Installation) -> Self {
        let record = installation.record();
        let manifest = installation.manifest();
        Self {
            id: installation.id(),
            added_at: rfc3339(record.added_at),
            name: &manifest.name,
            description: &manifest.description,
            version: &manifest.version,
            manifest,
            connection: match record.mode() {
                PluginMode::Supervised => Connection::Supervised,
                PluginMode::External => Connection::External { token: None },
            },
            status: Status::new(installation),
        }
    }

    /// Shows the token of an external plugin, which was made just now.
    pub(super) fn with_token(mut self, token: &'a str) -> Self {
        self.connection = Connection::External { token: Some(token) };
        self
    }
}

impl<'a> Status<'a> {
    fn new(installation: &'a Installation) -> Self {
        let since = rfc3339(installation.since());
        let message = installation.message().unwrap_or("");
        let details = || {
            installation
                .problem()
                .map(Problem::to_json)
                .unwrap_or_default()
        };
        match installation.reported_state() {
            ReportedState::Starting => Self::Starting { starting_at: since },
            ReportedState::Connecting => Self::Connecting {
                connecting_at: since,
            },
            ReportedState::Active => Self::Active {
                activated_at: since,
            },
            ReportedState::Errored => Self::Error {
                message,
                details: details(),
            },
            ReportedState::Restarting => Self::Restarting {
                message,
                details: details(),
            },
            ReportedState::Inactive | ReportedState::Stopping => Self::Inactive {
                deactivated_at: since,
            },
        }
    }
}

/// Times before 1970 become 1970, and those after the year 9999 its end.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let last = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(253_402_300_799);
    let time = time.clamp(SystemTime::UNIX_EPOCH, last);
    humantime::format_rfc3339_millis(time).to_string()
}
