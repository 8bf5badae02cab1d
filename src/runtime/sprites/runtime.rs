//! `Sprites`: the runtime that runs plugins on sprites, one for each installation.
//!
//! What lives here: what precedes a run, in its order. What does not: how files get there (`deploy`), the
//! program and its end (`program`, `run`), what becomes of sprites that are not needed any more (`cleanup`).
//!
//! A process of a host that is gone has a token that is spent, and an address that may be gone too: it is
//! never taken over. So before every start each program on the sprite is killed, and waited for until the
//! service lists none: there is never a second process of the plugin.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::cleanup::Cleanup;
use super::deploy::{DeployError, deploy, is_deployed};
use super::program::{Program, ProgramParts};
use super::release::{BASE, Outline, Release};
use super::run::{RunLimits, RunSetup, begin};
use super::{Client, ClientSettings, SpritesSettings, Within, endpoint};
use crate::error::{Error, Result, SpawnError, SpritesError, SpritesProblem, StartError};
use crate::id::InstallationId;
use crate::package::{Archive, MigrationLimits, PackageFiles, PackageLimits};
use crate::process::ProcessLimits;
use crate::protocol::Transport;
use crate::runtime::local::{
    NOT_STARTED, check, connection_variable, open_directory, stored_archive, unpack_failed,
};
use crate::runtime::{Launch, Run, Runtime};
use crate::store::{PluginKind, Record, Source, Store};
use crate::text::Foreign;
use crate::thread::Threads;

/// The time for a whole start, the upload of the package included. After it the start is tried again, and
/// goes on where it was.
const START_LIMIT: Duration = Duration::from_secs(10 * 60);
/// The time for ending what earlier hosts have left, when a plugin is loaded.
const CLEAR_LIMIT: Duration = Duration::from_secs(2 * 60);
/// The pause before the service is asked again whether a program that was killed is gone.
const GONE_WAIT: Duration = Duration::from_millis(100);

/// The runtime `sprites`.
#[derive(Debug)]
pub(crate) struct Sprites {
    client: Client,
    cleanup: Cleanup,
    threads: Threads,
    package_limits: PackageLimits,
    /// The last release of each installation whose package is in the store, so that a warm start reads no
    /// archive. Held for an instant only.
    releases: Mutex<HashMap<InstallationId, Arc<Outline>>>,
}

/// What a host is built with, as far as it matters for sprites.
pub(crate) struct SpritesHost<'a> {
    pub(crate) settings: SpritesSettings,
    pub(crate) store: &'a Arc<dyn Store>,
    pub(crate) threads: &'a Threads,
    pub(crate) package_limits: &'a PackageLimits,
    pub(crate) process_limits: &'a ProcessLimits,
    pub(crate) rpc_base_url: Option<&'a str>,
}

impl Sprites {
    /// # Errors
    /// [`Error::Setting`] names what is missing or cannot be; and those of [`Cleanup::start`].
    pub(crate) fn new(host: SpritesHost<'_>) -> Result<Self> {
        let SpritesSettings {
            api_key,
            api_url,
            sweep,
        } = host.settings;
        let client = Client::new(
            ClientSettings {
                base_url: api_url,
                token: api_key.as_str().to_owned(),
                roots: Vec::new(),
            },
            host.threads.clone(),
        )?;
        match host.rpc_base_url {
            None => {
                let problem = "is needed with sprites: the address at which they reach this host";
                return Err(Error::setting("rpc_base_url", problem));
            }
            Some(url) if !client.is_on_this_machine() && endpoint::leads_to_this_machine(url) => {
                let problem = "leads to the machine that asks, and so from a sprite to that sprite; \
                               it has to be an address at which sprites reach this host";
                return Err(Error::setting("rpc_base_url", problem));
            }
            Some(_) => {}
        }
        if *host.process_limits != ProcessLimits::default() {
            let problem = "cannot be set on sprites, which are limited by the service";
            return Err(Error::setting("process_limits", problem));
        }
        let (store, threads) = (host.store.clone(), host.threads.clone());
        Ok(Self {
            cleanup: Cleanup::start(client.clone(), store, threads.clone(), sweep)?,
            client,
            threads,
            package_limits: host.package_limits.clone(),
            releases: Mutex::default(),
        })
    }

    /// Returns what is in the plugin's release, if it is that of its last start.
    fn known(&self, record: &Record) -> Option<Arc<Outline>> {
        let PluginKind::Supervised(Source::Stored { sha256, .. }) = &record.kind else {
            return None;
        };
        let releases = self.releases.lock();
        let known = releases.get(&record.id);
        known.filter(|known| known.sha256() == sha256).cloned()
    }

    fn remember(&self, record: &Record, release: Arc<Outline>) {
        if matches!(record.kind, PluginKind::Supervised(Source::Stored { .. })) {
            self.releases.lock().insert(record.id, release);
        }
    }

    /// Reads the plugin's files.
    fn release(
        &self,
        record: &Record,
        store: &dyn Store,
        cancel: &dyn Fn() -> bool,
    ) -> Result<Arc<Release>, StartError> {
        let failed = |error| unpack_failed(error, cancel);
        let (limits, command) = (&self.package_limits, &*record.manifest.command);
        let files = match &record.kind {
            PluginKind::Supervised(Source::Directory(dir)) => {
                PackageFiles::of_directory(&open_directory(dir)?, limits, cancel).map_err(failed)?
            }
            PluginKind::Supervised(Source::Archive(path)) => {
                let archive = Archive::open_unless(path, limits, cancel).map_err(failed)?;
                PackageFiles::of_archive(archive, command)
            }
            PluginKind::Supervised(Source::Stored { sha256, .. }) => {
                let archive = stored_archive(store, sha256, limits, cancel)?;
                PackageFiles::of_archive(archive, command)
            }
            PluginKind::External { .. } => return Err(NOT_STARTED.into()),
        };
        Ok(Arc::new(Release::new(files)))
    }

    /// Kills every program on the sprite, and waits until the service lists none; returns whether there is
    /// such a sprite.
    fn end_all(&self, sprite: &str, within: Within<'_>) -> Result<bool> {
        let mut is_told = false;
        loop {
            let sessions = match self.client.sessions(sprite, within) {
                Ok(sessions) => sessions,
                Err(error) if error.is_not_found() => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if sessions.is_empty() {
                return Ok(true);
            }
            if !std::mem::replace(&mut is_told, true) {
                let ids: Vec<&str> = sessions
                    .iter()
                    .map(|session| &*session.id)
                    .take(10)
                    .collect();
                let (count, ids) = (sessions.len(), ids.join(", "));
                let ids = self.client.without_token(&ids);
                let ids = Foreign::new(&ids);
                log::info!("sprite {sprite}: killing what is left, {count} programs: {ids}");
            }
            for session in sessions {
                let grace = Duration::ZERO;
                self.client
                    .kill(sprite, &session.id, "KILL", grace, within)?;
            }
            Client::pause("wait for a program to be gone", GONE_WAIT, within)?;
        }
    }

    /// Returns what is added to the environment of a program on a sprite.
    fn variables(launch: &Launch<'_>) -> Result<BTreeMap<OsString, OsString>, StartError> {
        let record = launch.record();
        let mut variables = BTreeMap::new();
        for name in &launch.local.passed_variables {
            if let Some(value) = std::env::var_os(name) {
                variables.insert(name.into(), value);
            }
        }
        for (name, value) in &record.overrides.environment {
            variables.insert(name.into(), value.into());
        }
        let (name, value) = connection_variable(launch)?;
        variables.insert(name.into(), value.into());
        Ok(variables)
    }
}

impl Runtime for Sprites {
    fn name(&self) -> &'static str {
        "sprites"
    }

    fn accept(&self, record: &Record, store: &dyn Store) -> Result<()> {
        if record.overrides.process_limits != ProcessLimits::default() {
            return Err(Error::Unsupported(
                "the plugin has limits of its own for its process, which cannot be set on a sprite; take them \
                 away with `Manager::set_overrides`",
            ));
        }
        // A package that has been deployed has been checked.
        if self.known(record).is_some() {
            return Ok(());
        }
        match self.release(record, store, &|| false) {
            Ok(release) => Ok(release.check()?),
            // A start says so too, and more.
            Err(_) => Ok(()),
        }
    }

    fn start(&self, launch: &Launch<'_>) -> Result<Run> {
        check(launch)?;
        let record = launch.record();
        let cancel = || launch.is_cancelled();
        let read = || self.release(record, launch.store, &cancel);
        let mut release = None;
        let outline = match self.known(record) {
            Some(known) => known,
            None => release.insert(read()?).outline().clone(),
        };
        find_command(&outline, &record.manifest.command)?;
        let variables = Self::variables(launch)?;
        let program = Program::new(ProgramParts {
            base: BASE,
            release: &outline.dir(),
            program: &record.manifest.command,
            args: &record.manifest.args,
            variables: &variables,
            has_stdin: record.manifest.transport == Transport::Stdio,
        })?;
        let within = Within::new(START_LIMIT, launch.interrupt);
        let sprite = self.cleanup.name_of(record.id);
        if !self.end_all(&sprite, within)? {
            self.client.create_sprite(&sprite, within)?;
            log::info!("plugin {}: made the sprite {sprite}", record.manifest.id);
        }
        if !is_deployed(&self.client, &sprite, &outline, within).map_err(gone)? {
            let release = release.take().map_or_else(read, Ok)?;
            let own_files = MigrationLimits::default();
            let kept = record.releases.iter().map(|release| &*release.sha256);
            let kept: Vec<&str> = kept.collect();
            let deployed = deploy(&self.client, &sprite, &release, &own_files, &kept, within);
            deployed.map_err(|error| match error {
                DeployError::Service(error) => StartError::from(Error::from(gone(error))),
                error @ DeployError::Package(_) => error.into(),
            })?;
        }
        drop(release);
        self.remember(record, outline);
        let log = (launch.log)()?;
        let setup = RunSetup {
            client: self.client.clone(),
            sprite,
            threads: self.threads.clone(),
            note: Arc::new(move |text: &str| {
                let _ = log.note(text);
            }),
            limits: RunLimits::default(),
        };
        let (run, pipes) = begin(setup, &program, within).map_err(gone)?;
        Ok(Run::new(run, pipes))
    }

    fn outlives_host(&self) -> Option<&'static str> {
        Some("what runs on a sprite goes on for up to 60 s when its host is gone")
    }

    fn clear(&self, launch: &Launch<'_>) -> Result<()> {
        let within = Within::new(CLEAR_LIMIT, launch.interrupt);
        let sprite = self.cleanup.name_of(launch.record().id);
        match self.client.sprite(&sprite, within) {
            // Asking for its programs would wake it, and nothing runs on it.
            Ok(found) if found.status.as_deref() == Some("cold") => Ok(()),
            Ok(_) => self.end_all(&sprite, within).map(drop),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn removing(&self, id: InstallationId, keep_data: bool) -> Result<()> {
        self.cleanup.note_removal(id, keep_data)
    }

    fn removed(&self, id: InstallationId, is_gone: bool) -> Option<String> {
        self.releases.lock().remove(&id);
        self.cleanup.removed(id, is_gone)
    }

    fn shut_down(&self) {
        self.cleanup.stop();
    }
}

/// A sprite that was found or made, and then is not there, was deleted meanwhile, or the service does not know of
/// it everywhere yet: the next attempt finds it or makes it, and the plugin is not to blame.
fn gone(error: SpritesError) -> SpritesError {
    match error.problem {
        SpritesProblem::NotFound => SpritesError {
            problem: SpritesProblem::Gone,
            ..error
        },
        _ => error,
    }
}

/// Checks that a command with a slash in it is one of the plugin's files.
fn find_command(release: &Outline, command: &str) -> Result<(), StartError> {
    if !command.contains('/') || command.starts_with('/') {
        // The sprite's own.
        return Ok(());
    }
    let parts = Path::new(command).components();
    let path: PathBuf = parts.filter(|part| *part != Component::CurDir).collect();
    if path.to_str().is_some_and(|path| release.has_file(path)) {
        return Ok(());
    }
    let command = PathBuf::from(command);
    let source = SpawnError::NotFound;
    Err(StartError::Spawn { command, source })
}
