//! `Service`: everything that serves, from its start to its end: the store, the host, the port for plugins, the
//! manager and the HTTP API.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, bounded};
use plugin_runner::admin::{AdminServer, AdminSettings};
use plugin_runner::listener::Listener;
use plugin_runner::manager::BootReport;
#[cfg(feature = "sprites")]
use plugin_runner::runtime::SpritesSettings;
use plugin_runner::text::escape;
use plugin_runner::{
    Error, ErrorKind, Host, InstallationId, LogSettings, Manager, ManagerSettings, ProcessLimits,
    RestartPolicy, SqliteStore, Timeouts,
};

use super::admin_file::{self, AdminFile};
use super::settings::values::PluginLimits;
use super::settings::{Configuration, Secret, Settings};
use super::systemd::Part;
use super::token;
use crate::cli::data_dir::refuse_of_a_run;
use crate::cli::ending::{self, End, stop_timeout};
use crate::cli::error::CliError;
use crate::cli::keeper;
use crate::cli::signals::Signals;
use crate::cli::url;

/// How long plugins are waited for at the start; those that take longer go on starting.
const BOOT: Duration = Duration::from_secs(60);
/// How long the whole start may take.
pub(super) const START: Duration = BOOT.saturating_add(Duration::from_secs(60));
/// How long everything has to answer once plugins are started, and the pause before it is asked again.
const ANSWER: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);
/// At the end: how long requests that have begun may take, twice, since the second half is for those whose clients
/// have to be cut off; and then other calls to plugins.
const ANSWERS: Duration = Duration::from_secs(10);
const CALLS: Duration = Duration::from_secs(5);
/// For what comes after everything else.
const REST: Duration = Duration::from_secs(5);

/// How long another command of this program may have the directory, and the pause before it is tried again.
const MOMENT: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);

/// Characters of a plugin's name that are shown, and how many names.
const NAME: usize = 100;
const NAMES: usize = 20;

/// What a boot returns.
type Booted = Result<BootReport, Error>;

/// Everything that serves.
#[derive(Debug)]
pub(super) struct Service {
    host: Host,
    listener: Listener,
    manager: Manager,
    admin: AdminServer,
    /// Last, because its server is there until then.
    _file: AdminFile,
}

impl Service {
    /// Starts everything but the plugins.
    ///
    /// # Errors
    /// [`CliError`] names what could not be started, and the setting that it depends on.
    pub(super) fn start(
        configuration: &Configuration,
        settings: &Settings,
    ) -> Result<Self, CliError> {
        let named = |name: &str| configuration.named(name);
        let wrong = |error: Error| match &error {
            Error::Setting { .. } => CliError::usage(configuration.explained(&error)),
            _ => error.into(),
        };
        let data = &settings.data;
        let store = open_store(data).map_err(|error| error.about(named("data")))?;
        let (token, token_file) = match &settings.admin_token {
            Some(token) => (token.clone(), settings.admin_token_file.clone()),
            None => (
                generated_token(store.dir())?,
                Some(store.dir().join(token::FILE)),
            ),
        };
        let data = store.dir().to_owned();
        let host = host(settings, store).map_err(wrong)?;
        let listener = host
            .listen(&settings.listen.to_string())
            .map_err(|error| CliError::from(error).about(named("listen")))?;
        let manager = Manager::with_settings(host.clone(), manager_settings(settings));
        let manager = manager.map_err(wrong)?;
        let admin = AdminServer::start(
            manager.clone(),
            &settings.admin.to_string(),
            &token.0,
            admin_settings(settings),
        )
        .map_err(|error| CliError::from(error).about(named("admin")))?;
        let token_file = token_file.map(|file| from_directory(&data, &file));
        let rpc_url = settings.public_url.clone();
        let rpc_url = rpc_url.unwrap_or_else(|| listener.base_url());
        let file = AdminFile::write(&data, &admin.url(), &rpc_url, token_file.as_deref())?;
        let local = url::connected(&listener.base_url())?;
        match &settings.public_url {
            None => log::info!("plugins connect to {local}"),
            Some(url) => {
                let public = url::connected(url)?;
                log::info!("plugins connect to {public}, which has to lead to {local}");
            }
        }
        let token_place = match token_file {
            Some(file) => data.join(file).display().to_string(),
            None => format!("the variable {}", named("admin_token")),
        };
        log::info!(
            "the HTTP API is at {}; its token is in {token_place}",
            admin.url()
        );
        Ok(Self {
            host,
            listener,
            manager,
            admin,
            _file: file,
        })
    }

    /// Starts the plugins that are wanted active, on a thread of its own, and returns the channel of the report.
    /// It comes once everything answers: whoever hears of it may rely on the store.
    ///
    /// # Errors
    /// [`CliError`] when the thread cannot be started.
    pub(super) fn boot(&self) -> Result<Receiver<Booted>, CliError> {
        let (sender, receiver) = bounded(1);
        let manager = self.manager.clone();
        thread::Builder::new()
            .name("boot".to_owned())
            .spawn(move || {
                let report = manager.boot(BOOT);
                if report.is_ok() {
                    wait_for_answers(&manager);
                }
                drop(manager);
                // The receiver is gone if the end came first.
                let _ = sender.send(report);
            })
            .map_err(CliError::cannot("start the plugins"))?;
        Ok(receiver)
    }

    /// Says what came of the boot. Returns that in few words, unless there was none.
    pub(super) fn tell_boot(&self, booted: Result<Booted, RecvError>) -> Option<String> {
        let report = match booted {
            Ok(Ok(report)) => report,
            Ok(Err(error)) => {
                log::error!("cannot start the plugins: {error}");
                return None;
            }
            Err(RecvError) => {
                log::error!("cannot start the plugins: the thread that does it ended");
                return None;
            }
        };
        // The manager has said why others did not come up.
        for (ids, what) in [
            (&report.active, "running"),
            (&report.starting, "still starting"),
            (&report.awaited, "awaited from outside"),
        ] {
            if !ids.is_empty() {
                log::info!("{what}: {}", self.names(ids));
            }
        }
        let counts = [
            (report.active.len(), "running"),
            (report.starting.len(), "still starting"),
            (report.awaited.len(), "awaited from outside"),
            (report.failed.len(), "failed"),
        ];
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<_> = counts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        let status = if counts.is_empty() {
            "no plugin is wanted active".to_owned()
        } else {
            format!("plugins: {}", counts.join(", "))
        };
        log::info!("up; {status}");
        Some(status)
    }

    /// Returns what must answer as long as the server runs.
    pub(super) fn parts(&self, configuration: &Configuration) -> Vec<Part> {
        let port = |name, address| Part::port(configuration.named(name), address);
        vec![
            Part::manager(self.manager.clone()),
            port("listen", self.listener.address()),
            port("admin", self.admin.address()),
        ]
    }

    /// Applies what can change while the server runs, but for the log level.
    ///
    /// # Errors
    /// [`Error`] when something cannot be applied.
    pub(super) fn apply(&self, settings: &Settings) -> Result<(), Error> {
        self.admin
            .set_allowed_origins(settings.allow_origin.clone())?;
        self.host.set_process_limits(process_limits(settings))
    }

    /// Stops everything in order: no connection is accepted any more, answers that have begun and calls to
    /// plugins may finish, plugins stop, and the store closes. A signal meanwhile ends it at once.
    ///
    /// # Errors
    /// [`CliError`] when something could not be ended in time, or was ended at once.
    pub(super) fn stop(self, signals: &Signals, grace: Duration) -> Result<(), CliError> {
        self.listener.stop();
        let timeout = stop_timeout(grace);
        let end = End {
            host: &self.host,
            signals,
            asked: true,
            timeout,
            last: Some(Duration::ZERO),
            say: &|| {},
            hurry: &|| {
                let _ = self.admin.stop(Duration::ZERO);
            },
        };
        let (report, impatient) = end.by(|| {
            let left = self.admin.stop(ANSWERS);
            if left > 0 {
                log::warn!("requests that were not answered in time: {left}");
            }
            if let Err(error) = self.host.drain(CALLS) {
                log::warn!("calls to plugins that were not answered: {error}");
            }
            self.host.shutdown(timeout)
        });
        let name = |id: &InstallationId| Some(self.name(*id));
        let say = |text: &str| log::warn!("{text}");
        ending::judge(&report, impatient, grace, &name, &say)?;
        log::info!("stopped");
        Ok(())
    }

    /// Returns what these plugins are called in a message, as far as there is room.
    fn names(&self, ids: &[InstallationId]) -> String {
        let names = ids.iter().take(NAMES).map(|id| self.name(*id));
        let names = names.collect::<Vec<_>>().join(", ");
        match ids.len().saturating_sub(NAMES) {
            0 => names,
            more => format!("{names} and {more} more"),
        }
    }

    /// Returns what a plugin is called in messages.
    fn name(&self, id: InstallationId) -> String {
        let found = self.manager.get(id);
        found.map_or_else(
            |_| id.to_string(),
            |found| format!("{:.NAME$} ({id})", escape(&found.manifest().id)),
        )
    }
}

/// Returns how long a [`stop`](Service::stop) may take.
pub(super) fn stop_limit(grace: Duration) -> Duration {
    let plugins = stop_timeout(grace);
    plugins.saturating_add(ANSWERS + CALLS + REST)
}

/// Returns once everything answers, or the host has ended.
fn wait_for_answers(manager: &Manager) {
    let mut is_told = false;
    while let Err(error) = manager.check(ANSWER) {
        if error.kind() == ErrorKind::ShutDown {
            return;
        }
        if !is_told {
            log::error!("not ready: {error}");
            is_told = true;
        }
        thread::park_timeout(AGAIN);
    }
}

/// Opens the store. Another command of this program may have the directory for a moment, which is waited for; another
/// server is not.
fn open_store(data: &Path) -> Result<SqliteStore, CliError> {
    check_directory(data)?;
    let deadline = Instant::now() + MOMENT;
    loop {
        match SqliteStore::open(data) {
            Err(error)
                if error.kind() == ErrorKind::StoreInUse
                    && Instant::now() < deadline
                    && !data.join(admin_file::FILE).exists() =>
            {
                thread::park_timeout(PAUSE);
            }
            opened => return Ok(opened?),
        }
    }
}

/// # Errors
/// [`CliError`] if this cannot be a server's directory.
pub(super) fn check_directory(data: &Path) -> Result<(), CliError> {
    if fs::metadata(data).is_ok_and(|found| !found.is_dir()) {
        let shown = data.display();
        return Err(
            format!("{shown} is not a directory; name one, or what is to become one").into(),
        );
    }
    refuse_of_a_run(data)
}

/// Returns a path that the server was started with as one that a program elsewhere can follow from the directory.
fn from_directory(data: &Path, file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute
        .strip_prefix(data)
        .map_or_else(|_| absolute.clone(), Path::to_owned)
}

/// Returns the token in the data directory.
fn generated_token(data: &Path) -> Result<Secret, CliError> {
    let found = token::generated(data)?;
    if let Some(warning) = found.warning {
        log::warn!("{warning}");
    }
    Ok(found.token)
}

pub(super) fn host(settings: &Settings, store: SqliteStore) -> Result<Host, Error> {
    let timeouts = Timeouts::default()
        .connect(settings.connect_timeout)
        .stop_grace(settings.stop_grace)
        .stop(stop_timeout(settings.stop_grace));
    let policy = RestartPolicy::default()
        .max_restart_attempts(settings.max_restart_attempts)
        .max_backoff(settings.max_backoff)
        .crash_threshold(settings.crash_threshold)
        .crash_backoff(settings.crash_backoff);
    let logs = LogSettings::default()
        .max_file_size(settings.plugin_log_size.0)
        .keep(settings.plugin_log_files)
        .max_age(settings.plugin_log_age);
    let mut builder = Host::builder()
        .data_dir(store.dir())
        .runtime_provider(settings.runtime)
        .timeouts(timeouts)
        .restart_policy(policy)
        .log_settings(logs)
        .process_limits(process_limits(settings))
        .store(Arc::new(store));
    if let Some(keeper) = keeper() {
        builder = builder.keeper(keeper);
    }
    if let Some(url) = &settings.public_url {
        builder = builder.rpc_base_url(url);
    }
    #[cfg(feature = "sprites")]
    if let (plugin_runner::RuntimeProvider::Sprites, Some(key)) =
        (settings.runtime, &settings.sprites_api_key)
    {
        let account = SpritesSettings::new(&key.0).api_url(&settings.sprites_api_url);
        builder = builder.sprites(account);
    }
    builder.build()
}

pub(super) fn admin_settings(settings: &Settings) -> AdminSettings {
    AdminSettings::default()
        .allow_hosts(settings.allow_host.clone())
        .allow_origins(settings.allow_origin.clone())
}

pub(super) fn manager_settings(settings: &Settings) -> ManagerSettings {
    let manager = ManagerSettings::default();
    #[cfg(feature = "fetch")]
    let manager = manager.fetch_allowed_hosts(settings.fetch_allow_host.clone());
    manager.releases(settings.releases)
}

fn process_limits(settings: &Settings) -> ProcessLimits {
    ProcessLimits::from(PluginLimits {
        memory: settings.plugin_memory,
        cpu_time: settings.plugin_cpu_time,
        processes: settings.plugin_processes,
        open_files: settings.plugin_open_files,
        nice: settings.plugin_nice,
    })
}
