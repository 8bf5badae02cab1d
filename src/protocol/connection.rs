//! What host and plugin both know of the URL that a plugin connects with
//! ([Connection URL](crate::protocol#connection-url)).

use std::borrow::Cow;

/// The path that plugins connect to; `/rpc/` is another one.
#[cfg(feature = "host")]
pub(crate) const RPC_PATH: &str = "/rpc";

/// What the token of an external plugin begins with.
pub(crate) const EXTERNAL_PREFIX: &str = "sdprt_";

/// Characters in a secret, and behind the prefix of an external plugin's token.
pub(crate) const SECRET_LENGTH: usize = 32;

/// Returns a parameter of a query. The first of its name counts, and an empty one is the same as none.
pub(crate) fn parameter<'query>(query: &'query str, name: &str) -> Option<Cow<'query, str>> {
    form_urlencoded::parse(query.as_bytes())
        .find_map(|(key, value)| (key == name).then_some(value))
        .filter(|value| !value.is_empty())
}

/// Whether this is the token of an external plugin, judged by its text alone.
pub(crate) fn is_external_token(text: &str) -> bool {
    text.strip_prefix(EXTERNAL_PREFIX).is_some_and(is_secret)
}

/// Whether a text has the length and the characters of a secret.
pub(crate) fn is_secret(text: &str) -> bool {
    text.len() == SECRET_LENGTH && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
