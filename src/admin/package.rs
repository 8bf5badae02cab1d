//! Operations on the package of an installation: uploading, downloading and replacing it.
//!
//! Where a package is taken, the query `sha256` refuses any other than the one with this SHA-256. Other queries
//! are refused there: one that is misspelt would pin nothing.

use super::call::{Call, json};
use super::installation::Plugin;
use super::problem::Problem;
use crate::error::{Error, ErrorKind, PackageError, Result};
use crate::http::{BodyError, Response};
use crate::manager::{Manager, PackageSource};

pub(super) const MEDIA_TYPE: &str = "application/zip";

pub(super) fn update(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    if call.content_type() != MEDIA_TYPE {
        return Err(Problem::unsupported_media_type(MEDIA_TYPE));
    }
    let updated = upload(call, |manager, source| manager.update_package(id, source))?;
    json(200, &Plugin::new(&updated.installation))
}

pub(super) fn download(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let manager = call.manager();
    let content = manager.package(id).map_err(|error| {
        let is_missing = error.kind() == ErrorKind::RecordDamaged;
        let problem = Problem::from(error);
        if is_missing {
            problem.with_status(404)
        } else {
            problem
        }
    })?;
    let length = content
        .size()
        .map_err(|error| Error::io("read the package", error))?;
    let name = file_name(&manager.get(id)?.manifest().id);
    let response = Response::stream(200, MEDIA_TYPE, length, content.reader());
    Ok(response.header(
        "Content-Disposition",
        format!("attachment; filename={name}.zip"),
    ))
}

/// Returns a name that needs no quotes in a header.
fn file_name(manifest_id: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let plain = |c| if is_plain(c) { c } else { '_' };
    manifest_id.chars().map(plain).collect()
}

/// Installs from the package that is the body, which is stored as it comes and never held in memory whole.
pub(super) fn upload<T>(
    call: &mut Call<'_, '_>,
    install: impl FnOnce(&Manager, PackageSource<'_>) -> Result<T>,
) -> Result<T, Problem> {
    let limit = call.host_settings().package_limits.archive_size;
    let sha256 = sha256(call)?;
    let source = PackageSource::reader(call.request.body(limit));
    let source = pinned(source, sha256);
    let installed = install(&call.api.manager, source);
    installed.map_err(|error| match call.request.body_error() {
        Some(BodyError::TooLarge { limit }) => {
            Error::from(PackageError::ArchiveTooLarge { limit }).into()
        }
        Some(error) => error.into(),
        None => error.into(),
    })
}

/// The package at this URL.
#[cfg(feature = "fetch")]
pub(super) fn fetched(call: &Call<'_, '_>, url: String) -> Result<PackageSource<'static>, Problem> {
    Ok(pinned(PackageSource::url(url), sha256(call)?))
}

fn pinned(source: PackageSource<'_>, sha256: Option<String>) -> PackageSource<'_> {
    match sha256 {
        Some(sha256) => source.sha256(sha256),
        None => source,
    }
}

/// Returns the SHA-256 that the query has, if there is a query.
///
/// # Errors
/// 400 if it has anything else.
pub(super) fn sha256(call: &Call<'_, '_>) -> Result<Option<String>, Problem> {
    let mut parameters = form_urlencoded::parse(call.request.query().as_bytes());
    match (parameters.next(), parameters.next()) {
        (None, _) => Ok(None),
        (Some((name, value)), None) if name == "sha256" => Ok(Some(value.into_owned())),
        _ => Err(Problem::bad_request(
            "the query must be one `sha256`, or nothing",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_needs_no_quotes() {
        for (id, name) in [
            ("fire-bot", "fire-bot"),
            ("a b/../\"c\"\r\n", "a_b_..__c___"),
            ("\u{e4}", "_"),
        ] {
            assert_eq!(file_name(id), name);
        }
    }
}
