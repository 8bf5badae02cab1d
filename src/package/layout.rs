//! The directories of an installation, and opening them with errors that name the path.

use std::io;
use std::path::{Path, PathBuf};

use super::open_dir::{OpenDir, PUBLIC, open_or_create_dir};
use crate::error::PackageError;

pub(super) const RELEASES: &str = "releases";
pub(super) const STAGING: &str = "staging";
pub(super) const DATA: &str = "data";
pub(super) const LOGS: &str = "logs";
pub(super) const REMOVED: &str = "removed";

/// Returns where the archive with this SHA-256 is or will be unpacked: `<root>/releases/<sha256>`. `root`
/// is the directory of one installation. Creates nothing.
pub(crate) fn release_dir(root: &Path, sha256: &str) -> PathBuf {
    root.join(RELEASES).join(sha256)
}

/// Creates the directory for the plugin's data, `<root>/data`, unless it is there, and returns its path. It
/// outlives updates, and is what `PLUGIN_DATA_DIR` names. A link in its place is not followed but removed,
/// as is anything else that is not a file.
///
/// # Errors
/// [`PackageError::Io`]: it cannot be created.
pub(crate) fn data_dir(root: &Path) -> Result<PathBuf, PackageError> {
    create_installation_dir(root)?.ensure_subdir(DATA)?;
    Ok(root.join(DATA))
}

/// Opens the directory of an installation, and creates it if it is missing.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn create_installation_dir(root: &Path) -> Result<OpenDir, PackageError> {
    open_or_create_dir(root, PUBLIC).map_err(failed("create directory", root))
}

/// Opens the directory of an installation, if it exists.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn find_installation_dir(root: &Path) -> Result<Option<OpenDir>, PackageError> {
    OpenDir::find(root).map_err(failed("open directory", root))
}

/// Opens a release, `<root>/releases/<sha256>`, if it exists. No link is followed for the last three parts of
/// the path.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn find_release_dir(release: &Path) -> Result<Option<OpenDir>, PackageError> {
    let find = || {
        let (root, name) = (release.ancestors().nth(2), release.file_name());
        let Some((root, name)) = root.zip(name) else {
            return Ok(None);
        };
        let releases = OpenDir::find(root)?.map(|root| root.find_usable(RELEASES));
        match releases.transpose()?.flatten() {
            Some(releases) => releases.find_usable(name),
            None => Ok(None),
        }
    };
    find().map_err(failed("open directory", release))
}

impl OpenDir {
    /// Opens a directory of an installation, and creates it if it is missing.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn ensure_subdir(&self, name: &str) -> Result<OpenDir, PackageError> {
        self.ensure_dir(name, PUBLIC)
            .map_err(self.failed("create directory", name))
    }

    /// Opens a directory of an installation, if it exists.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn find_subdir(&self, name: &str) -> Result<Option<OpenDir>, PackageError> {
        self.find_dir(name)
            .map_err(self.failed("open directory", name))
    }

    /// Calls [`sync`](Self::sync), and names the path in the error.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn sync_dir(&self) -> Result<(), PackageError> {
        self.sync().map_err(failed("sync directory", self.path()))
    }
}

/// Converts an error of the system, for `map_err`.
pub(super) fn failed<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> PackageError + 'a {
    move |source| PackageError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
