//! What the service's answers mean: statuses, bodies of errors, JSON. Pure functions.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::SpritesProblem;
use crate::text;

/// The most bytes of the body of a failure that are read.
pub(super) const FAILURE_LIMIT: usize = 64 * 1024;

/// The most bytes of what the service says that are kept for an error.
const MESSAGE_LIMIT: usize = 1024;

/// The longest wait that is taken at its word; a longer one is this long, which no caller waits for.
const LONGEST_WAIT: u64 = 24 * 60 * 60;

/// The body of a failure. The service has several shapes, of which all members are optional.
#[derive(Default, Deserialize)]
struct FailureBody {
    #[serde(default, deserialize_with = "lenient")]
    error: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    message: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    code: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    retry_after_seconds: Option<u64>,
    #[serde(default, deserialize_with = "lenient")]
    errors: Option<Vec<String>>,
}

/// Reads a member, or nothing where it has another type: one odd member must not hide the others.
fn lenient<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// A failure as the service tells it.
#[derive(Clone, Copy)]
pub(super) struct FailedAnswer<'a> {
    pub(super) status: u16,
    /// The value of `Retry-After`.
    pub(super) retry_after: Option<&'a [u8]>,
    pub(super) body: &'a [u8],
    /// Cut out of what is shown.
    pub(super) token: &'a str,
    /// The request has a body that the service might repeat, so of its words only the code is kept.
    pub(super) secret_body: bool,
}

impl FailedAnswer<'_> {
    /// Returns what the failure means, by its status.
    pub(super) fn problem(self) -> SpritesProblem {
        let body: Option<FailureBody> = serde_json::from_slice(self.body).ok();
        let is_json = body.is_some();
        let body = body.unwrap_or_default();
        let wait = body.retry_after_seconds.filter(|seconds| *seconds > 0);
        let wait = wait
            .or_else(|| whole_seconds(self.retry_after?))
            .map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT)));
        let code = [&body.code, &body.error].into_iter().flatten();
        let code = code.into_iter().find(|code| is_code(code)).cloned();
        let message = if self.secret_body {
            code.clone().unwrap_or_default()
        } else if is_json {
            let listed = body.errors.map(|errors| errors.join("; "));
            let said = [body.message, body.error, listed, body.code];
            said.into_iter().flatten().next().unwrap_or_default()
        } else {
            visible_text(self.body)
        };
        let message = self.shown(&message);
        match self.status {
            404 | 410 => SpritesProblem::NotFound,
            429 => SpritesProblem::RateLimited {
                wait,
                code: code.map(|code| self.shown(&code)),
                message,
            },
            status @ (408 | 500..=599) => SpritesProblem::Unavailable {
                status,
                wait,
                message,
            },
            status @ 300..=399 => SpritesProblem::Redirect { status },
            status => SpritesProblem::Refused { status, message },
        }
    }

    /// Whether a file system's failure says that there is no such file, whatever its status.
    pub(super) fn is_missing_file(self) -> bool {
        let body: FailureBody = serde_json::from_slice(self.body).unwrap_or_default();
        let says = |text: &Option<String>| {
            let text = text.as_deref().unwrap_or_default();
            text == "ENOENT"
                || text
                    .to_ascii_lowercase()
                    .contains("no such file or directory")
        };
        self.status >= 400
            && [&body.code, &body.error, &body.message]
                .into_iter()
                .any(says)
    }

    fn shown(self, message: &str) -> Box<str> {
        // Cut last, or a part of the token would stay at the cut.
        let message = message.replace(self.token, "[token]");
        text::cut(&message, MESSAGE_LIMIT).into()
    }
}

/// The value of `Retry-After`, if it is a number of seconds; a date is not looked at.
fn whole_seconds(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value.trim_ascii()).ok()?.parse().ok()
}

fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns a body that is no JSON as text, or nothing for a page in HTML, which says nothing to anyone here.
fn visible_text(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    if text.starts_with('<') {
        return String::new();
    }
    text.to_owned()
}

/// Reads the JSON of an answer.
///
/// # Errors
/// [`Protocol`](SpritesProblem::Protocol). Its text has no part of the body, which may repeat what was sent.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, SpritesProblem> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => {
                "its JSON does not have the members it should have"
            }
            _ => "it is not JSON",
        };
        let place = format!("{what} (line {}, column {})", error.line(), error.column());
        SpritesProblem::Protocol(place.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_matches;

    fn failed<'a>(status: u16, retry_after: Option<&'a str>, body: &'a str) -> FailedAnswer<'a> {
        FailedAnswer {
            status,
            retry_after: retry_after.map(str::as_bytes),
            body: body.as_bytes(),
            token: "org/id/secret",
            secret_body: false,
        }
    }

    #[test]
    fn the_status_decides_and_the_words_are_kept() {
        for (status, body, text) in [
            (404, r#"{"error":"sprite not found"}"#, "no such sprite"),
            (410, "", "no such sprite"),
            (
                400,
                r#"{"error":"sprite not found"}"#,
                "status 400: sprite not found",
            ),
            (401, "", "status 401 (check SPRITES_API_KEY)"),
            (
                409,
                r#"{"error":"taken","message":"in use"}"#,
                "status 409: in use",
            ),
            (422, r#"{"errors":["a","b"]}"#, "status 422: a; b"),
            (422, r#"{"error":7,"message":"m"}"#, "status 422: m"),
            (500, "<html><body>oh", "fails with status 500"),
            (503, "try again", "fails with status 503: try again"),
            (302, "", "redirects (status 302)"),
            (408, "[1]", "fails with status 408"),
        ] {
            let problem = failed(status, None, body).problem().to_string();
            assert!(problem.contains(text), "{status} {body}: {problem}");
        }
        let shown = failed(500, None, "<html>").problem().to_string();
        assert!(!shown.contains("html"), "{shown}");
    }

    #[test]
    fn the_wait_is_the_bodys_then_the_headers() {
        let wait = |retry_after, body| match failed(429, retry_after, body).problem() {
            SpritesProblem::RateLimited { wait, .. } => wait.map(|wait| wait.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(Some("7"), r#"{"retry_after_seconds":3}"#), Some(3));
        assert_eq!(wait(Some("7"), r#"{"retry_after_seconds":0}"#), Some(7));
        assert_eq!(wait(Some("7"), r#"{"retry_after_seconds":-1}"#), Some(7));
        assert_eq!(wait(Some(" 7 "), "not json"), Some(7));
        assert_eq!(wait(Some("Wed, 21 Oct 2015 07:28:00 GMT"), ""), None);
        assert_eq!(wait(None, ""), None);
        assert_eq!(wait(Some("18446744073709551615"), ""), Some(LONGEST_WAIT));
        let limited =
            failed(429, None, r#"{"error":"concurrent_sprite_limit_exceeded"}"#).problem();
        assert_matches!(limited, SpritesProblem::RateLimited { code: Some(_), .. });
    }

    #[test]
    fn a_token_that_the_service_repeats_is_not_shown_nor_is_what_was_written() {
        let body = format!(
            r#"{{"message":"{}bad org/id/secret"}}"#,
            "x".repeat(MESSAGE_LIMIT - 8)
        );
        let problem = failed(400, None, &body).problem();
        assert!(
            !format!("{problem} {problem:?}").contains("secret"),
            "{problem:?}"
        );
        let body = r#"{"error":"cannot write wss://host/rpc?token","code":"EACCES"}"#;
        let answer = FailedAnswer {
            secret_body: true,
            ..failed(400, None, body)
        };
        let problem = answer.problem();
        assert!(
            problem.to_string().ends_with("status 400: EACCES"),
            "{problem}"
        );
        assert!(!format!("{problem:?}").contains("wss"), "{problem:?}");
    }

    #[test]
    fn a_missing_file_is_known_by_code_or_words() {
        let missing = |status, body| failed(status, None, body).is_missing_file();
        assert!(missing(
            500,
            r#"{"error":"open /a: no such file or directory"}"#
        ));
        assert!(missing(400, r#"{"error":"oops","code":"ENOENT"}"#));
        assert!(!missing(400, r#"{"error":"oops","code":"EACCES"}"#));
        assert!(!missing(200, r#"{"code":"ENOENT"}"#));
        assert!(!missing(500, "no such file or directory, in a page"));
    }

    #[test]
    fn json_that_cannot_be_read_is_not_repeated() {
        let error = json::<Vec<u8>>(br#"["secret"]"#).unwrap_err().to_string();
        assert!(error.contains("members"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        assert!(
            json::<Vec<u8>>(b"<html>")
                .unwrap_err()
                .to_string()
                .contains("not JSON")
        );
    }
}
