//! `PackageLimits` and `MigrationLimits`: how large an archive may be, and what an update migrates.

use crate::error::PackageError;
use crate::settings::settings;

const MIB: u64 = 1024 * 1024;

/// Bytes of a manifest, unpacked.
pub(super) const MANIFEST_SIZE: u64 = MIB;
/// Directories of an archive, including those that only the paths of files imply.
pub(super) const DIRECTORIES: usize = 4_096;

/// Bytes of memory that the paths of untracked files may take, for each file that may be migrated, and the
/// least number of files that this is allowed for.
const MEMORY_PER_FILE: usize = 1_024;
const MEMORY_FOR_FILES: usize = 1_024;

settings! {
    /// Limits on an archive; the defaults are the protocol's ([Archive](crate::protocol#archive)). Besides,
    /// its manifest has at most 1 MiB, unpacked, and there are at most 4,096 directories, including those that
    /// only the paths of files imply. Storyden's Go host has no such limit; without one, a small archive
    /// creates millions of directories.
    pub struct PackageLimits {
        /// Bytes of the archive itself. Default 50 MiB.
        archive_size: u64 = 50 * MIB;
        /// Bytes of one file, unpacked. Default 50 MiB.
        file_size: u64 = 50 * MIB;
        /// Bytes of all files together, unpacked. Default 200 MiB.
        total_size: u64 = 200 * MIB;
        /// Number of files. Default 2,048; never more than 100,000.
        ///
        /// For each file and directory that it may have, the archive may have 1 KiB of central
        /// directory, which is held in memory; 6 MiB by default.
        files: usize = 2_048;
    }
}

impl PackageLimits {
    /// Returns how many entries an archive may have.
    pub(super) const fn entries(&self) -> usize {
        self.files.saturating_add(DIRECTORIES)
    }

    /// Adds the unpacked size of a file to the `total` of those before.
    ///
    /// # Errors
    /// [`PackageError::FileTooLarge`]; [`PackageError::TotalTooLarge`] for the first file that exceeds it.
    pub(super) fn check_file(
        &self,
        path: &str,
        size: u64,
        total: &mut u64,
    ) -> Result<(), PackageError> {
        let entry = || path.to_owned();
        if size > self.file_size {
            return Err(PackageError::FileTooLarge {
                entry: entry(),
                size,
                limit: self.file_size,
            });
        }
        let before = *total;
        *total = before.saturating_add(size);
        if before <= self.total_size && *total > self.total_size {
            return Err(PackageError::TotalTooLarge {
                entry: entry(),
                size: *total,
                limit: self.total_size,
            });
        }
        Ok(())
    }
}

/// Limits on the untracked files that an update migrates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MigrationLimits {
    /// Bytes of all files together.
    pub(crate) bytes: u64,
    /// Number of files, links and directories, and of sockets and the like.
    pub(crate) files: usize,
}

impl Default for MigrationLimits {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            files: 10_000,
        }
    }
}

impl MigrationLimits {
    /// Returns how many bytes of memory the paths may take.
    pub(crate) fn memory(&self) -> usize {
        self.files
            .max(MEMORY_FOR_FILES)
            .saturating_mul(MEMORY_PER_FILE)
    }
}
