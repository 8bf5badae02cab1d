//! Operations on the configuration of an installation.

use serde_json::json as object;

use super::call::{Call, json};
use super::problem::Problem;
use crate::http::Response;

pub(super) fn schema(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let fields = call.manager().configuration_schema(call.id()?)?;
    json(200, &object!({ "fields": fields }))
}

pub(super) fn get(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    json(200, &call.manager().configuration(call.id()?)?)
}

pub(super) fn replace(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let is_proposed = call.flag("propose", true)?;
    let proposal = call.json()?;
    let manager = call.manager();
    if is_proposed {
        json(200, &manager.configure(id, proposal)?)
    } else {
        json(200, &manager.store_configuration(id, proposal)?)
    }
}
