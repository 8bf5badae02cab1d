//! `LocalPlugins`: what it takes to run plugins on this machine. Unpacks a plugin's archive below the data
//! directory, or uses its directory as it is, and starts its command as a child process of the host; and
//! [`Local`], the runtime that does just that.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::launch::Launch;
use super::run::Run;
use super::{Runtime, process_run};
use crate::deadline::Deadline;
use crate::error::{Error, PackageError, Result, StartError, StoreError};
use crate::fault;
use crate::id::InstallationId;
use crate::keeper::link::KeeperLink;
use crate::package::{self, Archive, ArchiveCache, PackageLimits};
use crate::poll;
use crate::process::orphans::{self, OrphanScanner};
use crate::process::{Environment, PluginCommand, Process, ProcessLimits, resolve};
use crate::protocol::environment::{DATA_VARIABLE, TRANSPORT_VARIABLE, URL_VARIABLE};
use crate::protocol::manifest::Transport;
use crate::store::{PluginKind, Source, Store};
use crate::thread::Threads;

/// How long a spawn is retried while the program's file is open for writing.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// The pause between these retries.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// The runtime `local`: plugins are child processes of the host.
#[derive(Debug)]
pub(crate) struct Local;

impl Runtime for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn start(&self, launch: &Launch<'_>) -> Result<Run> {
        launch.spawn(launch.command()?)
    }
}

/// What all runs on this machine need of their host.
pub(crate) struct LocalPlugins {
    pub(crate) data: PathBuf,
    pub(crate) package_limits: PackageLimits,
    /// Names of host variables that plugins get in addition to the allowlist.
    pub(crate) passed_variables: Vec<String>,
    /// The limits of plugins whose records set no others.
    pub(crate) process_limits: RwLock<ProcessLimits>,
    /// Spares all starts but the first from reading the archive.
    pub(crate) archive_cache: ArchiveCache,
    pub(crate) keeper: KeeperLink,
    /// With the cookie that all processes carry; `None` when descendants are not searched for.
    pub(crate) scanner: Option<OrphanScanner>,
    pub(crate) threads: Threads,
}

impl LocalPlugins {
    fn working_directory(&self, launch: &Launch<'_>, root: &Path) -> Result<PathBuf, StartError> {
        let record = launch.record();
        match &record.kind {
            PluginKind::Supervised(Source::Directory(dir)) => Ok(open_directory(dir)?),
            PluginKind::Supervised(Source::Archive(path)) => {
                let cancel = || launch.is_cancelled();
                let release = self.release(path, root, &record.manifest.command, &cancel);
                release.map_err(|error| unpack_failed(error, &cancel))
            }
            PluginKind::Supervised(Source::Stored { sha256, .. }) => {
                self.stored_release(launch, sha256, root)
            }
            PluginKind::External { .. } => Err(NOT_STARTED.into()),
        }
    }

    /// Returns the directory of the archive in this file, unpacked if needed.
    fn release(
        &self,
        path: &Path,
        root: &Path,
        command: &str,
        cancel: &dyn Fn() -> bool,
    ) -> Result<PathBuf, PackageError> {
        if let Some(sha256) = self.archive_cache.sha256(path)
            && let Some(release) = package::find_release(root, &sha256, command, cancel)?
        {
            return Ok(release);
        }
        let limits = &self.package_limits;
        let archive = Archive::open_unless(path, limits, cancel)?;
        let release = package::unpack_once(&archive, root, command, limits, cancel)?;
        self.archive_cache.remember(path, &archive);
        Ok(release)
    }

    /// Returns the directory of an archive in the store. Installation has unpacked it; it is unpacked again
    /// if the directory has been damaged or removed since.
    fn stored_release(
        &self,
        launch: &Launch<'_>,
        sha256: &str,
        root: &Path,
    ) -> Result<PathBuf, StartError> {
        let cancel = || launch.is_cancelled();
        let unpack_failed = |error| unpack_failed(error, &cancel);
        let command = &launch.record().manifest.command;
        if let Some(release) =
            package::find_release(root, sha256, command, &cancel).map_err(unpack_failed)?
        {
            return Ok(release);
        }
        let limits = &self.package_limits;
        let archive = stored_archive(launch.store, sha256, limits, &cancel)?;
        package::unpack_once(&archive, root, command, limits, &cancel).map_err(unpack_failed)
    }

    /// Unpacks the plugin if needed, and returns what to run.
    pub(super) fn command(&self, launch: &Launch<'_>) -> Result<PluginCommand, StartError> {
        let record = launch.record();
        check(launch)?;
        let root = installation_dir(&self.data, record.id)?;
        let directory = self.working_directory(launch, &root)?;
        let data = package::data_dir(&root).map_err(Error::from)?;

        let mut environment = Environment::allowed(
            std::env::vars_os(),
            self.passed_variables.iter().map(String::as_str),
        );
        for (name, value) in &record.overrides.environment {
            environment.set(name, value);
        }
        environment.set(DATA_VARIABLE, data);
        let (name, value) = connection_variable(launch)?;
        environment.set(name, value);
        let path = environment.get("PATH").map(OsString::from);
        let program = resolve(&record.manifest.command, &directory, path.as_deref())?;
        Ok(PluginCommand {
            program,
            args: record.manifest.args.iter().map(OsString::from).collect(),
            directory,
            environment: environment.into_variables(),
        })
    }

    /// Spawns the process, which is announced to the keeper at once.
    pub(super) fn spawn(
        &self,
        launch: &Launch<'_>,
        mut command: PluginCommand,
    ) -> Result<Run, StartError> {
        let record = launch.record();
        let own_limits = &record.overrides.process_limits;
        own_limits.validate()?;
        let limits = own_limits.or(&self.process_limits.read());
        let stdin = record.manifest.transport == Transport::Stdio;
        // Set last, so that nothing can replace it.
        if let Some(scanner) = &self.scanner {
            let cookie = scanner.cookie.of_run(launch.run);
            let name = orphans::VARIABLE.into();
            command.environment.insert(name, cookie.into());
        }
        let give_up_at = Deadline::after(BUSY_LIMIT);
        loop {
            if launch.is_cancelled() {
                return Err(StartError::Cancelled);
            }
            self.keeper.ensure_started();
            match Process::spawn(&command, stdin, &limits, &self.threads) {
                Ok(spawned) => {
                    let run = process_run::run(spawned, self.keeper.clone(), record.id);
                    fault::point(fault::SPAWNED, record.id);
                    return Ok(run);
                }
                // The program's file is open for writing, most likely inherited by a child of another plugin
                // that has been forked and has not executed yet.
                Err(error) if error.is_busy() && !give_up_at.has_passed() => {
                    let _ = poll::wait(&mut [], Some(Deadline::after(BUSY_WAIT)));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl fmt::Debug for LocalPlugins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPlugins")
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// Checks that the record is whole, and that there is something to start.
pub(super) fn check(launch: &Launch<'_>) -> Result<(), StartError> {
    let record = launch.record();
    if let Some(problem) = &record.damage {
        let (id, problem) = (record.id, problem.clone());
        return Err(Error::from(StoreError::DamagedRecord { id, problem }).into());
    }
    if record.manifest.command.is_empty() {
        return Err(StartError::NoCommand);
    }
    Ok(())
}

/// What a runtime says of a plugin that runs elsewhere.
pub(super) const NOT_STARTED: Error =
    Error::Unsupported("an external plugin is not started by the host");

/// Returns a plugin's directory as an absolute path without links.
pub(super) fn open_directory(dir: &Path) -> Result<PathBuf> {
    let opened = dir.canonicalize();
    opened.map_err(|error| Error::io(format!("open plugin directory {}", dir.display()), error))
}

/// Reads an archive of the store, and checks that it is the one that the record names.
pub(super) fn stored_archive(
    store: &dyn Store,
    sha256: &str,
    limits: &PackageLimits,
    cancel: &dyn Fn() -> bool,
) -> Result<Archive, StartError> {
    let lacking = |problem| {
        let sha256 = sha256.into();
        Error::from(StoreError::Archive { sha256, problem })
    };
    let content = store
        .get_archive(sha256)?
        .ok_or_else(|| lacking("missing"))?;
    let archive = Archive::check(content, limits, cancel);
    let archive = archive.map_err(|error| unpack_failed(error, cancel))?;
    if archive.sha256() != sha256 {
        return Err(lacking("damaged").into());
    }
    Ok(archive)
}

/// Returns the variable that tells a plugin how to reach the host, and its value.
pub(super) fn connection_variable<'a>(
    launch: &'a Launch<'_>,
) -> Result<(&'static str, &'a str), StartError> {
    match (launch.record.manifest.transport, launch.connection_url()) {
        (Transport::Stdio, _) => Ok((TRANSPORT_VARIABLE, "stdio")),
        (Transport::WebSocket, Some(url)) => Ok((URL_VARIABLE, url)),
        (Transport::WebSocket, None) => Err(StartError::NoAddress),
    }
}

pub(super) fn unpack_failed(error: PackageError, cancel: &dyn Fn() -> bool) -> StartError {
    if cancel() {
        StartError::Cancelled
    } else {
        StartError::Unpack(Arc::new(error))
    }
}

/// Returns the directory `<data>/<installation id>`, which is created if needed.
///
/// # Errors
/// [`Error::Io`]: it cannot be created, or is a link or another kind of file.
pub(crate) fn installation_dir(data: &Path, id: InstallationId) -> Result<PathBuf> {
    let dir = std::path::absolute(data)
        .map_err(|error| Error::io(format!("use the data directory {}", data.display()), error))?
        .join(id.to_string());
    package::open_or_create_dir(&dir, package::PUBLIC)
        .map_err(|error| Error::io(format!("create {}", dir.display()), error))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::{self, File};
    use std::io::Write as _;
    use std::time::{Duration, Instant};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::keeper::Keeper;
    use crate::testing::TestDir;

    fn write_archive(path: &Path, content: &[u8]) {
        let mut zip = ZipWriter::new(File::create(path).unwrap());
        for (name, content) in [("manifest.json", b"{}".as_slice()), ("file", content)] {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(content).unwrap();
        }
        zip.finish().unwrap();
    }

    #[test]
    fn an_installation_folder_is_a_folder_itself() {
        let dir = TestDir::new("local");
        let data = dir.path();
        let outside = data.join("outside");
        fs::create_dir(&outside).unwrap();
        let id = InstallationId::generate();
        let dir = installation_dir(data, id).unwrap();
        assert!(dir.is_dir());
        fs::remove_dir(&dir).unwrap();
        for target in [outside.clone(), data.join("nowhere")] {
            std::os::unix::fs::symlink(target, &dir).unwrap();
            let error = installation_dir(data, id).unwrap_err().to_string();
            assert!(error.contains(&id.to_string()), "{error}");
            fs::remove_file(&dir).unwrap();
        }
        fs::write(&dir, "").unwrap();
        installation_dir(data, id).unwrap_err();
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(!data.join("nowhere").exists());
    }

    #[test]
    fn a_warm_start_reads_no_archive_and_a_changed_one_is_noticed() {
        let dir = TestDir::new("local");
        let (path, root) = (
            dir.path().join("plugin.zip"),
            dir.path().join("installation"),
        );
        let threads = Threads::with_limit(4);
        let runtime = LocalPlugins {
            data: dir.path().to_owned(),
            package_limits: PackageLimits::default(),
            passed_variables: Vec::new(),
            process_limits: RwLock::default(),
            archive_cache: ArchiveCache::default(),
            keeper: KeeperLink::new(Keeper::None, None, threads.clone()),
            scanner: None,
            threads,
        };
        // Whoever reads or hashes asks whether to stop.
        let asked = Cell::new(0);
        let release = || {
            asked.set(0);
            let cancel = || {
                asked.set(asked.get() + 1);
                false
            };
            runtime.release(&path, &root, "./file", &cancel).unwrap()
        };
        write_archive(&path, b"one");
        let first = release();
        assert!(asked.get() > 0);
        // A start so soon after the archive was written may have to read it again.
        let began = Instant::now();
        while asked.get() > 0 {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "the archive is read at every start"
            );
            assert_eq!(release(), first);
        }

        write_archive(&path, b"two");
        let second = release();
        assert_ne!(first, second);
        assert_eq!(fs::read(second.join("file")).unwrap(), b"two");

        // Known, and not there any more: it is unpacked again.
        while asked.get() > 0 {
            assert_eq!(release(), second);
        }
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(release(), second);
        assert_eq!(fs::read(second.join("file")).unwrap(), b"two");
    }
}
