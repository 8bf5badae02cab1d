//! The data directory of one run: a temporary one that is removed at its end, or one that was named
//! and is kept, with the tokens of external plugins, which one run at a time may use.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_runner::InstallationId;
use plugin_runner::auth::ExternalToken;
use rustix::process::geteuid;

use super::error::CliError;
use super::private_file::{self, open_own, read_short};
use super::serve;
use super::temporary;

pub(super) const LOCK: &str = ".plugin-runner.lock";
/// Followed by the installation's id.
const TOKEN: &str = ".plugin-runner.token-";
/// The id of the host's store, by which the sprites of its plugins are named.
#[cfg(feature = "sprites")]
const STORE_ID: &str = ".plugin-runner.store-id";
/// What a server has in its directory from its first start on.
pub(super) const OF_A_SERVER: [&str; 2] = [serve::DATABASE, serve::OWNER_LOCK];
/// How long a run may look for what others left, and remove it.
const LEFTOVERS_TIME: Duration = Duration::from_secs(10);
/// More than any token has.
const TOKEN_SIZE: u64 = 256;

/// A directory for packages, logs and plugin data.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    is_kept: bool,
    /// Locked for as long as it is open; `None` for a temporary directory on a file system without locks.
    _lock: Option<File>,
}

impl DataDir {
    /// Creates a new directory for this process alone, removed when dropped.
    pub(crate) fn temporary() -> Result<Self, CliError> {
        Self::temporary_in(&std::env::temp_dir())
    }

    /// As [`temporary`](Self::temporary), for archives whose programs are executed there: where the system
    /// refuses that, the directory is in the user's cache, and the text that is returned with it says so.
    pub(crate) fn temporary_for_programs() -> Result<(Self, Option<String>), CliError> {
        let usual = std::env::temp_dir();
        if !is_mounted_noexec(&usual) {
            return Ok((Self::temporary_in(&usual)?, None));
        }
        let in_cache = cache_dir().and_then(|cache| {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&cache).ok()?;
            // If this cannot be used either, the error of the start says why.
            let dir = Self::temporary_in(&cache).ok();
            dir.filter(|_| !is_mounted_noexec(&cache)).zip(Some(cache))
        });
        let Some((dir, cache)) = in_cache else {
            return Ok((Self::temporary_in(&usual)?, None));
        };
        let note = format!(
            "nothing is executed in {}, which is mounted noexec; unpacking below {} instead",
            usual.display(),
            cache.display()
        );
        Ok((dir, Some(note)))
    }

    fn temporary_in(above: &Path) -> Result<Self, CliError> {
        let (path, lock) = temporary::create(above).map_err(|error| {
            let above = above.display();
            format!("cannot create a temporary directory in {above}: {error}; TMPDIR can name another place")
        })?;
        Ok(Self {
            path,
            is_kept: false,
            _lock: lock,
        })
    }

    /// Begins to remove the temporary directories that this user's killed runs have left, on a thread of its
    /// own, which may end with the process: the next run goes on.
    pub(crate) fn remove_leftovers() {
        let places = std::iter::once(std::env::temp_dir()).chain(cache_dir());
        let places: Vec<_> = places.collect();
        let thread = std::thread::Builder::new().name("leftovers".to_owned());
        let started = thread.spawn(move || {
            let deadline = Instant::now() + LEFTOVERS_TIME;
            for place in places {
                temporary::remove_leftovers(&place, deadline);
            }
        });
        if let Err(error) = started {
            log::debug!("cannot look for directories of killed runs: {error}");
        }
    }

    /// Takes the named directory, and creates it if need be.
    pub(crate) fn named(path: &Path) -> Result<Self, CliError> {
        if fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir()) {
            let path = path.display();
            return Err(format!(
                "--data {path}: this is not a directory; name one, or what is to become one"
            )
            .into());
        }
        // Before anything is put there.
        if is_of_a_server(path) {
            let path = path.display();
            return Err(CliError::usage(format!(
                "--data {path}: this is the directory of a server, with the plugins that are installed in it; name \
                 another, or use it with `plugin-runner serve`"
            )));
        }
        fs::create_dir_all(path).map_err(cannot("create the data directory", path))?;
        let lock = open_lock(&path.join(LOCK))?;
        // Two hosts would write into the same logs and run two processes of one plugin.
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                return Err(format!(
                    "another plugin-runner is using the data directory {path}; name another with --data"
                )
                .into());
            }
            // Some network file systems have no locks; better to run than not.
            Err(TryLockError::Error(error)) => {
                log::warn!("cannot lock {}: {error}", path.display());
            }
        }
        Ok(Self {
            path: path.to_owned(),
            is_kept: true,
            _lock: Some(lock),
        })
    }

    /// Returns the token of an external plugin: the same in every run with this directory, so that the plugin
    /// can connect again.
    ///
    /// # Errors
    /// [`CliError`] when it cannot be stored, or when something else than a token of this user's is in its
    /// place: a plugin of another user could connect with that.
    pub(crate) fn token(&self, id: InstallationId) -> Result<ExternalToken, CliError> {
        let path = self.path.join(format!("{TOKEN}{id}"));
        let failed = cannot("read the token in", &path);
        let unusable = |what| failed(io::Error::other(what));
        let file = match open_own(&path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return new_token(&path),
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(&failed)?.uid() != geteuid().as_raw() {
            return Err(unusable("it belongs to another user"));
        }
        let text = read_short(file, TOKEN_SIZE).map_err(&failed)?;
        ExternalToken::parse(text.trim_end())
            .map_err(|_| unusable("this is no token; without the file there is a new one"))
    }

    /// Returns the id that the store had in earlier runs with this directory.
    ///
    /// # Errors
    /// [`CliError`] when the file cannot be read.
    #[cfg(feature = "sprites")]
    pub(crate) fn store_id(&self) -> Result<Option<String>, CliError> {
        let path = self.path.join(STORE_ID);
        let failed = cannot("read the store's id in", &path);
        let file = match open_own(&path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let text = read_short(file, TOKEN_SIZE).map_err(&failed)?;
        Ok(Some(text.trim_end().to_owned()))
    }

    /// Keeps the store's id for later runs.
    ///
    /// # Errors
    /// [`CliError`] when the file cannot be written.
    #[cfg(feature = "sprites")]
    pub(crate) fn set_store_id(&self, id: &str) -> Result<(), CliError> {
        let path = self.path.join(STORE_ID);
        let failed = cannot("write the store's id into", &path);
        private_file::put(&path, id.as_bytes()).map_err(failed)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the directory, with the plugins' data in it, outlives the run.
    pub(crate) const fn is_kept(&self) -> bool {
        self.is_kept
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = temporary::remove(&self.path)
        {
            log::warn!(
                "cannot remove the temporary directory {}: {error}",
                self.path.display()
            );
        }
    }
}

/// Returns an error if `run` has used this directory and no server has: nothing is installed there.
///
/// # Errors
/// [`CliError`], which does not name the setting.
pub(crate) fn refuse_of_a_run(path: &Path) -> Result<(), CliError> {
    if fs::symlink_metadata(path.join(LOCK)).is_err() || is_of_a_server(path) {
        return Ok(());
    }
    let path = path.display();
    Err(CliError::usage(format!(
        "{path} is the directory of a `plugin-runner run`, which installs nothing; name another, and install the \
         plugins there"
    )))
}

fn is_of_a_server(path: &Path) -> bool {
    let mut names = OF_A_SERVER.iter();
    names.any(|name| fs::symlink_metadata(path.join(name)).is_ok())
}

/// Generates a token, and stores it in a file that is there whole or not at all.
fn new_token(path: &Path) -> Result<ExternalToken, CliError> {
    let failed = cannot("keep a token in", path);
    let token = ExternalToken::generate().map_err(|error| failed(io::Error::other(error)))?;
    private_file::put(path, format!("{}\n", token.expose()).as_bytes()).map_err(failed)?;
    Ok(token)
}

/// Opens the lock file, and creates it if need be.
fn open_lock(path: &Path) -> Result<File, CliError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    open_own(path, &mut options).map_err(cannot("lock the data directory with", path))
}

/// Returns the user's cache directory; `None` if the environment does not name one.
fn cache_dir() -> Option<PathBuf> {
    let named = |name| {
        let path = PathBuf::from(std::env::var_os(name)?);
        // The specification of these variables has relative paths ignored.
        path.is_absolute().then_some(path)
    };
    named("XDG_CACHE_HOME").or_else(|| Some(named("HOME")?.join(".cache")))
}

/// Returns whether the system says that it executes nothing there.
#[cfg(target_os = "linux")]
fn is_mounted_noexec(dir: &Path) -> bool {
    use rustix::fs::{StatVfsMountFlags, statvfs};
    statvfs(dir).is_ok_and(|mount| mount.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

#[cfg(not(target_os = "linux"))]
fn is_mounted_noexec(_dir: &Path) -> bool {
    false
}

fn cannot(action: &str, path: &Path) -> impl Fn(io::Error) -> CliError {
    CliError::cannot(format!("{action} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode};

    use super::*;

    #[test]
    fn a_temporary_directory_is_removed_with_all_that_is_in_it() {
        let dir = DataDir::temporary().unwrap();
        let path = dir.path().to_owned();
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/c"), "x").unwrap();
        assert!(!dir.is_kept());
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn what_plugins_put_in_the_place_of_the_lock_is_neither_followed_nor_waited_for() {
        let parent = DataDir::temporary().unwrap();
        let path = parent.path().join("data");
        drop(DataDir::named(&path).unwrap());
        let target = parent.path().join("target");
        fs::write(&target, "kept").unwrap();
        fs::remove_file(path.join(LOCK)).unwrap();
        std::os::unix::fs::symlink(&target, path.join(LOCK)).unwrap();
        let refused = DataDir::named(&path).unwrap_err().to_string();
        assert!(refused.contains(LOCK), "{refused}");
        assert_eq!(fs::read(&target).unwrap(), b"kept");
        fs::remove_file(path.join(LOCK)).unwrap();
        // Not with `mkfifo`: a child would hold the locks of other tests until it runs.
        let pipe = FileType::Fifo;
        rustix::fs::mknodat(CWD, path.join(LOCK), pipe, Mode::RWXU, 0).unwrap();
        let refused = DataDir::named(&path).unwrap_err().to_string();
        assert!(refused.contains(LOCK), "{refused}");
    }

    #[test]
    fn what_plugins_put_in_the_place_of_a_token_is_no_token() {
        let parent = DataDir::temporary().unwrap();
        let dir = DataDir::named(&parent.path().join("data")).unwrap();
        let id = InstallationId::generate();
        let token = dir.token(id).unwrap();
        assert_eq!(dir.token(id).unwrap(), token);
        assert_ne!(dir.token(InstallationId::generate()).unwrap(), token);
        let path = dir.path().join(format!("{TOKEN}{id}"));
        let elsewhere = parent.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        let refused = dir.token(id).unwrap_err().to_string();
        assert!(refused.contains(TOKEN), "{refused}");
        fs::remove_file(&path).unwrap();
        // Not with `mkfifo`: a child would hold the locks of other tests until it runs.
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let refused = dir.token(id).unwrap_err().to_string();
        assert!(refused.contains("not a regular file"), "{refused}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "sdprt_short\n").unwrap();
        let refused = dir.token(id).unwrap_err().to_string();
        assert!(refused.contains("this is no token"), "{refused}");
        fs::remove_file(&path).unwrap();
        // A file that a killed run had begun to write is replaced, and so is a link.
        let kept = fs::read(&elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, private_file::unfinished(&path)).unwrap();
        assert_ne!(dir.token(id).unwrap(), token);
        assert_eq!(fs::read(&elsewhere).unwrap(), kept);
    }

    #[test]
    fn a_named_directory_is_kept_and_used_by_one_at_a_time() {
        let parent = DataDir::temporary().unwrap();
        let path = parent.path().join("data");
        let first = DataDir::named(&path).unwrap();
        let refused = DataDir::named(&path).unwrap_err().to_string();
        assert!(refused.contains("another plugin-runner"), "{refused}");
        drop(first);
        assert!(path.exists());
        assert!(DataDir::named(&path).unwrap().is_kept());
    }
}
