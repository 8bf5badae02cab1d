//! Operations on installations: listing and showing them, adding and removing one, whether it is wanted, and
//! manifest and token of an external one.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json as object};

use super::call::{Call, json};
use super::installation::Plugin;
use super::package;
use super::problem::Problem;
use crate::http::Response;
use crate::manager::Manager;
use crate::protocol::manifest::Manifest;
use crate::state::{ActiveState, PluginMode, ReportedState};

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Addition {
    mode: PluginMode,
    url: Option<String>,
    /// Not decoded yet: what is wrong with it is told field by field.
    manifest: Option<Box<RawValue>>,
}

pub(super) fn add(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    match call.content_type().as_str() {
        package::MEDIA_TYPE => {
            let installed = package::upload(call, Manager::install)?;
            json(200, &Plugin::new(&installed))
        }
        "application/json" => add_described(call),
        _ => Err(Problem::unsupported_media_type(
            "application/zip or application/json",
        )),
    }
}

/// Adds what a JSON object says.
fn add_described(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let addition: Addition = call.json()?;
    match (addition.mode, addition.url, addition.manifest) {
        #[cfg(not(feature = "fetch"))]
        (PluginMode::Supervised, Some(_), None) => Err(crate::error::Error::Unsupported(
            "this build fetches no packages; upload it as application/zip",
        )
        .into()),
        #[cfg(feature = "fetch")]
        (PluginMode::Supervised, Some(url), None) => {
            let source = package::fetched(call, url)?;
            json(200, &Plugin::new(&call.manager().install(source)?))
        }
        (PluginMode::External, None, Some(_)) if package::sha256(call)?.is_some() => Err(
            Problem::bad_request("`sha256` is of a package, and an external plugin has none"),
        ),
        (PluginMode::External, None, Some(manifest)) => {
            let manifest = Manifest::parse(manifest.get().as_bytes())?;
            let (installed, token) = call.manager().install_external(manifest)?;
            json(200, &Plugin::new(&installed).with_token(token.expose()))
        }
        (PluginMode::Supervised, ..) => Err(Problem::bad_request(
            "a supervised plugin is added with its `url` alone, or as application/zip",
        )),
        (PluginMode::External, ..) => Err(Problem::bad_request(
            "an external plugin is added with its `manifest` alone",
        )),
    }
}

pub(super) fn remove(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    if call.flag("keep_data", false)? {
        return json(200, &call.manager().remove_keeping_data(id)?);
    }
    call.manager().remove(id)?;
    Ok(Response::empty(204))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    #[serde(deserialize_with = "wanted")]
    active: ActiveState,
}

/// Says what is accepted, since `true` and `false` are what most people try first.
fn wanted<'de, D: Deserializer<'de>>(from: D) -> Result<ActiveState, D::Error> {
    let text = Value::deserialize(from)?;
    let state = text.as_str().and_then(|text| text.parse().ok());
    state.ok_or_else(|| D::Error::custom("`active` must be \"active\" or \"inactive\""))
}

pub(super) fn set_active_state(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let wanted: Wanted = call.json()?;
    let manager = call.manager();
    let installation = match wanted.active {
        ActiveState::Active => {
            manager.request_activation(id)?;
            let session = manager.session(id)?;
            let timeout = manager.settings().activate_timeout;
            call.wait(timeout, |part| {
                session.wait_for(ReportedState::Active, part)
            })?;
            manager.get(id)?
        }
        ActiveState::Inactive => manager.deactivate(id, call.host_settings().timeouts.stop)?,
    };
    json(200, &Plugin::new(&installation))
}

pub(super) fn update_manifest(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let id = call.id()?;
    let manifest = Manifest::parse(&call.json_text()?)?;
    let installation = call.manager().update_manifest(id, manifest)?;
    json(200, &Plugin::new(&installation))
}

pub(super) fn cycle_token(call: &mut Call<'_, '_>) -> Result<Response, Problem> {
    let token = call.manager().rotate_token(call.id()?)?;
    json(200, &object!({ "token": token.expose() }))
}
