//! Versions of a plugin that are kept, and going back to one.

use serde::{Deserialize, Serialize};

use super::call::{Call, json};
use super::installation::{Plugin, rfc3339};
use super::problem::Problem;
use crate::http::Response;
use crate::manager::Version;

#[derive(Serialize)]
struct List {
    versions: Vec<ShownVersion>,
}

#[derive(Serialize)]
struct ShownVersion {
    sha256: String,
    size: u64,
    version: String,
    is_current: bool,
    used_from: Option<String>,
    used_until: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// The version that was used before the current one, if there is none.
    to: Option<String>,
}

impl From<Version> for ShownVersion {
    fn from(version: Version) -> Self {
        Self {
            sha256: version.sha256,
            size: version.size,
            version: version.version,
            is_current: version.is_current,
            used_from: version.used_from.map(rfc3339),
            used_until: version.used_until.map(rfc3339),
        }
    }
}

pub(super) fn list(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let versions = call.manager().versions(call.id()?)?;
    let versions = versions.into_iter().map(ShownVersion::from).collect();
    json(200, &List { versions })
}

pub(super) fn rollback(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let Rollback { to } = call.json()?;
    let report = call.manager().rollback(id, to.as_deref())?;
    json(200, &Plugin::new(&report.installation))
}
