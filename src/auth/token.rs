//! Tokens: the sealed ones of supervised plugins and the static ones of external plugins, and
//! telling them apart. The URLs that they travel in are in `connection_url` and `request`.

use std::fmt;
use std::str::FromStr;

use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::connection_url::connection_url;
use super::secret::{Secret, fill, random_text};
use crate::error::{Result, TokenError};
use crate::id::InstallationId;
use crate::protocol::connection::{EXTERNAL_PREFIX, is_external_token};

const NONCE: usize = 24;

/// A token as it came in, told apart by its own text alone
/// ([Connection URL](crate::protocol#connection-url)).
pub(crate) enum Token {
    /// Of an external plugin.
    External(ExternalToken),
    /// Of a supervised plugin, or nonsense: only opening it tells.
    Sealed(SealedToken),
}

/// The static token of an external plugin: `sdprt_` and 32 random characters of `A-Z a-z 0-9`. It does
/// not expire and works any number of times, until it is replaced.
///
/// Comparing takes the same time wherever two tokens differ. [`Debug`](std::fmt::Debug) shows nothing of it.
///
/// The token is wiped from memory when it is dropped, and so is each clone. What was made of it is
/// not: the text that a caller copied, a connection URL, what a store or a socket holds.
#[derive(Clone)]
pub struct ExternalToken(Zeroizing<String>);

/// The token of a supervised plugin: its installation id, sealed with the secret of its current run. It
/// carries no time limit and no count: it stops working when the secret is replaced.
///
/// This may also be any other text that came as a token. It is wiped from memory when it is dropped,
/// and never shown. Not wiped are its copies in the URL that the plugin is started with, in the
/// environment of the plugin's process, and in what a socket received.
#[derive(Clone)]
pub(crate) struct SealedToken(Zeroizing<String>);

impl Token {
    /// Tells the kind of a token by its text. Everything that is not exactly an external token is
    /// to be judged as a sealed one, also if it begins with `sdprt_`.
    pub(crate) fn classify(text: String) -> Self {
        let text = Zeroizing::new(text);
        if is_external_token(&text) {
            Self::External(ExternalToken(text))
        } else {
            Self::Sealed(SealedToken(text))
        }
    }

    #[cfg(any(test, feature = "_fuzzing"))]
    pub(super) fn expose(&self) -> &str {
        match self {
            Self::External(token) => token.expose(),
            Self::Sealed(token) => &token.0,
        }
    }
}

impl ExternalToken {
    /// Makes a new token with the system's cryptographic generator.
    ///
    /// # Errors
    /// [`ErrorKind::Io`](crate::ErrorKind::Io): the system has no random bytes.
    pub fn generate() -> Result<Self> {
        Ok(Self(random_text(EXTERNAL_PREFIX)?))
    }

    /// Reads a token.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the text is empty, or has another prefix,
    /// length or character.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(TokenError::Missing.into());
        }
        if !is_external_token(text) {
            return Err(TokenError::NotExternal.into());
        }
        Ok(Self(text.to_owned().into()))
    }

    /// Returns the SHA-256 of what follows the prefix, in 64 lower-case hexadecimal digits. It finds the token
    /// among many and suffices to recognise it: tokens have 190 random bits, so none can be found by trying,
    /// and a digest may be stored and compared as any other key.
    pub fn digest(&self) -> String {
        self.binary_digest().to_string()
    }

    /// [`digest`](Self::digest), as it is compared.
    pub(crate) fn binary_digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(&self.0.as_bytes()[EXTERNAL_PREFIX.len()..]).into())
    }

    /// Returns the text itself, for storing it and for showing it to the administrator once. It belongs
    /// in no log and no message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Builds the URL that the plugin connects to: `wss` if the base is `https` or `wss`, else `ws`,
    /// with the base's host, port and query, the path `/rpc`, and the token
    /// ([Connection URL](crate::protocol#connection-url)).
    ///
    /// User info in the base is left out: it would be one more secret in the URL. The result holds the
    /// token; [`redact`](super::redact) takes it out for logs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the base is not a URL with a host.
    pub fn connection_url(&self, base: &str) -> Result<String> {
        Ok(connection_url(base, None, self.expose())?)
    }
}

impl PartialEq for ExternalToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for ExternalToken {}

impl fmt::Debug for ExternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalToken(…redacted…)")
    }
}

/// The SHA-256 of a token's secret; see [`ExternalToken::digest`]. `Display` writes 64 hexadecimal digits,
/// which `FromStr` reads. The default is the digest of no token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TokenDigest([u8; 32]);

impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        data_encoding::HEXLOWER.encode_display(&self.0).fmt(f)
    }
}

impl FromStr for TokenDigest {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(TokenError::NotADigest)
    }
}

impl SealedToken {
    /// Seals an installation's id with its current secret: NaCl secretbox with a random nonce,
    /// 80 characters of URL-safe base64 ([Tokens](crate::protocol#tokens)).
    ///
    /// # Errors
    /// [`TokenError::Random`]: the system has no random bytes.
    pub(crate) fn seal(secret: &Secret, installation: InstallationId) -> Result<Self, TokenError> {
        let mut nonce = [0; NONCE];
        fill(&mut nonce)?;
        Ok(Self::seal_with_nonce(secret, installation, nonce))
    }

    fn seal_with_nonce(secret: &Secret, installation: InstallationId, nonce: [u8; NONCE]) -> Self {
        let body = installation.to_string();
        // This fails only for more bytes than memory holds; what is left then opens nowhere.
        let sealed = cipher(secret)
            .and_then(|cipher| cipher.encrypt(&nonce.into(), body.as_bytes()).ok())
            .unwrap_or_default();
        let token = Zeroizing::new([&nonce[..], &sealed].concat());
        Self(BASE64URL_NOPAD.encode(&token).into())
    }

    /// Opens the token and returns the installation that it was sealed for; `None` if it was not sealed
    /// with this secret, or altered. The caller still compares the installation with the one that the
    /// connection names.
    pub(crate) fn open(&self, secret: &Secret) -> Option<InstallationId> {
        // Padding and surplus bits are no base64 here: a token has one spelling.
        let token = Zeroizing::new(BASE64URL_NOPAD.decode(self.0.as_bytes()).ok()?);
        let (nonce, sealed) = token.split_first_chunk::<NONCE>()?;
        let body = cipher(secret)?.decrypt(&(*nonce).into(), sealed).ok()?;
        std::str::from_utf8(&body).ok()?.parse().ok()
    }

    /// Returns what recognises the token once it is spent or replaced.
    pub(crate) fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// Builds the URL that the plugin is started with; see [`ExternalToken::connection_url`].
    ///
    /// # Errors
    /// [`TokenError::Url`]: the base is not a URL with a host.
    pub(crate) fn connection_url(
        &self,
        base: &str,
        installation: InstallationId,
    ) -> Result<String, TokenError> {
        connection_url(base, Some(installation), &self.0)
    }
}

fn cipher(secret: &Secret) -> Option<XSalsa20Poly1305> {
    XSalsa20Poly1305::new_from_slice(secret.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        valid: Vec<Valid>,
        invalid: Vec<Invalid>,
    }

    #[derive(Deserialize)]
    struct Valid {
        plugin_id: String,
        secret: String,
        nonce_hex: String,
        token: String,
    }

    #[derive(Deserialize)]
    struct Invalid {
        why: String,
        secret: String,
        token: String,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../../tests/vectors/tokens.json")).unwrap()
    }

    fn seal(secret: &str, id: &str, nonce: [u8; NONCE]) -> String {
        let secret = Secret::parse(secret).unwrap();
        let token = SealedToken::seal_with_nonce(&secret, id.parse().unwrap(), nonce);
        token.0.to_string()
    }

    fn open(secret: &str, token: &str) -> Option<InstallationId> {
        SealedToken(token.to_owned().into()).open(&Secret::parse(secret)?)
    }

    #[test]
    fn the_protocol_files_vector() {
        let token =
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXhNJjbe3g2fSoNt0bKqWQZx5ffcgyUccbdubI_WrrT9-LAIbY";
        let secret = "Storyden0Plugin1Secret2Vector3ab";
        let nonce = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(seal(secret, "9m4e2mr0ui3e8a215n4g", nonce), token);
        assert_eq!(
            open(secret, token).unwrap().to_string(),
            "9m4e2mr0ui3e8a215n4g"
        );
    }

    #[test]
    fn tokens_of_another_implementation_open_and_are_made_alike() {
        let vectors = vectors().valid;
        assert_eq!(vectors.len(), 8);
        for vector in vectors {
            let id = open(&vector.secret, &vector.token).unwrap();
            assert_eq!(id.to_string(), vector.plugin_id);
            let nonce = data_encoding::HEXLOWER
                .decode(vector.nonce_hex.as_bytes())
                .unwrap();
            let token = seal(&vector.secret, &vector.plugin_id, nonce.try_into().unwrap());
            assert_eq!(token, vector.token);
        }
    }

    #[test]
    fn every_invalid_token_is_refused() {
        let vectors = vectors().invalid;
        assert_eq!(vectors.len(), 10);
        for vector in vectors {
            let opened = open(&vector.secret, &vector.token);
            assert_eq!(opened, None, "{}", vector.why);
        }
    }

    #[test]
    fn a_sealed_token_opens_only_with_its_own_secret_and_is_never_the_same_twice() {
        let secret = Secret::generate().unwrap();
        let id = InstallationId::generate();
        let token = SealedToken::seal(&secret, id).unwrap();
        assert_eq!(token.0.len(), 80);
        assert_eq!(token.open(&secret), Some(id));
        assert_eq!(token.open(&Secret::generate().unwrap()), None);
        let again = SealedToken::seal(&secret, id).unwrap();
        assert_ne!(*token.0, *again.0);
    }

    #[test]
    fn no_other_spelling_of_a_token_opens() {
        let secret = "Storyden0Plugin1Secret2Vector3ab";
        let token = seal(secret, "9m4e2mr0ui3e8a215n4g", [7; NONCE]);
        assert!(open(secret, &token).is_some());
        for other in [
            format!("{token}=="),
            format!("{token}\n"),
            format!(" {token}"),
            format!("{token}A"),
            token[..79].to_owned(),
        ] {
            assert_eq!(open(secret, &other), None, "{other:?}");
        }
        // 79 bytes end in a character that carries surplus bits: B has one set, A has none.
        let short = BASE64URL_NOPAD.encode(&[0; 59]);
        assert!(short.ends_with('A'));
        let surplus = format!("{}B", &short[..short.len() - 1]);
        assert_eq!(open(secret, &surplus), None);
    }

    #[test]
    fn only_the_exact_form_is_external_token() {
        let token = ExternalToken::generate().unwrap();
        let text = token.expose();
        assert_eq!(text.len(), 38);
        assert!(
            matches!(Token::classify(text.to_owned()), Token::External(known) if known == token)
        );
        assert_eq!(ExternalToken::parse(text).unwrap(), token);
        for other in [
            String::new(),
            "sdprt_".to_owned(),
            text[..37].to_owned(),
            format!("{text}a"),
            format!("{}-", &text[..37]),
            text.replacen("sdprt_", "SDPRT_", 1),
            text[6..].to_owned(),
        ] {
            assert!(ExternalToken::parse(&other).is_err());
            assert!(
                matches!(Token::classify(other.clone()), Token::Sealed(token) if *token.0 == other),
                "{other:?}"
            );
        }
    }

    #[test]
    fn equality_sees_every_character() {
        let text = "sdprt_Storyden0Plugin1Secret2Vector3ab";
        let token = ExternalToken::parse(text).unwrap();
        for position in EXTERNAL_PREFIX.len()..text.len() {
            let mut other = text.to_owned();
            other.replace_range(position..=position, "Z");
            assert_ne!(
                token,
                ExternalToken::parse(&other).unwrap(),
                "at {position}"
            );
        }
        assert_eq!(token, token.clone());
        assert_ne!(token, ExternalToken::generate().unwrap());
    }

    #[test]
    fn debug_shows_no_token() {
        let token = ExternalToken::generate().unwrap();
        assert_eq!(format!("{token:?}"), "ExternalToken(…redacted…)");
    }
}
