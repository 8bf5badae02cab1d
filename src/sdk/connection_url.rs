//! Reads the URL that the host gives a plugin to connect to.

use std::fmt;

use crate::error::TokenError;
use crate::protocol::connection::{is_external_token, parameter};
use crate::url::Url;

/// A connection URL as a plugin receives it. `Display` and `Debug` show only its scheme, host and port:
/// what follows holds the token.
pub(crate) struct ConnectionUrl {
    text: String,
    is_external: bool,
}

impl ConnectionUrl {
    /// Reads a connection URL, such as the value of `STORYDEN_RPC_URL`.
    ///
    /// # Errors
    /// - [`TokenError::Url`]: empty, not a URL, another scheme than `ws` and `wss`, or no host.
    /// - [`TokenError::Missing`]: it has no token.
    pub(crate) fn parse(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(problem("it is empty"));
        }
        let (url, _) = Url::parse_absolute(text).map_err(problem)?;
        if !url.has_scheme(&["ws", "wss"]) {
            return Err(problem("its scheme is neither ws nor wss"));
        }
        let token = parameter(url.query.unwrap_or_default(), "token");
        let token = token.ok_or(TokenError::Missing)?;
        Ok(Self {
            text: text.to_owned(),
            is_external: is_external_token(&token),
        })
    }

    /// Whether the token is an external plugin's, which decides whether a plugin tries again when
    /// it is refused ([Refused or disconnected](crate::protocol#refused-or-disconnected)).
    pub(crate) const fn is_external(&self) -> bool {
        self.is_external
    }

    /// The whole URL, token included. It belongs in no log and no message.
    pub(crate) fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = Url::split(&self.text);
        let (scheme, authority) = (url.scheme.unwrap_or_default(), url.authority);
        write!(f, "{scheme}://{}", authority.unwrap_or_default())
    }
}

impl fmt::Debug for ConnectionUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionUrl({self})")
    }
}

const fn problem(problem: &'static str) -> TokenError {
    TokenError::Url { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXTERNAL: &str = "sdprt_Storyden0Plugin1Secret2Vector3ab";

    #[test]
    fn schemes_and_addresses_of_a_connection_url() {
        for base in ["ws://h", "wss://h", "WSS://h:1", "ws://[::1]:9"] {
            let text = format!("{base}/rpc?token={EXTERNAL}");
            assert!(ConnectionUrl::parse(&text).unwrap().is_external(), "{text}");
        }
    }

    #[test]
    fn urls_that_are_none() {
        for text in ["", "nonsense text", "http://h/rpc?token=x", "/rpc?token=x"] {
            assert!(
                matches!(ConnectionUrl::parse(text), Err(TokenError::Url { .. })),
                "{text:?}"
            );
        }
        for text in ["ws://h/rpc", "ws://h", "ws://h/rpc?token="] {
            assert_eq!(
                ConnectionUrl::parse(text).unwrap_err(),
                TokenError::Missing,
                "{text:?}"
            );
        }
    }

    #[test]
    fn neither_display_nor_debug_shows_the_token() {
        let url = ConnectionUrl::parse(&format!("wss://h/rpc?token={EXTERNAL}&x=1")).unwrap();
        assert_eq!(url.to_string(), "wss://h");
        assert_eq!(format!("{url:?}"), "ConnectionUrl(wss://h)");
        // A key spelled in escapes is a token all the same.
        let url = ConnectionUrl::parse("wss://h/rpc?%74oken=hidden").unwrap();
        assert_eq!(url.to_string(), "wss://h");
        let url = ConnectionUrl::parse("ws://user:hidden@h/token=hidden?token=hidden").unwrap();
        assert_eq!(url.to_string(), "ws://h");
    }
}
