//! The manifest's `access` block: the identity that a plugin requests for the host's HTTP API
//! ([Access](crate::protocol#access)). The credentials it receives are in [`crate::protocol::access`]; the
//! embedder defines the permissions.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::decode::ManifestObject;
use crate::protocol::base_url::go_url_text;

/// A request for an identity: a bot account, a role and an access key. Only types are checked; the
/// embedder that grants access checks the permissions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AccessRequest {
    /// The base of the account's handle.
    pub handle: String,
    /// The account's display name.
    pub name: String,
    /// The names of the requested permissions.
    pub permissions: Vec<String>,
    /// The text of the account's page; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bio: String,
    /// Links on the account's page.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<AccessLink>,
    /// Free form.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A link on the account's page.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AccessLink {
    /// The link's text.
    pub text: String,
    url: LinkUrl,
}

/// The target of a link. The schema has a string, Storyden's Go host reads and writes an object; both
/// are kept as they are. Not checked to be a URL.
#[derive(Clone, Debug, PartialEq)]
enum LinkUrl {
    Text(String),
    /// With the members `Scheme`, `Host`, `Path` and so on.
    GoObject(Map<String, Value>),
}

impl AccessLink {
    /// Returns a link with this text to this URL.
    pub fn new(text: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            url: LinkUrl::Text(url.into()),
        }
    }

    /// Returns the link's target as text, also if the manifest has it as an object, as Go writes one. Not
    /// checked to be a URL.
    pub fn url(&self) -> Cow<'_, str> {
        match &self.url {
            LinkUrl::Text(text) => text.into(),
            LinkUrl::GoObject(members) => go_url_text(members).into(),
        }
    }

    fn decode(object: &mut ManifestObject<'_>) -> Self {
        Self {
            text: object.string("text"),
            url: match object.text_or_object("url") {
                Some(Value::String(text)) => LinkUrl::Text(text),
                Some(Value::Object(members)) => LinkUrl::GoObject(members),
                _ => LinkUrl::default(),
            },
        }
    }
}

impl Default for LinkUrl {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Serialize for LinkUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::GoObject(members) => members.serialize(serializer),
        }
    }
}

impl AccessRequest {
    pub(super) fn decode(object: &mut ManifestObject<'_>) -> Self {
        Self {
            handle: object.string("handle"),
            name: object.string("name"),
            permissions: object.strings("permissions"),
            bio: object.string("bio"),
            links: object.objects("links", |link| Some(AccessLink::decode(link))),
            metadata: object.map("metadata").unwrap_or_default(),
        }
    }
}
