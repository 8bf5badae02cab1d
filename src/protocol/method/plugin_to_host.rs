//! The methods that plugins call ([Plugin to host](crate::protocol#plugin-to-host)).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Method, failure, is_blank, null_is_empty};
use crate::id::Xid;
use crate::protocol::access::AccessGetReply;
use crate::protocol::configuration::{Configuration, MemberNames};

/// `access_get`: requests credentials for the host's HTTP API.
///
/// A host does not answer with the typed reply, but in the form that suits the peer. So this is not public:
/// [`HostHandle::access_get`](crate::sdk::HostHandle::access_get) and
/// [`Services::access_get`](crate::Services::access_get) have the credentials themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessGet {}

impl Method for AccessGet {
    const NAME: &'static str = "access_get";
    type Reply = AccessGetReply;
}

/// `get_config`: reads the plugin's configuration. During a `configure` call that is still the
/// previous one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GetConfig {
    /// The names of the members; none means all.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) keys: Vec<String>,
}

impl Method for GetConfig {
    const NAME: &'static str = "get_config";
    type Reply = GetConfigReply;
}

/// The stored configuration: without defaults, and without requested members that do not exist. `Debug` shows
/// the names of its members alone.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct GetConfigReply {
    /// The members; none if the plugin was never configured.
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) config: Configuration,
}

impl fmt::Debug for GetConfigReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetConfigReply")
            .field("config", &MemberNames(&self.config))
            .finish()
    }
}

impl GetConfig {
    /// Returns the requested part of this configuration.
    pub(crate) fn select(&self, stored: &Configuration) -> Configuration {
        if self.keys.is_empty() {
            return stored.clone();
        }
        self.keys
            .iter()
            .filter_map(|key| Some((key.clone(), stored.get(key)?.clone())))
            .collect()
    }
}

/// `robot_run`: starts an unattended run of a Robot, which may take minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRun {
    /// The task. A blank one is refused by the reply's `error`, not by the decoder.
    pub message: String,
    /// The Robot's id.
    pub robot_id: String,
    /// The session to continue, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Xid>,
    /// The workspace, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<RobotRunWorkspace>,
}

impl Method for RobotRun {
    const NAME: &'static str = "robot_run";
    type Reply = RobotRunReply;
}

/// The workspace of a run. The schema allows at most one of both ids; Storyden's Go host accepts both,
/// so they are passed on unchecked to the embedder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunWorkspace {
    /// A new instance of this workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<Xid>,
    /// This instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_instance_id: Option<Xid>,
}

/// The result of a run, or why there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunReply {
    /// The session of the run. Storyden's Go host always sends one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Xid>,
    /// How the run ended. Missing if it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<RobotRunOutput>,
    /// Why the run was refused or failed; see [`failure`](Self::failure).
    #[serde(default, skip_serializing_if = "is_blank")]
    pub error: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunOutput {
    /// The outcome.
    pub status: RobotRunStatus,
    /// The Robot's summary.
    pub summary: String,
    /// What a person should do, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<RobotRunAttention>,
}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RobotRunStatus {
    /// The task is done.
    Completed,
    /// The run cannot continue without a person.
    Blocked,
    /// The run failed.
    Failed,
}

/// What a person should do after a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunAttention {
    /// The reason.
    pub reason: RobotRunReason,
    /// What to do; not empty.
    pub message: String,
}

/// Why a run needs a person's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RobotRunReason {
    /// Input is missing.
    MissingInput,
    /// An approval is needed.
    NeedsApproval,
    /// A policy forbids it.
    PolicyBlocked,
    /// A tool is not available.
    ToolUnavailable,
    /// The run failed.
    Error,
}

impl RobotRunReply {
    /// Returns why the run was refused or failed, if it was. (A call that fails is an error instead.)
    pub fn failure(&self) -> Option<&str> {
        failure(self.error.as_deref())
    }
}
