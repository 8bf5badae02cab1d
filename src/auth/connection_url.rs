//! Builds the URL that a plugin connects to. The plugin reads it in `sdk`.

use std::borrow::Cow;

use form_urlencoded::Serializer;

use crate::error::TokenError;
use crate::id::InstallationId;
use crate::protocol::connection::RPC_PATH;
use crate::url::Url;

/// Builds the URL that a plugin connects to ([Connection URL](crate::protocol#connection-url)).
///
/// The scheme is `wss` for a base with `https` or `wss`, and `ws` for any other. Host, port and query
/// are the base's; its path is replaced by `/rpc`, and its user info is left out. `plugin_id` and
/// `token` replace what the base has of them, and all parameters are sorted by name. An external
/// plugin's URL names no installation.
///
/// # Errors
/// [`TokenError::Url`]: the base is not a URL with a host.
pub(crate) fn connection_url(
    base: &str,
    installation: Option<InstallationId>,
    token: &str,
) -> Result<String, TokenError> {
    let base = if base.contains(['/', '?', '#']) {
        Cow::from(base)
    } else {
        // A host alone, or host and port.
        format!("ws://{base}").into()
    };
    let (url, authority) =
        Url::parse_absolute(&base).map_err(|problem| TokenError::Url { problem })?;
    // Storyden's Go host turns `wss` into `ws`; that would send the token in the clear.
    let secure = url.has_scheme(&["https", "wss"]);
    let scheme = if secure { "wss" } else { "ws" };
    let query = url.query.unwrap_or_default().as_bytes();
    let mut parameters: Vec<(Cow<'_, str>, Cow<'_, str>)> = form_urlencoded::parse(query)
        .filter(|(key, _)| key != "plugin_id" && key != "token")
        .collect();
    if let Some(installation) = installation {
        parameters.push(("plugin_id".into(), installation.to_string().into()));
    }
    parameters.push(("token".into(), token.into()));
    // Stable, so that several values of one name stay in order.
    parameters.sort_by(|one, other| one.0.cmp(&other.0));
    let start = format!("{scheme}://{authority}{RPC_PATH}?");
    let length = start.len();
    Ok(Serializer::for_suffix(start, length)
        .extend_pairs(parameters)
        .finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{ConnectionRequest, SealedToken, Secret, Token};
    use crate::sdk::ConnectionUrl;
    use crate::testing::assert_matches;

    const EXTERNAL: &str = "sdprt_Storyden0Plugin1Secret2Vector3ab";

    fn id() -> InstallationId {
        "9m4e2mr0ui3e8a215n4g".parse().unwrap()
    }

    const SEALED: &str = "AA-_9";

    #[test]
    fn the_protocol_files_examples() {
        assert_eq!(
            connection_url("http://localhost:8000", Some(id()), SEALED).unwrap(),
            "ws://localhost:8000/rpc?plugin_id=9m4e2mr0ui3e8a215n4g&token=AA-_9"
        );
        assert_eq!(
            connection_url("https://forum.example/", None, EXTERNAL).unwrap(),
            format!("wss://forum.example/rpc?token={EXTERNAL}")
        );
    }

    #[test]
    fn scheme_path_query_and_order() {
        let build = |base: &str| connection_url(base, Some(id()), SEALED).unwrap();
        let tail = "plugin_id=9m4e2mr0ui3e8a215n4g&token=AA-_9";
        assert_eq!(
            build("HTTPS://[::1]:8443/api/v1"),
            format!("wss://[::1]:8443/rpc?{tail}")
        );
        assert_eq!(build("ftp://h"), format!("ws://h/rpc?{tail}"));
        assert_eq!(build("wss://h"), format!("wss://h/rpc?{tail}"));
        assert_eq!(
            build("127.0.0.1:80"),
            format!("ws://127.0.0.1:80/rpc?{tail}")
        );
        assert_eq!(
            build("http://user:password@h"),
            format!("ws://h/rpc?{tail}")
        );
        assert_eq!(
            build("http://h/x?z=1&token=old&a=b%20c&z=0&plugin_id=old&plugin_id=older&q=%26"),
            "ws://h/rpc?a=b+c&plugin_id=9m4e2mr0ui3e8a215n4g&q=%26&token=AA-_9&z=1&z=0"
        );
    }

    #[test]
    fn bases_that_are_none() {
        for base in ["", "/rpc", "http://", "not a url", "http://h h"] {
            assert_matches!(
                connection_url(base, Some(id()), SEALED),
                Err(TokenError::Url { .. }),
                "{base:?}"
            );
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_not_taken_for_the_usual_one() {
        let port = "its port is not a number up to 65535";
        let between = "there is something between its IPv6 address and the path";
        for (authority, expected) in [
            ("h:99999", port),
            ("h:80x", port),
            ("h:+80", port),
            ("[::1]80", between),
            ("[::1]x:80", between),
            ("a[::1]:80", port),
            ("a[::1]:x", port),
        ] {
            let expected = TokenError::Url { problem: expected };
            let base = format!("http://{authority}/");
            let built = connection_url(&base, Some(id()), SEALED);
            assert_eq!(built, Err(expected.clone()), "{base}");
            let text = format!("ws://{authority}/rpc?token={EXTERNAL}");
            assert_eq!(ConnectionUrl::parse(&text).unwrap_err(), expected, "{text}");
        }
        let built = connection_url("http://h:", Some(id()), SEALED).unwrap();
        assert!(built.starts_with("ws://h/rpc?"), "{built}");
    }

    #[test]
    fn a_host_is_a_name_or_a_whole_address_in_brackets() {
        let (address, user) = ("its IPv6 address is not one", "has to be encoded");
        for (host, expected) in [
            ("[]", address),
            ("[h]", address),
            ("[1.2.3.4]", address),
            ("[user:password@fe1%25eth0]", user),
        ] {
            let built = connection_url(&format!("http://{host}/"), Some(id()), SEALED);
            let text = built.unwrap_err().to_string();
            assert!(text.contains(expected), "{host}: {text}");
        }
        for host in ["h", "1.2.3.4", "[::1]", "[fe80::1%25eth0]"] {
            let built = connection_url(&format!("http://{host}"), Some(id()), SEALED).unwrap();
            assert!(built.starts_with(&format!("ws://{host}/rpc?")), "{built}");
        }
    }

    #[test]
    fn what_was_built_is_read_again() {
        let secret = Secret::generate().unwrap();
        let token = SealedToken::seal(&secret, id()).unwrap();
        let text = token.connection_url("http://127.0.0.1:4711", id()).unwrap();
        let url = ConnectionUrl::parse(&text).unwrap();
        assert!(!url.is_external());
        assert_eq!(url.expose(), text);
        let query = text.strip_prefix("ws://127.0.0.1:4711/rpc?").unwrap();
        let request = ConnectionRequest::parse(query);
        assert_eq!(request.installation.unwrap(), Some(id()));
        let Some(Token::Sealed(token)) = request.token else {
            panic!("{query}");
        };
        assert_eq!(token.open(&secret), Some(id()));
    }
}
