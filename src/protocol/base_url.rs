//! Base URLs, and the object that Go's encoder makes of a URL: it has no text form on the wire
//! (protocol file, section 10.1). Tested through `access` and the manifest's links.

use serde_json::{Map, Value};

/// The parts of a base URL, as written.
pub(super) struct BaseUrl<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
}

impl<'a> BaseUrl<'a> {
    /// Takes a URL apart; or says what keeps it from being a base URL.
    pub(super) fn parse(url: &'a str) -> Result<Self, &'static str> {
        let (scheme, rest) = url.split_once("://").ok_or("it is not a URL")?;
        if !["http", "https"]
            .iter()
            .any(|known| known.eq_ignore_ascii_case(scheme))
        {
            return Err("its scheme must be http or https");
        }
        if rest.contains(['?', '#']) {
            return Err("it must have neither query nor fragment");
        }
        let path_start = rest.find('/').unwrap_or(rest.len());
        let (host, path) = rest.split_at(path_start);
        if host.contains('@') {
            return Err("it must not have a user name or password");
        }
        let authority: http::uri::Authority = host.parse().map_err(|_| "its host is not valid")?;
        let name = authority.host();
        if name.is_empty() {
            return Err("it has no host");
        }
        if host.len() > name.len() && authority.port_u16().is_none() {
            return Err("its port is not valid");
        }
        if !path.is_empty() {
            let _: http::uri::PathAndQuery = path.parse().map_err(|_| "its path is not valid")?;
        }
        Ok(Self { scheme, host, path })
    }

    /// The URL as an object, as Go's `net/url` has it.
    pub(super) fn to_go(&self) -> Map<String, Value> {
        let scheme = self.scheme.to_ascii_lowercase();
        let mut members = Map::new();
        members.insert("Scheme".to_owned(), scheme.into());
        members.insert("Host".to_owned(), self.host.into());
        // A path of one slash says nothing.
        if self.path.len() > 1 {
            let decoded = percent_decode(self.path);
            if decoded != self.path {
                members.insert("RawPath".to_owned(), self.path.into());
            }
            members.insert("Path".to_owned(), decoded.into());
        }
        members
    }
}

/// The text of a URL that came as an object of Go's `net/url`.
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
            "" => percent_encode(member("Path"), &mut text),
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

/// The path with its `%xx` resolved; as it is, where that would not be text.
fn percent_decode(path: &str) -> String {
    let hex = |byte: Option<&u8>| {
        byte.and_then(|byte| char::from(*byte).to_digit(16))
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let source = path.as_bytes();
    let mut decoded = Vec::with_capacity(source.len());
    let mut position = 0;
    while let Some(byte) = source.get(position) {
        let escape = (*byte == b'%')
            .then(|| Some(hex(source.get(position + 1))? << 4 | hex(source.get(position + 2))?))
            .flatten();
        decoded.push(escape.unwrap_or(*byte));
        position += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).unwrap_or_else(|_| path.to_owned())
}

fn percent_encode(path: &str, text: &mut String) {
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:@!$&'()*+,;=".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
}
