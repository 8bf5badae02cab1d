//! What plugins ask the host (protocol file, section 10).

use serde::{Deserialize, Serialize};

use super::{Empty, Method, failure, is_blank, null_is_empty};
use crate::id::Xid;
use crate::protocol::access::AccessGetReply;
use crate::protocol::configuration::Configuration;

/// `access_get`: the plugin wants credentials for the host's HTTP API.
///
/// A host does not answer with the typed reply, but in the form that suits the peer; see
/// [`AccessShape`](crate::protocol::AccessShape).
#[derive(Clone, Copy, Debug)]
pub struct AccessGet;

impl Method for AccessGet {
    const NAME: &'static str = "access_get";
    type Params = Empty;
    type Reply = AccessGetReply;
}

/// `get_config`: the plugin wants to know how it is configured. During a `configure` call that is
/// still the configuration from before.
#[derive(Clone, Copy, Debug)]
pub struct GetConfig;

impl Method for GetConfig {
    const NAME: &'static str = "get_config";
    type Params = GetConfigParams;
    type Reply = GetConfigReply;
}

/// `robot_run`: the plugin wants a Robot to do something, unattended. May take minutes.
#[derive(Clone, Copy, Debug)]
pub struct RobotRun;

impl Method for RobotRun {
    const NAME: &'static str = "robot_run";
    type Params = RobotRunParams;
    type Reply = RobotRunReply;
}

/// What of the configuration is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetConfigParams {
    /// Members that are wanted; none means all.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub keys: Vec<String>,
}

/// The configuration, as stored: without defaults, and without members that were asked for and do
/// not exist.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GetConfigReply {
    /// The members; none if the plugin was never configured.
    #[serde(deserialize_with = "null_is_empty")]
    pub config: Configuration,
}

impl GetConfigParams {
    /// The part of this configuration that is wanted.
    pub fn select(&self, stored: &Configuration) -> Configuration {
        if self.keys.is_empty() {
            return stored.clone();
        }
        self.keys
            .iter()
            .filter_map(|key| Some((key.clone(), stored.get(key)?.clone())))
            .collect()
    }
}

/// What a Robot is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunParams {
    /// The task. A blank one is refused in the reply's `error`, not when it is decoded.
    pub message: String,
    /// The Robot.
    pub robot_id: String,
    /// The session to continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Xid>,
    /// Where it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<RobotRunWorkspace>,
}

/// Where a Robot works. The schema asks for at most one of both ids; Storyden's host takes both, so
/// they are passed on as they came, and whoever runs the Robot judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunWorkspace {
    /// A new instance of this workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<Xid>,
    /// This instance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_instance_id: Option<Xid>,
}

/// What a Robot did, or why it did nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunReply {
    /// The session it ran in. Storyden always sends one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Xid>,
    /// How it ended. Missing when the run was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<RobotRunOutput>,
    /// Why it was refused, or failed; see [`failure`](Self::failure).
    #[serde(default, skip_serializing_if = "is_blank")]
    pub error: Option<String>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunOutput {
    /// In a word.
    pub status: RobotRunStatus,
    /// In the Robot's words.
    pub summary: String,
    /// What somebody should look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<RobotRunAttention>,
}

/// How a run ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RobotRunStatus {
    /// Done.
    Completed,
    /// It cannot go on without somebody.
    Blocked,
    /// It failed.
    Failed,
}

/// What somebody should look at after a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotRunAttention {
    /// Why.
    pub reason: RobotRunReason,
    /// What there is to do; not empty.
    pub message: String,
}

/// Why a run needs somebody's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RobotRunReason {
    /// Something must be told to it.
    MissingInput,
    /// Something must be allowed.
    NeedsApproval,
    /// A rule forbids it.
    PolicyBlocked,
    /// A tool it needs is not there.
    ToolUnavailable,
    /// It failed.
    Error,
}

impl RobotRunReply {
    /// Why the run was refused or failed, if it was or did: as opposed to 'the call failed'.
    pub fn failure(&self) -> Option<&str> {
        failure(self.error.as_deref())
    }
}
