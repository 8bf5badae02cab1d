//! What the driver does, and what it says of it: a line before each operation and one after.

use plugin_runner::InstallationId;
use serde::{Deserialize, Serialize};

/// An operation on installations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Operation {
    Install {
        version: u64,
    },
    InstallExternal {
        version: u64,
    },
    Update {
        id: InstallationId,
        version: u64,
    },
    UpdateManifest {
        id: InstallationId,
        version: u64,
    },
    /// To a version that is kept.
    Rollback {
        id: InstallationId,
        version: u64,
        sha256: String,
    },
    Activate {
        id: InstallationId,
    },
    Deactivate {
        id: InstallationId,
    },
    Configure {
        id: InstallationId,
        value: u64,
    },
    Rotate {
        id: InstallationId,
    },
    SetOverrides {
        id: InstallationId,
        value: u64,
    },
    Restart {
        id: InstallationId,
    },
    Remove {
        id: InstallationId,
        keep_data: bool,
    },
    /// As the plugin would, beside its program.
    Write {
        id: InstallationId,
        text: u64,
    },
}

impl Operation {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Install { .. } => "install",
            Self::InstallExternal { .. } => "install_external",
            Self::Update { .. } => "update",
            Self::UpdateManifest { .. } => "update_manifest",
            Self::Rollback { .. } => "rollback",
            Self::Activate { .. } => "activate",
            Self::Deactivate { .. } => "deactivate",
            Self::Configure { .. } => "configure",
            Self::Rotate { .. } => "rotate",
            Self::SetOverrides { .. } => "set_overrides",
            Self::Restart { .. } => "restart",
            Self::Remove { .. } => "remove",
            Self::Write { .. } => "write",
        }
    }
}

/// One line of the driver's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    Begin {
        thread: usize,
        operation: Operation,
    },
    Done {
        thread: usize,
        operation: Operation,
        /// Of what was installed.
        id: Option<InstallationId>,
        token: Option<String>,
    },
    Failed {
        thread: usize,
        operation: Operation,
        error: String,
    },
}

impl Entry {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Begin { operation, .. }
            | Self::Done { operation, .. }
            | Self::Failed { operation, .. } => operation.name(),
        }
    }
}
