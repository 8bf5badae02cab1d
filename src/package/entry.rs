//! `Entry`: one file or directory of a checked archive.

use super::central_directory::CentralRecord;
use super::permissions::MAX_MODE;

const TYPE_BITS: u32 = 0o170_000;
const FOLDER_BITS: u32 = 0o040_000;
const LINK_BITS: u32 = 0o120_000;
const REGULAR_BITS: u32 = 0o100_000;
const DEFAULT_MODE: u32 = 0o644;
const DOS_FOLDER: u32 = 0x10;

/// One file or directory of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) path: String,
    pub(super) is_dir: bool,
    pub(super) size: u64,
    pub(super) mode: u32,
    /// Its number in the zip library.
    pub(super) index: usize,
}

impl Entry {
    /// Returns its path below the release directory: parts separated by `/`, never leading upward.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Returns whether it is a directory; otherwise it is a regular file.
    pub(crate) const fn is_dir(&self) -> bool {
        self.is_dir
    }

    /// Returns its unpacked size in bytes, as its header says; unpacking fails if that is wrong.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Returns the permissions that the file gets, less the umask: at most 0755. Unpacking also makes the
    /// file that the plugin's `command` names executable.
    pub(crate) const fn mode(&self) -> u32 {
        self.mode
    }
}

/// The kind of an entry according to its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    TestDir,
    Link,
    Special(&'static str),
}

impl EntryKind {
    /// Checks the file type bits whatever system the entry claims to be made on, because tools that unpack
    /// differ in when they use them. `by_name`: the name ends with a slash.
    pub(super) fn of(record: &CentralRecord<'_>, by_name: bool) -> Self {
        let dos = matches!(record.system, system::DOS | system::NTFS | system::VFAT);
        match record.external_attributes >> 16 & TYPE_BITS {
            LINK_BITS => Self::Link,
            0o060_000 => Self::Special("block device"),
            0o020_000 => Self::Special("character device"),
            0o010_000 => Self::Special("named pipe"),
            0o140_000 => Self::Special("socket"),
            FOLDER_BITS => Self::TestDir,
            0 | REGULAR_BITS => {
                if by_name || dos && record.external_attributes & DOS_FOLDER != 0 {
                    Self::TestDir
                } else {
                    Self::File
                }
            }
            _ => Self::Special("file of an unknown type"),
        }
    }
}

/// The numbers of systems in the zip format.
mod system {
    pub(super) const DOS: u8 = 0;
    pub(super) const UNIX: u8 = 3;
    pub(super) const NTFS: u8 = 10;
    pub(super) const VFAT: u8 = 14;
    pub(super) const DARWIN: u8 = 19;
}

/// Returns the permissions of a file: the archive's, if it was made on Unix and has any that are allowed
/// here; else 0644.
pub(super) fn mode(record: &CentralRecord<'_>) -> u32 {
    let unix = matches!(record.system, system::UNIX | system::DARWIN);
    match record.external_attributes >> 16 & MAX_MODE {
        mode if unix && mode != 0 => mode,
        _ => DEFAULT_MODE,
    }
}
