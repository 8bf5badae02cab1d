//! `PackageLimits`: how large an archive and what is in it may be.

use crate::settings::settings;

const MIB: u64 = 1024 * 1024;

settings! {
    /// Bounds on an archive; the defaults are the protocol's (protocol file, section 4).
    pub struct PackageLimits {
        /// Bytes of the archive itself. Default 50 MiB.
        archive_size, with_archive_size: u64 = 50 * MIB;
        /// Bytes of the manifest, unpacked. Default 1 MiB.
        manifest_size, with_manifest_size: u64 = MIB;
        /// Bytes of one file, unpacked. Default 50 MiB.
        file_size, with_file_size: u64 = 50 * MIB;
        /// Bytes of all files together, unpacked. Default 200 MiB.
        total_size, with_total_size: u64 = 200 * MIB;
        /// Number of files. Default 2,048; never more than 100,000.
        files, with_files: usize = 2_048;
        /// Number of folders, those that only the paths of files imply included. Default 4,096. The
        /// seed has no such limit; without one, a small archive makes millions of folders.
        ///
        /// For each file and folder that it may have, the archive may have 1 KiB of central
        /// directory, which is held in memory; 6 MiB by default.
        folders, with_folders: usize = 4_096;
    }
}

impl PackageLimits {
    /// How many entries an archive may have at all.
    pub(super) const fn entries(&self) -> usize {
        self.files.saturating_add(self.folders)
    }
}
