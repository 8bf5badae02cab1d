//! The methods that the host calls ([Host to plugin](crate::protocol#host-to-plugin)).

use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Method, failure, is_blank, null_is_empty};
use crate::error::Result;
use crate::protocol::configuration::{Configuration, MemberNames};
use crate::protocol::jsonrpc::to_object;

/// `event`: an event that the plugin consumes. On the wire its name and its payload are in one object, whose
/// member `event` is the name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The event's name.
    pub name: String,
    /// All other members. A member `event` in it is not sent.
    pub payload: Map<String, Value>,
}

impl Method for Event {
    const NAME: &'static str = "event";
    type Reply = Ack;
}

/// `configure`: proposes a configuration, which is stored only if the plugin accepts it. A plugin
/// that must restart to apply it exits with status 0.
/// [`Debug`](std::fmt::Debug) shows the names of its members alone.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Configure(
    /// The whole configuration.
    pub Configuration,
);

impl Method for Configure {
    const NAME: &'static str = "configure";
    type Reply = Ack;
}

impl fmt::Debug for Configure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Configure")
            .field(&MemberNames(&self.0))
            .finish()
    }
}

/// `ping`: checks that the plugin answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

impl Method for Ping {
    const NAME: &'static str = "ping";
    type Reply = PingReply;
}

/// The answer to an event and to a proposed configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Whether the plugin accepts it. The SDKs accept every event, also one without a handler; a handler that
    /// fails is an error response.
    pub ok: bool,
}

/// The answer to a ping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// Always true.
    pub pong: bool,
    /// Seconds since the plugin started, or first connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<f64>,
    /// The plugin's state; both SDKs say `healthy`.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub status: Option<String>,
}

/// `robot_model_provider_list_models`: lists the models of a provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotModelProviderListModels {
    /// The id of the capability.
    pub provider: String,
}

impl Method for RobotModelProviderListModels {
    const NAME: &'static str = "robot_model_provider_list_models";
    type Reply = ListModelsReply;
}

/// The models of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ListModelsReply {
    /// The models.
    #[serde(deserialize_with = "null_is_empty")]
    pub models: Vec<Model>,
}

/// A model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The model part of a model reference.
    pub name: String,
    /// The name for people.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub display_name: Option<String>,
    /// The size of its context, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<i64>,
    /// The limit of its output, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<i64>,
    /// The release date in the format of RFC 3339; not checked.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub released_at: Option<String>,
    /// The provider's own description.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Map::is_empty"
    )]
    pub raw: Map<String, Value>,
}

/// `robot_model_provider_generate`: one generation, not streamed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RobotModelProviderGenerate {
    /// The id of the capability.
    pub provider: String,
    /// The name of the model.
    pub model: String,
    /// The conversation so far.
    #[serde(deserialize_with = "null_is_empty")]
    pub messages: Vec<GenerateMessage>,
    /// The instructions.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub system: Option<String>,
    /// The tools that the model may call.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tools: Vec<GenerateTool>,
}

impl Method for RobotModelProviderGenerate {
    const NAME: &'static str = "robot_model_provider_generate";
    type Reply = GenerateReply;
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerateMessage {
    /// The speaker.
    pub role: GenerateRole,
    /// The text.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub content: Option<String>,
    /// The name of the speaker or the tool.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub name: Option<String>,
    /// For a tool's result: the id of the call that it answers.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub tool_call_id: Option<String>,
}

/// The speakers in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerateRole {
    /// The author of the instructions.
    System,
    /// A person.
    User,
    /// The model.
    Assistant,
    /// A tool that the model called.
    Tool,
}

/// A tool that a model may call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateTool {
    /// The tool's name.
    pub name: String,
    /// The tool's description.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub description: Option<String>,
    /// The JSON Schema of its arguments.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Map::is_empty"
    )]
    pub parameters: Map<String, Value>,
}

/// The result of a generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateReply {
    /// The generated text.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub content: Option<String>,
    /// The tool calls that the model requests.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tool_calls: Vec<GenerateToolCall>,
    /// The provider's reason for the end. Storyden's Go host distinguishes `length` (the limit of tokens),
    /// `content_filter` and `error`; any other, and none, is a normal end.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub finish_reason: Option<String>,
    /// Why the generation failed; see [`failure`](Self::failure).
    #[serde(default, skip_serializing_if = "is_blank")]
    pub error: Option<String>,
}

/// A tool call that a model requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateToolCall {
    /// The provider's id of the call.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub id: Option<String>,
    /// The tool's name.
    pub name: String,
    /// The arguments.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Map::is_empty"
    )]
    pub arguments: Map<String, Value>,
}

/// `robot_tool_call`: a Robot calls a tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RobotToolCall {
    /// The id of the capability.
    pub provider_id: String,
    /// The id of the tool.
    pub tool_id: String,
    /// The id of this call.
    pub call_id: String,
    /// The Robot's session.
    pub session_id: String,
    /// The account on whose behalf the Robot acts.
    pub account_id: String,
    /// The Robot, if it is a stored one.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub robot_id: Option<String>,
    /// The arguments of the tool.
    #[serde(deserialize_with = "null_is_empty")]
    pub arguments: Map<String, Value>,
}

impl Method for RobotToolCall {
    const NAME: &'static str = "robot_tool_call";
    type Reply = ToolCallReply;
}

/// The result of a tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolCallReply {
    /// The output.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Map::is_empty"
    )]
    pub output: Map<String, Value>,
    /// Why the tool failed; see [`failure`](Self::failure).
    #[serde(default, skip_serializing_if = "is_blank")]
    pub error: Option<String>,
}

impl Event {
    /// Returns an event with the members that `payload` encodes to.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) if that is not a JSON object.
    pub fn new<T: Serialize + ?Sized>(name: impl Into<String>, payload: &T) -> Result<Self> {
        Ok(Self {
            name: name.into(),
            payload: to_object("event", payload)?,
        })
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", &self.name)?;
        for (name, value) in &self.payload {
            if name != "event" {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut payload = Map::deserialize(deserializer)?;
        match payload.remove("event") {
            Some(Value::String(name)) => Ok(Self { name, payload }),
            Some(_) => Err(D::Error::custom("event must be a string")),
            None => Err(D::Error::missing_field("event")),
        }
    }
}

impl GenerateMessage {
    /// Returns a message with this text.
    pub fn new(role: GenerateRole, content: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(content.into()),
            name: None,
            tool_call_id: None,
        }
    }
}

impl GenerateReply {
    /// Returns why the generation failed, if it did. (A call that fails is an error instead.)
    pub fn failure(&self) -> Option<&str> {
        failure(self.error.as_deref())
    }
}

impl ToolCallReply {
    /// Returns why the tool failed, if it did. (A call that fails is an error instead.)
    pub fn failure(&self) -> Option<&str> {
        failure(self.error.as_deref())
    }
}
