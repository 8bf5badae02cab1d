//! The intent log: one empty file for each operation that creates or removes files outside the store. Its name
//! says what the operation does, so that what a crash leaves behind can be told from everything else and
//! removed. Nothing is removed that no such file covers.
//!
//! A plugin can create such files too, for any installation. The store bounds what they can cause: no release
//! is removed that a record names, or that may be running without being named.
//!
//! The record in the store decides whether an operation took place; the disk is brought in line with it.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use super::ManagerInner;
use super::received;
use crate::deadline::Deadline;
use crate::error::{Error, PackageError, Result};
use crate::id::InstallationId;
use crate::package::{self, OpenDir, PUBLIC, Spool};
use crate::store::Record;
use crate::text::Foreign;

/// The directory of these files, below the data directory.
const DIR: &str = "operations";
const FILE_MODE: u32 = 0o644;
/// Time limit for one clean-up: another process may be adding files meanwhile.
const LIMIT: Duration = Duration::from_secs(300);

/// What an operation does to the files of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Install,
    /// Replaces the release that the plugin runs from by that of another archive.
    Update {
        new: String,
    },
    Remove {
        keep_data: bool,
    },
}

/// The file of an operation in progress. It stays on disk unless the operation is reported as done.
#[derive(Debug)]
#[must_use]
pub(super) struct IntentFile {
    dir: OpenDir,
    name: String,
}

impl IntentFile {
    /// Removes the file: the operation is complete, or undone. A file that cannot be removed does no harm.
    pub(super) fn done(self) {
        remove(&self.dir, &self.name);
    }

    /// Removes the file if unneeded files could be removed. Otherwise logs why not; the next operation on the
    /// plugin, or the next manager, tries again.
    pub(super) fn done_if(self, plugin: Foreign<'_>, removed: &Result<(), PackageError>) {
        match removed {
            Ok(()) => self.done(),
            Err(error) => log::warn!("plugin {plugin}: {error}"),
        }
    }
}

impl Intent {
    /// Returns the part of its file's name that follows the id.
    fn name(&self) -> String {
        match self {
            Self::Install => "install".to_owned(),
            Self::Update { new } => format!("update.{new}"),
            Self::Remove { keep_data: true } => "remove.keep-data".to_owned(),
            Self::Remove { keep_data: false } => "remove.all".to_owned(),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('.').collect();
        match words.as_slice() {
            ["install"] => Some(Self::Install),
            // Earlier versions of this crate named the archive that was replaced as well.
            ["update", new] | ["update", new, _] => {
                received::digest(new).ok()?;
                let new = (*new).to_owned();
                Some(Self::Update { new })
            }
            ["remove", "keep-data"] => Some(Self::Remove { keep_data: true }),
            ["remove", "all"] => Some(Self::Remove { keep_data: false }),
            _ => None,
        }
    }

    /// Removes the files of an interrupted operation that the record does not need, from the directory of the
    /// installation.
    fn finish(&self, root: &Path, record: Option<&Record>) -> Result<(), PackageError> {
        match (self, record) {
            (Self::Install, None) => package::remove_installation(root, false),
            (Self::Remove { keep_data }, None) => package::remove_installation(root, *keep_data),
            (Self::Update { new }, Some(record)) => match record.stored_archive() {
                // It took place, or nothing of the release has been changed yet.
                Some(runs) if runs == new || record.has_release(new) => {
                    let kept = record.kept_releases();
                    let kept: Vec<&str> = kept.iter().map(|release| &*release.sha256).collect();
                    package::keep_releases(root, &kept)
                }
                Some(_) => package::remove_release(root, new),
                // The plugin may be running in this release. If not, the next update removes it.
                None => Ok(()),
            },
            // The operation took place, or had not begun; it left nothing.
            (Self::Install | Self::Remove { .. }, Some(_)) | (Self::Update { .. }, None) => Ok(()),
        }
    }
}

impl ManagerInner {
    /// Writes the file of an operation that is about to change the disk, and syncs it.
    pub(super) fn write_intent(&self, id: InstallationId, intent: &Intent) -> Result<IntentFile> {
        let data = &self.context().settings.data_dir;
        let failed = |action: &str, name: &str, error| {
            let path = data.join(DIR).join(name);
            Error::io(format!("{action} {}", path.display()), error)
        };
        // What an earlier operation could not remove has to go before this one changes the same files.
        if let Some(name) = self.clean_up_where(|other| other == id)? {
            let source = io::Error::other("it could not be removed; the log says why");
            return Err(failed("clean up after", &name, source));
        }
        let name = format!("{id}.{}", intent.name());
        let write = || {
            let data = OpenDir::follow(data)?;
            let dir = data.ensure_dir(DIR, PUBLIC)?;
            data.sync()?;
            // Everything is in its name, so the file is complete as soon as it exists.
            match dir.create_file(&*name, FILE_MODE) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            // If this fails, a file without an operation does no harm, and is removed with the next one.
            dir.sync()?;
            Ok(dir)
        };
        let dir = write().map_err(|error| failed("write", &name, error))?;
        Ok(IntentFile { dir, name })
    }

    /// Removes what interrupted operations have left. What cannot be removed, or not within five minutes, is
    /// logged and left for the next time.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn clean_up(&self) -> Result<()> {
        Spool::sweep(&self.context().settings.data_dir, received::DIR);
        self.clean_up_where(|_| true)?;
        self.collect_archives();
        Ok(())
    }

    /// Removes what interrupted operations on some installations have left; returns the name of a file whose
    /// operation could not be cleaned up after.
    fn clean_up_where(&self, which: impl Fn(InstallationId) -> bool) -> Result<Option<String>> {
        let data = &self.context().settings.data_dir;
        let warn = |error: &dyn std::fmt::Display| {
            log::warn!("cannot read {}: {error}", data.join(DIR).display());
        };
        let open = || -> io::Result<_> {
            let dir = OpenDir::follow(data)?.find_dir(DIR)?;
            dir.map(|dir| Ok((dir.list()?, dir))).transpose()
        };
        let (entries, dir) = match open() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                warn(&error);
                return Ok(None);
            }
        };
        let deadline = Deadline::after(LIMIT);
        let (mut odd, mut left) = (0_usize, None);
        for entry in entries {
            let entry = match entry {
                Ok(entry) if !deadline.has_passed() => entry,
                Ok(_) => {
                    warn(&"cleaning up took too long; the rest is left for later");
                    break;
                }
                Err(error) => {
                    warn(&error);
                    break;
                }
            };
            let name = entry.file_name().to_string_lossy();
            let Some((id, intent)) = parse(&name) else {
                odd += 1;
                continue;
            };
            if !which(id) {
                continue;
            }
            let record = self.store().get(id)?;
            if let Err(error) = intent.finish(&self.installation_dir(id), record.as_ref()) {
                let path = dir.at(&*name);
                log::warn!("cannot clean up after {}: {error}", path.display());
                left = Some(name.into_owned());
                continue;
            }
            log::info!("cleaned up after an interrupted operation on {id}: {intent:?}");
            if !remove(&dir, &name) {
                left = Some(name.into_owned());
            }
        }
        if odd > 0 {
            warn(&format_args!("{odd} file names are not understood"));
        }
        Ok(left)
    }
}

/// Parses the name of a file.
fn parse(name: &str) -> Option<(InstallationId, Intent)> {
    let (id, intent) = name.split_once('.')?;
    Some((id.parse().ok()?, Intent::parse(intent)?))
}

/// Removes a file, or whatever was put in its place; returns whether that succeeded.
fn remove(dir: &OpenDir, name: &str) -> bool {
    let removed = dir.remove(name);
    if let Err(error) = &removed {
        log::warn!("cannot remove {}: {error}", dir.at(name).display());
    }
    removed.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood_and_nothing_else_is() {
        for intent in [
            Intent::Install,
            Intent::Update {
                new: "ab".repeat(32),
            },
            Intent::Remove { keep_data: true },
            Intent::Remove { keep_data: false },
        ] {
            let name = intent.name();
            let id = InstallationId::generate();
            assert!(format!("{id}.{name}").len() < 255, "no name for a file");
            assert_eq!(Intent::parse(&name), Some(intent));
        }
        let earlier = format!("update.{}.none", "ab".repeat(32));
        let new = "ab".repeat(32);
        assert_eq!(Intent::parse(&earlier), Some(Intent::Update { new }));
        for name in [
            "",
            "install.now",
            "remove",
            "remove.none",
            "update.a",
            "part",
            "update.a.none",
            &format!("update.{}.none.none", "ab".repeat(32)),
            &format!("update.{}", "ab".repeat(33)),
            &format!("update.{}.none", "AB".repeat(32)),
            &format!("update.{}.none", "ab".repeat(33)),
            &format!("update.{}.none", "/a".repeat(32)),
        ] {
            assert_eq!(Intent::parse(name), None, "{name:?}");
        }
    }
}
