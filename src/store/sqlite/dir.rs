//! `StoreDir`: where the store's files are, what they are called, and making them so that nobody else may
//! read them.

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
/// All of a mode that says who may do what.
const PERMISSIONS: u32 = 0o777;
/// Of a folder that belongs to everybody, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// The folder of a store.
#[derive(Clone, Debug)]
pub(super) struct StoreDir {
    path: PathBuf,
}

impl StoreDir {
    /// One that is there.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = path.canonicalize().map_err(reading("open", path))?;
        Ok(Self { path })
    }

    /// One that is made if it is not there, with all that belongs into it but the database.
    ///
    /// # Errors
    /// [`StoreError::Full`](crate::error::StoreError::Full),
    /// [`StoreError::ReadOnly`](crate::error::StoreError::ReadOnly),
    /// [`Error::Io`](crate::Error::Io).
    pub(super) fn make(path: &Path) -> Result<Self> {
        make_private(path).map_err(system("make the folder", path))?;
        let dir = Self::open(path)?;
        let archives = dir.archives();
        dir.make_archives()
            .map_err(system("make the folder", &archives))?;
        Ok(dir)
    }

    /// The folder of the archives, which must not be a link: what is removed there is removed for good.
    ///
    /// # Errors
    /// What the system says; [`ErrorKind::NotADirectory`] if something else is in its place.
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

    /// Where a database is made, before it is put into its place.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.path.join(UNFINISHED)
    }

    pub(super) fn archives(&self) -> PathBuf {
        self.path.join(ARCHIVES)
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join(LOCK)
    }

    /// What has not been checked in yet of the database.
    pub(super) fn log(&self) -> PathBuf {
        sidecar(&self.database(), "-wal")
    }

    /// Removes what is left of a database that was not finished.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn remove_unfinished(&self) -> io::Result<()> {
        let path = self.unfinished();
        for name in SIDECARS {
            remove(&sidecar(&path, name))?;
        }
        remove(&path)
    }

    /// The size of the database in bytes. What is there, and what SQLite has put next to it, must be
    /// files: opening a named pipe would block, and a link is none that SQLite has made.
    ///
    /// # Errors
    /// What the system says, also when there is no database.
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

    /// Takes the database and what belongs to it away from everybody else, however it came there.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn make_database_private(&self) -> io::Result<()> {
        restrict(&self.database(), PRIVATE_FILE)?;
        for (path, found) in self.sidecars() {
            // By its path: closing a file of the database ends the locks that SQLite has on it.
            match found.and_then(|_| restrict(&path, PRIVATE_FILE)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The files that SQLite may have put next to the database, and what is there.
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

/// A new file that only its owner may read and write, whatever the umask.
///
/// # Errors
/// What the system says, also when there is one already.
pub(super) fn new_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)?;
    // The umask may have taken away what we need ourselves.
    file.set_permissions(Permissions::from_mode(PRIVATE_FILE))?;
    Ok(file)
}

/// Removes a file, which need not be there.
///
/// # Errors
/// What the system says.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes what was done in a folder survive a power failure.
///
/// # Errors
/// What the system says.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a folder and those above it. It and what is made above it are its owner's alone.
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
        // Made by another at the same time.
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
        // Somebody else's, who lets us use it.
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
