//! Errors of identifiers and of names from fixed sets.

use std::sync::Arc;

use crate::text::Foreign;

/// Why text is not an xid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not 20 characters long.
    #[error("id has {found} bytes, expected 20 characters of 0-9 and a-v")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// A character outside the alphabet; capitals are outside too.
    #[error("id has a character outside 0-9 and a-v at position {position}")]
    Character {
        /// Where, counted in bytes from zero.
        position: usize,
    },
    /// The last character carries bits beyond the 96 of an xid.
    #[error("id does not end in 0 or g, so it is not an xid")]
    LastCharacter,
}

/// A name that is not in its fixed set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what}: {:?}", Foreign::new(.name))]
pub struct UnknownName {
    what: &'static str,
    name: Arc<str>,
}

impl UnknownName {
    pub(crate) fn new(what: &'static str, name: &str) -> Self {
        Self {
            what,
            name: name.into(),
        }
    }

    /// The name that is not known.
    pub fn name(&self) -> &str {
        &self.name
    }
}
