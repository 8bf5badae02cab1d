//! `StoreDir`: where the store's files are, what they are called, and creating them so that no other user
//! may read them.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::failure::{reading, system};
use crate::error::Result;
use crate::package::OpenDir;

const DATABASE: &str = "plugins.sqlite";
const UNFINISHED: &str = "plugins.sqlite.new";
const ARCHIVES: &str = "archives";
const LOCK: &str = "owner.lock";
/// What SQLite puts next to a database.
const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

const PRIVATE_DIR: u32 = 0o700;
pub(super) const PRIVATE_FILE: u32 = 0o600;
/// The permission bits of a mode.
const PERMISSIONS: u32 = 0o777;
/// Marks a directory that all users share, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// The directory of a store.
#[derive(Clone, Debug)]
pub(super) struct StoreDir {
    path: PathBuf,
}

impl StoreDir {
    /// Opens a directory that exists.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(reading("open", path))?;
        Ok(Self { path })
    }

    /// Creates the directory if it is missing, with everything that belongs in it but the database.
    ///
    /// # Errors
    /// [`StoreError::Full`](crate::error::StoreError::Full),
    /// [`StoreError::ReadOnly`](crate::error::StoreError::ReadOnly),
    /// [`Error::Io`](crate::Error::Io).
    pub(super) fn make(path: &Path) -> Result<Self> {
        make_private(path).map_err(system("create the directory", path))?;
        let dir = Self::open(path)?;
        let archives = dir.archives();
        dir.make_archives()
            .map_err(system("create the directory", &archives))?;
        Ok(dir)
    }

    /// Opens the directory of the archives, which must not be a link: files are deleted in there.
    ///
    /// # Errors
    /// What the system reports; [`ErrorKind::NotADirectory`] if something else is in its place.
    pub(super) fn open_archives(&self) -> io::Result<OpenDir> {
        let dir = OpenDir::follow(&self.path)?;
        match dir.find_in(ARCHIVES)? {
            Some(archives) => Ok(archives),
            None if dir.kind(ARCHIVES)?.is_none() => Err(ErrorKind::NotFound.into()),
            None => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn make_archives(&self) -> io::Result<()> {
        let dir = OpenDir::follow(&self.path)?;
        match dir.create_dir(ARCHIVES, PRIVATE_DIR) {
            Ok(()) => dir.sync()?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        match dir.find_usable(ARCHIVES)? {
            Some(archives) => {
                let found = rustix::fs::fstat(&archives)?.st_mode;
                restrict_found(archives.path(), found, PRIVATE_DIR, || {
                    Ok(rustix::fs::fchmod(
                        &archives,
                        Mode::from_raw_mode(PRIVATE_DIR),
                    )?)
                })
            }
            None => Err(ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where a database is created before it is moved to its place.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.path.join(UNFINISHED)
    }

    pub(super) fn archives(&self) -> PathBuf {
        self.path.join(ARCHIVES)
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// SQLite's log: what is committed and not in the database file yet.
    pub(super) fn log(&self) -> PathBuf {
        sidecar(&self.database(), "-wal")
    }

    /// Removes what is left of a database whose creation was interrupted.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        let path = self.unfinished();
        for name in SIDECARS {
            remove(&sidecar(&path, name))?;
        }
        remove(&path)
    }

    /// Returns the size of the database in bytes. The database and what SQLite has put next to it must be
    /// regular files: opening a named pipe would block, and SQLite creates no links.
    ///
    /// # Errors
    /// What the system reports, also when there is no database.
    pub(super) fn find_database(&self) -> io::Result<u64> {
        let database = fs::metadata(self.database())?;
        let beside = self.sidecars().filter_map(|(_, found)| found.ok());
        if beside
            .chain([database.clone()])
            .all(|found| found.is_file())
        {
            Ok(database.len())
        } else {
            Err(io::Error::other("not a regular file"))
        }
    }

    /// Takes away every other user's access to the database and the files that belong to it.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn make_database_private(&self) -> io::Result<()> {
        restrict(&self.database(), PRIVATE_FILE)?;
        for (path, found) in self.sidecars() {
            // By path: closing a descriptor of a database file drops the locks that SQLite has on it.
            match found.and_then(|_| restrict(&path, PRIVATE_FILE)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The files that SQLite may have put next to the database, with what is there.
    fn sidecars(&self) -> impl Iterator<Item = (PathBuf, io::Result<Metadata>)> {
        SIDECARS
            .map(|suffix| sidecar(&self.database(), suffix))
            .into_iter()
            .map(|path| {
                let found = fs::symlink_metadata(&path);
                (path, found)
            })
    }
}

/// Creates a file that only its owner may read and write, whatever the umask.
///
/// # Errors
/// What the system reports, also when the file exists.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)?;
    // The umask may have taken away even the owner's access.
    file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
    Ok(file)
}

/// Removes a file, if it exists.
///
/// # Errors
/// What the system reports.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes changes in a directory survive a power failure.
///
/// # Errors
/// What the system reports.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a directory and its parents, all of them for their owner alone.
fn make_private(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return restrict(path, PRIVATE_DIR);
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty())
        && !above.is_dir()
    {
        make_private(above)?;
    }
    match DirBuilder::new().mode(PRIVATE_DIR).create(path) {
        // Created by another process at the same time.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    restrict(path, PRIVATE_DIR)?;
    match path.parent() {
        Some(above) if !above.as_os_str().is_empty() => sync(above),
        _ => sync(Path::new(".")),
    }
}

fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode();
    restrict_found(path, found, mode, || {
        fs::set_permissions(path, Permissions::from_mode(mode))
    })
}

fn restrict_found(
    path: &Path,
    found: u32,
    mode: u32,
    change: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    if found & STICKY != 0 {
        log::warn!(
            "{} is everybody's directory; a data directory should be one's own",
            path.display()
        );
        return Ok(());
    }
    if found & PERMISSIONS == mode {
        return Ok(());
    }
    match change() {
        // It belongs to another user, who lets us use it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            log::warn!("others may read {}: {error}", path.display());
            Ok(())
        }
        other => other,
    }
}

fn sidecar(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
