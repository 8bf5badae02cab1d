//! Who may use the API: the token, and where a request may come from.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::problem::Problem;
use super::settings::AdminSettings;
use crate::error::{Error, Result};
use crate::http::{Request, Response};
use crate::settings::require;

/// The least number of characters of a token.
const SHORTEST_TOKEN: usize = 16;

pub(super) struct Access {
    /// The token's SHA-256, so that comparing it tells not even its length.
    token: [u8; 32],
    hosts: Vec<String>,
    origins: RwLock<Vec<String>>,
}

/// A request's origin, if it named one that is allowed.
pub(super) struct Origin(Option<String>);

impl Access {
    /// Takes settings that were checked.
    ///
    /// # Errors
    /// [`Error::Setting`] when the token cannot be one.
    pub(super) fn new(token: &str, settings: AdminSettings) -> Result<Self> {
        let is_right =
            token.len() >= SHORTEST_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic());
        require(
            is_right,
            "token",
            format!(
                "must have at least {SHORTEST_TOKEN} characters, all of them visible ASCII ones"
            ),
        )?;
        Ok(Self {
            token: Sha256::digest(token).into(),
            hosts: settings.allow_hosts,
            origins: RwLock::new(settings.allow_origins),
        })
    }

    pub(super) fn set_allowed_origins(&self, origins: Vec<String>) -> Result<()> {
        check_origins(&origins)?;
        *self.origins.write() = origins;
        Ok(())
    }

    /// Judges the token of a request.
    ///
    /// # Errors
    /// 401, without a word about the token that came.
    pub(super) fn judge_token(&self, request: &Request<'_>) -> Result<(), Problem> {
        let bearer = request
            .header("Authorization")
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = bearer else {
            return Err(Problem::unauthenticated(
                "a token is needed, as `Authorization: Bearer …`",
            ));
        };
        let token = token.trim();
        let digest: [u8; 32] = Sha256::digest(token).into();
        if digest.ct_eq(&self.token).into() {
            Ok(())
        } else {
            Err(Problem::unauthenticated(
                "the token is not the one of this server",
            ))
        }
    }

    /// Judges the names by which a request found the server: those that a page of another site could have
    /// made a browser use are refused.
    ///
    /// # Errors
    /// 421 for a host that is not allowed, 403 for an origin.
    pub(super) fn judge_source(&self, request: &Request<'_>) -> Result<Origin, Problem> {
        // An HTTP/1.0 client need not send it; a browser always does.
        let host = request.header("Host");
        if let Some(host) = host {
            let name = name_of(host);
            if !is_address(name) && !self.allows_host(name) {
                return Err(Problem::new(
                    421,
                    "misdirected",
                    format!(
                        "this server is not called {:?} as far as it knows; add that to its allowed hosts",
                        crate::text::Foreign::new(name)
                    ),
                ));
            }
        }
        let Some(origin) = request.header("Origin") else {
            return Ok(Origin(None));
        };
        let is_own = origin
            .strip_prefix("http://")
            .is_some_and(|own| host == Some(own));
        let is_allowed =
            || (self.origins.read().iter()).any(|allowed| allowed.eq_ignore_ascii_case(origin));
        if is_own || is_allowed() {
            Ok(Origin(Some(origin.to_owned())))
        } else {
            Err(Problem::new(
                403,
                "origin_not_allowed",
                format!(
                    "pages of {:?} may not use this server; add that to its allowed origins",
                    crate::text::Foreign::new(origin)
                ),
            ))
        }
    }

    fn allows_host(&self, name: &str) -> bool {
        name.eq_ignore_ascii_case("localhost")
            || (self.hosts.iter()).any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

impl Origin {
    /// Lets the pages of the origin read an answer.
    pub(super) fn mark(self, response: Response) -> Response {
        match self.0 {
            None => response,
            Some(origin) => response
                .header("Access-Control-Allow-Origin", Cow::Owned(origin))
                .header("Vary", "Origin"),
        }
    }
}

/// Returns a `Host` without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether it is an address, which no name service can point elsewhere.
fn is_address(name: &str) -> bool {
    let inside = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    name.parse::<Ipv4Addr>().is_ok() || inside.is_some_and(|name| name.parse::<Ipv6Addr>().is_ok())
}

pub(super) fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// # Errors
/// [`Error::Setting`] names the first that is no origin.
pub(super) fn check_origins(origins: &[String]) -> Result<()> {
    match origins.iter().find(|origin| !is_origin(origin)) {
        None => Ok(()),
        Some(wrong) => Err(Error::setting(
            "allow_origins",
            format!(
                "{wrong:?} is no origin; write it as in https://admin.example.org, without a path"
            ),
        )),
    }
}

fn is_origin(origin: &str) -> bool {
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| origin.strip_prefix(scheme));
    rest.is_some_and(|rest| {
        let name = name_of(rest);
        is_address(name) || is_host_name(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_judged_without_its_port() {
        for (host, name) in [
            ("localhost:8001", "localhost"),
            ("localhost", "localhost"),
            ("[::1]:8001", "[::1]"),
            ("[::1]", "[::1]"),
            ("127.0.0.1:8001", "127.0.0.1"),
        ] {
            assert_eq!(name_of(host), name);
        }
        for name in ["127.0.0.1", "[::1]", "0.0.0.0"] {
            assert!(is_address(name), "{name}");
        }
        for name in [
            "localhost",
            "127.0.0.1.evil.example",
            "::1",
            "[::1",
            "2130706433",
            "",
        ] {
            assert!(!is_address(name), "{name}");
        }
    }

    #[test]
    fn an_origin_has_a_scheme_and_a_host_and_no_path() {
        for origin in [
            "https://a.example",
            "http://localhost:5173",
            "http://[::1]:80",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for origin in [
            "a.example",
            "https://a.example/",
            "*",
            "null",
            "https://",
            "ftp://a.example",
        ] {
            assert!(!is_origin(origin), "{origin}");
        }
    }
}
