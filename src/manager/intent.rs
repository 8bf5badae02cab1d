//! What is under way on disk: one empty file for each operation that makes or removes files beside the
//! store, whose name says what, so that what a crash leaves of it can be told from everything else and
//! removed. Nothing is ever removed that no such file speaks of.
//!
//! A plugin can make such files too, about any installation. What they say is bounded by the store: no
//! release is removed that a record names, or may run without naming it.
//!
//! The store says whether an operation happened: it is the record that counts, and what is on disk
//! follows.

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

/// Where these files are, below the data folder.
const DIR: &str = "operations";
const FILE_MODE: u32 = 0o644;
/// How long all that was left is removed at once: some process may add to it meanwhile.
const LIMIT: Duration = Duration::from_secs(300);
/// In the place of an archive that there is none of.
const NONE: &str = "none";

/// What is being done to the files of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Install,
    /// The release of one archive is to take the place of another's.
    Update {
        new: String,
        old: Option<String>,
    },
    Remove {
        keep_data: bool,
    },
}

/// A file that says what is being done. Left where it is unless it is said to be done.
#[derive(Debug)]
#[must_use]
pub(super) struct IntentFile {
    dir: OpenDir,
    name: String,
}

impl IntentFile {
    /// Removes the file: all is done, or undone. One that cannot be removed does no harm.
    pub(super) fn done(self) {
        remove(&self.dir, &self.name);
    }

    /// Removes the file if what is no longer needed is removed. If not, that is logged; it is removed when
    /// the next manager is made, or by the next operation on the plugin.
    pub(super) fn done_if(self, plugin: Foreign<'_>, removed: &Result<(), PackageError>) {
        match removed {
            Ok(()) => self.done(),
            Err(error) => log::warn!("plugin {plugin}: {error}"),
        }
    }
}

impl Intent {
    /// What stands in the name of its file, after the id.
    fn name(&self) -> String {
        match self {
            Self::Install => "install".to_owned(),
            Self::Update { new, old } => {
                format!("update.{new}.{}", old.as_deref().unwrap_or(NONE))
            }
            Self::Remove { keep_data: true } => "remove.keep-data".to_owned(),
            Self::Remove { keep_data: false } => "remove.all".to_owned(),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let words: Vec<&str> = name.split('.').collect();
        match words.as_slice() {
            ["install"] => Some(Self::Install),
            ["update", new, old] => {
                let old = (*old != NONE).then_some(*old);
                for sha256 in [*new].into_iter().chain(old) {
                    received::digest(sha256).ok()?;
                }
                Some(Self::Update {
                    new: (*new).to_owned(),
                    old: old.map(str::to_owned),
                })
            }
            ["remove", "keep-data"] => Some(Self::Remove { keep_data: true }),
            ["remove", "all"] => Some(Self::Remove { keep_data: false }),
            _ => None,
        }
    }

    /// Removes what is not needed any more, or never came to be needed, in the directory of the
    /// installation, which has this record.
    fn finish(&self, root: &Path, record: Option<&Record>) -> Result<(), PackageError> {
        match (self, record) {
            (Self::Install, None) => package::remove_installation(root, false),
            (Self::Remove { keep_data }, None) => package::remove_installation(root, *keep_data),
            (Self::Update { new, old }, Some(record)) => match record.stored_archive() {
                Some(runs) if runs == new => keep_two_releases(root, new, old.as_deref()),
                Some(_) => package::remove_release(root, new),
                // It may run in this very release. What never ran goes with the next update.
                None => Ok(()),
            },
            // It happened, or did not; there is nothing left of it.
            (Self::Install | Self::Remove { .. }, Some(_)) | (Self::Update { .. }, None) => Ok(()),
        }
    }
}

/// Removes all releases but that of a new version and that of the one before.
pub(super) fn keep_two_releases(
    root: &Path,
    new: &str,
    old: Option<&str>,
) -> Result<(), PackageError> {
    let kept: Vec<&str> = std::iter::once(new).chain(old).collect();
    package::keep_releases(root, &kept)
}

impl ManagerInner {
    /// Writes down what is about to be done, to the disk.
    pub(super) fn write_intent(&self, id: InstallationId, intent: &Intent) -> Result<IntentFile> {
        let data = &self.context().settings.data_dir;
        let failed = |action: &str, name: &str, error| {
            let path = data.join(DIR).join(name);
            Error::io(format!("{action} {}", path.display()), error)
        };
        // What an operation before could not tidy up is to be done before this one changes what it is about.
        if let Some(name) = self.clean_up_where(|other| other == id)? {
            let source = io::Error::other("it could not be removed; the log says why");
            return Err(failed("tidy up what is said by", &name, source));
        }
        let name = format!("{id}.{}", intent.name());
        let write = || {
            let data = OpenDir::follow(data)?;
            let dir = data.ensure_dir(DIR, PUBLIC)?;
            data.sync()?;
            // All that it says is in its name: so it is whole as soon as it is there.
            match dir.create_file(&*name, FILE_MODE) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            if let Err(error) = dir.sync() {
                remove(&dir, &name);
                return Err(error);
            }
            Ok(dir)
        };
        let dir = write().map_err(|error| failed("write", &name, error))?;
        Ok(IntentFile { dir, name })
    }

    /// Removes what operations have left that a crash cut short. What cannot be removed, and what is left
    /// after five minutes, is logged and left for the next time.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn clean_up(&self) -> Result<()> {
        Spool::sweep(&self.context().settings.data_dir, received::DIR);
        self.clean_up_where(|_| true)?;
        self.collect_archives();
        Ok(())
    }

    /// Removes what operations on some installations have left; returns the name of a file whose operation
    /// still has something left after that.
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
            if deadline.has_passed() {
                warn(&"it took too long, the rest is left for later");
                break;
            }
            let entry = match entry {
                Ok(entry) => entry,
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
            match intent.finish(&self.installation_dir(id), self.store().get(id)?.as_ref()) {
                Ok(()) => {
                    log::info!(
                        "cleaned up after an operation on {id} that was cut short: {intent:?}"
                    );
                    if remove(&dir, &name) {
                        continue;
                    }
                }
                Err(error) => {
                    log::warn!(
                        "cannot clean up after {}: {error}",
                        dir.at(&*name).display()
                    );
                }
            }
            left = Some(name.into_owned());
        }
        if odd > 0 {
            warn(&format_args!("{odd} names of files are not understood"));
        }
        Ok(left)
    }
}

/// What the name of a file says, and about which installation.
fn parse(name: &str) -> Option<(InstallationId, Intent)> {
    let (id, intent) = name.split_once('.')?;
    Some((id.parse().ok()?, Intent::parse(intent)?))
}

/// Removes a file, or whatever was put in its place; returns whether it is gone.
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
                old: None,
            },
            Intent::Update {
                new: "ab".repeat(32),
                old: Some("cd".repeat(32)),
            },
            Intent::Remove { keep_data: true },
            Intent::Remove { keep_data: false },
        ] {
            let name = intent.name();
            let id = InstallationId::generate();
            assert!(format!("{id}.{name}").len() < 255, "no name for a file");
            assert_eq!(Intent::parse(&name), Some(intent));
        }
        for name in [
            "",
            "install.now",
            "remove",
            "remove.none",
            "update.a",
            "part",
            "update.a.none",
            &format!("update.{}.b", "ab".repeat(32)),
            &format!("update.{}.none", "AB".repeat(32)),
            &format!("update.{}.none", "ab".repeat(33)),
            &format!("update.{}.none", "/a".repeat(32)),
        ] {
            assert_eq!(Intent::parse(name), None, "{name:?}");
        }
    }
}
