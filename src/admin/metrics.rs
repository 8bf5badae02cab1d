//! `GET /metrics`: what a scrape of Prometheus reads.

use super::call::Call;
use crate::http::Response;

const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn scrape(call: &mut Call<'_, '_>) -> Response {
    let text = call.manager().metrics();
    Response::bytes(200, TEXT_FORMAT, text).header("Cache-Control", "no-store")
}
