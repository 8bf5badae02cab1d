//! `Listing`: the file `.complete`, which says that a release directory is complete and which files its
//! package brought.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};

use super::open_dir::OpenDir;
use super::path::MARKER;
use crate::error::PackageError;

const TITLE: &str = "plugin-runner release 1";
/// No listing within sensible limits is longer; a longer one is not read but treated as damaged.
const READ_LIMIT: u64 = 16 * 1024 * 1024;
/// More files than any package has. A short line becomes a much larger value in memory.
pub(super) const MAX_FILES: usize = 100_000;
const FILE_MODE: u32 = 0o644;

/// What a package brought into its release directory. Files that are there and not listed are untracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listing {
    /// SHA-256 of the archive that was unpacked, in lower-case hexadecimal.
    pub(super) sha256: String,
    /// In the order of the archive.
    pub(super) files: Vec<ListedFile>,
}

/// One file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ListedFile {
    /// Its path below the release directory, parts separated by `/`.
    pub(super) path: String,
    /// Its size in bytes, as it was unpacked.
    pub(super) size: u64,
}

impl Listing {
    /// Reads the listing of a release directory. Returns `None` if the release was not unpacked to the end,
    /// and also if the listing is not a file of sensible size or may not be read: the plugin may have
    /// replaced it. Does not wait for what may be there instead.
    ///
    /// Only the listing is read: the plugin may have changed its files since.
    ///
    /// # Errors
    /// [`PackageError::Io`]: the listing exists and cannot be read.
    pub(super) fn read(release: &OpenDir) -> Result<Option<Self>, PackageError> {
        let opened = match release.open_file(MARKER) {
            // The plugin may have taken the permission away. The release is unpacked afresh, as if it were
            // missing.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => None,
            other => other.map_err(release.failed("open", MARKER))?,
        };
        let Some((file, metadata)) = opened else {
            return Ok(None);
        };
        if metadata.len() > READ_LIMIT {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        file.take(READ_LIMIT)
            .read_to_end(&mut bytes)
            .map_err(release.failed("read", MARKER))?;
        Ok(String::from_utf8(bytes)
            .ok()
            .and_then(|text| Self::parse(&text)))
    }

    /// Writes the listing into a release directory that has none, and syncs it to disk.
    ///
    /// # Errors
    /// [`PackageError::Io`].
    pub(super) fn write(&self, release: &OpenDir) -> Result<(), PackageError> {
        let write = || {
            let mut file = release.create_file(MARKER, FILE_MODE)?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()
        };
        write().map_err(release.failed("write", MARKER))
    }

    fn text(&self) -> String {
        let mut text = format!("{TITLE}\n{}\n{}\n", self.sha256, self.files.len());
        for file in &self.files {
            // Paths contain no control characters, so a line is a file. Writing to a string succeeds.
            let _ = writeln!(text, "{} {}", file.size, file.path);
        }
        text
    }

    /// Returns `None` for anything that is not a complete listing.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != TITLE {
            return None;
        }
        let sha256 = lines.next()?.to_owned();
        let count: usize = lines.next()?.parse().ok()?;
        if count > MAX_FILES {
            return None;
        }
        // One more than expected is enough to see that it is not one.
        let files = lines
            .take(count + 1)
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
    fn listings_of_more_files_than_any_package_has_are_none() {
        let lines = |count: usize| "0 x\n".repeat(count);
        let text = |said: usize, there: usize| {
            format!("{TITLE}\n{}\n{said}\n{}", "ab".repeat(32), lines(there))
        };
        assert!(Listing::parse(&text(MAX_FILES, MAX_FILES)).is_some());
        let most = MAX_FILES + 1;
        for (said, there) in [(most, most), (1, most), (MAX_FILES, most), (0, most)] {
            assert_eq!(Listing::parse(&text(said, there)), None, "{said} {there}");
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
