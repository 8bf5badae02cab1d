//! What is under way on disk: one short file for each operation that makes or removes files beside the
//! store, so that what a crash leaves of it can be told from everything else and removed. Nothing is
//! ever removed that no such file speaks of.
//!
//! The store says whether an operation happened: it is the record that counts, and what is on disk
//! follows.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::Shared;
use super::intake;
use crate::error::{Error, Result};
use crate::id::InstallationId;
use crate::package::{self, Spool};

/// Where these files are, below the data folder.
const FOLDER: &str = "operations";
/// The name of one that is being written ends in this.
const UNFINISHED: &str = "part";

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
    fn text(&self) -> String {
        match self {
            Self::Install => "install\n".to_owned(),
            Self::Update { new, old } => {
                format!("update {new} {}\n", old.as_deref().unwrap_or("-"))
            }
            Self::Remove { keep_data: true } => "remove keep-data\n".to_owned(),
            Self::Remove { keep_data: false } => "remove all\n".to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.strip_suffix('\n')?.split(' ');
        let undertaking = match (words.next()?, words.next(), words.next()) {
            ("install", None, None) => Self::Install,
            ("update", Some(new), Some(old)) => Self::Update {
                new: new.to_owned(),
                old: (old != "-").then(|| old.to_owned()),
            },
            ("remove", Some("keep-data"), None) => Self::Remove { keep_data: true },
            ("remove", Some("all"), None) => Self::Remove { keep_data: false },
            _ => return None,
        };
        words.next().is_none().then_some(undertaking)
    }
}

impl Shared {
    /// Writes down what is about to be done, to the disk.
    pub(super) fn note(&self, id: InstallationId, undertaking: &Undertaking) -> Result<Note> {
        let data = &self.context().data;
        let folder = data.join(FOLDER);
        let path = folder.join(id.to_string());
        if path.exists() {
            // What an operation before could not tidy up would be forgotten.
            self.clean_up_after(&path)?;
        }
        let unfinished = path.with_extension(UNFINISHED);
        // Which of them is there if something fails.
        let mut current = &unfinished;
        let mut write = || {
            if !folder.is_dir() {
                fs::create_dir_all(&folder)?;
                File::open(data)?.sync_all()?;
            }
            let mut file = File::create(&unfinished)?;
            file.write_all(undertaking.text().as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            current = &path;
            File::open(&folder)?.sync_all()
        };
        match write() {
            Ok(()) => Ok(Note { path }),
            Err(error) => {
                let _ = fs::remove_file(current);
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
        let folder = data.join(FOLDER);
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() != ErrorKind::NotFound {
                    log::warn!("cannot read {}: {error}", folder.display());
                }
                self.collect_archives();
                return Ok(());
            }
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            self.clean_up_after(&path)?;
        }
        self.collect_archives();
        Ok(())
    }

    fn clean_up_after(&self, path: &Path) -> Result<()> {
        let warn = |error: &dyn std::fmt::Display| {
            log::warn!("cannot clean up after {}: {error}", path.display());
        };
        if path
            .extension()
            .is_some_and(|extension| extension == UNFINISHED)
        {
            // It was not begun yet.
            if let Err(error) = fs::remove_file(path) {
                warn(&error);
            }
            return Ok(());
        }
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(id) = name.and_then(|name| name.parse::<InstallationId>().ok()) else {
            warn(&"its name is no installation id");
            return Ok(());
        };
        let undertaking = match fs::read_to_string(path) {
            Ok(text) => Undertaking::parse(&text),
            Err(error) => {
                warn(&error);
                return Ok(());
            }
        };
        let Some(undertaking) = undertaking else {
            warn(&"what it says is not understood");
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
            let text = undertaking.text();
            assert_eq!(Undertaking::parse(&text), Some(undertaking));
            for length in 0..text.len() {
                assert_eq!(
                    Undertaking::parse(&text[..length]),
                    None,
                    "{text:?} {length}"
                );
            }
        }
        for text in [
            "",
            "\n",
            "install now\n",
            "remove\n",
            "remove none\n",
            "update a\n",
        ] {
            assert_eq!(Undertaking::parse(text), None, "{text:?}");
        }
    }
}
