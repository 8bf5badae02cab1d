//! What the host asks plugins (protocol file, section 9).

use serde::de::Error as _;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Empty, Method, failure, is_blank, null_is_empty};
use crate::error::Result;
use crate::protocol::configuration::Configuration;
use crate::protocol::jsonrpc::to_object;

/// `event`: something happened that the plugin wants to know.
#[derive(Clone, Copy, Debug)]
pub struct Event;

impl Method for Event {
    const NAME: &'static str = "event";
    type Params = EventParams;
    type Reply = EventReply;
}

/// `configure`: an administrator wants to save this configuration. It is stored only if the plugin
/// agrees. A plugin that must restart to apply it ends with status 0.
#[derive(Clone, Copy, Debug)]
pub struct Configure;

impl Method for Configure {
    const NAME: &'static str = "configure";
    /// The whole configuration.
    type Params = Configuration;
    type Reply = ConfigureReply;
}

/// `ping`: is the plugin there?
#[derive(Clone, Copy, Debug)]
pub struct Ping;

impl Method for Ping {
    const NAME: &'static str = "ping";
    type Params = Empty;
    type Reply = PingReply;
}

/// `robot_model_provider_list_models`: which models does the provider have?
#[derive(Clone, Copy, Debug)]
pub struct RobotModelProviderListModels;

impl Method for RobotModelProviderListModels {
    const NAME: &'static str = "robot_model_provider_list_models";
    type Params = ListModelsParams;
    type Reply = ListModelsReply;
}

/// `robot_model_provider_generate`: one generation, not streamed.
#[derive(Clone, Copy, Debug)]
pub struct RobotModelProviderGenerate;

impl Method for RobotModelProviderGenerate {
    const NAME: &'static str = "robot_model_provider_generate";
    type Params = GenerateParams;
    type Reply = GenerateReply;
}

/// `robot_tool_call`: a Robot calls a tool.
#[derive(Clone, Copy, Debug)]
pub struct RobotToolCall;

impl Method for RobotToolCall {
    const NAME: &'static str = "robot_tool_call";
    type Params = ToolCallParams;
    type Reply = ToolCallReply;
}

/// An event: its name, and what belongs to it. On the wire both are in one object, whose member
/// `event` is the name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventParams {
    /// The name.
    pub event: String,
    /// Everything else. A member `event` in it is not sent.
    pub payload: Map<String, Value>,
}

/// The answer to an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventReply {
    /// Always true from the SDKs, also for an event without a handler; failure is an error.
    pub ok: bool,
}

/// The answer to a proposed configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureReply {
    /// Whether the plugin takes it.
    pub ok: bool,
}

/// The answer to a ping.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PingReply {
    /// True.
    pub pong: bool,
    /// Seconds since the plugin started, or first connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_seconds: Option<f64>,
    /// How it feels; both SDKs say `healthy`.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub status: Option<String>,
}

/// Whose models to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListModelsParams {
    /// Id of the capability.
    pub provider: String,
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
    /// Its name, for the model part of a reference.
    pub name: String,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub display_name: Option<String>,
    /// Tokens that fit into its context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<i64>,
    /// Tokens that it can put out at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<i64>,
    /// When it was released, in the format of RFC 3339; not checked.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub released_at: Option<String>,
    /// What the provider's own API says about it.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Map::is_empty"
    )]
    pub raw: Map<String, Value>,
}

/// What to generate from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateParams {
    /// Id of the capability.
    pub provider: String,
    /// Name of the model.
    pub model: String,
    /// The conversation so far.
    #[serde(deserialize_with = "null_is_empty")]
    pub messages: Vec<GenerateMessage>,
    /// Instructions.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub system: Option<String>,
    /// Tools that the model may ask for.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tools: Vec<GenerateTool>,
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerateMessage {
    /// Who speaks.
    pub role: GenerateRole,
    /// What is said.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub content: Option<String>,
    /// Name of the speaker, or of the tool.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub name: Option<String>,
    /// For a tool's result: which call it answers.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub tool_call_id: Option<String>,
}

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GenerateRole {
    /// The one who instructs the model.
    System,
    /// A person.
    User,
    /// The model.
    Assistant,
    /// A tool that the model asked for.
    Tool,
}

/// A tool that a model may ask for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateTool {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Map::is_empty"
    )]
    pub parameters: Map<String, Value>,
}

/// What was generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateReply {
    /// Text.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub content: Option<String>,
    /// Tools that the model asks for.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tool_calls: Vec<GenerateToolCall>,
    /// Why it ended, in the provider's words; see [`finish`](Self::finish).
    #[serde(default, skip_serializing_if = "is_blank")]
    pub finish_reason: Option<String>,
    /// Why the generation failed; see [`failure`](Self::failure).
    #[serde(default, skip_serializing_if = "is_blank")]
    pub error: Option<String>,
}

/// A model asking for a tool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GenerateToolCall {
    /// The provider's id for it.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// Its arguments.
    #[serde(
        default,
        deserialize_with = "null_is_empty",
        skip_serializing_if = "Map::is_empty"
    )]
    pub arguments: Map<String, Value>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// It was finished, or waits for tools.
    Stop,
    /// The limit of tokens was reached.
    Length,
    /// The provider does not allow the content.
    ContentFilter,
    /// It failed.
    Error,
}

/// Which tool to call, with what, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolCallParams {
    /// Id of the capability.
    pub provider_id: String,
    /// Id of the tool.
    pub tool_id: String,
    /// Id of this call.
    pub call_id: String,
    /// The Robot's session.
    pub session_id: String,
    /// The account on whose behalf the Robot acts.
    pub account_id: String,
    /// The Robot, if it is a stored one.
    #[serde(default, skip_serializing_if = "is_blank")]
    pub robot_id: Option<String>,
    /// Arguments for the tool.
    #[serde(deserialize_with = "null_is_empty")]
    pub arguments: Map<String, Value>,
}

/// What a tool gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolCallReply {
    /// Its output.
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

impl EventParams {
    /// An event with the members that `payload` encodes to.
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode) when that is no JSON object.
    pub fn new<T: Serialize + ?Sized>(event: impl Into<String>, payload: &T) -> Result<Self> {
        Ok(Self {
            event: event.into(),
            payload: to_object("event", payload)?,
        })
    }
}

impl Serialize for EventParams {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event", &self.event)?;
        for (name, value) in &self.payload {
            if name != "event" {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for EventParams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut payload = Map::deserialize(deserializer)?;
        match payload.remove("event") {
            Some(Value::String(event)) => Ok(Self { event, payload }),
            Some(_) => Err(D::Error::custom("event must be a string")),
            None => Err(D::Error::missing_field("event")),
        }
    }
}

impl GenerateMessage {
    /// A message with this text.
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
    /// Why the generation failed, if it did: 'the generation failed' as opposed to 'the call
    /// failed'.
    pub fn failure(&self) -> Option<&str> {
        failure(self.error.as_deref())
    }

    /// Why it ended, in the host's words.
    pub fn finish(&self) -> FinishReason {
        match self.finish_reason.as_deref() {
            Some("length") => FinishReason::Length,
            Some("content_filter") => FinishReason::ContentFilter,
            Some("error") => FinishReason::Error,
            _ => FinishReason::Stop,
        }
    }
}

impl ToolCallReply {
    /// Why the tool failed, if it did: 'the tool failed' as opposed to 'the call failed'.
    pub fn failure(&self) -> Option<&str> {
        failure(self.error.as_deref())
    }
}
