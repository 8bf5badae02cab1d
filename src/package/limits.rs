//! `PackageLimits`: how large an archive and what is in it may be.

/// Bounds on an archive; the defaults are the protocol's (protocol file, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackageLimits {
    /// Bytes of the archive itself. It is held in memory. Default 50 MiB.
    pub archive_size: u64,
    /// Bytes of the manifest, unpacked. Default 1 MiB.
    pub manifest_size: u64,
    /// Bytes of one file, unpacked. Default 50 MiB.
    pub file_size: u64,
    /// Bytes of all files together, unpacked. Default 200 MiB.
    pub total_size: u64,
    /// Number of files. Default 2,048.
    pub files: usize,
    /// Number of folders, those that only the paths of files imply included. Default 4,096. The
    /// seed has no such limit; without one, a small archive makes millions of folders.
    pub folders: usize,
}

impl Default for PackageLimits {
    fn default() -> Self {
        const MIB: u64 = 1024 * 1024;
        Self {
            archive_size: 50 * MIB,
            manifest_size: MIB,
            file_size: 50 * MIB,
            total_size: 200 * MIB,
            files: 2_048,
            folders: 4_096,
        }
    }
}

impl PackageLimits {
    /// How many entries an archive may have at all.
    pub(super) const fn entries(&self) -> usize {
        self.files.saturating_add(self.folders)
    }
}
