//! API credentials on the wire: the answer to `access_get`, whose form depends on the peer's SDK
//! ([`access_get`](crate::protocol#access_get)). What a plugin *requests* is in
//! [`manifest`](super::manifest::AccessRequest); accounts and keys are made by the embedder.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::base_url::{self, go_url_text};
use super::jsonrpc::{RemoteRequestId, ResultObject};
use crate::error::{Error, Result, RpcError};

/// Credentials for the host's HTTP API. Debug output omits the key.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessGrant {
    access_key: String,
    api_base_url: String,
}

/// The form of an answer to `access_get`. No form suits every SDK: the Go SDK cannot decode a URL
/// that is text, and the Python SDK refuses all members but its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AccessShape {
    /// `api_base_url` as an object: `{"Scheme":"http","Host":"localhost:8000"}`.
    GoUrl,
    /// `apibase_url` as text.
    Python,
    /// `api_base_url` as text, as the published schema has it.
    #[default]
    Schema,
}

/// The answer to `access_get` as a plugin reads it, from a host of any kind.
///
/// Encodes in the form of [`AccessShape::Schema`]. A host answers in the form that suits the peer instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccessGetReply(pub(crate) Result<AccessGrant, RpcError>);

impl AccessGrant {
    /// Returns credentials with this key (Storyden's begin with `sdbak_`) for the API at this address.
    ///
    /// # Errors
    /// [`Error::Setting`] if the address is not an `http` or `https` URL with a host and at most a path,
    /// which is all that the forms on the wire can express.
    pub fn new(access_key: impl Into<String>, api_base_url: impl Into<String>) -> Result<Self> {
        let api_base_url = api_base_url.into();
        base_url::parse(&api_base_url)
            .map_err(|problem| Error::setting("api_base_url", problem))?;
        Ok(Self {
            access_key: access_key.into(),
            api_base_url,
        })
    }

    /// Returns the secret for `Authorization: Bearer …`.
    pub fn access_key(&self) -> &str {
        &self.access_key
    }

    /// Returns the API's address; requests go to `<base>/api/…`.
    pub fn api_base_url(&self) -> &str {
        &self.api_base_url
    }
}

impl fmt::Debug for AccessGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessGrant")
            .field("api_base_url", &self.api_base_url)
            .finish_non_exhaustive()
    }
}

/// The result that answers the request `request_id` with credentials. It is itself shaped like a
/// response; the Python SDK ignores `id` and `jsonrpc` in it, and is spared them.
pub(crate) fn reply(
    shape: AccessShape,
    grant: &AccessGrant,
    request_id: &RemoteRequestId,
) -> ResultObject {
    let mut object = Map::new();
    if shape != AccessShape::Python {
        // A number that JSON values cannot hold is left out; no plugin looks at it.
        if let Ok(id) = serde_json::from_str(request_id.as_json()) {
            object.insert("id".to_owned(), id);
        }
        object.insert("jsonrpc".to_owned(), "2.0".into());
    }
    object.insert("result".to_owned(), credentials(shape, grant));
    object.into()
}

fn credentials(shape: AccessShape, grant: &AccessGrant) -> Value {
    let key = &grant.access_key;
    let url = &grant.api_base_url;
    match shape {
        AccessShape::GoUrl => {
            // It did parse when the grant was made.
            let url = base_url::parse(url).map(|url| base_url::to_go(&url));
            json!({"access_key": key, "api_base_url": url.unwrap_or_default()})
        }
        AccessShape::Python => json!({"access_key": key, "apibase_url": url}),
        AccessShape::Schema => json!({"access_key": key, "api_base_url": url}),
    }
}

impl Serialize for AccessGetReply {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match &self.0 {
            Ok(grant) => map.serialize_entry("result", &credentials(AccessShape::Schema, grant))?,
            Err(error) => map.serialize_entry("error", error)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for AccessGetReply {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Outer {
            error: Option<RpcError>,
            // Decoded only when there is no error: beside one it need not make sense.
            result: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Credentials {
            access_key: String,
            api_base_url: Option<UrlForm>,
            apibase_url: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum UrlForm {
            Text(String),
            GoObject(Map<String, Value>),
        }
        use serde::de::Error as _;

        let outer = Outer::deserialize(deserializer)?;
        if let Some(error) = outer.error {
            return Ok(Self(Err(error)));
        }
        let inner = outer
            .result
            .ok_or_else(|| D::Error::missing_field("result"))?;
        let inner = Credentials::deserialize(inner).map_err(D::Error::custom)?;
        let url = match (inner.api_base_url, inner.apibase_url) {
            (Some(UrlForm::Text(text)), _) | (None, Some(text)) => text,
            (Some(UrlForm::GoObject(members)), _) => go_url_text(&members),
            (None, None) => return Err(D::Error::missing_field("api_base_url")),
        };
        let grant = AccessGrant::new(inner.access_key, url).map_err(D::Error::custom)?;
        Ok(Self(Ok(grant)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::peer::PeerKind;

    fn for_user_agent(user_agent: &str) -> AccessShape {
        PeerKind::from_user_agent(user_agent).access_shape()
    }

    fn grant(url: &str) -> AccessGrant {
        AccessGrant::new("sdbak_3vK0exampleonly", url).unwrap()
    }

    fn id(json: &str) -> RemoteRequestId {
        RemoteRequestId::from_json(serde_json::from_str(json).unwrap()).unwrap()
    }

    fn inner(shape: AccessShape, url: &str) -> Value {
        let reply = reply(shape, &grant(url), &id("\"0o6a205tdo4tj2nt466b\""));
        reply.as_map()["result"].clone()
    }

    fn decode(value: &Value) -> Result<AccessGrant, RpcError> {
        AccessGetReply::deserialize(value).unwrap().0
    }

    #[test]
    fn access_get_answers_go_with_an_object() {
        assert_eq!(for_user_agent("Go-http-client/1.1"), AccessShape::GoUrl);
        assert_eq!(
            inner(AccessShape::GoUrl, "http://localhost:8000"),
            json!({
                "access_key": "sdbak_3vK0exampleonly",
                "api_base_url": {"Scheme": "http", "Host": "localhost:8000"},
            })
        );
    }

    #[test]
    fn access_get_answers_python_with_its_own_two_members_and_no_other() {
        assert_eq!(
            for_user_agent("Python/3.11 websockets/15.0.1"),
            AccessShape::Python
        );
        assert_eq!(
            inner(AccessShape::Python, "https://forum.example"),
            json!({
                "access_key": "sdbak_3vK0exampleonly",
                "apibase_url": "https://forum.example",
            })
        );
    }

    #[test]
    fn access_get_answers_others_as_the_schema_says() {
        assert_eq!(for_user_agent("curl/8"), AccessShape::Schema);
        assert_eq!(for_user_agent(""), AccessShape::Schema);
        assert_eq!(
            inner(AccessShape::Schema, "https://forum.example"),
            json!({
                "access_key": "sdbak_3vK0exampleonly",
                "api_base_url": "https://forum.example",
            })
        );
    }

    #[test]
    fn the_nested_id_keeps_its_type() {
        let grant = grant("https://forum.example");
        let reply = |json: &str| reply(AccessShape::GoUrl, &grant, &id(json)).into_map();
        assert_eq!(reply("1")["id"], json!(1));
        assert_eq!(reply("\"1\"")["id"], json!("1"));
        assert!(!reply("1e400").contains_key("id"));
    }

    #[test]
    fn a_go_url_has_a_path_if_there_is_one() {
        let url = |url: &str| inner(AccessShape::GoUrl, url)["api_base_url"].clone();
        assert_eq!(
            url("https://forum.example/"),
            json!({"Scheme": "https", "Host": "forum.example"})
        );
        assert_eq!(
            url("https://[::1]:8000/forum/en"),
            json!({"Scheme": "https", "Host": "[::1]:8000", "Path": "/forum/en"})
        );
        assert_eq!(
            url("https://forum.example/a%20b%2Fc"),
            json!({
                "Scheme": "https", "Host": "forum.example",
                "Path": "/a b/c", "RawPath": "/a%20b%2Fc",
            })
        );
    }

    #[test]
    fn a_plugin_reads_every_form() {
        for url in [
            "https://forum.example",
            "http://[::1]:8000/forum/en",
            "https://forum.example/a%20b%2Fc",
        ] {
            for shape in [AccessShape::GoUrl, AccessShape::Python, AccessShape::Schema] {
                let reply = Value::Object(reply(shape, &grant(url), &id("1")).into_map());
                assert_eq!(decode(&reply), Ok(grant(url)), "{reply}");
            }
            let encoded = serde_json::to_value(AccessGetReply(Ok(grant(url)))).unwrap();
            assert_eq!(decode(&encoded), Ok(grant(url)));
        }
        // The path alone, as Go has it when its default encoding is the right one.
        let reply = json!({"result": {"access_key": "k", "api_base_url": {
            "Scheme": "http", "Host": "h", "Path": "/a b", "User": null, "RawPath": "",
        }}});
        assert_eq!(decode(&reply).unwrap().api_base_url(), "http://h/a%20b");
    }

    #[test]
    fn a_plugin_reads_a_refusal_first() {
        let error = RpcError::new(-32601, "no access");
        for inner in [json!(null), json!({"access_key": "", "api_base_url": {}})] {
            let reply = json!({"error": {"code": -32601, "message": "no access"}, "result": inner});
            assert_eq!(decode(&reply), Err(error.clone()), "{reply}");
        }
        assert!(AccessGetReply::deserialize(&json!({})).is_err());
        assert!(AccessGetReply::deserialize(&json!({"result": {"access_key": "k"}})).is_err());
    }

    #[test]
    fn addresses_that_no_form_can_carry_are_refused() {
        let problem = |url: &str| AccessGrant::new("k", url).unwrap_err().to_string();
        assert_eq!(
            problem("forum.example"),
            "setting api_base_url: it is not a URL"
        );
        assert_eq!(
            problem("ftp://forum.example"),
            "setting api_base_url: its scheme must be http or https"
        );
        assert_eq!(
            problem("https://me:secret@forum.example"),
            "setting api_base_url: it must not have a user name or password"
        );
        for url in [
            "https://",
            "https:///path",
            "https://:80",
            "https://forum.example:x",
            "https://forum.example:",
            "https://forum.example:65536",
            "https://a b",
            "https://forum.example/?q",
            "https://forum.example/#f",
            "https://forum.example/a b",
        ] {
            assert!(AccessGrant::new("k", url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let grant = grant("https://forum.example");
        let id = id("1");
        let reply = reply(AccessShape::Schema, &grant, &id);
        let shown = format!(
            "{grant:?} {reply:?} {:?}",
            AccessGetReply(Ok(grant.clone()))
        );
        assert!(!shown.contains("sdbak_"), "{shown}");
    }
}
