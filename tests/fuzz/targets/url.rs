//! Connection URLs: what was built is read again, what was read is consistent, and neither errors nor
//! what is shown have the token.

use plugin_runner::Error;
use plugin_runner::InstallationId;
use plugin_runner::auth::{ExternalToken, redact};
use plugin_runner::fuzzing::{
    build_connection_url, is_external_token, read_connection_url, read_target,
};

use super::Target;
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "url",
    generate,
    words: &[
        b"ws://",
        b"wss://",
        b"http://",
        b"https://",
        b"://",
        b"/rpc",
        b"?token=",
        b"&token=",
        b"?plugin_id=",
        b"%74oken=",
        b"token%3D",
        b"sdprt_",
        b"[::1]",
        b":0",
        b":65536",
        b"user:password@",
        b"#",
        b"..",
        b"%",
        b"%00",
        b";",
        b"\xc3\xa4",
    ],
    longest: 4 * 1024,
    check,
    runs: 6_000,
};

const EXTERNAL: &str = "sdprt_Storyden0Plugin1Secret2Vector3ab";
const SEALED: &str =
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXhNJjbe3g2fSoNt0bKqWQZx5ffcgyUccbdubI_WrrT9-LAIbY";
const ID: &str = "9m4e2mr0ui3e8a215n4g";

fn generate(random: &mut Random) -> Vec<u8> {
    let mut url = String::new();
    url.push_str(random.pick(&[
        "ws://", "wss://", "ws://", "wss://", "http://", "HTTPS://", "", "ftp://", "://",
    ]));
    if random.one_in(8) {
        url.push_str("user:hidden@");
    }
    url.push_str(random.pick(&[
        "localhost",
        "127.0.0.1",
        "[::1]",
        "forum.example",
        "a-b.c",
        "",
        "xn--nxasmq6b",
        "[fe80::1%25eth0]",
        "[]",
    ]));
    if random.one_in(2) {
        url.push_str(random.pick(&[
            ":8000", ":8000", ":0", ":65535", ":80", ":443", ":", ":99999", ":80x",
        ]));
    }
    url.push_str(random.pick(&["/rpc", "/rpc", "/rpc", "/rpc/", "/", "", "/a/b", "/RPC"]));
    let mut separator = '?';
    for number in 0..=random.length(5) {
        url.push(separator);
        separator = random.pick(&['&', '&', '&', '&', ';', '?']);
        if number == 0 && !random.one_in(3) {
            url.push_str(random.pick(&["token=", "plugin_id=9m4e2mr0ui3e8a215n4g&token="]));
            url.push_str(random.pick(&[EXTERNAL, SEALED]));
            continue;
        }
        url.push_str(random.pick(&[
            "token",
            "token",
            "plugin_id",
            "plugin_id",
            "Token",
            "%74oken",
            "tok%65n",
            "x",
            "",
            "next",
            "plugin%5fid",
        ]));
        if !random.one_in(8) {
            url.push('=');
        }
        url.push_str(random.pick(&[
            EXTERNAL,
            SEALED,
            ID,
            "",
            "a%26b",
            "%73dprt_Storyden0Plugin1Secret2Vector3ab",
            "a+b%20c",
            "%ff",
            "?token=hidden-hidden",
            "%3Ftoken%3Dhidden-hidden",
        ]));
    }
    if random.one_in(12) {
        url.push_str("#fragment");
    }
    url.into_bytes()
}

fn check(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else {
        return false;
    };
    as_base(text);
    as_target(text);
    as_log_text(text);
    as_url(text)
}

fn as_url(text: &str) -> bool {
    let url = match read_connection_url(text) {
        Ok(url) => url,
        Err(error) => {
            tells_nothing(&error, text);
            return false;
        }
    };
    assert!(!url.host.is_empty() && url.authority.contains(&url.host));
    assert!(!url.authority.contains('@'), "{}", url.authority);
    assert!(url.target.starts_with('/'));
    let token = url.request.token.clone().unwrap();
    assert!(!token.is_empty());
    assert_eq!(url.is_external, is_external_token(&token));
    // A listener reads the same of it, if the path is the one for plugins.
    if let Some(request) = read_target(&url.target) {
        assert_eq!(request, url.request);
    }

    // Where the token also stands in another place, that is not for us to hide; and one made of
    // separators may be put together by chance.
    let elsewhere = without_tokens(text);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if token.len() >= 8 && token.bytes().all(is_word) && !elsewhere.contains(&token) {
        for shown in url.shown {
            assert!(!decoded(&shown).contains(&token), "{shown}");
        }
    }
    true
}

/// A URL without what stands behind keys that mean a token, escapes undone.
fn without_tokens(text: &str) -> String {
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let is_token = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or_default();
        decoded(key).eq_ignore_ascii_case("token")
    };
    let pairs = query.split('&').filter(|pair| !is_token(pair));
    let kept: Vec<&str> = std::iter::once(before).chain(pairs).collect();
    decoded(&kept.join("&"))
}

/// Escapes and plus signs undone, as for a query.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes
            .get(at + 1..at + 3)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[at], digits) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn as_base(text: &str) {
    let id: InstallationId = ID.parse().unwrap();
    let external = ExternalToken::parse(EXTERNAL).unwrap();
    for (installation, token) in [(None, EXTERNAL), (Some(id), SEALED)] {
        let built = match build_connection_url(text, installation, token) {
            Ok(built) => built,
            Err(error) => {
                tells_nothing(&error, text);
                continue;
            }
        };
        let url = read_connection_url(&built).expect("what was built can be read");
        assert_eq!(url.request.token.as_deref(), Some(token));
        assert_eq!(url.request.installation, Ok(installation));
        assert!(read_target(&url.target).is_some(), "{built}");
        if installation.is_none() {
            assert_eq!(external.connection_url(text).unwrap(), built);
        }
        let scheme = text.split("://").next().unwrap_or_default();
        let secure = text.contains("://")
            && ["https", "wss"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known));
        let expected = if secure { "wss://" } else { "ws://" };
        assert!(built.starts_with(expected), "{built}");
        // Its own parameters are there, and those of the base but for the two.
        let pairs = |text: &str| -> Vec<(String, String)> {
            let text = text.split_once('#').map_or(text, |(text, _)| text);
            let query = text.split_once('?').map_or("", |(_, query)| query);
            query
                .split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(key, value)| (decoded(key), decoded(value)))
                .filter(|(key, _)| key != "token" && key != "plugin_id")
                .collect()
        };
        let (mut kept, found) = (pairs(text), pairs(&built));
        kept.sort_by(|one, other| one.0.cmp(&other.0));
        assert_eq!(kept, found, "{built}");
        // The same again from the URL itself.
        let again = build_connection_url(&built, installation, token);
        assert_eq!(again.unwrap(), built);
        let line = redact(&format!("connecting to <{built}> failed"));
        let given_away = decoded(text).contains(token);
        assert!(given_away || !decoded(&line).contains(token), "{line}");
        assert!(line.ends_with("> failed"), "{line}");
    }
}

fn as_target(text: &str) {
    if let Some(request) = read_target(text) {
        assert_ne!(request.token.as_deref(), Some(""));
        let path = text.split('?').next().unwrap_or_default();
        assert!(path.ends_with("/rpc"), "{text}");
    }
}

fn as_log_text(text: &str) {
    let line = redact(text);
    assert_eq!(redact(&line), line, "nothing more to take out");
    for key in ["token=", "sdprt_"] {
        for (at, _) in line.to_ascii_lowercase().match_indices(key) {
            let value = &line[at + key.len()..];
            let end = |character: char| character.is_whitespace() || "&#\"'<>".contains(character);
            assert!(
                value.is_empty() || value.starts_with('…') || value.starts_with(end),
                "{line}"
            );
        }
    }
}

/// Errors are for logs: nothing of the URL is in them.
fn tells_nothing(error: &Error, text: &str) {
    let told = format!("{error} {error:?}");
    // Unless it was given the words of an error, which have no URL in them.
    assert!(!text.contains("://") || !told.contains(text), "{told}");
    for secret in [EXTERNAL, SEALED, "hidden"] {
        assert!(!told.contains(secret), "{told}");
    }
}
