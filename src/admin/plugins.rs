//! Operations on installations: listing and showing them.

use serde::Serialize;

use super::call::{Call, json};
use super::installation::Plugin;
use super::problem::Problem;
use crate::http::Response;

#[derive(Serialize)]
struct List<'a> {
    plugins: Vec<Plugin<'a>>,
}

pub(super) fn list(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let installations = call.manager().list()?;
    let plugins = installations.iter().map(Plugin::new).collect();
    json(200, &List { plugins })
}

pub(super) fn get(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    json(200, &Plugin::new(&call.manager().get(call.id()?)?))
}
