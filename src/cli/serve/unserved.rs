//! `Unserved`: the HTTP API over a directory on which no server runs, for this program alone. It is what a server with
//! the settings of the environment would have there, without plugins that run and without a port for them.

use std::path::Path;
use std::time::Duration;

use plugin_runner::admin::{AdminServer, AdminSettings};
use plugin_runner::{ErrorKind, Host, Manager, SqliteStore};

use super::service;
use super::settings::{Configuration, Given, Secret};
use super::token;
use crate::cli::error::CliError;

/// How long the API has at the end: only this program uses it.
const STOP: Duration = Duration::from_secs(5);

/// The API, until this is dropped.
#[derive(Debug)]
pub(crate) struct Unserved {
    host: Host,
    admin: AdminServer,
    token: Secret,
}

impl Unserved {
    /// Takes the directory, and creates it if need be. Returns `None` if another process has it.
    ///
    /// # Errors
    /// [`CliError`] when it cannot be used, or when a setting is wrong.
    pub(crate) fn open(data: &Path) -> Result<Option<Self>, CliError> {
        let flags = [("data".to_owned(), data.display().to_string())];
        let configuration = Configuration::read(&Given {
            flags: flags.into(),
            variables: std::env::vars_os().collect(),
        });
        let settings = configuration.settings.as_ref().ok_or_else(|| {
            let problem = configuration.problems.first();
            CliError::usage(problem.map_or("a setting is wrong", String::as_str))
        })?;
        service::check_directory(data).map_err(|error| error.about(data.display()))?;
        let store = match SqliteStore::open(data) {
            Ok(store) => store,
            Err(error) if error.kind() == ErrorKind::StoreInUse => return Ok(None),
            Err(error) => return Err(CliError::from(error).about(data.display())),
        };
        let host = service::host(settings, store)?;
        let manager = Manager::with_settings(host.clone(), service::manager_settings(settings))?;
        let token = token::random()?;
        let admin = AdminServer::start(manager, "127.0.0.1:0", &token.0, AdminSettings::default())?;
        Ok(Some(Self { host, admin, token }))
    }

    pub(crate) fn url(&self) -> String {
        self.admin.url()
    }

    pub(crate) const fn token(&self) -> &Secret {
        &self.token
    }
}

impl Drop for Unserved {
    fn drop(&mut self) {
        self.admin.stop(STOP);
        self.host.shutdown(STOP);
    }
}
