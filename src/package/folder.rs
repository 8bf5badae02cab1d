//! The folders of an installation, and the small file system steps that the rest is made of.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::PackageError;

/// Where the archive with this SHA-256 is unpacked, or will be: `<root>/releases/<sha256>`. `root`
/// is the folder of one installation. Makes nothing.
pub fn release_folder(root: &Path, sha256: &str) -> PathBuf {
    releases(root).join(sha256)
}

/// The folder for the plugin's own files, `<root>/data`, made if it is not there. It outlives
/// updates, and is what `PLUGIN_DATA_DIR` names.
///
/// # Errors
/// [`PackageError::Io`]: it cannot be made.
pub fn data_folder(root: &Path) -> Result<PathBuf, PackageError> {
    let folder = root.join("data");
    make_all(&folder)?;
    Ok(folder)
}

pub(super) fn releases(root: &Path) -> PathBuf {
    root.join("releases")
}

/// Makes a folder and all above it; it may be there.
pub(super) fn make_all(folder: &Path) -> Result<(), PackageError> {
    fs::create_dir_all(folder).map_err(io("make folder", folder))
}

/// Makes a folder with mode 0755, whatever the umask; it must not be there.
pub(super) fn make_new(folder: &Path) -> Result<(), PackageError> {
    DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .map_err(io("make folder", folder))?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
        .map_err(io("set permissions of", folder))
}

/// Makes what was done in a folder survive a power failure.
pub(super) fn sync(folder: &Path) -> Result<(), PackageError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io("sync folder", folder))
}

/// An error of the system, for `map_err`.
pub(super) fn io<'a>(
    action: &'static str,
    path: &'a Path,
) -> impl Fn(io::Error) -> PackageError + 'a {
    move |source| PackageError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
