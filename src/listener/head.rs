//! The head of a handshake request: the parts that the handshake uses.

use crate::http::{ParseError, ParsedHead, RefusalAnswer};

/// Largest head that is read, in bytes.
pub(super) const HEAD_LIMIT: usize = 8 * 1024;

/// The parts of a request head that the handshake uses.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// Path and query as they came.
    pub(super) target: String,
    /// HTTP/1.1, and not older.
    pub(super) is_current: bool,
    pub(super) user_agent: Option<String>,
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) connection: Vec<String>,
    pub(super) upgrade: Vec<String>,
    pub(super) versions: Vec<String>,
    pub(super) keys: Vec<String>,
}

impl Head {
    /// Parses a whole head.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static RefusalAnswer> {
        let parsed = ParsedHead::parse(bytes).map_err(|error| match error {
            ParseError::TooManyHeaders => RefusalAnswer::HEAD_TOO_LARGE,
            ParseError::Version | ParseError::Malformed => RefusalAnswer::BAD_REQUEST,
        })?;
        let mut head = Self {
            method: parsed.method,
            target: parsed.target,
            is_current: parsed.minor == 1,
            ..Self::default()
        };
        for (name, value) in parsed.headers {
            // Only the user agent may contain anything but ASCII, and it decides nothing.
            let value = String::from_utf8_lossy(&value).trim().to_owned();
            let list = || {
                value
                    .split(',')
                    .map(|item| item.trim().to_ascii_lowercase())
            };
            match name.to_ascii_lowercase().as_str() {
                "user-agent" => once(&mut head.user_agent, value)?,
                "host" => once(&mut head.host, value)?,
                "origin" => once(&mut head.origin, value)?,
                // A body would be read as frames here, and frames as a body by a proxy.
                "content-length" if value == "0" => {}
                "content-length" | "transfer-encoding" => return Err(RefusalAnswer::BAD_REQUEST),
                // Lists, which may be split over several headers.
                "connection" => head.connection.extend(list()),
                "upgrade" => head.upgrade.extend(list()),
                // `check_upgrade` counts them.
                "sec-websocket-version" => head.versions.push(value),
                "sec-websocket-key" => head.keys.push(value),
                _ => {}
            }
        }
        Ok(head)
    }
}

/// Stores the value of a header that may occur once: with two, a proxy in front may have used the other.
fn once(slot: &mut Option<String>, value: String) -> Result<(), &'static RefusalAnswer> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(RefusalAnswer::BAD_REQUEST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    /// The status that a complete handshake with these lines besides is refused with, or 101.
    fn judged(lines: &str) -> u16 {
        let head = format!(
            "GET /rpc HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{lines}\r\n"
        );
        let head = Head::parse(head.as_bytes());
        match head.and_then(|head| super::super::decision::check_upgrade(&head)) {
            Ok(_) => 101,
            Err(refusal) => refusal.status,
        }
    }

    #[test]
    fn what_decides_stands_there_once_unless_it_is_a_list() {
        for (lines, status) in [
            ("", 101),
            ("Host: h\r\n", 400),
            ("Origin: http://h\r\n", 101),
            ("Origin: http://h\r\nOrigin: http://h\r\n", 400),
            ("Origin: http://evil\r\nOrigin: http://h\r\n", 400),
            ("oRIGIN: http://h\r\nOrigin:\r\n", 400),
            ("Origin: http://h, http://h\r\n", 403),
            ("User-Agent: a\r\n", 101),
            ("User-Agent: a\r\nUser-Agent: a\r\n", 400),
            ("User-Agent:\r\nUser-Agent: a\r\n", 400),
            ("Sec-WebSocket-Version: 13\r\n", 400),
            ("Sec-WebSocket-Version: 8\r\n", 400),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", 400),
            ("Content-Length: 0\r\n", 101),
            ("Content-Length: 0\r\nContent-Length: 0\r\n", 101),
            ("Content-Length: 0\r\nContent-Length: 5\r\n", 400),
            ("Content-Length: 0, 0\r\n", 400),
            ("Transfer-Encoding: identity\r\n", 400),
            // Lists may come in pieces.
            ("Connection: keep-alive\r\nConnection: Upgrade\r\n", 101),
            ("Upgrade: h2c\r\n", 101),
            ("Accept: a\r\nAccept: b\r\n", 101),
        ] {
            assert_eq!(judged(lines), status, "{lines:?}");
        }
    }

    #[test]
    fn what_stands_behind_an_empty_line_is_not_lost() {
        let good = b"GET /rpc HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(Head::parse(good).unwrap().host.as_deref(), Some("h"));
        for bad in [
            &b"GET /rpc HTTP/1.1\r\nHost: h\r\n\nUpgrade: websocket\r\n\r\n"[..],
            b"GET /rpc HTTP/1.1\n\nHost: h\r\n\r\n",
        ] {
            assert_matches!(Head::parse(bad), Err(refusal) if refusal.status == 400);
        }
    }
}
