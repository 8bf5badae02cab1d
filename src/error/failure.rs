//! The errors on whose single cases no caller acts: one opaque type, and in it an error of each domain.

use std::fmt;
use std::sync::Arc;

use super::{
    Descendants, ErrorKind, FetchError, ManifestError, OperationError, PackageError, SpritesError,
    StartError, StoreError, TokenError,
};
use crate::id::IdError;
use crate::state::UnknownName;

/// What [`Error::Failed`](super::Error::Failed) holds: the [text](fmt::Display), the
/// [source](std::error::Error::source) and the [kind](super::Error::kind) of an error.
#[derive(Clone)]
pub struct Failure(Arc<FailureCause>);

/// The error in a [`Failure`], by the domain that it is of.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FailureCause {
    #[error(transparent)]
    Id(IdError),
    #[error(transparent)]
    UnknownName(UnknownName),
    #[error(transparent)]
    Manifest(ManifestError),
    #[error(transparent)]
    Token(TokenError),
    #[error(transparent)]
    Package(PackageError),
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Operation(OperationError),
    #[error(transparent)]
    Fetch(FetchError),
    #[error(transparent)]
    Start(StartError),
    #[error(transparent)]
    Sprites(SpritesError),
    #[error("the plugin is not all gone: {0}")]
    DescendantsLeft(Descendants),
    /// From outside the crate.
    #[error("{message}")]
    Other { kind: ErrorKind, message: Box<str> },
}

impl Failure {
    pub(super) fn new(cause: FailureCause) -> Self {
        Self(Arc::new(cause))
    }

    pub(super) fn cause(&self) -> &FailureCause {
        &self.0
    }
}

impl FailureCause {
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Id(_) | Self::UnknownName(_) => ErrorKind::InvalidInput,
            Self::Manifest(_) => ErrorKind::InvalidManifest,
            Self::Token(error) => error.kind(),
            Self::Package(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::Operation(error) => error.kind(),
            Self::Fetch(error) => error.kind(),
            Self::Start(error) => error.kind(),
            Self::Sprites(error) => error.kind(),
            Self::DescendantsLeft(_) => ErrorKind::DescendantsLeft,
            Self::Other { kind, .. } => *kind,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
