//! `Call`: a request for one operation, with what its path and query say.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::Problem;
use crate::error::Error;
use crate::http::{Request, Response};
use crate::id::InstallationId;
use crate::manager::Manager;

/// Characters of an installation id; what follows them in a path is for people.
const ID_LENGTH: usize = 20;

/// The most bytes of a body that is JSON.
const JSON_LIMIT: u64 = 4 * 1024 * 1024;

pub(super) struct Call<'a, 'c> {
    pub(super) api: &'a Api,
    pub(super) request: &'a mut Request<'c>,
    /// What stands in the path where the route has names in braces, in their order.
    pub(super) path: Vec<String>,
}

impl Call<'_, '_> {
    pub(super) fn manager(&self) -> &Manager {
        &self.api.manager
    }

    /// Returns the installation that the path names first.
    ///
    /// # Errors
    /// 404 if it is no id.
    pub(super) fn id(&self) -> Result<InstallationId, Problem> {
        let segment = self.path.first().map_or("", String::as_str);
        let id = segment.get(..ID_LENGTH).and_then(|id| id.parse().ok());
        id.ok_or_else(|| {
            let shown = crate::text::Foreign::new(segment);
            Problem::new(
                404,
                "not_installed",
                format!("{shown:?} is no installation id"),
            )
        })
    }

    /// Returns a parameter of the query, decoded.
    pub(super) fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        form_urlencoded::parse(self.request.query().as_bytes())
            .find(|(found, _)| found == name)
            .map(|(_, value)| value)
    }

    /// Reads a JSON body.
    ///
    /// # Errors
    /// 413, 415, or 400 with what is wrong and where, but without any of its values.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        if self.content_type() != "application/json" {
            return Err(Problem::new(
                415,
                "unsupported_media_type",
                "the body must be application/json",
            ));
        }
        let body = self.request.read_body(JSON_LIMIT)?;
        serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))
    }

    /// Returns the media type of the body in lower case, without parameters.
    pub(super) fn content_type(&self) -> String {
        let value = self.request.header("Content-Type").unwrap_or("");
        let media = value.split(';').next().unwrap_or("");
        media.trim().to_ascii_lowercase()
    }
}

/// Answers with JSON.
pub(super) fn json(status: u16, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| Error::encode("answer", error))?;
    Ok(Response::bytes(status, "application/json", body).header("Cache-Control", "no-store"))
}
