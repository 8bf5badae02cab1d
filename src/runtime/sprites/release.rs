//! `Release`: the files of a plugin as they are to be on a sprite, where they are, and the listing that says so.
//!
//! Everything is below [`BASE`]:
//!
//! | path | content |
//! | --- | --- |
//! | `releases/<sha256>/` | the files of one package, and what the plugin wrote beside them |
//! | `releases/<sha256>/.complete` | the listing of its package, written before it was moved to its place |
//! | `releases/<sha256>.replaced/` | a damaged release, while another takes its place |
//! | `staging-<sha256>/` | files that are being uploaded |
//! | `staging-work/` | what the script that completes a release needs |
//! | `data/` | the plugin's data |
//! | `current` | the SHA-256 of the release that was used last |

use std::fmt::Write as _;
use std::sync::Arc;

use super::files::FILE_LIMIT;
use crate::error::PackageError;
use crate::package::PackageFiles;

/// The directory on a sprite that everything of a plugin is below.
pub(crate) const BASE: &str = "/home/sprite/plugin-runner";

const TITLE: &str = "plugin-runner sprite release 1";

/// The files of a plugin, to be deployed.
#[derive(Debug)]
pub(crate) struct Release {
    pub(super) files: PackageFiles,
    outline: Arc<Outline>,
}

/// What a release has in it, without the archive or the directory that it is from, which take memory or an open
/// file. Enough for one that is deployed.
#[derive(Debug)]
pub(crate) struct Outline {
    sha256: String,
    /// What its `.complete` holds: records that end with a NUL, which no path has. Three are the title, the
    /// SHA-256 and how many follow; then `d <path>` is a directory and `f <mode> <size> <path>` a file.
    pub(super) listing: Vec<u8>,
}

impl Outline {
    /// Returns what tells its files from those of other releases: a SHA-256 in lower-case hexadecimal.
    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the directory that it is in once it is deployed, which the plugin is started in.
    pub(crate) fn dir(&self) -> String {
        format!("{BASE}/releases/{}", self.sha256)
    }

    /// Whether there is a file with this path.
    pub(super) fn has_file(&self, path: &str) -> bool {
        let mut records = self.listing.split(|byte| *byte == 0).skip(3);
        records.any(|record| {
            let mut parts = record.splitn(4, |byte| *byte == b' ');
            parts.next() == Some(b"f") && parts.nth(2) == Some(path.as_bytes())
        })
    }
}

impl Release {
    pub(crate) fn new(files: PackageFiles) -> Self {
        let outline = Arc::new(Outline {
            sha256: files.sha256().to_owned(),
            listing: listing(&files).into_bytes(),
        });
        Self { files, outline }
    }

    pub(super) fn outline(&self) -> &Arc<Outline> {
        &self.outline
    }

    /// Checks what can be checked without the service.
    ///
    /// # Errors
    /// [`PackageError::TooLargeForService`], for the first file that is.
    pub(crate) fn check(&self) -> Result<(), PackageError> {
        let limit = FILE_LIMIT as u64;
        match self.files.files().iter().find(|file| file.size > limit) {
            None => Ok(()),
            Some(file) => Err(PackageError::TooLargeForService {
                entry: file.path.clone(),
                size: file.size,
                limit,
            }),
        }
    }

    /// Returns [`Outline::sha256`].
    pub(crate) fn sha256(&self) -> &str {
        self.outline.sha256()
    }

    /// Returns the directory that its files are uploaded to.
    pub(super) fn staging(&self) -> String {
        format!("{BASE}/staging-{}", self.sha256())
    }
}

fn listing(files: &PackageFiles) -> String {
    let (dirs, files, sha256) = (files.dirs(), files.files(), files.sha256());
    let mut text = format!("{TITLE}\0{sha256}\0{}\0", dirs.len() + files.len());
    // Writing to a string succeeds.
    for dir in dirs {
        let _ = write!(text, "d {dir}\0");
    }
    for file in files {
        let _ = write!(text, "f {:04o} {} {}\0", file.mode, file.size, file.path);
    }
    text
}
