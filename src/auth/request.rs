//! `ConnectionRequest`: what a request to connect says about the plugin that sent it. The HTTP around
//! it is read elsewhere.

use super::token::Token;
use crate::error::Error;
use crate::id::InstallationId;
use crate::protocol::connection::{RPC_PATH, parameter};
use crate::url::Url;

/// The parameters of a request to connect ([Connection URL](crate::protocol#connection-url)). The
/// first of each name counts, and an empty one is the same as none.
pub(crate) struct ConnectionRequest {
    /// The installation that `plugin_id` names; an error if that is not an xid, which is refused
    /// whatever the token is.
    pub(crate) installation: Result<Option<InstallationId>, Error>,
    pub(crate) token: Option<Token>,
}

impl ConnectionRequest {
    /// Reads a query such as `plugin_id=…&token=…`.
    pub(crate) fn parse(query: &str) -> Self {
        let installation = parameter(query, "plugin_id");
        let token = parameter(query, "token");
        Self {
            installation: installation.map(|text| text.parse()).transpose(),
            token: token.map(|text| Token::classify(text.into_owned())),
        }
    }
}

/// Returns the query of a request target such as `/rpc?plugin_id=…&token=…`; `None` if its path is not
/// exactly the one that plugins connect to. The absolute form that proxies send
/// (`http://host/rpc?…`) is understood.
pub(crate) fn rpc_query(target: &str) -> Option<&str> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let url = Url::split(path);
    // `//host/rpc` and `http:/rpc` are neither of the two forms.
    let is_whole = url.scheme.is_some() == url.authority.is_some() && url.fragment.is_none();
    (is_whole && url.path == RPC_PATH).then_some(query)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: &str = "sdprt_Storyden0Plugin1Secret2Vector3ab";

    fn token(request: &ConnectionRequest) -> Option<&str> {
        request.token.as_ref().map(Token::expose)
    }

    #[test]
    fn both_parameters_are_decoded() {
        let request = ConnectionRequest::parse("plugin_id=9m4e2mr0ui3e8a215n4g&token=a%2Db+c");
        let id = "9m4e2mr0ui3e8a215n4g".parse().unwrap();
        assert_eq!(token(&request), Some("a-b c"));
        assert!(matches!(request.token, Some(Token::Sealed(_))));
        assert_eq!(request.installation.unwrap(), Some(id));
    }

    #[test]
    fn an_external_token_needs_no_id() {
        let request = ConnectionRequest::parse(&format!("token={EXTERNAL}"));
        assert!(matches!(request.token, Some(Token::External(_))));
        assert_eq!(request.installation.unwrap(), None);
    }

    #[test]
    fn the_first_of_several_counts_even_if_it_is_empty() {
        let request = ConnectionRequest::parse("token=one&plugin_id=&token=two&plugin_id=x");
        assert_eq!(token(&request), Some("one"));
        assert_eq!(request.installation.unwrap(), None);

        let request = ConnectionRequest::parse("token=&token=two");
        assert!(request.token.is_none());
    }

    #[test]
    fn nothing_is_nothing_and_an_id_that_is_none_is_an_error() {
        for query in ["", "&&=&tokens=x&Token=y"] {
            let request = ConnectionRequest::parse(query);
            assert!(request.token.is_none(), "{query}");
            assert_eq!(request.installation.unwrap(), None, "{query}");
        }
        let request = ConnectionRequest::parse(&format!("token={EXTERNAL}&plugin_id=nope"));
        let error = request.installation.unwrap_err();
        assert!(error.to_string().contains("4 bytes"), "{error}");
    }

    #[test]
    fn only_one_path_is_the_right_one() {
        for (right, query) in [
            ("/rpc", ""),
            ("/rpc?", ""),
            ("/rpc?x=/y", "x=/y"),
            ("/rpc?x?y#z", "x?y#z"),
            ("http://host:80/rpc?token=x", "token=x"),
        ] {
            assert_eq!(rpc_query(right), Some(query), "{right}");
        }
        for wrong in [
            "/rpc/",
            "/rpc/?x",
            "/RPC",
            "/",
            "",
            "rpc",
            "//rpc",
            "//host/rpc",
            "http:/rpc",
            "://host/rpc",
            "/rpc#",
            "/x/rpc",
            "/?/rpc",
            "http://rpc",
            "/a://b/rpc",
            "*",
        ] {
            assert_eq!(rpc_query(wrong), None, "{wrong}");
        }
    }
}
