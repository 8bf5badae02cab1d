//! Who is let in: the protocol's decision table (protocol file, section 5.3) with this host's
//! answers. Everything is looked at before the token is spent, and refused before the 101.

use std::sync::Arc;

use super::head::Head;
use super::refusal::Refusal;
use crate::auth::{ConnectionRequest, ExternalToken, SealedToken, Token, is_rpc_path};
use crate::host::HostShared;
use crate::id::InstallationId;
use crate::session::{Credential, Refused, Reservation, Session};

/// A newcomer that is let in, its token spent.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) reservation: Reservation,
    pub(super) session: Session,
    /// `Sec-WebSocket-Accept` of the answer.
    pub(super) accept: String,
}

/// Why a newcomer is not let in.
#[derive(Debug)]
pub(super) struct Denied {
    pub(super) refusal: Refusal,
    /// Its plugin has a connection, whose life should be looked at.
    pub(super) incumbent: Option<Session>,
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            incumbent: None,
        }
    }
}

/// Decides. May block for the store's own I/O.
pub(super) fn decide(host: &Arc<HostShared>, head: &Head) -> Result<Admitted, Denied> {
    let request = ConnectionRequest::parse(&head.target);
    if !is_rpc_path(&head.target) {
        return Err(Refusal::NO_SUCH_PATH.into());
    }
    let claimed = request
        .installation()
        .map_err(|_| Refusal::INVALID_PARAMETERS)?;
    let token = request.token().ok_or(Refusal::INVALID_PARAMETERS)?;
    let admission = match token {
        Token::External(token) => find_external(host, token, claimed)?,
        Token::Sealed(token) => {
            let id = claimed.ok_or(Refusal::INVALID_PARAMETERS)?;
            // An unknown plugin and a bad token look the same from outside.
            let session = host.session(id).ok_or(Refusal::UNAUTHENTICATED)?;
            if !session.shared().knows_token(token) {
                return Err(Refusal::UNAUTHENTICATED.into());
            }
            Admission {
                session,
                sealed: Some(token.clone()),
            }
        }
    };
    let accept = check_upgrade(head)?;
    if host.context.is_shut_down() {
        return Err(Refusal::SHUTTING_DOWN.into());
    }
    let Admission { session, sealed } = admission;
    let credential = sealed
        .as_ref()
        .map_or(Credential::Vouched, Credential::Sealed);
    match session.shared().reserve(&credential) {
        Ok(reservation) => {
            // Once more, now that a rotation takes the reservation away: the token may have been
            // replaced since it was found.
            if let Token::External(token) = token {
                find_external(host, token, Some(session.id()))?;
            }
            Ok(Admitted {
                reservation,
                session,
                accept,
            })
        }
        Err(Refused::BadToken) => Err(Refusal::UNAUTHENTICATED.into()),
        Err(Refused::NotWanted(_)) => Err(Refusal::NOT_WANTED.into()),
        Err(Refused::AlreadyConnected) => Err(Denied {
            refusal: Refusal::ALREADY_CONNECTED,
            incumbent: Some(session),
        }),
    }
}

struct Admission {
    session: Session,
    sealed: Option<SealedToken>,
}

fn find_external(
    host: &HostShared,
    token: &ExternalToken,
    claimed: Option<InstallationId>,
) -> Result<Admission, Refusal> {
    // The store decides, so that a token counts no more from the moment it is replaced.
    let id = match host.context.store.find_external(token) {
        Ok(Some(id)) => id,
        Ok(None) => return Err(Refusal::UNAUTHENTICATED),
        Err(error) => {
            log::error!("cannot look up an external token: {error}");
            return Err(Refusal::INTERNAL);
        }
    };
    if claimed.is_some_and(|claimed| claimed != id) {
        return Err(Refusal::UNAUTHENTICATED);
    }
    let session = host.session(id).ok_or(Refusal::NOT_WANTED)?;
    Ok(Admission {
        session,
        sealed: None,
    })
}

/// The WebSocket part of the handshake; gives the `Sec-WebSocket-Accept`.
pub(super) fn check_upgrade(head: &Head) -> Result<String, Refusal> {
    let lists = |values: &[String], wanted: &str| values.iter().any(|value| value == wanted);
    if !head.is_current || !lists(&head.connection, "upgrade") || !lists(&head.upgrade, "websocket")
    {
        return Err(Refusal::UPGRADE_REQUIRED);
    }
    if head.method != "GET" {
        return Err(Refusal::METHOD_NOT_ALLOWED);
    }
    let [key] = head.keys.as_slice() else {
        return Err(Refusal::BAD_HANDSHAKE);
    };
    if head.versions != ["13"] || !is_key(key) {
        return Err(Refusal::BAD_HANDSHAKE);
    }
    if let Some(origin) = &head.origin {
        let authority = origin
            .split_once("://")
            .map_or(origin.as_str(), |(_, authority)| authority);
        if !head
            .host
            .as_deref()
            .is_some_and(|host| host.eq_ignore_ascii_case(authority))
        {
            return Err(Refusal::FOREIGN_ORIGIN);
        }
    }
    Ok(tungstenite::handshake::derive_accept_key(key.as_bytes()))
}

/// Whether this is 16 bytes in base64. The decoder takes padding in the middle too, so the padding
/// is taken off first.
fn is_key(key: &str) -> bool {
    let digits = key.strip_suffix("==").unwrap_or_default();
    data_encoding::BASE64_NOPAD
        .decode(digits.as_bytes())
        .is_ok_and(|bytes| bytes.len() == 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_16_bytes_in_base64_with_its_padding_at_the_end() {
        assert!(is_key("dGhlIHNhbXBsZSBub25jZQ=="));
        for other in [
            "",
            "==",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBubQ==25jZ",
            "dGhlIHNhbXBsZSBub25jZR==",
            "dGhlIHNhbXBsZSBub25jZS==",
            "dGhlIHNhbXBsZSBub25jZQ== ",
            "dGhlIHNhbXBsZSBub25jZGVm",
            "dGhlIHNhbXBsZSBub2-jZQ==",
        ] {
            assert!(!is_key(other), "{other:?}");
        }
    }
}
