//! `Call`: a request for one operation, with what its path and query say.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Api;
use super::problem::Problem;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::http::{Request, Response};
use crate::id::InstallationId;
use crate::manager::Manager;
use crate::protocol::unquoted::unquoted;
use crate::session::context::HostSettings;

/// Characters of an installation id; what follows them in a path is for people.
const ID_LENGTH: usize = 20;

/// The most bytes of a body that is JSON.
const JSON_LIMIT: u64 = 4 * 1024 * 1024;

/// How often an operation that waits asks whether its client is still there.
pub(super) const LOOK: Duration = Duration::from_secs(1);

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

    pub(super) fn host_settings(&self) -> &HostSettings {
        &self.manager().host().shared().context.settings
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

    /// Returns a parameter of the query that is true or false; `default` if it is absent.
    ///
    /// # Errors
    /// 400 if it is anything else.
    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.query(name).as_deref() {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(_) => Err(Problem::bad_request(format!("`{name}` is true or false"))),
        }
    }

    /// Reads a JSON body.
    ///
    /// # Errors
    /// 413, 415, or 400 with what is wrong and where, but without any of its values.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        let body = self.json_text()?;
        // Structs would be read from these too.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err(Problem::bad_request(
                "the body must be a JSON object, found an array",
            ));
        }
        serde_json::from_slice(&body).map_err(|error| {
            let error = unquoted(error);
            Problem::bad_request(format!("the body cannot be read: {error}"))
        })
    }

    /// Reads a JSON body without looking into it.
    ///
    /// # Errors
    /// 413 or 415.
    pub(super) fn json_text(&mut self) -> Result<Vec<u8>, Problem> {
        if self.content_type() != "application/json" {
            return Err(Problem::unsupported_media_type("application/json"));
        }
        Ok(self.request.read_body(JSON_LIMIT)?)
    }

    /// Waits for something that goes on whether or not it is waited for, at most for `timeout`. `wait` waits for a
    /// part of that time, and is called again after an error that the part ran out.
    ///
    /// # Errors
    /// Those of `wait`; 503 when the server stops, or when the client has gone and reads no answer.
    pub(super) fn wait<T>(
        &self,
        timeout: Duration,
        mut wait: impl FnMut(Duration) -> Result<T>,
    ) -> Result<T, Problem> {
        let deadline = Deadline::after(timeout);
        loop {
            match wait(deadline.remaining().min(LOOK)) {
                Err(Error::Timeout { phase, problem, .. }) if deadline.has_passed() => {
                    // Its limit was a part of the whole.
                    let limit = timeout;
                    return Err(Error::Timeout {
                        phase,
                        limit,
                        problem,
                    }
                    .into());
                }
                Err(error) if error.is_timeout() && !deadline.has_passed() => {}
                waited => return Ok(waited?),
            }
            self.expect_client()?;
        }
    }

    /// Checks that there still is a client to answer, which an operation that waits does every [`LOOK`].
    ///
    /// # Errors
    /// 503.
    pub(super) fn expect_client(&self) -> Result<(), Problem> {
        if self.request.is_awaited() {
            return Ok(());
        }
        let detail = "the server stops, or the client has gone; what was begun goes on";
        Err(Problem::new(503, ErrorKind::ShutDown.as_str(), detail))
    }

    /// Returns the media type of the body in lower case, without parameters.
    pub(super) fn content_type(&self) -> String {
        let value = self.request.header("Content-Type").unwrap_or("");
        let media = value.split(';').next().unwrap_or("");
        media.trim().to_ascii_lowercase()
    }
}

/// Returns a time that a client chose, which is more than zero and at most `longest`.
///
/// # Errors
/// 400 with the name and the longest one.
pub(super) fn time(name: &str, seconds: f64, longest: Duration) -> Result<Duration, Problem> {
    let time = Duration::try_from_secs_f64(seconds).ok();
    time.filter(|time| !time.is_zero() && *time <= longest)
        .ok_or_else(|| {
            let most = longest.as_secs();
            Problem::bad_request(format!(
                "{name} must be a number of seconds, more than 0 and at most {most}"
            ))
        })
}

/// Answers with JSON.
pub(super) fn json(status: u16, value: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| Error::encode("answer", error))?;
    Ok(Response::bytes(status, "application/json", body).header("Cache-Control", "no-store"))
}
