//! Identifiers: xids, and the newtypes that say what an xid names.
//!
//! Ids that *plugins* send are not here: they are opaque and need not be xids
//! (see [`crate::protocol::jsonrpc`]). No I/O, no threads; one process-wide atomic counter.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const TEXT_LENGTH: usize = 20;

/// An xid: 12 bytes, shown as 20 characters of `0-9a-v` ([Identifiers](crate::protocol#identifiers)).
///
/// The bytes are seconds since 1970, a machine value, the process id and a counter, so ids sort by
/// the time they were made, and two hosts do not make the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid([u8; 12]);

impl Xid {
    /// Returns a new id, distinct from every other id that this process makes.
    pub fn generate() -> Self {
        struct XidOrigin {
            machine: [u8; 3],
            /// Read once, because that is a system call.
            process: [u8; 4],
            counter: AtomicU32,
        }
        static ORIGIN: OnceLock<XidOrigin> = OnceLock::new();
        let origin = ORIGIN.get_or_init(|| {
            let mut random = [0_u8; 6];
            if getrandom::fill(&mut random).is_err() {
                // Ids need to be distinct, not secret: without a random source the clock will do.
                random.copy_from_slice(&nanoseconds().to_be_bytes()[2..]);
            }
            XidOrigin {
                machine: [random[0], random[1], random[2]],
                process: std::process::id().to_be_bytes(),
                counter: AtomicU32::new(u32::from_be_bytes([0, random[3], random[4], random[5]])),
            }
        });
        let seconds = u32::try_from(nanoseconds() / 1_000_000_000).unwrap_or(u32::MAX);
        let counter = origin.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..7].copy_from_slice(&origin.machine);
        bytes[7..9].copy_from_slice(&origin.process[2..]);
        bytes[9..].copy_from_slice(&counter[1..]);
        Self(bytes)
    }

    /// Returns the id with these 12 bytes.
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }

    /// Returns the 12 bytes of the id.
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    fn text(&self) -> [u8; TEXT_LENGTH] {
        let mut value = [0_u8; 16];
        value[..12].copy_from_slice(&self.0);
        let bits = u128::from_be_bytes(value);
        std::array::from_fn(|position| {
            let shift = 123 - 5 * position;
            ALPHABET[((bits >> shift) & 31) as usize]
        })
    }
}

fn nanoseconds() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Xid {
    fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() != TEXT_LENGTH {
            return Err(IdError::Length { found: text.len() });
        }
        let mut bits = 0_u128;
        for (position, byte) in text.bytes().enumerate() {
            let value = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'v' => byte - b'a' + 10,
                _ => return Err(IdError::Character { position }),
            };
            if position == TEXT_LENGTH - 1 && value & 0b1111 != 0 {
                return Err(IdError::LastCharacter);
            }
            bits = bits << 5 | u128::from(value);
        }
        // 20 characters carry 100 bits; the last four are padding.
        let bytes = (bits >> 4).to_be_bytes();
        let mut id = [0; 12];
        id.copy_from_slice(&bytes[4..]);
        Ok(Self(id))
    }
}

impl FromStr for Xid {
    type Err = Error;

    /// Reads the 20 characters of an xid.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the text is no xid.
    fn from_str(text: &str) -> Result<Self, Error> {
        Ok(Self::parse(text)?)
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.text() {
            fmt::Write::write_char(f, char::from(byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Xid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Xid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not an xid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdError {
    /// The text is not 20 bytes long.
    #[error("id has {found} bytes, expected 20 characters of 0-9 and a-v")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// A character is not in the alphabet; capital letters are not either.
    #[error("id has a character outside 0-9 and a-v at position {position}")]
    Character {
        /// The position, in bytes from zero.
        position: usize,
    },
    /// The last character carries bits beyond the 96 of an xid.
    #[error("id does not end in 0 or g, so it is not an xid")]
    LastCharacter,
}

macro_rules! xid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Xid);

        impl $name {
            /// Returns a new id, distinct from every other id that this process makes.
            pub fn generate() -> Self {
                Self(Xid::generate())
            }
        }

        impl From<Xid> for $name {
            fn from(id: Xid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Reads the 20 characters of an xid.
            ///
            /// # Errors
            /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): the text is no xid.
            fn from_str(text: &str) -> Result<Self, Error> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

xid_newtype! {
    /// The host's id of one installed plugin. The manifest's `id` is different: it is the author's
    /// name for the plugin, which may be installed several times.
    InstallationId
}

xid_newtype! {
    /// The id of a request that this side sends. Always a valid xid: the Go SDK drops a request with
    /// any other id without answering ([Identifiers](crate::protocol#identifiers)).
    RequestId
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_protocol_files_vector_round_trips() {
        let bytes = [
            0x4d, 0x88, 0xe1, 0x5b, 0x60, 0xf4, 0x86, 0xe4, 0x28, 0x41, 0x2d, 0xc9,
        ];
        let id = Xid::from_bytes(bytes);
        assert_eq!(id.to_string(), "9m4e2mr0ui3e8a215n4g");
        assert_eq!(
            "9m4e2mr0ui3e8a215n4g".parse::<Xid>().unwrap().as_bytes(),
            &bytes
        );
    }

    #[test]
    fn extremes_round_trip() {
        for bytes in [[0; 12], [0xff; 12]] {
            let id = Xid::from_bytes(bytes);
            assert_eq!(id.to_string().parse::<Xid>().unwrap(), id);
        }
    }

    #[test]
    fn parsing_says_what_is_wrong() {
        let parse = |text: &str| text.parse::<InstallationId>().unwrap_err().to_string();
        assert_eq!(
            parse("9m4e2mr0ui3e8a215n4"),
            "id has 19 bytes, expected 20 characters of 0-9 and a-v"
        );
        assert_eq!(
            parse(""),
            "id has 0 bytes, expected 20 characters of 0-9 and a-v"
        );
        assert_eq!(
            parse("9M4e2mr0ui3e8a215n4g"),
            "id has a character outside 0-9 and a-v at position 1"
        );
        assert_eq!(
            parse("9m4e2mr0ui3e8a215n4w"),
            "id has a character outside 0-9 and a-v at position 19"
        );
        // An id as the Python SDK makes them.
        assert_eq!(
            parse("0o6a205tdo4tj2nt466b"),
            "id does not end in 0 or g, so it is not an xid"
        );
    }

    #[test]
    fn generated_ids_are_valid_and_distinct() {
        let ids: HashSet<String> = (0..10_000)
            .map(|_| RequestId::generate().to_string())
            .collect();
        assert_eq!(ids.len(), 10_000);
        for id in &ids {
            assert!(id.parse::<RequestId>().is_ok(), "{id}");
        }
    }

    #[test]
    fn ids_are_strings_in_json() {
        let id: InstallationId = serde_json::from_str("\"9m4e2mr0ui3e8a215n4g\"").unwrap();
        assert_eq!(
            serde_json::to_string(&id).unwrap(),
            "\"9m4e2mr0ui3e8a215n4g\""
        );
        assert!(serde_json::from_str::<InstallationId>("\"nope\"").is_err());
    }
}
