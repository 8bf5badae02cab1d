//! `Problem`: an answer that is an error, as `application/problem+json`
//! ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)).

use std::borrow::Cow;
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, ErrorKind, FieldProblem, RpcError};
use crate::http::{BodyError, RefusalAnswer, RefusalBody, Response, reason};

const CONTENT_TYPE: &str = "application/problem+json";

#[derive(Debug)]
pub(super) struct Problem {
    status: u16,
    kind: &'static str,
    detail: String,
    fields: Vec<FieldProblem>,
    /// What the plugin itself answered.
    rpc_error: Option<Arc<RpcError>>,
    header: Option<(&'static str, Cow<'static, str>)>,
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "type")]
    kind_url: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    trace_id: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fields: &'a [FieldProblem],
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc_error: Option<&'a RpcError>,
}

impl Problem {
    pub(super) fn new(status: u16, kind: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            detail: detail.into(),
            fields: Vec::new(),
            rpc_error: None,
            header: None,
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, ErrorKind::InvalidInput.as_str(), detail)
    }

    pub(super) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(401, "unauthenticated", detail).header("WWW-Authenticate", "Bearer")
    }

    pub(super) fn unsupported_media_type(expected: &str) -> Self {
        let detail = format!("the body must be {expected}, and Content-Type must say so");
        Self::new(415, "unsupported_media_type", detail)
    }

    pub(super) fn header(
        mut self,
        name: &'static str,
        value: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.header = Some((name, value.into()));
        self
    }

    /// Answers with another status than the one that fits the kind.
    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn respond(self) -> Response {
        let trace = trace_id();
        if self.status >= 500 {
            log::warn!(
                "request {trace} is answered with {}: {}",
                self.status,
                self.detail
            );
        }
        let body = self.body(&trace);
        let response = Response::bytes(self.status, CONTENT_TYPE, body);
        match self.header {
            Some((name, value)) => response.header(name, value),
            None => response,
        }
    }

    /// Words what is refused before there is an operation.
    pub(super) fn of_refusal(answer: &RefusalAnswer) -> RefusalBody {
        let kind = match answer.status {
            500 => "internal",
            503 => ErrorKind::Overloaded.as_str(),
            _ => "invalid_request",
        };
        // What refuses logs what an operator has to know, and does so once for many.
        let problem = Self::new(answer.status, kind, answer.text);
        RefusalBody {
            content_type: CONTENT_TYPE,
            text: problem.body(&trace_id()),
        }
    }

    fn body(&self, trace_id: &str) -> String {
        let name = match self.status {
            400 => Some("invalid-argument"),
            401 => Some("unauthenticated"),
            403 => Some("permission-denied"),
            404 => Some("not-found"),
            409 => Some("already-exists"),
            500 => Some("internal"),
            502 => Some("cancelled"),
            _ => None,
        };
        let shown = Shown {
            kind_url: name.map_or_else(
                || "about:blank".to_owned(),
                |name| format!("urn:storyden:problem:{name}"),
            ),
            title: reason(self.status),
            status: self.status,
            detail: &self.detail,
            trace_id,
            kind: self.kind,
            fields: &self.fields,
            rpc_error: self.rpc_error.as_deref(),
        };
        // Numbers and text alone, which cannot fail to encode.
        serde_json::to_string(&shown).unwrap_or_default()
    }
}

/// 32 hexadecimal digits, by which a line of the log can be found; zeros without a source of randomness.
fn trace_id() -> String {
    let mut random = [0; 16];
    let _ = getrandom::fill(&mut random);
    data_encoding::HEXLOWER.encode(&random)
}

/// Answers with the status that Storyden's API has, or the [kind's](ErrorKind::http_status) where there is
/// none, or where Storyden's is a fault of its.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let status = match kind {
            ErrorKind::InvalidPackage
            | ErrorKind::InvalidManifest
            | ErrorKind::DigestMismatch
            | ErrorKind::InvalidConfiguration
            | ErrorKind::ConfigurationRefused
            | ErrorKind::PrivateAddress
            | ErrorKind::Unsupported => 400,
            // It is installed; it has to be activated first, or waited for.
            ErrorKind::NotLoaded | ErrorKind::NotReady => 409,
            _ => kind.http_status(),
        };
        Self {
            fields: error.problems().to_vec(),
            rpc_error: match &error {
                Error::Rpc(answered) => Some(answered.clone()),
                _ => None,
            },
            ..Self::new(status, kind.as_str(), error.to_string())
        }
    }
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        Self::new(error.answer().status, "invalid_body", error.to_string())
    }
}
