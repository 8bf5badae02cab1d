//! The folders of an installation, and the small file system steps that the rest is made of.

use std::io;
use std::path::{Path, PathBuf};

use super::open_dir::{OpenDir, PUBLIC, open_or_create_dir};
use crate::error::PackageError;

pub(super) const RELEASES: &str = "releases";
pub(super) const STAGING: &str = "staging";
pub(super) const DATA: &str = "data";
pub(super) const LOGS: &str = "logs";
pub(super) const REMOVED: &str = "removed";

/// Where the archive with this SHA-256 is unpacked, or will be: `<root>/releases/<sha256>`. `root`
/// is the folder of one installation. Makes nothing.
pub(crate) fn release_dir(root: &Path, sha256: &str) -> PathBuf {
    root.join(RELEASES).join(sha256)
}

/// The folder for the plugin's own files, `<root>/data`, made if it is not there. It outlives
/// updates, and is what `PLUGIN_DATA_DIR` names. A link in its place is removed, and not followed, as is
/// any other thing but a file.
///
/// # Errors
/// [`PackageError::Io`]: it cannot be made.
pub(crate) fn data_dir(root: &Path) -> Result<PathBuf, PackageError> {
    create_installation_dir(root)?.ensure_subdir(DATA)?;
    Ok(root.join(DATA))
}

/// The folder of an installation, made if it is not there.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn create_installation_dir(root: &Path) -> Result<OpenDir, PackageError> {
    open_or_create_dir(root, PUBLIC).map_err(failed("make folder", root))
}

/// The folder of an installation, if there is one.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn find_installation_dir(root: &Path) -> Result<Option<OpenDir>, PackageError> {
    OpenDir::find(root).map_err(failed("open folder", root))
}

/// A release, `<root>/releases/<sha256>`, if it is there. Neither `<root>` nor what is below it may be a
/// link.
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
    find().map_err(failed("open folder", release))
}

impl OpenDir {
    /// A folder of an installation, made if it is not there.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn ensure_subdir(&self, name: &str) -> Result<OpenDir, PackageError> {
        self.ensure_dir(name, PUBLIC)
            .map_err(self.failed("make folder", name))
    }

    /// A folder of an installation, if it is there.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn find_subdir(&self, name: &str) -> Result<Option<OpenDir>, PackageError> {
        self.find_dir(name)
            .map_err(self.failed("open folder", name))
    }

    /// [`sync`](Self::sync), with the path in the error.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn sync_dir(&self) -> Result<(), PackageError> {
        self.sync().map_err(failed("sync folder", self.path()))
    }
}

/// An error of the system, for `map_err`.
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
