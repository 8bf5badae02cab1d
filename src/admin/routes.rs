//! The table of operations: method, path, and the function that answers.

use super::Api;
use super::call::Call;
use super::problem::Problem;
use super::{
    configuration, logs, metrics, openapi, overrides, package, plugins, probes, rpc, runs, stream,
    usage, versions,
};
use crate::http::{Request, Response};

type Operation = fn(&mut Call<'_, '_>) -> Result<Response, Problem>;

pub(super) struct Route {
    pub(super) method: &'static str,
    /// The path, with names in braces for segments that are anything.
    pub(super) path: &'static str,
    operation: Operation,
    /// Whether it needs no token.
    pub(super) is_open: bool,
}

const fn route(method: &'static str, path: &'static str, operation: Operation) -> Route {
    Route {
        method,
        path,
        operation,
        is_open: false,
    }
}

const fn open(method: &'static str, path: &'static str, operation: Operation) -> Route {
    Route {
        is_open: true,
        ..route(method, path, operation)
    }
}

pub(super) static ROUTES: &[Route] = &[
    route("GET", "/api/plugins", plugins::list),
    route("POST", "/api/plugins", plugins::add),
    route("GET", "/api/plugins/{id}", plugins::get),
    route("DELETE", "/api/plugins/{id}", plugins::remove),
    route(
        "PATCH",
        "/api/plugins/{id}/active",
        plugins::set_active_state,
    ),
    route(
        "PATCH",
        "/api/plugins/{id}/manifest",
        plugins::update_manifest,
    ),
    route("POST", "/api/plugins/{id}/token", plugins::cycle_token),
    route("GET", "/api/plugins/{id}/package", package::download),
    route("PATCH", "/api/plugins/{id}/package", package::update),
    route(
        "GET",
        "/api/plugins/{id}/configuration-schema",
        configuration::schema,
    ),
    route("GET", "/api/plugins/{id}/configuration", configuration::get),
    route(
        "PATCH",
        "/api/plugins/{id}/configuration",
        configuration::replace,
    ),
    route("GET", "/api/plugins/{id}/logs", logs::follow),
    // Beyond Storyden's.
    route("POST", "/api/plugins/{id}/rpc", rpc::call),
    route("POST", "/api/events", rpc::publish),
    route("GET", "/api/plugins/{id}/overrides", overrides::get),
    route("PATCH", "/api/plugins/{id}/overrides", overrides::change),
    route("POST", "/api/plugins/{id}/restart", runs::restart),
    route("GET", "/api/plugins/{id}/history", runs::history),
    route("GET", "/api/plugins/{id}/versions", versions::list),
    route("POST", "/api/plugins/{id}/rollback", versions::rollback),
    route("GET", "/api/stream", stream::stream),
    route("GET", "/api/usage", usage::show),
    route("GET", "/api/openapi.json", |call| {
        Ok(openapi::document(call))
    }),
    open("GET", "/healthz", |call| Ok(probes::health(call))),
    open("GET", "/readyz", |call| Ok(probes::readiness(call))),
    route("GET", "/metrics", |call| Ok(metrics::scrape(call))),
];

pub(super) fn answer(api: &Api, request: &mut Request<'_>) -> Result<Response, Problem> {
    let path = request.path().to_owned();
    let asked = match request.method() {
        "HEAD" => "GET",
        method => method,
    }
    .to_owned();
    let found = ROUTES
        .iter()
        .filter_map(|route| Some((route, matched(route.path, &path)?)));
    let found: Vec<_> = found.collect();
    if asked == "OPTIONS" && request.header("Access-Control-Request-Method").is_some() {
        return Ok(preflight(&found));
    }
    let route = found.iter().find(|(route, _)| route.method == asked);
    // Without a token it cannot be found out which paths there are.
    if !route.is_some_and(|(route, _)| route.is_open) {
        api.access.judge_token(request)?;
    }
    let Some((route, segments)) = route else {
        return Err(unknown(&found, &path));
    };
    let path = segments.clone();
    (route.operation)(&mut Call { api, request, path })
}

/// Returns what stands where the pattern has names; `None` if the path is another.
fn matched(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut named = Vec::new();
    let mut segments = path.split('/');
    for part in pattern.split('/') {
        let segment = segments.next()?;
        if part.starts_with('{') {
            let decoded = percent_encoding::percent_decode_str(segment)
                .decode_utf8()
                .ok()?;
            named.push(decoded.into_owned());
        } else if part != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(named)
}

fn methods(found: &[(&Route, Vec<String>)]) -> String {
    let methods: Vec<_> = found.iter().map(|(route, _)| route.method).collect();
    methods.join(", ")
}

/// What a browser asks before a page of an allowed origin may ask for something.
fn preflight(found: &[(&Route, Vec<String>)]) -> Response {
    Response::empty(204)
        .header("Access-Control-Allow-Methods", methods(found))
        .header(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Last-Event-ID",
        )
        .header("Access-Control-Max-Age", "600")
}

fn unknown(found: &[(&Route, Vec<String>)], path: &str) -> Problem {
    let shown = crate::text::Foreign::new(path);
    if found.is_empty() {
        return Problem::new(404, "no_such_path", format!("there is no {shown:?} here"));
    }
    let methods = methods(found);
    let detail = format!("{shown:?} is asked for with {methods}");
    Problem::new(405, "method_not_allowed", detail).header("Allow", methods)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_exactly_the_segments_of_its_pattern() {
        let matched = |path| matched("/api/plugins/{id}", path);
        assert_eq!(matched("/api/plugins/a%20b"), Some(vec!["a b".to_owned()]));
        for other in [
            "/api/plugins",
            "/api/plugins/a/",
            "/api/plugins/a/b",
            "/API/plugins/a",
            "/api/plugins/%ff",
        ] {
            assert_eq!(matched(other), None, "{other}");
        }
    }
}
