//! Which releases an installation keeps, and removing an installation's folder.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::folder::{io, releases, sync};
use super::removal::{allow_owner, move_at_once, remove};
use super::staging::{Staging, staging};
use crate::error::PackageError;

/// Removes all releases of an installation but those of these archives, by their SHA-256, and what
/// crashes have left unfinished. `root` is the folder of the installation; that it, or a release to
/// keep, is not there is fine. No plugin may be running from what is removed.
///
/// What goes is first moved to where nobody looks for releases, all of it before any of it is removed.
/// Files and folders that the plugin made read-only go too, and links are not followed. After a crash,
/// or an error, it can be done again.
///
/// Blocks for as long as the disk needs.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path.
pub fn keep_releases(root: &Path, keep: &[&str]) -> Result<(), PackageError> {
    remove_where(root, |name| {
        !keep.iter().any(|kept| name == OsStr::new(kept))
    })
}

/// Removes the release of one archive, by its SHA-256, as [`keep_releases`] removes the others.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path.
pub fn remove_release(root: &Path, sha256: &str) -> Result<(), PackageError> {
    remove_where(root, |name| name == OsStr::new(sha256))
}

fn remove_where(root: &Path, goes: impl Fn(&OsStr) -> bool) -> Result<(), PackageError> {
    make_usable(root)?;
    let folder = releases(root);
    let mut going = names(&folder)?;
    going.retain(|name| goes(name));
    if !going.is_empty() {
        let aside = Staging::create(root)?;
        for name in going {
            aside.take(&folder.join(name))?;
        }
        // Before a file is removed, so that after a power failure too nothing half is a release.
        sync(&folder)?;
        aside.discard()?;
    }
    Staging::sweep(root);
    Ok(())
}

/// Removes the folder of an installation: the releases and what is unfinished first; then, unless
/// `keep_data`, the plugin's data and logs, and whatever else is there. With `keep_data` the folder
/// itself goes only if nothing is left in it. That it is not there is fine. The plugin must not be
/// running, and nobody may be unpacking.
///
/// Files and folders that the plugin made read-only go too, and links are not followed: if `root` itself
/// is one, the link is removed, or kept with the data. Nothing needs room on the disk. After a crash, or
/// an error, it can be done again.
///
/// Blocks for as long as the disk needs.
///
/// # Errors
/// [`PackageError::Io`]: the system refused, with the path.
pub fn remove_installation(root: &Path, keep_data: bool) -> Result<(), PackageError> {
    let is_folder = match fs::symlink_metadata(root) {
        Ok(metadata) => metadata.is_dir(),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(io("look at", root)(error)),
    };
    let remove = |path: &Path| remove(path).map_err(io("remove", path));
    if is_folder {
        allow_owner(root).map_err(io("set permissions of", root))?;
        // Another name first, so that nothing half is a release.
        let removed = root.join("removed");
        remove(&removed)?;
        move_at_once(&releases(root), &removed)?;
        sync(root)?;
        remove(&removed)?;
        remove(&staging(root))?;
    }
    if !keep_data {
        if is_folder {
            remove(&root.join("data"))?;
            remove(&root.join("logs"))?;
        }
        remove(root)?;
    } else if is_folder {
        match fs::remove_dir(root) {
            Err(error)
                if !matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound
                ) =>
            {
                return Err(io("remove", root)(error));
            }
            _ => {}
        }
    }
    root.parent()
        .filter(|above| !above.as_os_str().is_empty())
        .map_or(Ok(()), sync)
}

/// Lets us work in the folder of an installation and in those of its folders that releases come and go
/// in, whatever the plugin has made of their permissions.
///
/// # Errors
/// [`PackageError::Io`].
pub(super) fn make_usable(root: &Path) -> Result<(), PackageError> {
    for folder in [root, &releases(root), &staging(root)] {
        allow_owner(folder).map_err(io("set permissions of", folder))?;
    }
    Ok(())
}

/// What is in a folder, which must not be a link; nothing if it is not there.
fn names(folder: &Path) -> Result<Vec<OsString>, PackageError> {
    let list = || -> std::io::Result<Vec<OsString>> {
        if !fs::symlink_metadata(folder)?.is_dir() {
            return Err(ErrorKind::NotADirectory.into());
        }
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name()))
            .collect()
    };
    match list() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(io("list", folder)),
    }
}

#[cfg(test)]
mod tests;
