//! Connection URLs and tokens as they are read here, for fuzzing. No logic: each function calls the one
//! that a host or a plugin calls.

use super::secret::Secret;
use super::{ConnectionRequest, Token, connection_url, rpc_query};
use crate::error::{Result, TokenError};
use crate::id::InstallationId;
use crate::sdk::ConnectionUrl;
use crate::url::{Authority, Url};

/// What a request to connect says.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// What `plugin_id` names, or what is wrong with it.
    pub installation: Result<Option<InstallationId>, String>,
    /// The token, if there is one.
    pub token: Option<String>,
}

/// A connection URL that was read.
#[derive(Debug)]
pub struct ReadUrl {
    /// The host, without brackets.
    pub host: String,
    /// Host and port.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// What its query says.
    pub request: ReadRequest,
    /// Whether it is an external plugin's.
    pub is_external: bool,
    /// How `Display` and `Debug` show it.
    pub shown: [String; 2],
}

/// Reads a connection URL as a plugin does.
///
/// # Errors
/// Those of the connection URL.
pub fn read_connection_url(text: &str) -> Result<ReadUrl> {
    let read = ConnectionUrl::parse(text)?;
    let url = Url::split(read.expose());
    let authority = Authority::parse(url.authority.unwrap_or_default());
    let authority = authority.map_err(|problem| TokenError::Url { problem })?;
    let request = ConnectionRequest::parse(url.query.unwrap_or_default());
    Ok(ReadUrl {
        host: authority.bare_host().to_owned(),
        authority: authority.to_string(),
        target: url.request_target(),
        request: request.into(),
        is_external: read.is_external(),
        shown: [read.to_string(), format!("{read:?}")],
    })
}

/// Reads the target of a request to connect as a listener does; `None` for another path.
pub fn read_target(target: &str) -> Option<ReadRequest> {
    Some(ConnectionRequest::parse(rpc_query(target)?).into())
}

/// Builds a connection URL.
///
/// # Errors
/// Those of building it.
pub fn build_connection_url(
    base: &str,
    installation: Option<InstallationId>,
    token: &str,
) -> Result<String> {
    Ok(connection_url(base, installation, token)?)
}

/// Whether a text is taken for the token of an external plugin.
pub fn is_external_token(text: &str) -> bool {
    matches!(Token::classify(text.to_owned()), Token::External(_))
}

/// Opens a sealed token with a secret; `None` if either is not one, or they do not fit.
pub fn open_token(secret: &str, token: &str) -> Option<InstallationId> {
    match Token::classify(token.to_owned()) {
        Token::Sealed(token) => token.open(&Secret::parse(secret)?),
        Token::External(_) => None,
    }
}

impl From<ConnectionRequest> for ReadRequest {
    fn from(request: ConnectionRequest) -> Self {
        Self {
            installation: request.installation.map_err(|error| error.to_string()),
            token: request.token.map(|token| token.expose().to_owned()),
        }
    }
}
