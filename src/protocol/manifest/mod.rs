//! The manifest: an author's description of a plugin, and the rules for it
//! ([Manifest](crate::protocol#manifest)).
//!
//! What lives here: the types, decoding, checking and encoding. What does not: finding the
//! manifest in an archive (`package`), and acting on it.

mod access;
mod capability;
mod decode;
mod similar;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub use access::{AccessLink, AccessRequest};
pub use capability::{Capability, RobotTool, RobotToolset, ToolAnnotations};
pub(crate) use decode::ManifestObject;
use decode::Problems;

use super::configuration::{self, Configuration, ConfigurationField};
use super::event::is_storyden_event;
use super::kind_of;
use crate::error::{FieldProblem, FieldProblemKind, ManifestError, Result};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
const NAME_LIMIT: usize = 100;
const KNOWN_TRANSPORTS: &str = "\"websocket\", \"stdio\"";

/// An author's description of a plugin.
///
/// The fields are public; check a manifest that was made or changed in code with
/// [`problems`](Self::problems). Decoding with serde checks only types, so that records stay
/// readable when rules change; [`parse`](Self::parse) checks everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Manifest {
    /// The author's name for the plugin: letters, digits and hyphens, with a letter or digit at
    /// both ends. Several installations may share it.
    pub id: String,
    /// The author's name; the same characters as `id`.
    pub author: String,
    /// Display name, 1 to 100 bytes.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// For people; may be empty.
    pub version: String,
    /// The program of a supervised plugin: with a slash in it a path relative to the
    /// package's directory, without one a name to look up on `PATH`. May be empty for an external plugin.
    pub command: String,
    /// Arguments of the program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Names of the events that the plugin consumes, as written, perhaps with repetitions;
    /// [`events`](Self::events) leaves those out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events_consumed: Vec<String>,
    /// The identity that the plugin requests for the host's HTTP API, if it calls that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<AccessRequest>,
    /// The fields of the plugin's configuration, in the author's order, if it can be configured.
    #[serde(
        serialize_with = "configuration::serialize_schema",
        skip_serializing_if = "Option::is_none"
    )]
    pub configuration_schema: Option<Vec<ConfigurationField>>,
    /// The plugin's capabilities.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    /// How a supervised plugin talks to the host. An extension: Storyden's host ignores it.
    #[serde(skip_serializing_if = "is_default")]
    pub transport: Transport,
    /// Unknown top-level members, kept for other tools.
    #[serde(flatten, serialize_with = "serialize_extra")]
    pub extra: Map<String, Value>,
}

/// How a supervised plugin talks to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Transport {
    /// The plugin connects to the URL in `STORYDEN_RPC_URL`.
    #[default]
    WebSocket,
    /// The plugin uses its standard input and output, one message to a line.
    Stdio,
}

impl Transport {
    /// Returns the manifest's exact string.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Stdio => "stdio",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Manifest {
    /// Decodes and checks a manifest.
    ///
    /// More is accepted than the schema allows, because existing plugins need it: a byte order
    /// mark, unknown members, member names in another case, repeated members (the last counts),
    /// `null` for a missing member, and a missing description, version or command. Event names are
    /// not checked against a list, because the set is open; see
    /// [`unknown_events`](Self::unknown_events).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidManifest`](crate::ErrorKind::InvalidManifest): the text is not a JSON object; or
    /// its [`problems`](crate::Error::problems) are all in the error, not only the first. The rules for a
    /// member are only checked if everything in it has the right type.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
        let (manifest, mut problems) = match serde_json::from_slice(json) {
            Ok(Value::Object(members)) => Self::decode(members),
            Ok(other) => {
                let found = kind_of(&other);
                return Err(ManifestError::NotAnObject { found }.into());
            }
            Err(error) => return Err(ManifestError::Json(error).into()),
        };
        let undecoded: HashSet<String> = problems
            .iter()
            .map(|problem| top_level(&problem.field).to_owned())
            .collect();
        problems.extend(
            manifest
                .problems()
                .into_iter()
                .filter(|problem| !undecoded.contains(top_level(&problem.field))),
        );
        problems.truncate(FieldProblem::LIMIT);
        if problems.is_empty() {
            Ok(manifest)
        } else {
            Err(ManifestError::Invalid { problems }.into())
        }
    }

    /// Returns the problems of this manifest, at most 100; empty if it can be
    /// used.
    pub fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = Problems::default();
        for (field, value) in [("id", &self.id), ("author", &self.author)] {
            problems.check_characters(
                field,
                value,
                is_slug,
                "begin and end with a letter or digit and hold only those and hyphens",
            );
        }
        let found = self.name.len();
        if found == 0 {
            problems.add("name", FieldProblemKind::Empty);
        } else if found > NAME_LIMIT {
            let limit = NAME_LIMIT;
            problems.add("name", FieldProblemKind::TooLong { limit, found });
        }
        for (index, event) in self.events_consumed.iter().enumerate() {
            if event.is_empty() {
                problems.add(format!("events_consumed[{index}]"), FieldProblemKind::Empty);
            }
        }
        for (index, capability) in self.capabilities.iter().enumerate() {
            capability.check(&format!("capabilities[{index}]"), &mut problems);
        }
        problems.into_vec()
    }

    /// Returns the events that the plugin consumes, each once, in the author's order.
    pub fn events(&self) -> impl Iterator<Item = &str> {
        let mut seen = HashSet::new();
        self.events_consumed
            .iter()
            .map(String::as_str)
            .filter(move |event| seen.insert(*event))
    }

    /// Whether the plugin consumes this event.
    pub fn consumes(&self, event: &str) -> bool {
        self.events_consumed.iter().any(|name| name == event)
    }

    /// Returns the consumed events that are not Storyden's, each once. In a host without events of its
    /// own they are misspelled and never published.
    pub fn unknown_events(&self) -> impl Iterator<Item = &str> {
        self.events().filter(|event| !is_storyden_event(event))
    }

    /// Returns the unknown members, each with the known name that it resembles and may be a
    /// misspelling of. Names that begin with `$`, `_` or `x-` are left out, because they are for other
    /// tools.
    pub fn unknown_members(&self) -> impl Iterator<Item = (&str, Option<&'static str>)> {
        let for_others = |name: &str| name.starts_with(['$', '_']) || name.starts_with("x-");
        self.extra
            .keys()
            .map(String::as_str)
            .filter(move |name| !for_others(name))
            .map(|name| (name, similar::similar(name, &MEMBERS)))
    }

    /// Returns the problems of a proposed configuration; empty if it can be sent to the plugin.
    ///
    /// Only the types of members that a field of
    /// [`configuration_schema`](Self::configuration_schema) names are checked. Other members are allowed,
    /// none is required, and `null` has none of the types.
    pub fn configuration_problems(&self, proposal: &Configuration) -> Vec<FieldProblem> {
        configuration::problems(self.configuration_fields(), proposal)
    }

    /// Returns the default values of the configuration's fields, by their ids. Only the plugin itself
    /// applies them.
    pub fn configuration_defaults(&self) -> Configuration {
        configuration::defaults(self.configuration_fields())
    }

    fn configuration_fields(&self) -> &[ConfigurationField] {
        self.configuration_schema.as_deref().unwrap_or_default()
    }

    fn decode(members: Map<String, Value>) -> (Self, Vec<FieldProblem>) {
        let mut problems = Problems::default();
        let mut object = ManifestObject::new(members, &mut problems);
        let manifest = Self {
            id: object.string("id"),
            author: object.string("author"),
            name: object.string("name"),
            description: object.string("description"),
            version: object.string("version"),
            command: object.string("command"),
            args: object.strings("args"),
            events_consumed: object.strings("events_consumed"),
            access: object.object("access", AccessRequest::decode),
            configuration_schema: object
                .object("configuration_schema", configuration::decode_schema),
            capabilities: object.objects("capabilities", Capability::decode),
            transport: match object.optional_string("transport").as_deref() {
                None | Some("websocket") => Transport::WebSocket,
                Some("stdio") => Transport::Stdio,
                Some(other) => {
                    object.unknown("transport", other, KNOWN_TRANSPORTS);
                    Transport::default()
                }
            },
            extra: object.rest(),
        };
        (manifest, problems.into_vec())
    }
}

/// Whether a member has its default value and is not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `capabilities` of `capabilities[0].id`.
fn top_level(field: &str) -> &str {
    field.split(['.', '[']).next().unwrap_or(field)
}

fn is_slug(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Writes the unknown members, but none whose name is that of a known one.
fn serialize_extra<S: Serializer>(
    extra: &Map<String, Value>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let hides = |name: &str| MEMBERS.iter().any(|known| known.eq_ignore_ascii_case(name));
    serializer.collect_map(extra.iter().filter(|(name, _)| !hides(name)))
}

/// The known names, which `extra` may not have.
pub(super) const MEMBERS: [&str; 12] = [
    "id",
    "author",
    "name",
    "description",
    "version",
    "command",
    "args",
    "events_consumed",
    "access",
    "configuration_schema",
    "capabilities",
    "transport",
];

/// Checks only types; see [`Manifest`].
impl<'de> Deserialize<'de> for Manifest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (manifest, problems) = Self::decode(Map::deserialize(deserializer)?);
        if problems.is_empty() {
            Ok(manifest)
        } else {
            Err(serde::de::Error::custom(ManifestError::Invalid {
                problems,
            }))
        }
    }
}
