//! Tokens that somebody sends: the only sealed ones that open are those that were sealed.

use std::sync::LazyLock;

use plugin_runner::auth::ExternalToken;
use plugin_runner::fuzzing::{is_external_token, open_token};
use serde_json::Value;

use super::Target;
use crate::random::Random;

pub(crate) const TARGET: Target = Target {
    name: "token",
    generate,
    words: &[b"sdprt_", b"=", b"==", b"-", b"_", b"+", b"/", b"\n", b"A"],
    longest: 512,
    check,
    runs: 6_000,
};

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A token made elsewhere, the secret that opens it, and what it opens to.
struct Vector {
    token: String,
    secret: String,
    id: String,
}

static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(|| {
    let vectors: Value = serde_json::from_str(include_str!("../../vectors/tokens.json")).unwrap();
    let text = |vector: &Value, name: &str| vector[name].as_str().unwrap().to_owned();
    vectors["valid"]
        .as_array()
        .unwrap()
        .iter()
        .map(|vector| Vector {
            token: text(vector, "token"),
            secret: text(vector, "secret"),
            id: text(vector, "plugin_id"),
        })
        .collect()
});

/// A byte that says whose secret is tried, then the token.
fn generate(random: &mut Random) -> Vec<u8> {
    let mut input = vec![random.byte()];
    let index = random.below(VECTORS.len());
    let vector = &VECTORS[index];
    match random.below(8) {
        0 => {
            let length = random.length(120);
            input.extend(random.text(BASE64, length).bytes());
        }
        1 => {
            let length = 31 + random.below(3);
            input.extend(b"sdprt_");
            input.extend(random.text(&BASE64[..62], length).bytes());
        }
        2 => {
            let mut token = vector.token.clone().into_bytes();
            let at = random.below(token.len());
            token[at] = random.pick(BASE64);
            input.extend(token);
        }
        _ => {
            input[0] = u8::try_from(index).unwrap();
            input.extend(vector.token.bytes());
        }
    }
    if random.one_in(4) {
        let behind = random.pick(&["\n", " ", "=", "==", "\0", "A", "\r\n", "\u{a0}"]);
        input.extend(behind.bytes());
    }
    input
}

fn check(input: &[u8]) -> bool {
    let Some((&which, token)) = input.split_first() else {
        return false;
    };
    let Ok(text) = std::str::from_utf8(token) else {
        return false;
    };
    let vector = &VECTORS[usize::from(which) % VECTORS.len()];

    let external = text.strip_prefix("sdprt_").is_some_and(is_secret);
    assert_eq!(is_external_token(text), external);
    match ExternalToken::parse(text) {
        Ok(token) => {
            assert!(external);
            assert_eq!(token.expose(), text);
            assert!(!format!("{token:?}").contains(&text[6..]));
        }
        Err(error) => {
            assert!(!external);
            assert_eq!(error.to_string() == "there is no token", text.is_empty());
            // Unless it was given words that are there anyway.
            let is_telling = text.len() > 16 && text.bytes().all(|byte| BASE64.contains(&byte));
            assert!(!is_telling || !error.to_string().contains(text), "{error}");
        }
    }

    let opened = open_token(&vector.secret, text).map(|id| id.to_string());
    let expected = (text == vector.token).then(|| vector.id.clone());
    assert_eq!(opened, expected, "only what was sealed opens");
    external || opened.is_some()
}

fn is_secret(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
