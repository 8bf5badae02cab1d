//! The manifest's `access` block: what a plugin that wants to call the host's HTTP API asks for
//! (protocol file, section 3.2). The credentials it gets are in [`crate::protocol::access`]; which
//! permissions there are is the embedder's business.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::decode::ManifestObject;
use crate::protocol::base_url::go_url_text;

/// A plugin's wish for an identity: a bot account, a role and an access key. Only types are
/// checked; an unknown permission is noticed by whoever grants them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AccessRequest {
    /// Base of the account's handle.
    pub handle: String,
    /// Display name of the account.
    pub name: String,
    /// Names of the permissions that are asked for.
    pub permissions: Vec<String>,
    /// What the account's page says; may be empty.
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
    /// What the link says.
    pub text: String,
    /// Where it leads.
    pub url: LinkUrl,
}

/// The target of a link. The schema says text, the seed reads and writes an object; whichever it
/// was is kept. Not checked for being a URL.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum LinkUrl {
    /// As text.
    Text(String),
    /// As an object with the members `Scheme`, `Host`, `Path` and so on.
    GoObject(Map<String, Value>),
}

impl LinkUrl {
    /// The URL as text, whichever form it has.
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::GoObject(members) => go_url_text(members),
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

impl AccessLink {
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
