//! Tokens: the sealed ones of supervised plugins and the static ones of external plugins, and
//! telling them apart. Where they travel is in `url` and `request`.

use std::fmt;

use crypto_secretbox::aead::{AeadInPlace as _, KeyInit as _};
use crypto_secretbox::{Key, Nonce, Tag, XSalsa20Poly1305};
use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};

use super::secret::{Secret, fill};
use crate::error::{IdError, TokenError};
use crate::id::{InstallationId, Xid};

const NONCE: usize = 24;
const TAG: usize = 16;
const ID: usize = 20;
const EXTERNAL_PREFIX: &str = "sdprt_";

/// A token as it came in, told apart by its own text alone (protocol file, section 5.1).
#[derive(Clone, Debug)]
pub enum Token {
    /// Of an external plugin.
    External(ExternalToken),
    /// Of a supervised plugin, or nonsense: only opening it tells.
    Sealed(SealedToken),
}

/// The static token of an external plugin: `sdprt_` and a secret. It does not expire and works any
/// number of times, until it is replaced.
///
/// Comparing takes the same time wherever two tokens differ. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalToken(Secret);

/// The token of a supervised plugin: its installation id, sealed with the installation's current
/// secret. It carries no time limit and no count: it stops working when the secret is replaced.
///
/// This may also be any other text that somebody sent as a token. `Debug` shows none of it.
#[derive(Clone)]
pub struct SealedToken(Box<str>);

impl Token {
    /// Tells the kind of a token by its text. Everything that is not exactly an external token is
    /// to be judged as a sealed one, also if it begins with `sdprt_`.
    pub fn classify(text: &str) -> Self {
        match ExternalToken::parse(text) {
            Ok(token) => Self::External(token),
            Err(_) => Self::Sealed(SealedToken::from_text(text)),
        }
    }

    /// Whether this is the token of an external plugin.
    pub const fn is_external(&self) -> bool {
        matches!(self, Self::External(_))
    }

    /// The text itself, for handing it to the plugin. It belongs in no log and no message.
    pub fn expose(&self) -> String {
        match self {
            Self::External(token) => token.expose(),
            Self::Sealed(token) => token.expose().to_owned(),
        }
    }
}

impl From<ExternalToken> for Token {
    fn from(token: ExternalToken) -> Self {
        Self::External(token)
    }
}

impl From<SealedToken> for Token {
    fn from(token: SealedToken) -> Self {
        Self::Sealed(token)
    }
}

impl ExternalToken {
    /// Makes a new token with the system's cryptographic generator.
    ///
    /// # Errors
    /// [`TokenError::Random`]: the system gives no random bytes.
    pub fn generate() -> Result<Self, TokenError> {
        Secret::generate().map(Self)
    }

    /// The token with this text.
    ///
    /// # Errors
    /// - [`TokenError::Missing`]: the text is empty.
    /// - [`TokenError::NotExternal`]: another prefix, length or character.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        if text.is_empty() {
            return Err(TokenError::Missing);
        }
        text.strip_prefix(EXTERNAL_PREFIX)
            .and_then(|secret| Secret::parse(secret).ok())
            .map(Self)
            .ok_or(TokenError::NotExternal)
    }

    /// What finds the token among many, and is enough to know it again.
    pub fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The text itself, for storing it and for showing it to the administrator once. It belongs in
    /// no log and no message.
    pub fn expose(&self) -> String {
        format!("{EXTERNAL_PREFIX}{}", self.0.expose())
    }
}

/// The SHA-256 of a token's secret. Tokens have 190 random bits, so nobody finds a token by trying, and
/// a digest may be stored, compared and hashed as any other key. `Display` writes 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes of the digest.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ExternalToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ExternalToken(…redacted…)")
    }
}

impl SealedToken {
    /// Seals an installation's id with its current secret: NaCl secretbox with a random nonce,
    /// 80 characters of URL-safe base64 (protocol file, section 5.2).
    ///
    /// # Errors
    /// [`TokenError::Random`]: the system gives no random bytes.
    pub fn seal(secret: &Secret, installation: InstallationId) -> Result<Self, TokenError> {
        let mut nonce = [0; NONCE];
        fill(&mut nonce)?;
        Self::seal_with_nonce(secret, installation, nonce)
    }

    fn seal_with_nonce(
        secret: &Secret,
        installation: InstallationId,
        nonce: [u8; NONCE],
    ) -> Result<Self, TokenError> {
        let mut body = installation.to_string().into_bytes();
        let tag = cipher(secret)
            .encrypt_in_place_detached(&Nonce::from(nonce), b"", &mut body)
            // Only for associated data, and for more bytes than memory holds.
            .map_err(|_| TokenError::DoesNotOpen)?;
        let mut token = Vec::with_capacity(NONCE + TAG + ID);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(&tag);
        token.extend_from_slice(&body);
        Ok(Self(BASE64URL_NOPAD.encode(&token).into()))
    }

    /// Takes a text that somebody sent as a token, unjudged.
    pub fn from_text(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// Opens the token: gives the installation it was sealed for. The caller still compares that
    /// with the installation that the connection names.
    ///
    /// # Errors
    /// - [`TokenError::Missing`]: the text is empty.
    /// - [`TokenError::NotBase64`]: not URL-safe base64; padding and surplus bits count as such.
    /// - [`TokenError::TooShort`]: no room for a nonce and a tag.
    /// - [`TokenError::DoesNotOpen`]: sealed with another secret, or altered.
    /// - [`TokenError::NotAnId`]: it opens to something else than an xid.
    pub fn open(&self, secret: &Secret) -> Result<InstallationId, TokenError> {
        if self.0.is_empty() {
            return Err(TokenError::Missing);
        }
        let token =
            BASE64URL_NOPAD
                .decode(self.0.as_bytes())
                .map_err(|error| TokenError::NotBase64 {
                    position: error.position,
                })?;
        let too_short = TokenError::TooShort { found: token.len() };
        let (nonce, rest) = token
            .split_first_chunk::<NONCE>()
            .ok_or_else(|| too_short.clone())?;
        let (tag, body) = rest.split_first_chunk::<TAG>().ok_or(too_short)?;
        let mut body = body.to_vec();
        cipher(secret)
            .decrypt_in_place_detached(&Nonce::from(*nonce), b"", &mut body, &Tag::from(*tag))
            .map_err(|_| TokenError::DoesNotOpen)?;
        let text = std::str::from_utf8(&body).map_err(|error| {
            TokenError::NotAnId(IdError::Character {
                position: error.valid_up_to(),
            })
        })?;
        let id: Xid = text.parse().map_err(TokenError::NotAnId)?;
        Ok(id.into())
    }

    /// What knows the token again, once it is spent or replaced.
    pub(crate) fn digest(&self) -> TokenDigest {
        TokenDigest(Sha256::digest(self.0.as_bytes()).into())
    }

    /// The text itself, for handing it to the plugin. It belongs in no log and no message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SealedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedToken(…redacted…)")
    }
}

fn cipher(secret: &Secret) -> XSalsa20Poly1305 {
    XSalsa20Poly1305::new(&Key::from(*secret.as_bytes()))
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
        SealedToken::seal_with_nonce(&secret, id.parse().unwrap(), nonce)
            .unwrap()
            .expose()
            .to_owned()
    }

    fn open(secret: &str, token: &str) -> Result<InstallationId, TokenError> {
        SealedToken::from_text(token).open(&Secret::parse(secret)?)
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
            assert_eq!(
                seal(&vector.secret, &vector.plugin_id, nonce.try_into().unwrap()),
                vector.token
            );
        }
    }

    #[test]
    fn every_invalid_token_is_refused_for_its_own_reason() {
        let vectors = vectors().invalid;
        assert_eq!(vectors.len(), 10);
        for vector in vectors {
            let expected = match vector.why.as_str() {
                "last byte flipped" | "nonce flipped" | "wrong secret" => TokenError::DoesNotOpen,
                "shorter than a nonce" => TokenError::TooShort { found: 20 },
                "nonce only" => TokenError::TooShort { found: 24 },
                "not base64url" => TokenError::NotBase64 { position: 0 },
                "empty" => TokenError::Missing,
                "plaintext is not an id" => TokenError::NotAnId(IdError::Length { found: 5 }),
                "plaintext has a character outside the id alphabet" => {
                    TokenError::NotAnId(IdError::Character { position: 0 })
                }
                "secret is not 32 bytes" => TokenError::SecretLength { found: 5 },
                other => panic!("no expectation for {other:?}"),
            };
            assert_eq!(
                open(&vector.secret, &vector.token),
                Err(expected),
                "{}",
                vector.why
            );
        }
    }

    #[test]
    fn a_sealed_token_opens_only_with_its_own_secret_and_is_never_the_same_twice() {
        let secret = Secret::generate().unwrap();
        let id = InstallationId::generate();
        let token = SealedToken::seal(&secret, id).unwrap();
        assert_eq!(token.expose().len(), 80);
        assert_eq!(token.open(&secret), Ok(id));
        assert_eq!(
            token.open(&Secret::generate().unwrap()),
            Err(TokenError::DoesNotOpen)
        );
        let again = SealedToken::seal(&secret, id).unwrap();
        assert_ne!(token.expose(), again.expose());
    }

    #[test]
    fn no_other_spelling_of_a_token_opens() {
        let secret = "Storyden0Plugin1Secret2Vector3ab";
        let token = seal(secret, "9m4e2mr0ui3e8a215n4g", [7; NONCE]);
        for other in [
            format!("{token}=="),
            format!("{token}\n"),
            format!(" {token}"),
            format!("{token}A"),
            token[..79].to_owned(),
        ] {
            assert!(
                matches!(open(secret, &other), Err(TokenError::NotBase64 { .. })),
                "{other:?}"
            );
        }
        // 79 bytes end in a character that carries surplus bits: B has one set, A has none.
        let short = BASE64URL_NOPAD.encode(&[0; 59]);
        assert!(short.ends_with('A'));
        let surplus = format!("{}B", &short[..short.len() - 1]);
        assert_eq!(
            open(secret, &surplus),
            Err(TokenError::NotBase64 { position: 78 })
        );
    }

    #[test]
    fn only_the_exact_form_is_external() {
        let token = ExternalToken::generate().unwrap();
        let text = token.expose();
        assert_eq!(text.len(), 38);
        assert!(Token::classify(&text).is_external());
        assert_eq!(ExternalToken::parse(&text).unwrap(), token);
        for other in [
            String::new(),
            "sdprt_".to_owned(),
            text[..37].to_owned(),
            format!("{text}a"),
            format!("{}-", &text[..37]),
            text.replacen("sdprt_", "SDPRT_", 1),
            text[6..].to_owned(),
        ] {
            let classified = Token::classify(&other);
            assert!(!classified.is_external(), "{other:?}");
            assert_eq!(classified.expose(), other);
            assert!(ExternalToken::parse(&other).is_err());
        }
    }

    #[test]
    fn external_tokens_compare() {
        let token = ExternalToken::generate().unwrap();
        assert_eq!(token, token.clone());
        assert_ne!(token, ExternalToken::generate().unwrap());
    }

    #[test]
    fn debug_shows_no_token() {
        let external = ExternalToken::generate().unwrap();
        let sealed =
            SealedToken::seal(&Secret::generate().unwrap(), InstallationId::generate()).unwrap();
        let shown = format!(
            "{:?} {:?}",
            Token::classify(&external.expose()),
            Token::classify(sealed.expose())
        );
        assert!(!shown.contains(&external.expose()[6..]), "{shown}");
        assert!(!shown.contains(sealed.expose()), "{shown}");
    }
}
