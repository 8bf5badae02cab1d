//! Packages: zip archives that plugins come in ([Archive](crate::protocol#archive)).
//!
//! This module reads and checks an archive ([`Archive`]), reviews what is in it ([`review()`]), unpacks it
//! into a release directory ([`unpack`]), makes the archive of a directory ([`pack()`]), and migrates at an update what a plugin wrote beside its program.
//! It does not interpret the manifest, and does not store records or archives. It starts no threads and holds
//! no lock of ours during I/O; unpacking holds a file lock on its own staging directory, so that other hosts
//! do not mistake that for the leftover of a crash.
//!
//! An archive is not trusted. It is read into memory whole, or stands in a file that nothing else changes, so
//! that what is unpacked is what was checked and hashed; and it is refused for anything that can be seen
//! without unpacking. The rest is refused during unpacking, before any of it is in place.
//!
//! On disk, below `<root>`, the directory of one installation:
//!
//! | path | content |
//! | --- | --- |
//! | `releases/<sha256>/` | one unpacked archive |
//! | `releases/<sha256>/.complete` | the list of its files, written last |
//! | `staging/<unique>/` | an archive being unpacked |
//! | `staging/<unique>.lock` | locked while that is in use |
//! | `data/` | the plugin's data |
//! | `logs/` | what the plugin printed |
//! | `removed/` | the releases, while the installation is being removed |
//!
//! Files in a release that its `.complete` does not list are *untracked*: the plugin wrote them.

mod archive;
mod archive_cache;
mod central_directory;
mod check;
mod content;
mod end_record;
mod entry;
#[cfg(feature = "sprites")]
mod files;
mod ignored;
mod layout;
mod limits;
mod listing;
mod lock;
mod migration;
mod open_dir;
mod pack;
mod path;
mod permissions;
mod releases;
mod removal;
mod review;
mod spool;
mod staging;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;
mod untracked;
mod warning;

pub use archive::Archive;
pub(crate) use archive_cache::ArchiveCache;
pub use content::ArchiveContent;
#[cfg(feature = "sprites")]
pub(crate) use files::PackageFiles;
pub(crate) use layout::{data_dir, release_dir};
pub(crate) use limits::MigrationLimits;
pub use limits::PackageLimits;
pub(crate) use migration::MigratedFiles;
pub(crate) use migration::{check_untracked_files, migrate_files};
pub(crate) use open_dir::{OpenDir, PRIVATE, PUBLIC, open_file, open_or_create_dir};
pub use pack::{Packed, pack, packed_files};
pub(crate) use releases::{keep_releases, remove_installation, remove_release};
pub use removal::remove_tree;
pub use review::{Review, review, review_directory};
pub(crate) use spool::Spool;
pub use unpack::unpack;
pub(crate) use unpack::{find_release, unpack_afresh, unpack_once};
