//! What has been asked of the service.

use super::http::Request;
use super::switches::matches;

/// One request, answered or not.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// As `GET /v1/sprites/name`: without the query.
    pub(crate) request: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) authorization: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// How long its body was.
    pub(crate) body: usize,
    /// The status it was answered with, if it was.
    pub(crate) status: Option<u16>,
}

/// All of them, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls(pub(crate) Vec<Call>);

impl Calls {
    pub(super) fn add(&mut self, request: &Request) -> usize {
        self.0.push(Call {
            request: format!("{} {}", request.method, request.path),
            query: request.query.clone(),
            authorization: request.header("authorization").map(str::to_owned),
            user_agent: request.header("user-agent").map(str::to_owned),
            body: request.body.len(),
            status: None,
        });
        self.0.len() - 1
    }

    /// Those that match a pattern as `PUT */fs/write`.
    pub(crate) fn of<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = &'a Call> {
        let meant = move |call: &&Call| matches(pattern, &call.request);
        self.0.iter().filter(meant)
    }

    pub(crate) fn count(&self, pattern: &str) -> usize {
        self.of(pattern).count()
    }
}
