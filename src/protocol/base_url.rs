//! Base URLs, and the object that Go's encoder makes of a URL: it has no text form on the wire
//! ([`access_get`](crate::protocol#access_get)). Tested through `access` and the manifest's links.

use percent_encoding::{percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::url::{NOT_IN_PATH, Url};

/// Takes a base URL apart, or returns what keeps it from being one.
pub(super) fn parse(url: &str) -> Result<Url<'_>, &'static str> {
    let (url, authority) = Url::parse_absolute(url)?;
    if !url.has_scheme(&["http", "https"]) {
        return Err("its scheme must be http or https");
    }
    if url.query.is_some() || url.fragment.is_some() {
        return Err("it must have neither query nor fragment");
    }
    if url.user_info.is_some() {
        return Err("it must not have a user name or password");
    }
    if authority.port.is_none() && url.authority.is_some_and(|text| text.ends_with(':')) {
        return Err("its port is not valid");
    }
    Ok(url)
}

/// Returns the URL as an object, as Go's `net/url` encodes it.
pub(super) fn to_go(url: &Url<'_>) -> Map<String, Value> {
    let scheme = url.scheme.unwrap_or_default().to_ascii_lowercase();
    let mut members = Map::new();
    members.insert("Scheme".to_owned(), scheme.into());
    members.insert("Host".to_owned(), url.authority.into());
    // A path of one slash says nothing.
    if url.path.len() > 1 {
        // As it is, where decoding would not make text of it.
        let decoded = percent_decode_str(url.path).decode_utf8();
        let decoded = decoded.unwrap_or(url.path.into());
        if decoded != url.path {
            members.insert("RawPath".to_owned(), url.path.into());
        }
        members.insert("Path".to_owned(), decoded.into());
    }
    members
}

/// Returns the text of a URL that came as an object of Go's `net/url`.
pub(super) fn go_url_text(members: &Map<String, Value>) -> String {
    let member = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or("");
    let mut text = String::new();
    if !member("Scheme").is_empty() {
        text.push_str(member("Scheme"));
        text.push(':');
    }
    // A URL has either an opaque part or a host and a path.
    text.push_str(member("Opaque"));
    if member("Opaque").is_empty() {
        if !member("Host").is_empty() {
            text.push_str("//");
            text.push_str(member("Host"));
            if !member("Path").is_empty() && !member("Path").starts_with('/') {
                text.push('/');
            }
        }
        match member("RawPath") {
            "" => text.extend(utf8_percent_encode(member("Path"), NOT_IN_PATH)),
            raw => text.push_str(raw),
        }
    }
    for (mark, part) in [('?', member("RawQuery")), ('#', member("Fragment"))] {
        if !part.is_empty() {
            text.push(mark);
            text.push_str(part);
        }
    }
    text
}
