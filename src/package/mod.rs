//! Packages: zip archives that plugins come in (protocol file, section 4).
//!
//! What lives here: reading and checking an archive ([`Archive`]), unpacking it into a release folder
//! ([`unpack`]), and knowing which release an archive's file is of (`known`). What does not: the meaning of the manifest, and where records and archives
//! are stored. No threads, and no lock of ours held over I/O; unpacking holds a file lock on its own
//! staging folder, so that nobody takes that for the leftover of a crash.
//!
//! An archive is trusted in nothing. It is read into memory whole, or stands in a file that nobody else
//! may change, so that what was checked and hashed is what is unpacked; and it is refused for whatever
//! can be seen without unpacking. The rest is refused while unpacking, before anything of it is in place.
//!
//! On disk, below `<root>`, the folder of one installation:
//!
//! | path | content |
//! | --- | --- |
//! | `releases/<sha256>/` | one unpacked archive |
//! | `releases/<sha256>/.complete` | the list of its files, written last |
//! | `staging/<unique>/` | an archive being unpacked |
//! | `staging/<unique>.lock` | locked while somebody works there |
//! | `data/` | the plugin's own files |
//! | `logs/` | what the plugin printed |
//! | `removed/` | the releases, while the installation is being removed |

mod archive;
mod archive_cache;
mod central_directory;
mod check;
mod content;
mod end_record;
mod entry;
mod layout;
mod limits;
mod listing;
mod lock;
mod migration;
mod open_dir;
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
pub use content::{ArchiveContent, ArchiveReader};
pub use entry::Entry;
pub(crate) use layout::{data_dir, release_dir};
pub use limits::{MigrationLimits, PackageLimits};
pub use migration::MigratedFiles;
pub(crate) use migration::{check_untracked_files, migrate_files};
pub(crate) use open_dir::{OpenDir, PRIVATE, PUBLIC, open_file, open_or_create_dir};
pub(crate) use releases::{keep_releases, remove_installation, remove_release};
pub use review::{PluginFiles, Review, review};
pub(crate) use spool::Spool;
pub use unpack::unpack;
pub(crate) use unpack::{find_release, unpack_afresh};
pub use untracked::{LeftFile, LeftReason};
pub use warning::PackageWarning;
