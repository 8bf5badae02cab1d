//! Decides which connections are accepted: the protocol's decision table
//! ([Handshake answers](crate::protocol#handshake-answers)) with this host's answers. Every check
//! comes before the token is spent, and every refusal before the 101.

use super::head::Head;
use super::refusal::Refusal;
use crate::auth::{ConnectionRequest, ExternalToken, SealedToken, Token, TokenDigest, rpc_query};
use crate::deadline::Deadline;
use crate::host::HostShared;
use crate::http::RefusalAnswer;
use crate::id::InstallationId;
use crate::session::{AdmitError, Credential, RefusalReason, Reservation, Session};
use crate::state::PluginMode;

/// A connection that is accepted, its token spent.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) reservation: Reservation,
    pub(super) session: Session,
    /// `Sec-WebSocket-Accept` of the answer.
    pub(super) accept: String,
}

/// The refusal of a token that is not valid, or not any more. The answer is the same for both.
fn refused_token(session: Session, token: TokenDigest) -> Refusal {
    let reason = session.shared().judge_refused_token(token);
    Refusal::new(RefusalAnswer::UNAUTHENTICATED, session, reason)
}

/// Decides on a request. An admitted connection has its reservation until the deadline. May block for the
/// store's I/O.
pub(super) fn decide(host: &HostShared, head: &Head, until: Deadline) -> Result<Admitted, Refusal> {
    let query = rpc_query(&head.target).ok_or(RefusalAnswer::NO_SUCH_PATH)?;
    let request = ConnectionRequest::parse(query);
    let claimed = request
        .installation
        .map_err(|_| RefusalAnswer::INVALID_PARAMETERS)?;
    let token = &request.token.ok_or(RefusalAnswer::INVALID_PARAMETERS)?;
    let claim = match token {
        Token::External(token) => find_external(host, token, claimed)?,
        Token::Sealed(token) => {
            let id = claimed.ok_or(RefusalAnswer::INVALID_PARAMETERS)?;
            // An unknown plugin and a bad token are answered alike.
            let session = host.session(id).ok_or(RefusalAnswer::UNAUTHENTICATED)?;
            if !session.shared().knows_token(token) {
                return Err(refused_token(session, token.digest()));
            }
            Claim {
                session,
                sealed: Some(token.clone()),
            }
        }
    };
    let Claim { session, sealed } = claim;
    let accept = match check_upgrade(head) {
        Ok(accept) => accept,
        Err(refusal) => {
            let reason = RefusalReason::Malformed(refusal.text);
            return Err(Refusal::new(refusal, session, reason));
        }
    };
    if host.context.is_shut_down() {
        let reason = RefusalReason::ShuttingDown;
        return Err(Refusal::new(RefusalAnswer::SHUTTING_DOWN, session, reason));
    }
    let credential = sealed
        .as_ref()
        .map_or(Credential::Trusted, Credential::Sealed);
    match session.shared().reserve(&credential, until) {
        Ok(reservation) => {
            // Checked again: a rotation before the reservation could not revoke it, and may have
            // replaced the token since it was found.
            if let Token::External(token) = token {
                find_external(host, token, Some(session.id()))?;
                session.shared().learn_token(token.binary_digest());
            }
            Ok(Admitted {
                reservation,
                session,
                accept,
            })
        }
        Err(AdmitError::BadToken) => Err(match &sealed {
            Some(token) => refused_token(session, token.digest()),
            None => RefusalAnswer::UNAUTHENTICATED.into(),
        }),
        Err(AdmitError::NotWanted(state)) => {
            let reason = RefusalReason::NotWanted(state);
            Err(Refusal::new(RefusalAnswer::NOT_WANTED, session, reason))
        }
        Err(AdmitError::AlreadyConnected) => {
            let reason = RefusalReason::AlreadyConnected;
            Err(Refusal::new(
                RefusalAnswer::ALREADY_CONNECTED,
                session,
                reason,
            ))
        }
    }
}

struct Claim {
    session: Session,
    sealed: Option<SealedToken>,
}

fn find_external(
    host: &HostShared,
    token: &ExternalToken,
    claimed: Option<InstallationId>,
) -> Result<Claim, Refusal> {
    // The store decides, so that a token is invalid from the moment it is replaced.
    let id = match host.context.services.store.find_external(token) {
        Ok(Some(id)) => id,
        Ok(None) => {
            let digest = token.binary_digest();
            let named = match claimed {
                Some(claimed) => host.session(claimed),
                None => earlier_owner(host, digest),
            };
            return Err(match named {
                Some(session) => refused_token(session, digest),
                None => RefusalAnswer::UNAUTHENTICATED.into(),
            });
        }
        Err(error) => {
            log::error!("cannot look up an external token: {error}");
            return Err(RefusalAnswer::INTERNAL.into());
        }
    };
    let session = host.session(id);
    if claimed.is_some_and(|claimed| claimed != id) {
        return Err(match session {
            Some(session) => {
                let reason = RefusalReason::WrongToken;
                Refusal::new(RefusalAnswer::UNAUTHENTICATED, session, reason)
            }
            None => RefusalAnswer::UNAUTHENTICATED.into(),
        });
    }
    Ok(Claim {
        session: session.ok_or(RefusalAnswer::NOT_WANTED)?,
        sealed: None,
    })
}

/// The external plugin whose earlier token this is.
fn earlier_owner(host: &HostShared, token: TokenDigest) -> Option<Session> {
    let sessions = host.sessions.read();
    let mut sessions = sessions.values();
    let is_its = |session: &&Session| {
        session.mode() == PluginMode::External && session.shared().knew_token(token)
    };
    sessions.find(is_its).cloned()
}

/// Checks the WebSocket part of the handshake and returns the value of `Sec-WebSocket-Accept`.
pub(super) fn check_upgrade(head: &Head) -> Result<String, &'static RefusalAnswer> {
    let lists = |values: &[String], wanted: &str| values.iter().any(|value| value == wanted);
    if !head.is_current || !lists(&head.connection, "upgrade") || !lists(&head.upgrade, "websocket")
    {
        return Err(RefusalAnswer::UPGRADE_REQUIRED);
    }
    if head.method != "GET" {
        return Err(RefusalAnswer::METHOD_NOT_ALLOWED);
    }
    let [key] = head.keys.as_slice() else {
        return Err(RefusalAnswer::BAD_HANDSHAKE);
    };
    if head.versions != ["13"] || !is_key(key) {
        return Err(RefusalAnswer::BAD_HANDSHAKE);
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
            return Err(RefusalAnswer::FOREIGN_ORIGIN);
        }
    }
    Ok(tungstenite::handshake::derive_accept_key(key.as_bytes()))
}

/// Whether this is 16 bytes in base64. The decoder accepts padding in the middle too, so the padding is
/// stripped first.
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
