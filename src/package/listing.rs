//! `Listing`: the file `.complete`, which says that a release folder is whole and which files its
//! package brought.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::Path;

use super::folder::io;
use super::path::MARKER;
use crate::error::PackageError;

const TITLE: &str = "plugin-runner release 1";
/// More than any listing within sensible limits; a larger one is not read but taken for damaged.
const READ_LIMIT: u64 = 16 * 1024 * 1024;

/// What a package brought into its release folder. Files that are there and not listed are the
/// plugin's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    pub(super) sha256: String,
    pub(super) files: Vec<ListedFile>,
}

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Its path below the release folder, parts separated by `/`.
    pub path: String,
    /// Its size in bytes, as it was unpacked.
    pub size: u64,
}

impl Listing {
    /// Reads the listing of a release folder. `None` when the folder is not there, or was not
    /// unpacked to the end.
    ///
    /// Looks at the listing alone: the plugin may have changed its files since.
    ///
    /// # Errors
    /// [`PackageError::Io`]: the listing is there and cannot be read.
    pub fn read(release: &Path) -> Result<Option<Self>, PackageError> {
        let path = release.join(MARKER);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(io("open", &path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(READ_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(io("read", &path))?;
        Ok(String::from_utf8(bytes)
            .ok()
            .and_then(|text| Self::parse(&text)))
    }

    /// SHA-256 of the archive that was unpacked, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The files, in the order of the archive.
    pub fn files(&self) -> &[ListedFile] {
        &self.files
    }

    /// Writes the listing into a release folder that has none, to the disk.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn write(&self, release: &Path) -> Result<(), PackageError> {
        let path = release.join(MARKER);
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(self.text().as_bytes())?;
                file.sync_all()
            })
            .map_err(io("write", &path))
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\n{}\n{}\n", self.sha256, self.files.len());
        for file in &self.files {
            // Paths hold no control characters, so a line is a file. Writing to a string succeeds.
            let _ = writeln!(text, "{} {}", file.size, file.path);
        }
        text
    }

    /// `None` for anything that is not a whole listing.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != TITLE {
            return None;
        }
        let sha256 = lines.next()?.to_owned();
        let count: usize = lines.next()?.parse().ok()?;
        let files = lines
            .map(|line| {
                let (size, path) = line.split_once(' ')?;
                Some(ListedFile {
                    path: path.to_owned(),
                    size: size.parse().ok()?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        (files.len() == count).then_some(Self { sha256, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(files: &[(&str, u64)]) -> Listing {
        Listing {
            sha256: "ab".repeat(32),
            files: files
                .iter()
                .map(|(path, size)| ListedFile {
                    path: (*path).to_owned(),
                    size: *size,
                })
                .collect(),
        }
    }

    #[test]
    fn listings_round_trip() {
        for listing in [
            listing(&[]),
            listing(&[("manifest.json", 12), ("bin/a b ü", 0), (" x ", 1)]),
        ] {
            assert_eq!(Listing::parse(&listing.text()), Some(listing));
        }
    }

    #[test]
    fn a_listing_cut_off_anywhere_is_none() {
        let text = listing(&[("manifest.json", 12), ("bin/main", 345)]).text();
        for length in 0..text.len() {
            assert_eq!(Listing::parse(&text[..length]), None, "{length}");
        }
        assert_eq!(Listing::parse(&format!("{text}1 more\n")), None);
        assert_eq!(Listing::parse(&text.replace("345", "x")), None);
    }
}
