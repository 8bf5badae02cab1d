//! The local runtime: unpacks a plugin's archive below the data directory, or uses its directory as it is,
//! and runs its command as a child process of the host.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Preparation, Runtime};
use crate::error::{Error, PackageError, Result, StartError, StoreError};
use crate::id::InstallationId;
use crate::package::{self, Archive, ArchiveCache, PackageLimits};
use crate::process::{Environment, ProcessCommand, ProcessLimits, orphans, resolve};
use crate::protocol::environment::{DATA_VARIABLE, TRANSPORT_VARIABLE, URL_VARIABLE};
use crate::protocol::manifest::Transport;
use crate::store::{PluginKind, Source};

#[derive(Debug)]
pub(crate) struct LocalRuntime {
    data: PathBuf,
    package_limits: PackageLimits,
    /// Names of host variables that plugins get in addition to the allowlist.
    passed_variables: Vec<String>,
    /// The limits of plugins whose records set no others.
    process_limits: ProcessLimits,
    /// Spares all starts but the first from reading the archive.
    archive_cache: ArchiveCache,
}

impl LocalRuntime {
    pub(crate) fn new(
        data: PathBuf,
        package_limits: PackageLimits,
        passed_variables: Vec<String>,
        process_limits: ProcessLimits,
    ) -> Self {
        Self {
            data,
            package_limits,
            passed_variables,
            process_limits,
            archive_cache: ArchiveCache::default(),
        }
    }

    fn working_directory(
        &self,
        preparation: &Preparation<'_>,
        root: &Path,
    ) -> Result<PathBuf, StartError> {
        let record = preparation.record;
        match &record.kind {
            PluginKind::Supervised(Source::Directory(dir)) => {
                let opened = dir.canonicalize().map_err(|error| {
                    Error::io(format!("open plugin directory {}", dir.display()), error)
                });
                Ok(opened?)
            }
            PluginKind::Supervised(Source::Archive(path)) => {
                let cancel = || preparation.cancel.is_cancelled();
                let release = self.release(path, root, &record.manifest.command, &cancel);
                release.map_err(|error| unpack_failed(error, &cancel))
            }
            PluginKind::Supervised(Source::Stored { sha256, .. }) => {
                self.stored_release(preparation, sha256, root)
            }
            PluginKind::External { .. } => {
                Err(Error::Unsupported("an external plugin is not started by the host").into())
            }
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
        preparation: &Preparation<'_>,
        sha256: &str,
        root: &Path,
    ) -> Result<PathBuf, StartError> {
        let cancel = || preparation.cancel.is_cancelled();
        let unpack_failed = |error| unpack_failed(error, &cancel);
        let command = &preparation.record.manifest.command;
        if let Some(release) =
            package::find_release(root, sha256, command, &cancel).map_err(unpack_failed)?
        {
            return Ok(release);
        }
        let lacking = |problem| {
            let sha256 = sha256.into();
            Error::from(StoreError::Archive { sha256, problem })
        };
        let content = preparation
            .store
            .get_archive(sha256)?
            .ok_or_else(|| lacking("missing"))?;
        let limits = &self.package_limits;
        let archive = Archive::check(content, limits, &cancel).map_err(unpack_failed)?;
        if archive.sha256() != sha256 {
            return Err(lacking("damaged").into());
        }
        package::unpack_once(&archive, root, command, limits, &cancel).map_err(unpack_failed)
    }
}

fn unpack_failed(error: PackageError, cancel: &dyn Fn() -> bool) -> StartError {
    if cancel() {
        StartError::Cancelled
    } else {
        StartError::Unpack(Arc::new(error))
    }
}

impl Runtime for LocalRuntime {
    fn prepare(&self, preparation: &Preparation<'_>) -> Result<ProcessCommand, StartError> {
        let record = preparation.record;
        if let Some(problem) = &record.damage {
            let (id, problem) = (record.id, problem.clone());
            return Err(Error::from(StoreError::DamagedRecord { id, problem }).into());
        }
        if record.manifest.command.is_empty() {
            return Err(StartError::NoCommand);
        }
        let own_limits = &record.overrides.process_limits;
        own_limits.validate()?;
        let root = installation_dir(&self.data, record.id)?;
        let working_directory = self.working_directory(preparation, &root)?;
        let data = package::data_dir(&root).map_err(Error::from)?;

        let mut environment = Environment::allowed(
            std::env::vars_os(),
            self.passed_variables.iter().map(String::as_str),
        );
        for (name, value) in &record.overrides.environment {
            environment.set(name, value);
        }
        environment.set(DATA_VARIABLE, data);
        match (record.manifest.transport, preparation.connection_url) {
            (Transport::Stdio, _) => environment.set(TRANSPORT_VARIABLE, "stdio"),
            (Transport::WebSocket, Some(url)) => environment.set(URL_VARIABLE, url),
            (Transport::WebSocket, None) => return Err(StartError::NoAddress),
        }
        // Set last, so that no record can replace it.
        if let Some(cookie) = &preparation.cookie {
            environment.set(orphans::VARIABLE, cookie);
        }
        let path = environment.get("PATH").map(OsString::from);
        Ok(ProcessCommand {
            program: resolve(
                &record.manifest.command,
                &working_directory,
                path.as_deref(),
            )?,
            args: record.manifest.args.clone(),
            working_directory,
            environment: environment.into_variables(),
            stdin: record.manifest.transport == Transport::Stdio,
            limits: own_limits.or(&self.process_limits),
        })
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
        let runtime = LocalRuntime::new(
            dir.path().to_owned(),
            PackageLimits::default(),
            Vec::new(),
            ProcessLimits::default(),
        );
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
