//! `ConnectionRequest`: what a request to connect says about who is asking. The HTTP around it is
//! read elsewhere.

use std::fmt;

use super::RPC_PATH;
use super::redact::redact;
use super::token::Token;
use crate::error::IdError;
use crate::id::InstallationId;

/// The parameters of a request to connect (protocol file, section 5.1).
#[derive(Clone)]
pub struct ConnectionRequest {
    plugin_id: Option<String>,
    token: Option<Token>,
}

impl ConnectionRequest {
    /// Reads the query of a request target such as `/rpc?plugin_id=…&token=…`. The first
    /// `plugin_id` and the first `token` count; an empty one is the same as none.
    ///
    /// The path is not looked at here: see [`is_rpc_path`].
    pub fn parse(target: &str) -> Self {
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let mut plugin_id = None;
        let mut token = None;
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match key.as_ref() {
                "plugin_id" => &mut plugin_id,
                "token" => &mut token,
                _ => continue,
            };
            slot.get_or_insert_with(|| value.into_owned());
        }
        Self {
            plugin_id: plugin_id.filter(|text: &String| !text.is_empty()),
            token: token
                .filter(|text| !text.is_empty())
                .map(|text| Token::classify(&text)),
        }
    }

    /// The `plugin_id` as it was sent, which may be anything.
    pub fn plugin_id(&self) -> Option<&str> {
        self.plugin_id.as_deref()
    }

    /// The installation that `plugin_id` names; `None` when there is none.
    ///
    /// # Errors
    /// [`IdError`]: it is not an xid; that is refused whatever the token is.
    pub fn installation(&self) -> Result<Option<InstallationId>, IdError> {
        self.plugin_id.as_deref().map(str::parse).transpose()
    }

    /// The token, if there is one.
    pub const fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }
}

impl fmt::Debug for ConnectionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionRequest")
            // It may be anything, a URL with a token in it included.
            .field("plugin_id", &self.plugin_id.as_deref().map(redact))
            .field("token", &self.token)
            .finish()
    }
}

/// Whether a request target has exactly the path that plugins connect to. The absolute form that
/// proxies send (`http://host/rpc?…`) is understood.
pub fn is_rpc_path(target: &str) -> bool {
    let target = target.split_once('?').map_or(target, |(path, _)| path);
    let path = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => {
            rest.find('/').map_or("", |start| &rest[start..])
        }
        _ => target,
    };
    path == RPC_PATH
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: &str = "sdprt_Storyden0Plugin1Secret2Vector3ab";

    #[test]
    fn both_parameters_are_decoded() {
        let request = ConnectionRequest::parse("/rpc?plugin_id=9m4e2mr0ui3e8a215n4g&token=a%2Db+c");
        assert_eq!(request.plugin_id(), Some("9m4e2mr0ui3e8a215n4g"));
        assert_eq!(
            request.installation().unwrap().unwrap().to_string(),
            "9m4e2mr0ui3e8a215n4g"
        );
        assert_eq!(request.token().unwrap().expose(), "a-b c");
        assert!(!request.token().unwrap().is_external());
    }

    #[test]
    fn an_external_token_needs_no_id() {
        let request = ConnectionRequest::parse(&format!("/rpc?token={EXTERNAL}"));
        assert!(request.token().unwrap().is_external());
        assert_eq!(request.installation(), Ok(None));
    }

    #[test]
    fn the_first_of_several_counts_even_if_it_is_empty() {
        let request = ConnectionRequest::parse("/rpc?token=one&plugin_id=&token=two&plugin_id=x");
        assert_eq!(request.token().unwrap().expose(), "one");
        assert_eq!(request.plugin_id(), None);

        let request = ConnectionRequest::parse("/rpc?token=&token=two");
        assert!(request.token().is_none());
    }

    #[test]
    fn nothing_is_nothing_and_an_id_that_is_none_is_an_error() {
        for target in ["/rpc", "/rpc?", "/rpc?&&=&tokens=x&Token=y", ""] {
            let request = ConnectionRequest::parse(target);
            assert!(request.token().is_none(), "{target}");
            assert_eq!(request.installation(), Ok(None), "{target}");
        }
        let request = ConnectionRequest::parse(&format!("/rpc?token={EXTERNAL}&plugin_id=nope"));
        assert_eq!(request.installation(), Err(IdError::Length { found: 4 }));
    }

    #[test]
    fn debug_shows_no_token() {
        let request = ConnectionRequest::parse(&format!("/rpc?token={EXTERNAL}&plugin_id=nope"));
        let shown = format!("{request:?}");
        assert!(!shown.contains("Storyden0"), "{shown}");
        assert!(shown.contains("nope"), "{shown}");
        let request = ConnectionRequest::parse("/rpc?plugin_id=ws://h/rpc?token=hidden");
        let shown = format!("{request:?}");
        assert!(!shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn only_one_path_is_the_right_one() {
        for right in ["/rpc", "/rpc?", "/rpc?x=/y", "http://host:80/rpc?token=x"] {
            assert!(is_rpc_path(right), "{right}");
        }
        for wrong in [
            "/rpc/",
            "/rpc/?x",
            "/RPC",
            "/",
            "",
            "rpc",
            "//rpc",
            "/x/rpc",
            "/?/rpc",
            "http://rpc",
            "/a://b/rpc",
            "*",
        ] {
            assert!(!is_rpc_path(wrong), "{wrong}");
        }
    }
}
