//! `plugin-runner serve`: what is installed in a directory, with a port for plugins and an HTTP API.
//!
//! The calling thread starts everything, waits for signals and stops everything; all other threads are the
//! host's, except for those of `signals`, the ones that write the log and that boot, and the one that feeds a
//! watchdog.

mod admin_file;
mod arguments;
mod logging;
mod reload;
mod service;
mod settings;
mod systemd;
mod token;
mod unserved;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{never, select};

pub(crate) use admin_file::FILE as ADMIN_FILE;
pub(crate) use arguments::ServeArguments;
pub(crate) use settings::{Secret, values};
pub(crate) use unserved::Unserved;

use super::error::CliError;
use super::run::say;
use super::signals::{Hangup, Signals};
use service::Service;
use settings::{Configuration, Given, Settings};
use systemd::{ServiceManager, Watchdog};

/// The store in a server's directory.
pub(crate) const DATABASE: &str = "plugins.sqlite";

/// The lock of the process that has the directory.
pub(crate) const OWNER_LOCK: &str = "owner.lock";

/// Returns the directory that is named, or the one that a server has with the same environment.
pub(crate) fn data_dir(named: Option<&Path>) -> PathBuf {
    let flags = named.map(|path| ("data".to_owned(), path.display().to_string()));
    let configuration = Configuration::read(&Given {
        flags: flags.into_iter().collect(),
        variables: std::env::vars_os().collect(),
    });
    let data = configuration.settings.map(|settings| settings.data);
    let data = data.or_else(|| named.map(Path::to_owned));
    data.unwrap_or_else(|| PathBuf::from(settings::DATA))
}

/// Reads a token in a file that is named.
///
/// # Errors
/// A text that says what is wrong with the file or the token.
pub(crate) fn read_token(path: &Path) -> Result<Secret, String> {
    Ok(token::read(path)?.token)
}

/// Takes a token that was given as such.
///
/// # Errors
/// A text that says how a token is written, without a word of it.
pub(crate) fn check_token(token: String) -> Result<Secret, String> {
    token::check(&token)?;
    Ok(Secret(token))
}

/// Serves until it is asked to end.
///
/// # Errors
/// [`CliError`] when a setting is wrong, when something could not be started, or when something could not be
/// ended.
pub(crate) fn serve(arguments: ServeArguments) -> Result<(), CliError> {
    let given = Given {
        flags: arguments.flags,
        variables: std::env::vars_os().collect(),
    };
    let configuration = Configuration::read(&given);
    if arguments.check {
        print(&configuration)?;
        for warning in &configuration.warnings {
            say(&format!("warning: {}", CliError::usage(warning.as_str())));
        }
    }
    let settings = usable(&configuration)?;
    if arguments.check {
        return Ok(());
    }
    // Before anything is started, so that from here on a signal ends it in order.
    let signals =
        Signals::listen(Hangup::Reload).map_err(CliError::cannot("listen for signals"))?;
    logging::start(settings.log_format, settings.log_level)?;
    for warning in &configuration.warnings {
        log::warn!("{warning}");
    }
    let outcome = run(&given, &configuration, settings, &signals);
    // Among the other messages, in their format.
    let outcome = outcome.map_err(|failure| {
        log::error!("{failure}");
        if log::max_level() < log::Level::Error {
            return failure;
        }
        failure.said()
    });
    log::logger().flush();
    outcome
}

fn print(configuration: &Configuration) -> Result<(), CliError> {
    let text = configuration.to_text();
    match io::stdout().write_all(text.as_bytes()) {
        // The reader has left, as `head` does.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(CliError::cannot("write to standard output")(error))
        }
        _ => Ok(()),
    }
}

/// Says everything that is wrong.
///
/// # Errors
/// [`CliError`] when a setting is wrong.
fn usable(configuration: &Configuration) -> Result<&Settings, CliError> {
    for problem in &configuration.problems {
        say(&CliError::usage(problem.as_str()).to_string());
    }
    let wrong = || CliError::usage("a setting is wrong").said();
    configuration.settings.as_ref().ok_or_else(wrong)
}

fn run(
    given: &Given,
    configuration: &Configuration,
    settings: &Settings,
    signals: &Signals,
) -> Result<(), CliError> {
    let service_manager = Arc::new(ServiceManager::find());
    service_manager.starting(service::START);
    let service = Service::start(configuration, settings)?;
    let mut booted = service.boot()?;
    let mut running = configuration.clone();
    // What the service manager was told when everything was up, and what tells it from then on.
    let mut up: Option<(String, Option<Watchdog>)> = None;
    loop {
        select! {
            recv(signals.received()) -> _ => break,
            recv(signals.reloads()) -> _ => {
                // Before that it would have nothing to wait for.
                if up.is_some() {
                    service_manager.reloading();
                }
                running = reload::reload(given, running, &service);
                if let Some((status, _)) = &up {
                    service_manager.ready(status);
                }
            }
            recv(booted) -> report => {
                booted = never();
                if let Some(status) = service.tell_boot(report) {
                    service_manager.ready(&status);
                    let parts = || service.parts(configuration);
                    up = Some((status, systemd::watch(&service_manager, parts)));
                }
            }
        }
    }
    service_manager.stopping(service::stop_limit(settings.stop_grace));
    // With its watchdog, which would find that the parts are gone.
    drop(up);
    log::info!("stopping; once more to kill");
    service.stop(signals, settings.stop_grace)
}
