//! `install` and `update`: a package on a host.

use std::path::PathBuf;

use clap::Args;
use plugin_runner::auth::ExternalToken;
use plugin_runner::text::escape;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use ureq::http::Method;

use super::api::Api;
use super::host::{Connection, HostArguments, Need};
use super::package::Package;
use super::plugins::{self, Plugin};
use super::progress::waiting;
use super::{ask, life, output};
use crate::cli::error::CliError;
use crate::cli::manifest_file::ManifestFile;
use crate::cli::run::say;

const INSTALL: &str = "\
Examples:
  plugin-runner install hello-2.zip --update
  plugin-runner install ./hello --update --activate
  plugin-runner install --external chat.json";
const UPDATE: &str = "\
Examples:
  plugin-runner update hello hello-2.zip
  plugin-runner update chat --manifest chat.json";

#[derive(Args, Debug)]
#[command(after_help = INSTALL)]
pub(crate) struct Install {
    /// A zip archive or a plugin's directory, which are read here, or a URL, which the host fetches.
    #[arg(value_name = "FILE|DIR|URL", required_unless_present = "external")]
    package: Option<String>,
    /// Instead of a package: the manifest of a plugin that runs elsewhere and connects. Prints the token that it
    /// connects with.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["package", "sha256"])]
    external: Option<PathBuf>,
    /// If the plugin is installed already, update it without asking.
    #[arg(long, short)]
    update: bool,
    /// Start it, and wait until it is up.
    #[arg(long, conflicts_with = "external")]
    activate: bool,
    #[command(flatten)]
    pin: Pin,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
#[command(after_help = UPDATE)]
pub(crate) struct Update {
    /// What it is called: its id in the manifest, its installation's id, or a beginning of that.
    plugin: String,
    /// A zip archive or a plugin's directory.
    #[arg(value_name = "FILE|DIR", required_unless_present = "manifest")]
    package: Option<String>,
    /// The new manifest of an external plugin.
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["package", "sha256"])]
    manifest: Option<PathBuf>,
    #[command(flatten)]
    pin: Pin,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Args, Debug)]
struct Pin {
    /// Refuse any package but the one with this SHA-256, in hexadecimal.
    #[arg(long, value_name = "HEX", value_parser = sha256)]
    sha256: Option<String>,
}

/// What is to be done with a package.
pub(crate) struct Options<'a> {
    pub(crate) sha256: Option<&'a str>,
    /// Whether what is installed is updated without asking.
    pub(crate) update: bool,
    pub(crate) activate: bool,
    pub(crate) json: bool,
}

impl Install {
    pub(super) fn run(&self) -> Result<(), CliError> {
        if let Some(manifest) = &self.external {
            return self.external(manifest);
        }
        let package = Package::open(self.package.as_deref().unwrap_or_default())?;
        let need = if self.activate {
            Need::Host
        } else {
            Need::Place
        };
        if self.update && matches!(package, Package::Url(_)) {
            return Err(CliError::usage(
                "--update takes a file or a directory; download the package first",
            ));
        }
        let connection = self.host.connect(need)?;
        let options = Options {
            sha256: self.pin.sha256.as_deref(),
            update: self.update,
            activate: self.activate,
            json: self.host.json,
        };
        install(&connection, &package, &options)
    }

    fn external(&self, path: &std::path::Path) -> Result<(), CliError> {
        let about = |failure: CliError| failure.about(path.display());
        let manifest = ManifestFile::read(path).map_err(about)?;
        let id = manifest.parse().map_err(about)?.id;
        let manifest: Value = serde_json::from_slice(manifest.bytes())
            .map_err(|error| about(CliError::cannot("read it")(error)))?;
        let connection = self.host.connect(Need::Place)?;
        if let Some(plugin) = with_id(&connection.api, &id, "external")? {
            return self.again(&connection, &plugin, &manifest);
        }
        let body = json!({ "mode": "external", "manifest": manifest });
        let added: Box<RawValue> =
            connection
                .api
                .change(Method::POST, "/api/plugins", Some(&body))?;
        let plugin = read(&added)?;
        let token = plugin.connection.token.as_deref().unwrap_or_default();
        let url = url(&connection, token);
        if self.host.json {
            let mut shown: Value =
                serde_json::from_str(added.get()).map_err(CliError::cannot("read the answer"))?;
            shown["connection"]["url"] = json!(url);
            return output::json(&shown);
        }
        output::line(&format!("{} is installed", plugin.called()))?;
        output::line(&format!("token, shown only now: {token}"))?;
        match url {
            Some(url) => output::line(&format!("it connects to: {url}")),
            None => output::line(&format!(
                "it connects to /rpc?token={token} at the address where the host takes plugins"
            )),
        }
    }
}

impl Install {
    /// Replaces the manifest of an external plugin that is installed. It keeps its token.
    fn again(
        &self,
        connection: &Connection,
        plugin: &Plugin,
        manifest: &Value,
    ) -> Result<(), CliError> {
        agree(plugin, self.update)?;
        update_manifest(&connection.api, plugin, manifest, self.host.json)
    }
}

/// Returns the plugin of this kind with this id in its manifest, if there is one.
///
/// # Errors
/// As [`Api::get`]; [`CliError::no_such_plugin`] when there are several.
fn with_id(api: &Api, id: &str, mode: &str) -> Result<Option<Plugin>, CliError> {
    let mut installed = plugins::list::<Plugin>(api)?;
    installed.retain(|plugin| plugin.manifest.id == id && plugin.connection.mode == mode);
    if let several @ [_, _, ..] = &*installed.iter().collect::<Vec<_>>() {
        let several = plugins::ambiguous(id, several);
        return Err(several.with("name the one that is meant by its id to plugin-runner update"));
    }
    Ok(installed.pop())
}

/// Returns where an external plugin connects, if the host has said where it listens.
pub(super) fn url(connection: &Connection, token: &str) -> Option<String> {
    let token = ExternalToken::parse(token).ok()?;
    token.connection_url(connection.rpc_url.as_deref()?).ok()
}

impl Update {
    pub(super) fn run(&self) -> Result<(), CliError> {
        if let Some(path) = &self.manifest {
            return self.manifest(path);
        }
        let package = Package::open(self.package.as_deref().unwrap_or_default())?;
        if let Package::Url(_) = package {
            return Err(CliError::usage(
                "an update takes a file or a directory; download the package first",
            ));
        }
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        warn(&package);
        let sha256 = self.pin.sha256.as_deref();
        let updated = update(&connection.api, &plugin, &package, sha256)?;
        if self.host.json {
            return output::json(&updated);
        }
        updated_from(&updated, &plugin)
    }

    fn manifest(&self, path: &std::path::Path) -> Result<(), CliError> {
        let about = |failure: CliError| failure.about(path.display());
        let file = ManifestFile::read(path).map_err(about)?;
        file.parse().map_err(about)?;
        let manifest: Value = serde_json::from_slice(file.bytes())
            .map_err(|error| about(CliError::cannot("read it")(error)))?;
        let connection = self.host.connect(Need::Installed)?;
        let plugin = plugins::find(&connection.api, &self.plugin)?;
        update_manifest(&connection.api, &plugin, &manifest, self.host.json)
    }
}

/// Installs a package, or updates the plugin that is in it, and says which.
///
/// # Errors
/// [`CliError`] when the host refuses, when the plugin is installed and is not to be updated, or when it was to be
/// activated and does not come up.
pub(crate) fn install(
    connection: &Connection,
    package: &Package,
    options: &Options<'_>,
) -> Result<(), CliError> {
    let api = &connection.api;
    let installed = match package.id() {
        Some(id) => with_id(api, id, "supervised")?,
        None => None,
    };
    // Without a host it is in this program's own log.
    if connection.has_host() {
        warn(package);
    }
    let Some(plugin) = installed else {
        let added: Box<RawValue> =
            package.send(api, Method::POST, "/api/plugins", options.sha256)?;
        if let Package::Url(_) = package {
            only_one(api, &read(&added)?)?;
        }
        return added_from(connection, &added, options);
    };
    agree(&plugin, options.update)?;
    let updated = update(api, &plugin, package, options.sha256)?;
    if !options.json {
        updated_from(&updated, &plugin)?;
    } else if !options.activate {
        return output::json(&updated);
    }
    if options.activate {
        return started(api, &plugin, options.json);
    }
    Ok(())
}

/// Removes what was just installed from a URL if the plugin was installed before: only the host knows what is at a
/// URL, and to the host two installations of one plugin are no fault.
///
/// # Errors
/// [`CliError`] says so, with the way out.
fn only_one(api: &Api, added: &Plugin) -> Result<(), CliError> {
    let mut others = plugins::list::<Plugin>(api)?.into_iter().filter(|plugin| {
        plugin.id != added.id
            && plugin.manifest.id == added.manifest.id
            && plugin.connection.mode == "supervised"
    });
    let Some(other) = others.next() else {
        return Ok(());
    };
    let _: Value = api
        .change(Method::DELETE, &added.path(""), None)
        .map_err(|error| error.about(format!("{} cannot be removed again", added.called())))?;
    let called = other.called();
    let version = escape(&other.version);
    Err(format!(
        "{called} is installed already, version {version}, and stays as it is; to update it, download the package, \
         and name the file to plugin-runner update {}",
        other.id
    )
    .into())
}

/// Finds out whether what is installed is to be updated.
///
/// # Errors
/// [`CliError`] if it is not, or the user cannot be asked.
fn agree(plugin: &Plugin, update: bool) -> Result<(), CliError> {
    if update {
        return Ok(());
    }
    let called = plugin.called();
    let version = match &*plugin.version {
        "" => String::new(),
        version => format!(", version {}", escape(version)),
    };
    let installed = format!("{called} is installed already{version}");
    if !ask::is_possible() {
        return Err(format!("{installed}; --update updates it").into());
    }
    if ask::confirmed(&format!("{installed}; update it?"))? {
        Ok(())
    } else {
        Err("nothing was installed".into())
    }
}

fn added_from(
    connection: &Connection,
    added: &RawValue,
    options: &Options<'_>,
) -> Result<(), CliError> {
    let plugin = read(added)?;
    if options.json && !options.activate {
        return output::json(&added);
    }
    if !options.json {
        let called = plugin.called();
        output::line(&format!(
            "{called} is installed, version {}",
            escape(&plugin.version)
        ))?;
    }
    if options.activate {
        return started(&connection.api, &plugin, options.json);
    }
    // A host has to be started first otherwise.
    if !connection.has_host() {
        return Ok(());
    }
    output::line(&format!(
        "plugin-runner activate {} starts it",
        escape(&plugin.manifest.id)
    ))
}

/// Starts a plugin that was just installed.
fn started(api: &Api, plugin: &Plugin, json: bool) -> Result<(), CliError> {
    let called = plugin.called();
    let started = waiting(&format!("activating {called}"), || {
        life::activate(api, plugin)
    });
    let started = started.map_err(|error| error.about(&called))?;
    if json {
        output::json(&started)
    } else {
        output::line(&format!("{called} is active"))
    }
}

fn update(
    api: &Api,
    plugin: &Plugin,
    package: &Package,
    sha256: Option<&str>,
) -> Result<Box<RawValue>, CliError> {
    let path = plugin.path("/package");
    let updated = package.send(api, Method::PATCH, &path, sha256);
    updated.map_err(|error| error.about(plugin.called()))
}

fn update_manifest(
    api: &Api,
    plugin: &Plugin,
    manifest: &Value,
    json: bool,
) -> Result<(), CliError> {
    let path = plugin.path("/manifest");
    let updated: Result<Box<RawValue>, _> = api.change(Method::PATCH, &path, Some(manifest));
    let updated = updated.map_err(|error| error.about(plugin.called()))?;
    if json {
        return output::json(&updated);
    }
    updated_from(&updated, plugin)
}

/// Says what a plugin was and is.
fn updated_from(updated: &RawValue, before: &Plugin) -> Result<(), CliError> {
    let now = read(updated)?;
    output::line(&format!(
        "{} is updated from version {} to {}, and is {}",
        now.called(),
        escape(&before.version),
        escape(&now.version),
        now.status.state
    ))
}

fn read(plugin: &RawValue) -> Result<Plugin, CliError> {
    serde_json::from_str(plugin.get()).map_err(CliError::cannot("read the answer"))
}

fn warn(package: &Package) {
    if let Package::Archive { warnings, .. } = package {
        for warning in warnings {
            say(&format!("warning: {}", escape(warning)));
        }
    }
}

fn sha256(text: &str) -> Result<String, String> {
    let is_digit = |byte: u8| byte.is_ascii_hexdigit();
    if text.len() == 64 && text.bytes().all(is_digit) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("write the 64 hexadecimal digits that sha256sum prints".to_owned())
    }
}
