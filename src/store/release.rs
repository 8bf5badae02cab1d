//! `Release`: what a record keeps of one release of its plugin. Which of them is in use, and the list of them, is
//! in `record`; unpacking and removing them is in `package`.

use std::time::SystemTime;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::record::TEXT_BYTES;

/// The most releases of one plugin that a record names.
pub(crate) const RELEASES: usize = 16;

/// A release of a plugin that is kept: a package that the plugin runs from, or ran from before. Its archive stays
/// in the store, and its directory, with the files that the plugin wrote into it, on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Release {
    /// The SHA-256 of its archive, in lower-case hexadecimal.
    pub sha256: String,
    /// The size of its archive in bytes.
    pub size: u64,
    /// The version in its manifest, at most 256 bytes of it; may be empty.
    pub version: String,
    /// When the plugin was last given this release, by an installation, an update or a rollback. Not known of one
    /// that was installed before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_from: Option<SystemTime>,
    /// When another release last took its place; `None` for the one in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_until: Option<SystemTime>,
}

impl Release {
    /// Makes the entry of a release that is in use. A version that is too long is cut off.
    pub fn new(sha256: impl Into<String>, size: u64, version: &str) -> Self {
        let mut end = version.len().min(TEXT_BYTES);
        while !version.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            sha256: sha256.into(),
            size,
            version: version.get(..end).unwrap_or_default().to_owned(),
            used_from: None,
            used_until: None,
        }
    }
}

/// Whether the text is a SHA-256 in lower-case hexadecimal, and so can be a part of a path.
pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && HEXLOWER.decode(text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_too_long_is_cut_between_characters() {
        let cut = |text: &str| Release::new("", 0, text).version;
        assert_eq!(cut("1.2.0-ü"), "1.2.0-ü");
        assert_eq!(cut(&"x".repeat(1_000)), "x".repeat(256));
        assert_eq!(cut(&format!("x{}", "ü".repeat(200))).len(), 255);
    }
}
