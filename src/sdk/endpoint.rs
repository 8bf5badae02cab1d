//! Where the host is, as the environment tells a plugin.

use std::fmt;

use super::ConnectionUrl;
use crate::duplex::Duplex;
use crate::error::{Error, Result};
use crate::protocol::environment::{TRANSPORT_VARIABLE, URL_VARIABLE};

/// Where the host is.
pub(super) enum Endpoint {
    /// The host accepts WebSockets at this URL.
    Url(Box<ConnectionUrl>),
    /// The host has the other ends of our standard input and output.
    Stdio,
    /// The host is at the other end of an existing connection.
    Duplex(Box<dyn Duplex>),
}

impl Endpoint {
    pub(super) fn from_env() -> Result<Self> {
        // A value that is not text can only be a mistake, and is reported as one.
        Self::from_variables(|name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    /// If both are set, the URL counts.
    pub(super) fn from_variables(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name| get(name).filter(|value| !value.is_empty());
        if let Some(url) = get(URL_VARIABLE) {
            return ConnectionUrl::parse(&url)
                .map(|url| Self::Url(Box::new(url)))
                .map_err(|error| Error::setting(URL_VARIABLE, error.to_string()));
        }
        match get(TRANSPORT_VARIABLE).as_deref() {
            Some("stdio") => Ok(Self::Stdio),
            Some(other) => Err(Error::setting(
                TRANSPORT_VARIABLE,
                format!("{other:?} is not \"stdio\", and {URL_VARIABLE} is not set"),
            )),
            None => Err(Error::setting(
                URL_VARIABLE,
                format!(
                    "it is not set, and {TRANSPORT_VARIABLE} is not \"stdio\": plugins are \
                     started by their host, or given the URL it shows"
                ),
            )),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Without its token.
            Self::Url(url) => write!(f, "{url}"),
            Self::Stdio => f.write_str("stdio"),
            Self::Duplex(_) => f.write_str("a connection"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    fn endpoint(variables: &[(&str, &str)]) -> Result<Endpoint> {
        Endpoint::from_variables(|name| {
            let (_, value) = variables.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        })
    }

    #[test]
    fn the_environment_names_the_transport() {
        let url = "ws://127.0.0.1:1/rpc?token=sdprt_Storyden0Plugin1Secret2Vector3ab";
        assert_matches!(
            endpoint(&[("STORYDEN_RPC_URL", url)]),
            Ok(Endpoint::Url(url)) if url.is_external()
        );
        let stdio = ("PLUGIN_RUNNER_TRANSPORT", "stdio");
        assert_matches!(endpoint(&[stdio]), Ok(Endpoint::Stdio));
        // Empty is unset, for both SDKs in the field.
        assert_matches!(
            endpoint(&[("STORYDEN_RPC_URL", ""), stdio]),
            Ok(Endpoint::Stdio)
        );
        assert_matches!(
            endpoint(&[("STORYDEN_RPC_URL", url), stdio]),
            Ok(Endpoint::Url(_))
        );
    }

    #[test]
    fn without_a_host_the_error_names_both_variables() {
        for variables in [&[][..], &[("PLUGIN_RUNNER_TRANSPORT", "carrier pigeon")]] {
            let text = endpoint(variables).unwrap_err().to_string();
            assert!(text.contains("STORYDEN_RPC_URL"), "{text}");
            assert!(text.contains("PLUGIN_RUNNER_TRANSPORT"), "{text}");
        }
    }

    #[test]
    fn a_bad_url_is_named_and_not_shown() {
        let error = endpoint(&[("STORYDEN_RPC_URL", "http://h/rpc?token=hidden")]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("setting STORYDEN_RPC_URL: "), "{text}");
        assert!(!text.contains("hidden"), "{text}");
    }
}
