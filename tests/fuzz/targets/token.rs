//! Tokens that somebody sends: the only sealed ones that open are those that were sealed.

use std::sync::LazyLock;

use plugin_runner::auth::{ExternalToken, SealedToken, Secret, Token};
use plugin_runner::error::TokenError;
use serde_json::Value;

use super::Target;
use super::random::Random;

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
    secret: Secret,
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
            secret: Secret::parse(&text(vector, "secret")).unwrap(),
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

    let token = Token::classify(text);
    assert_eq!(token.expose(), text);
    let external = text.strip_prefix("sdprt_").is_some_and(is_secret);
    assert_eq!(token.is_external(), external);
    assert_eq!(ExternalToken::parse(text).is_ok(), external);
    assert_eq!(Secret::parse(text).is_ok(), is_secret(text));
    let shown = format!("{token:?}");
    // Unless it was given words that are there anyway.
    let is_telling = text.len() > 16 && text.bytes().all(|byte| BASE64.contains(&byte));
    assert!(!is_telling || !shown.contains(text), "{shown}");

    let opened = SealedToken::from_text(text).open(&vector.secret);
    if text == vector.token {
        assert_eq!(opened.unwrap().to_string(), vector.id);
        return true;
    }
    let error = opened.expect_err("only what was sealed opens");
    match &error {
        TokenError::Missing => assert!(text.is_empty()),
        TokenError::NotBase64 { position } => assert!(*position <= text.len()),
        TokenError::TooShort { found } => {
            assert!(*found < 40 && text.len() < 54, "{found}");
        }
        TokenError::DoesNotOpen => {
            assert!(text.len() >= 54 && text.bytes().all(|byte| BASE64.contains(&byte)));
        }
        other => panic!("{other:?}"),
    }
    let told = error.to_string();
    assert!(!is_telling || !told.contains(text), "{told}");
    external
}

fn is_secret(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
