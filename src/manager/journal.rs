//! What is under way on disk: one empty file for each operation that makes or removes files beside the
//! store, whose name says what, so that what a crash leaves of it can be told from everything else and
//! removed. Nothing is ever removed that no such file speaks of.
//!
//! The store says whether an operation happened: it is the record that counts, and what is on disk
//! follows.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Shared;
use super::intake;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::package::{self, Spool};

/// Where these files are, below the data folder.
const FOLDER: &str = "operations";
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
    path: PathBuf,
}

impl Note {
    /// Removes the file: all is done, or undone. One that cannot be removed does no harm.
    pub(super) fn done(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
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
        let folder = data.join(FOLDER);
        // What an operation before could not tidy up is to be done before this one changes what it is about.
        for (earlier, _) in notes(&folder).filter(|(_, name)| name.starts_with(&id.to_string())) {
            self.clean_up_after(&earlier)?;
            if earlier.exists() {
                let text = format!("tidy up what {} speaks of", earlier.display());
                let source = std::io::Error::other("it could not be removed; the log says why");
                return Err(Error::io(text, source));
            }
        }
        let path = folder.join(format!("{id}.{}", undertaking.name()));
        let write = || {
            if !folder.is_dir() {
                fs::create_dir_all(&folder)?;
                File::open(data)?.sync_all()?;
            }
            // All that it says is in its name: so it is whole as soon as it is there.
            OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            File::open(&folder)?.sync_all()
        };
        match write() {
            Ok(()) => Ok(Note { path }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(Error::io(format!("write {}", path.display()), error))
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
        Spool::sweep(&data.join(intake::FOLDER));
        for (path, _) in notes(&data.join(FOLDER)) {
            self.clean_up_after(&path)?;
        }
        self.collect_archives();
        Ok(())
    }

    fn clean_up_after(&self, path: &Path) -> Result<()> {
        let warn = |error: &dyn std::fmt::Display| {
            log::warn!("cannot clean up after {}: {error}", path.display());
        };
        let name = path.file_name().and_then(|name| name.to_str());
        let said = name.and_then(|name| {
            let (id, undertaking) = name.split_once('.')?;
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
                Note {
                    path: path.to_owned(),
                }
                .done();
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

/// The files that are there, with their names.
fn notes(folder: &Path) -> impl Iterator<Item = (PathBuf, String)> + use<> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => Some(entries),
        Err(error) => {
            if error.kind() != ErrorKind::NotFound {
                log::warn!("cannot read {}: {error}", folder.display());
            }
            None
        }
    };
    entries.into_iter().flatten().flatten().map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (entry.path(), name)
    })
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
