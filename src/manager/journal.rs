//! What is under way on disk: one empty file for each operation that makes or removes files beside the
//! store, whose name says what, so that what a crash leaves of it can be told from everything else and
//! removed. Nothing is ever removed that no such file speaks of.
//!
//! The store says whether an operation happened: it is the record that counts, and what is on disk
//! follows.

use std::io::{self, ErrorKind};

use rustix::fs::Dir;

use super::Shared;
use super::intake;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::package::{self, OpenDir, PUBLIC, Spool};

/// Where these files are, below the data folder.
const FOLDER: &str = "operations";
const FILE_MODE: u32 = 0o644;
/// In the place of an archive that there is none of.
const NONE: &str = "none";

/// What is being done to the files of an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undertaking {
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
pub(super) struct Note {
    folder: OpenDir,
    name: String,
}

impl Note {
    /// Removes the file: all is done, or undone. One that cannot be removed does no harm.
    pub(super) fn done(self) {
        remove(&self.folder, &self.name);
    }
}

impl Undertaking {
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
            ["update", new, old] => Some(Self::Update {
                new: (*new).to_owned(),
                old: (*old != NONE).then(|| (*old).to_owned()),
            }),
            ["remove", "keep-data"] => Some(Self::Remove { keep_data: true }),
            ["remove", "all"] => Some(Self::Remove { keep_data: false }),
            _ => None,
        }
    }
}

impl Shared {
    /// Writes down what is about to be done, to the disk.
    pub(super) fn note(&self, id: InstallationId, undertaking: &Undertaking) -> Result<Note> {
        let data = &self.context().data;
        let failed = |action: &str, name: &str, error| {
            let path = data.join(FOLDER).join(name);
            Error::io(format!("{action} {}", path.display()), error)
        };
        // What an operation before could not tidy up is to be done before this one changes what it is about.
        self.clean_up_where(
            |name| name.starts_with(&id.to_string()),
            |folder, name| {
                if !matches!(folder.kind(name), Ok(None)) {
                    let source = io::Error::other("it could not be removed; the log says why");
                    return Err(failed("tidy up what is said by", name, source));
                }
                Ok(())
            },
        )?;
        let name = format!("{id}.{}", undertaking.name());
        let write = || {
            let data = OpenDir::follow(data)?;
            let folder = data.own(FOLDER, PUBLIC)?;
            data.sync()?;
            // All that it says is in its name: so it is whole as soon as it is there.
            match folder.make_file(&*name, FILE_MODE) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                _ => Ok(folder),
            }
        };
        let folder = write().map_err(|error| failed("write", &name, error))?;
        let note = Note { folder, name };
        match note.folder.sync() {
            Ok(()) => Ok(note),
            Err(error) => {
                let error = failed("write", &note.name, error);
                note.done();
                Err(error)
            }
        }
    }

    /// Removes what operations have left that a crash cut short. What cannot be removed is logged and
    /// left for the next time.
    ///
    /// # Errors
    /// The store's.
    pub(super) fn clean_up(&self) -> Result<()> {
        let data = &self.context().data;
        Spool::sweep(data, intake::FOLDER);
        self.clean_up_where(|_| true, |_, _| Ok(()))?;
        self.collect_archives();
        Ok(())
    }

    /// Removes what some operations have left, by the names of their files, and calls after each.
    fn clean_up_where(
        &self,
        which: impl Fn(&str) -> bool,
        after: impl Fn(&OpenDir, &str) -> Result<()>,
    ) -> Result<()> {
        let data = &self.context().data;
        let list = || -> io::Result<Option<(OpenDir, Dir)>> {
            let Some(folder) = OpenDir::follow(data)?.find_own(FOLDER)? else {
                return Ok(None);
            };
            let entries = folder.list()?;
            Ok(Some((folder, entries)))
        };
        let warn = |error: &dyn std::fmt::Display| {
            log::warn!("cannot read {}: {error}", data.join(FOLDER).display());
        };
        let (folder, entries) = match list() {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    warn(&error);
                }
                return Ok(());
            }
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    warn(&error);
                    break;
                }
            };
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." && which(&name) {
                self.clean_up_after(&folder, &name)?;
                after(&folder, &name)?;
            }
        }
        Ok(())
    }

    fn clean_up_after(&self, folder: &OpenDir, name: &str) -> Result<()> {
        let warn = |error: &dyn std::fmt::Display| {
            log::warn!(
                "cannot clean up after {}: {error}",
                folder.at(name).display()
            );
        };
        let said = name.split_once('.').and_then(|(id, undertaking)| {
            let id: InstallationId = id.parse().ok()?;
            Some((id, Undertaking::parse(undertaking)?))
        });
        let Some((id, undertaking)) = said else {
            warn(&"its name is not understood");
            return Ok(());
        };
        match self.finish(id, &undertaking)? {
            Ok(()) => {
                log::info!(
                    "cleaned up after an operation on {id} that was cut short: {undertaking:?}"
                );
                remove(folder, name);
            }
            Err(error) => warn(&error),
        }
        Ok(())
    }

    /// Removes what is not needed any more, or never came to be needed. The outer error is the store's.
    fn finish(
        &self,
        id: InstallationId,
        undertaking: &Undertaking,
    ) -> Result<Result<(), crate::error::PackageError>> {
        let record = self.store().get(id)?;
        let root = self.folder(id);
        Ok(match (undertaking, record) {
            (Undertaking::Install, None) => package::remove_installation(&root, false),
            (Undertaking::Remove { keep_data }, None) => {
                package::remove_installation(&root, *keep_data)
            }
            (Undertaking::Update { new, old }, Some(record)) => {
                if record.stored_archive() == Some(new) {
                    let old = old.as_deref();
                    let kept: Vec<&str> = std::iter::once(&**new).chain(old).collect();
                    package::keep_releases(&root, &kept)
                } else {
                    package::remove_release(&root, new)
                }
            }
            // It happened, or did not; there is nothing left of it.
            (Undertaking::Install | Undertaking::Remove { .. }, Some(_))
            | (Undertaking::Update { .. }, None) => Ok(()),
        })
    }
}

/// Removes a file, or whatever was put in its place.
fn remove(folder: &OpenDir, name: &str) {
    if let Err(error) = folder.remove(name) {
        log::warn!("cannot remove {}: {error}", folder.at(name).display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_understood_and_nothing_else_is() {
        for undertaking in [
            Undertaking::Install,
            Undertaking::Update {
                new: "ab".repeat(32),
                old: None,
            },
            Undertaking::Update {
                new: "ab".repeat(32),
                old: Some("cd".repeat(32)),
            },
            Undertaking::Remove { keep_data: true },
            Undertaking::Remove { keep_data: false },
        ] {
            let name = undertaking.name();
            let id = InstallationId::generate();
            assert!(format!("{id}.{name}").len() < 255, "no name for a file");
            assert_eq!(Undertaking::parse(&name), Some(undertaking));
        }
        for name in [
            "",
            "install.now",
            "remove",
            "remove.none",
            "update.a",
            "part",
        ] {
            assert_eq!(Undertaking::parse(name), None, "{name:?}");
        }
    }
}
