//! Internal items that fuzz targets and integration tests need, behind the private feature `_fuzzing`. They are
//! not part of the API. This module contains no logic.

use std::path::Path;

pub use crate::auth::fuzzing::{
    ReadRequest, ReadUrl, build_connection_url, is_external_token, open_token, read_connection_url,
    read_target,
};
pub use crate::http::fuzzing::{ServedRequest, serve_connection};
pub use crate::listener::fuzzing::{HeadVerdict, judge_head};
pub use crate::protocol::jsonrpc::{
    EnvelopeError, Incoming, RemoteRequestId, ResultSpan, encode_error, encode_request,
    encode_result,
};

use crate::duplex::DuplexSettings;
use crate::error::Result;
use crate::host::Host;
use crate::package::{self, Archive, MigrationLimits};

/// Returns how many threads of a host live, also after it was dropped.
pub fn thread_counter(host: &Host) -> impl Fn() -> usize + Send + Sync + use<> {
    let threads = host.threads().clone();
    move || threads.count()
}

/// Returns how many threads of these settings' live.
pub fn live_threads(settings: &DuplexSettings) -> usize {
    settings.threads.count()
}

/// Copies the untracked files of one release directory into another, as an update does, if there are no
/// more than so many files.
///
/// # Errors
/// Those of the update.
pub fn migrate_files(
    from: &Path,
    to: &Path,
    files: usize,
    cancel: &dyn Fn() -> bool,
) -> Result<()> {
    let limits = MigrationLimits {
        bytes: u64::MAX,
        files,
    };
    package::migrate_files(from, to, &limits, cancel)?;
    Ok(())
}

/// Returns the paths of all files and directories of an archive, with the permissions that files get less the
/// umask, in the order of its central directory.
pub fn archive_entries(archive: &Archive) -> impl Iterator<Item = (&str, u32)> {
    let entries = archive.entries().iter();
    entries.map(|entry| (entry.path(), entry.mode()))
}
