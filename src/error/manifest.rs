//! Errors of manifests.

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {}

/// One thing wrong with a manifest.
#[derive(Debug)]
pub struct ManifestProblem;
